//! Samples that others have written: pictures, what is asked about them, the answer and, where they are known, the looks that
//! lead to it.
//!
//! | format | a sample is |
//! |---|---|
//! | [`llava`] | an entry of a JSON list: `image`, `conversations`, and optionally `bboxes` and `rationale` |
//! | [`messages`] | a line of JSON: `messages` of `role` and `content`, and optionally `images`, `bboxes` and `rationale` |
//!
//! Every answer of a conversation becomes an example of its own, with all that was said before it. `bboxes` are the regions
//! of the looks in pixels of the first picture, from left and top to right and bottom, and `rationale` their sentences: one
//! of each for a look, or one kind of them alone. Keys that are not named here are not read.

mod llava;
mod messages;

pub use llava::llava;
pub use messages::messages;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::chat::{Content, Message, Part, Role};
use crate::sample::Region;

/// One look that leads to an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// What is said of it; empty where nothing is.
    pub says: String,
    /// Where to look, in pixels of the first picture.
    pub region: Option<Region>,
}

/// A question on pictures and its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Its name in reports: that of the sample, and `#2` for its second answer.
    pub id: String,
    /// What was said before the answer.
    pub messages: Vec<Message>,
    /// The pictures in it, in order.
    pub pictures: Vec<PathBuf>,
    /// What is to be answered.
    pub answer: String,
    /// The looks that lead to the answer; none where they are not known.
    pub looks: Vec<Look>,
}

/// Why no example was read.
#[derive(Debug, thiserror::Error)]
pub enum ExamplesError {
    /// The operating system refused.
    #[error("cannot read the samples in `{path}`: {reason}\n\nhint: check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// It is no JSON of its format.
    #[error("`{path}` does not hold {format}: {reason}\n\nhint: docs/data.md has the formats that are read")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it was taken for.
        format: &'static str,
        /// What the parser said, with line and column.
        reason: String,
    },
    /// A sample makes no sense.
    #[error(
        "sample `{id}` in `{path}` cannot be used\n  expected  {expected}\n  got       {got}\n\nhint: correct it, or take it out"
    )]
    Sample {
        /// The file.
        path: PathBuf,
        /// The sample.
        id: String,
        /// What would be used.
        expected: String,
        /// What stands there.
        got: String,
    },
}

/// A file with samples, for messages.
#[derive(Clone, Copy)]
struct Source<'a> {
    path: &'a Path,
    format: &'static str,
}

impl Source<'_> {
    fn text(self) -> Result<String, ExamplesError> {
        let failed = |error: std::io::Error| ExamplesError::Read { path: self.path.into(), reason: error.to_string() };
        fs::read_to_string(self.path).map_err(failed)
    }

    fn refused(self, reason: String) -> ExamplesError {
        ExamplesError::Format { path: self.path.into(), format: self.format, reason }
    }

    fn sample(self, id: &str, expected: impl Into<String>, got: impl Into<String>) -> ExamplesError {
        ExamplesError::Sample { path: self.path.into(), id: id.into(), expected: expected.into(), got: got.into() }
    }
}

/// What both formats say of looks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Looks {
    bboxes: Option<Vec<[f32; 4]>>,
    rationale: Option<Sentences>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Sentences {
    One(String),
    Many(Vec<String>),
}

/// A name as text, whether a file has it as text or as a number.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Number(i64),
}

impl Name {
    /// The sample's own, or its number in the file, counted from 1.
    fn or_number(name: Option<Name>, number: usize) -> String {
        match name {
            Some(Name::Text(text)) => text,
            Some(Name::Number(own)) => own.to_string(),
            None => format!("number {}", number + 1),
        }
    }
}

impl Looks {
    fn of(self, source: Source, id: &str) -> Result<Vec<Look>, ExamplesError> {
        let says = match self.rationale {
            None => Vec::new(),
            Some(Sentences::One(sentence)) => vec![sentence],
            Some(Sentences::Many(sentences)) => sentences,
        };
        let boxes = self.bboxes.unwrap_or_default();
        let is_box = |[left, top, right, bottom]: &[f32; 4]| {
            [left, top, right, bottom].iter().all(|x| x.is_finite()) && left < right && top < bottom
        };
        if let Some(wrong) = boxes.iter().find(|corners| !is_box(corners)) {
            return Err(source.sample(id, "`bboxes` of [left, top, right, bottom] in pixels", format!("{wrong:?}")));
        }
        if !says.is_empty() && !boxes.is_empty() && says.len() != boxes.len() {
            let got = format!("{} and {}", boxes.len(), says.len());
            return Err(source.sample(id, "as many `bboxes` as sentences of `rationale`", got));
        }
        let look = |k: usize| Look {
            says: says.get(k).cloned().unwrap_or_default(),
            region: boxes.get(k).map(|[left, top, right, bottom]| Region {
                left: *left,
                top: *top,
                right: *right,
                bottom: *bottom,
            }),
        };
        Ok((0..says.len().max(boxes.len())).map(look).collect())
    }
}

/// A conversation as a file has it.
struct Conversation {
    id: String,
    turns: Vec<Message>,
    pictures: Vec<PathBuf>,
    looks: Vec<Look>,
}

impl Conversation {
    /// One example for each answer. Each takes the pictures that were shown before it.
    fn examples(self, source: Source) -> Result<Vec<Example>, ExamplesError> {
        let mut examples: Vec<Example> = Vec::new();
        let mut shown = 0;
        for (at, turn) in self.turns.iter().enumerate() {
            let parts: &[Part] = match &turn.content {
                Content::Parts(parts) => parts,
                Content::Text(_) => &[],
            };
            shown += parts.iter().filter(|part| **part == Part::Picture).count();
            let Content::Text(answer) = &turn.content else { continue };
            if turn.role != Role::Assistant {
                continue;
            }
            if answer.trim().is_empty() || at == 0 {
                let expected = "answers that say something, each after a question";
                return Err(source.sample(&self.id, expected, format!("`{answer}` as turn {}", at + 1)));
            }
            let number = examples.len() + 1;
            examples.push(Example {
                id: if number == 1 { self.id.clone() } else { format!("{}#{number}", self.id) },
                messages: self.turns[..at].to_vec(),
                pictures: self.pictures.iter().take(shown).cloned().collect(),
                answer: answer.trim().to_owned(),
                looks: self.looks.clone(),
            });
        }
        match examples.is_empty() {
            true => Err(source.sample(&self.id, "at least one answer", format!("{} turns", self.turns.len()))),
            false => Ok(examples),
        }
    }
}
