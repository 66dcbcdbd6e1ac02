//! How a folder asks its model to be sampled, and where an answer ends.

use std::path::Path;

use serde_json::Value as Json;

use super::error::ChatError;
use super::files::{Folder, Object, id};

const FILE: &str = "generation_config.json";

/// `generation_config.json`. What the file does not say is `None`; keys this struct has no field for are ignored, as
/// most of them belong to ways of decoding that are not here. A value of the wrong type is an error, never a default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generation {
    /// Ids that end an answer; empty if no file names one. From `config.json` where `generation_config.json` is missing
    /// or silent: the top level first, then `text_config`.
    pub eos: Vec<u32>,
    /// Padding; from `config.json` likewise.
    pub pad: Option<u32>,
    /// Beginning of text; from `config.json` likewise. Templates write it themselves where it is needed.
    pub bos: Option<u32>,
    /// Whether to draw. `false` where the file is silent: then the sampling fields say nothing.
    pub do_sample: bool,
    /// Divides the logits, 0 or more.
    pub temperature: Option<f64>,
    /// Share of probability that is drawn from, above 0 and at most 1.
    pub top_p: Option<f64>,
    /// How many of the likeliest tokens are drawn from; 0 for all.
    pub top_k: Option<u32>,
    /// What logits of tokens already seen are divided by, above 0; 1 does nothing.
    pub repetition_penalty: Option<f64>,
    /// Most tokens of an answer.
    pub max_new_tokens: Option<u32>,
    /// Most tokens of prompt and answer together.
    pub max_length: Option<u32>,
}

impl Generation {
    /// Reads `generation_config.json` and `config.json` of a model folder; either may be missing.
    ///
    /// # Errors
    /// If a file is not JSON, or a field this struct has is of another type or out of its range.
    pub fn from_folder(folder: &Path) -> Result<Generation, ChatError> {
        let folder = Folder::new(folder);
        let config = folder.object("config.json")?;
        Generation::read(&folder, &config)
    }

    /// As [`Generation::from_folder`], with `config.json` at hand.
    pub(super) fn read(folder: &Folder, config: &Object) -> Result<Generation, ChatError> {
        let file = folder.object(FILE)?;
        let text = config.object("text_config")?;
        let sources = [&file, config, &text];
        let positive = |field| number(&file, field, "a number above 0", |value| value > 0.0);
        Ok(Generation {
            eos: first(sources, |source| source.read("eos_token_id", "a token id or a list of them", ids))?
                .unwrap_or_default(),
            pad: first(sources, |source| source.id("pad_token_id"))?,
            bos: first(sources, |source| source.id("bos_token_id"))?,
            do_sample: file.read("do_sample", "true or false", Json::as_bool)?.unwrap_or(false),
            temperature: number(&file, "temperature", "a number, 0 or more", |value| value >= 0.0)?,
            top_p: number(&file, "top_p", "a number above 0 and at most 1", |value| value > 0.0 && value <= 1.0)?,
            top_k: count(&file, "top_k")?,
            repetition_penalty: positive("repetition_penalty")?,
            max_new_tokens: count(&file, "max_new_tokens")?,
            max_length: count(&file, "max_length")?,
        })
    }
}

/// What the first source that says anything says.
fn first<T>(
    sources: [&Object; 3],
    read: impl Fn(&Object) -> Result<Option<T>, ChatError>,
) -> Result<Option<T>, ChatError> {
    for source in sources {
        if let Some(found) = read(source)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn ids(value: &Json) -> Option<Vec<u32>> {
    match value {
        Json::Array(list) => list.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    }
}

fn number(
    file: &Object,
    field: &str,
    expected: &'static str,
    allowed: impl Fn(f64) -> bool,
) -> Result<Option<f64>, ChatError> {
    file.read(field, expected, |value| value.as_f64().filter(|&value| allowed(value)))
}

fn count(file: &Object, field: &str) -> Result<Option<u32>, ChatError> {
    file.read(field, "a whole number, 0 or more", id)
}
