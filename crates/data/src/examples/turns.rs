//! Turns of a conversation as files have them: LLaVA's and ShareGPT's `from` and `value`, OpenAI's `role` and `content`, parts
//! of text and pictures, and `<image>` where a picture stands in a text.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::fault::FaultKind;
use crate::chat::Role;

/// Where a picture stands in a text.
const PLACE: &str = "<image>";

/// A turn, before its pictures are known.
pub(super) struct Turn {
    pub role: Role,
    pub parts: Vec<Slot>,
}

/// A part of a turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Slot {
    Text(String),
    /// A picture that the turn names.
    Named(Value),
    /// One of the sample's pictures, by number from 0.
    Number(usize),
    /// The next of the sample's pictures.
    Next,
}

/// What is wrong: the kind, what is expected, what is there.
pub(super) type Refusal = (FaultKind, String, String);

#[derive(Deserialize)]
struct Written {
    from: Option<String>,
    role: Option<String>,
    value: Option<Said>,
    content: Option<Said>,
    text: Option<Said>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Text(String),
    Parts(Vec<Piece>),
}

/// A part as OpenAI's and Hugging Face's programs write them.
#[derive(Deserialize)]
struct Piece {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
    image: Option<Value>,
    path: Option<String>,
    url: Option<String>,
    image_url: Option<Value>,
    index: Option<usize>,
}

/// The turns of a list. `datasets` can turn a list of objects into an object of lists; both are read.
pub(super) fn turns(list: Value) -> Result<Vec<Turn>, Refusal> {
    let list = match list {
        Value::Object(columns) => rows(columns),
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    list.into_iter().enumerate().map(|(at, turn)| one(turn).map_err(|refusal| in_turn(refusal, at))).collect()
}

fn in_turn((kind, expected, got): Refusal, at: usize) -> Refusal {
    (kind, expected, format!("{got}, in turn {}", at + 1))
}

/// An object of lists as a list of objects.
fn rows(columns: Map<String, Value>) -> Vec<Value> {
    let longest = columns.values().filter_map(|column| column.as_array().map(Vec::len)).max().unwrap_or(0);
    let row = |at: usize| {
        let cell = |(name, column): (&String, &Value)| Some((name.clone(), column.get(at)?.clone()));
        Value::Object(columns.iter().filter_map(cell).collect())
    };
    (0..longest).map(row).collect()
}

fn one(turn: Value) -> Result<Turn, Refusal> {
    let shown = short(&turn);
    let wrong = |reason: String| {
        let expected = "`from` and `value`, or `role` and `content`: a text, or a list of parts";
        (FaultKind::Turns, expected.to_owned(), reason)
    };
    let turn: Written = serde_json::from_value(turn).map_err(|error| wrong(format!("{shown} ({error})")))?;
    let said = turn.value.or(turn.content).or(turn.text);
    let (Some(from), Some(said)) = (turn.from.or(turn.role), said) else { return Err(wrong(shown)) };
    let role = match from.to_ascii_lowercase().as_str() {
        "system" => Role::System,
        "human" | "user" => Role::User,
        "gpt" | "assistant" | "chatgpt" | "bot" | "model" => Role::Assistant,
        _ => {
            let expected = "turns of human (or user), gpt (or assistant) and system";
            return Err((FaultKind::Turns, expected.to_owned(), format!("`{from}`")));
        }
    };
    let parts = match said {
        Said::Text(text) if role == Role::User => placed(&text),
        Said::Text(text) => vec![Slot::Text(text)],
        Said::Parts(pieces) => pieces.into_iter().map(slot).collect::<Result<Vec<_>, _>>()?,
    };
    Ok(Turn { role, parts })
}

fn slot(piece: Piece) -> Result<Slot, Refusal> {
    let kind = piece.kind.as_deref().unwrap_or(if piece.text.is_some() { "text" } else { "image" });
    match kind {
        "text" | "input_text" | "output_text" => Ok(Slot::Text(piece.text.unwrap_or_default())),
        "image" | "image_url" | "input_image" => {
            let url = match piece.image_url {
                Some(Value::Object(mut object)) => object.remove("url"),
                other => other,
            };
            let own = [piece.image, piece.path.map(Value::String), piece.url.map(Value::String), url];
            let named = own.into_iter().flatten().find(|name| !name.is_null());
            Ok(named.map(Slot::Named).or(piece.index.map(Slot::Number)).unwrap_or(Slot::Next))
        }
        other => {
            let expected = "parts of type text, image or image_url".to_owned();
            Err((FaultKind::Turns, expected, format!("a part of type `{other}`")))
        }
    }
}

/// A text as text and pictures, in order; the line ends around a picture are no text.
fn placed(text: &str) -> Vec<Slot> {
    if !text.contains(PLACE) {
        return vec![Slot::Text(text.to_owned())];
    }
    let mut parts = Vec::new();
    for (at, text) in text.split(PLACE).enumerate() {
        if at > 0 {
            parts.push(Slot::Next);
        }
        let text = text.trim();
        if !text.is_empty() {
            parts.push(Slot::Text(text.to_owned()));
        }
    }
    parts
}

/// A value in a message, not pages of it.
pub(super) fn short(value: &Value) -> String {
    const MOST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
