//! Fields of a Hugging Face `config.json`: what is missing or of another kind is an error that names it.

use crate::{Error, Result};
use serde_json::Value;

/// Most layers of a decoder or a tower: far more than any released model has, and few enough to be asked for one by one.
pub const LAYERS: usize = 1 << 10;
/// Most heads of attention.
pub const HEADS: usize = 1 << 12;
/// Most channels of a hidden state, or of a head.
pub const WIDTH: usize = 1 << 17;
/// Most channels inside a feed-forward layer.
pub const FEED_FORWARD: usize = 1 << 20;
/// Most tokens of a vocabulary.
pub const VOCABULARY: usize = 1 << 22;
/// Longest side of a picture, a tile or a patch, in pixels.
pub const SIDE_PX: usize = 1 << 14;
/// Most of what else is counted: channels, frames and merged patches.
pub const FEW: usize = 1 << 6;
/// Most of anything.
const MOST: usize = 1 << 24;

/// An object in `config.json`.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    value: &'a Value,
    /// Dotted path of this object in the file, with a dot behind; empty for the whole.
    path: &'a str,
    file: &'a str,
}

impl<'a> Fields<'a> {
    /// The whole file. `file` names it in errors.
    pub fn new(value: &'a Value, file: &'a str) -> Self {
        Self { value, path: "", file }
    }

    /// The file's name.
    pub fn file(&self) -> &'a str {
        self.file
    }

    /// The object `name` in this one, `path` its dotted path with a dot behind; this one where there is none.
    pub fn within(&self, name: &str, path: &'a str) -> Self {
        match self.find(name) {
            Some(value) if value.is_object() => Self { value, path, ..*self },
            _ => *self,
        }
    }

    /// The field, unless it is absent or null.
    pub fn find(&self, name: &str) -> Option<&'a Value> {
        self.value.get(name).filter(|value| !value.is_null())
    }

    /// That this field cannot be used as it is.
    pub fn error(&self, name: &str, expected: &str, hint: &str) -> Error {
        Error::Config {
            file: self.file.into(),
            field: format!("{}{name}", self.path),
            expected: expected.into(),
            got: self.find(name).map_or_else(|| "nothing".into(), shown),
            hint: hint.into(),
        }
    }

    fn need<T>(&self, name: &str, expected: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(name, expected, "take it as it was published with these weights"))
    }

    /// A whole number above 0 and not absurdly large.
    ///
    /// # Errors
    /// [`Error::Config`] when it is missing or something else; so for the others.
    pub fn size(&self, name: &str) -> Result<usize> {
        self.up_to(name, MOST)
    }

    /// The same, or `default` where it is absent, as the reference's config class has it.
    pub fn size_or(&self, name: &str, default: usize) -> Result<usize> {
        self.up_to_or(name, MOST, default)
    }

    /// A whole number from 1 to `most`: what no model has is refused before memory is taken for it.
    pub fn up_to(&self, name: &str, most: usize) -> Result<usize> {
        let value = self.find(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let value = value.filter(|n| (1..=most).contains(n));
        self.need(name, &format!("a whole number from 1 to {most}"), value)
    }

    /// The same, or `default` where it is absent.
    pub fn up_to_or(&self, name: &str, most: usize, default: usize) -> Result<usize> {
        if self.find(name).is_none() { Ok(default) } else { self.up_to(name, most) }
    }

    /// A finite number.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.need(name, "a number", self.find(name).and_then(Value::as_f64).filter(|n| n.is_finite()))
    }

    /// The same, or `default` where it is absent.
    pub fn number_or(&self, name: &str, default: f64) -> Result<f64> {
        if self.find(name).is_none() { Ok(default) } else { self.number(name) }
    }

    /// True or false, or `default` where it is absent.
    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool> {
        match self.find(name) {
            None => Ok(default),
            Some(value) => self.need(name, "true or false", value.as_bool()),
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<&'a str> {
        self.need(name, "a text", self.find(name).and_then(Value::as_str))
    }

    /// Whole numbers, none absurdly large.
    pub fn counts(&self, name: &str) -> Result<Vec<usize>> {
        let list = self.find(name).and_then(Value::as_array);
        let one = |n: &Value| n.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= MOST);
        let all = list.and_then(|list| list.iter().map(one).collect());
        self.need(name, &format!("a list of whole numbers of at most {MOST}"), all)
    }

    /// The number of a token.
    pub fn token(&self, name: &str) -> Result<u32> {
        let value = self.find(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        self.need(name, "the number of a token", value)
    }

    /// Refuses a field that is neither absent nor a number of at most `most`.
    pub fn at_most(&self, name: &str, most: u32, hint: &str) -> Result<()> {
        match self.find(name) {
            None => Ok(()),
            Some(value) if value.as_f64().is_some_and(|n| n <= f64::from(most)) => Ok(()),
            Some(_) => Err(self.error(name, &format!("at most {most}"), hint)),
        }
    }

    /// Refuses a field that is neither absent nor `expected`: something that is not computed here.
    pub fn must_be(&self, name: &str, expected: impl Into<Value>) -> Result<()> {
        let expected = expected.into();
        match self.find(name) {
            None => Ok(()),
            Some(value) if *value == expected => Ok(()),
            Some(_) => {
                Err(self.error(name, &expected.to_string(), "this variant of the architecture is not supported"))
            }
        }
    }
}

/// The beginning of a value: lists can have as many entries as a vocabulary.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    match value {
        Value::Array(list) if list.len() > LONGEST => format!("a list of {}", list.len()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_field_is_named_with_its_path() {
        let value = serde_json::json!({"text_config": {"hidden_size": "48", "flag": null}});
        let fields = Fields::new(&value, "m/config.json").within("text_config", "text_config.");
        let message = |name: &str| fields.size(name).unwrap_err().to_string();
        assert!(
            message("hidden_size").contains("`text_config.hidden_size` in m/config.json"),
            "{}",
            message("hidden_size")
        );
        assert!(message("hidden_size").contains("got       \"48\""), "{}", message("hidden_size"));
        assert!(message("other").contains("got       nothing"), "{}", message("other"));
        assert!(fields.flag_or("flag", true).unwrap());
        assert!(fields.must_be("hidden_size", "49").is_err() && fields.must_be("hidden_size", "48").is_ok());
    }
}
