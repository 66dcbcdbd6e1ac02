//! Conversations as chat programs have them, a line of JSON each.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::{Conversation, Example, ExamplesError, Looks, Name, Source};
use crate::chat::{Content, Message, Part, Role};

#[derive(Deserialize)]
struct Line {
    id: Option<Name>,
    messages: Vec<Turn>,
    #[serde(default)]
    images: Vec<PathBuf>,
    #[serde(flatten)]
    looks: Looks,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: Said,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Text(String),
    Parts(Vec<Piece>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Piece {
    Text { text: String },
    Image { image: Option<String>, path: Option<String> },
    ImageUrl { image_url: Url },
}

#[derive(Deserialize)]
struct Url {
    url: String,
}

/// Reads a file; names of pictures in it start from the folder `pictures`. A part `image` without a name is the next of
/// `images`.
///
/// # Errors
/// If the file cannot be read, is of another format, or holds a sample that makes no sense.
pub fn messages(path: &Path, pictures: &Path) -> Result<Vec<Example>, ExamplesError> {
    let source = Source { path, format: "a line of JSON with `messages` for each sample" };
    let mut examples = Vec::new();
    for (number, line) in source.text()?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let refused = |e: serde_json::Error| source.refused(format!("line {}: {e}", number + 1));
        let line: Line = serde_json::from_str(line).map_err(refused)?;
        examples.extend(conversation(line, number, pictures, source)?.examples(source)?);
    }
    Ok(examples)
}

fn conversation(line: Line, number: usize, folder: &Path, source: Source) -> Result<Conversation, ExamplesError> {
    let id = Name::or_number(line.id, number);
    let (mut unnamed, mut pictures) = (line.images.iter(), Vec::new());
    let mut turns = Vec::with_capacity(line.messages.len());
    for turn in line.messages {
        let role = Role::from_str(&turn.role);
        let role = role.map_err(|_| source.sample(&id, "roles system, user and assistant", turn.role.as_str()))?;
        let parts = match turn.content {
            Said::Text(text) => vec![Part::Text(text)],
            Said::Parts(pieces) => {
                let mut parts = Vec::with_capacity(pieces.len());
                for piece in pieces {
                    let named = match piece {
                        Piece::Text { text } => {
                            parts.push(Part::Text(text));
                            continue;
                        }
                        Piece::Image { image, path } => image.or(path),
                        Piece::ImageUrl { image_url } => Some(image_url.url),
                    };
                    let name = named.map(PathBuf::from).or_else(|| unnamed.next().cloned());
                    let none = || source.sample(&id, "a name for each picture, or one more in `images`", "none");
                    pictures.push(folder.join(local(&name.ok_or_else(none)?, source, &id)?));
                    parts.push(Part::Picture);
                }
                parts
            }
        };
        turns.push(Message { role, content: content(role, parts, source, &id)? });
    }
    match unnamed.count() {
        0 => Ok(Conversation { looks: line.looks.of(source, &id)?, id, turns, pictures }),
        more => Err(source.sample(&id, "a part `image` for each of `images`", format!("{more} without one"))),
    }
}

/// Answers are text alone.
fn content(role: Role, parts: Vec<Part>, source: Source, id: &str) -> Result<Content, ExamplesError> {
    if role != Role::Assistant {
        return Ok(Content::Parts(parts));
    }
    let text = |part: Part| match part {
        Part::Text(text) => Ok(text),
        Part::Picture => Err(source.sample(id, "answers of text", "a picture")),
    };
    Ok(Content::Text(parts.into_iter().map(text).collect::<Result<String, _>>()?))
}

/// The path of a picture on this machine.
fn local(name: &Path, source: Source, id: &str) -> Result<PathBuf, ExamplesError> {
    let text = name.to_string_lossy();
    let path = text.strip_prefix("file://").unwrap_or(&text);
    if path.contains("://") || path.starts_with("data:") {
        let got = path.chars().take(40).collect::<String>();
        return Err(source.sample(id, "pictures as files", got));
    }
    Ok(path.into())
}
