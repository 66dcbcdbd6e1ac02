//! LLaVA's JSON, as `lare make-data --format llava` writes it too.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Conversation, Example, ExamplesError, Looks, Name, Source};
use crate::chat::{Content, Message, Part, Role};

/// Where a picture stands in a turn.
const PLACE: &str = "<image>";

#[derive(Deserialize)]
struct Entry {
    id: Option<Name>,
    image: Option<Images>,
    conversations: Vec<Turn>,
    #[serde(flatten)]
    looks: Looks,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Images {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Deserialize)]
struct Turn {
    from: String,
    value: String,
}

/// Reads a file; names of pictures in it start from the folder `pictures`. Pictures that no turn has a place for stand before
/// the first question.
///
/// # Errors
/// If the file cannot be read, is of another format, or holds a sample that makes no sense.
pub fn llava(path: &Path, pictures: &Path) -> Result<Vec<Example>, ExamplesError> {
    let source = Source { path, format: "LLaVA's JSON, a list of `image` and `conversations`" };
    let entries: Vec<Entry> = serde_json::from_str(&source.text()?).map_err(|e| source.refused(e.to_string()))?;
    let mut examples = Vec::with_capacity(entries.len());
    for (number, entry) in entries.into_iter().enumerate() {
        examples.extend(conversation(entry, number, pictures, source)?.examples(source)?);
    }
    Ok(examples)
}

fn conversation(entry: Entry, number: usize, folder: &Path, source: Source) -> Result<Conversation, ExamplesError> {
    let id = Name::or_number(entry.id, number);
    let names = match entry.image {
        None => Vec::new(),
        Some(Images::One(name)) => vec![name],
        Some(Images::Many(names)) => names,
    };
    let mut turns = Vec::with_capacity(entry.conversations.len());
    for turn in &entry.conversations {
        turns.push(match turn.from.as_str() {
            "system" => Message::new(Role::System, turn.value.as_str()),
            "human" | "user" => Message::new(Role::User, parts(&turn.value)),
            "gpt" | "assistant" => Message::new(Role::Assistant, turn.value.as_str()),
            other => return Err(source.sample(&id, "turns `from` human, gpt or system", other)),
        });
    }
    let places = entry.conversations.iter().map(|turn| turn.value.matches(PLACE).count()).sum::<usize>();
    if places == 0 {
        let first = turns.iter_mut().find(|turn| turn.role == Role::User);
        if let Some(Content::Parts(parts)) = first.map(|turn| &mut turn.content) {
            parts.splice(0..0, names.iter().map(|_| Part::Picture));
        }
    } else if places != names.len() {
        let got = format!("{places}, and {} pictures", names.len());
        return Err(source.sample(&id, format!("as many places `{PLACE}` as pictures"), got));
    }
    let pictures = names.iter().map(|name| folder.join(name)).collect();
    Ok(Conversation { looks: entry.looks.of(source, &id)?, id, turns, pictures })
}

/// A turn as text and pictures, in order; the line ends around a picture are no text.
fn parts(value: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for (at, text) in value.split(PLACE).enumerate() {
        if at > 0 {
            parts.push(Part::Picture);
        }
        let text = text.trim();
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
    }
    parts
}
