//! Why something could not be done: the thing, its parts, and the way out.

use serde_json::{Map, Value, json};
use std::fmt::Display;

/// An error as the user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One line that names the thing.
    pub summary: String,
    /// Lines below it, such as `expected  at least one word`.
    pub parts: Vec<String>,
    /// The way out.
    pub hint: Option<String>,
}

impl Failure {
    /// Names the thing.
    pub fn new(summary: impl Display) -> Self {
        Self { summary: summary.to_string(), parts: Vec::new(), hint: None }
    }

    /// The parser's words about the command line, which are laid out for a terminal.
    pub fn usage(error: &clap::Error) -> Self {
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let is_hint = |line: &&str| ["Usage:", "tip:", "For more"].iter().any(|start| line.starts_with(start));
        let (hints, parts): (Vec<&str>, Vec<&str>) = lines.partition(is_hint);
        Self {
            summary: first.strip_prefix("error: ").unwrap_or(first).to_owned(),
            parts: parts.into_iter().map(str::to_owned).collect(),
            hint: (!hints.is_empty()).then(|| hints.join("; ")),
        }
    }

    /// Adds a part, such as `expected` or `got`.
    pub fn part(mut self, name: &str, value: impl Display) -> Self {
        self.parts.push(format!("{name:<9} {value}"));
        self
    }

    /// Names the way out.
    pub fn hint(self, hint: impl Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// The same as an object: `message`, `parts` by name where they have one, `hint`.
    pub fn json(&self) -> Value {
        let mut parts = Map::new();
        let mut details = Vec::new();
        for part in &self.parts {
            match part.split_once("  ").filter(|(name, _)| !name.contains(' ')) {
                Some((name, value)) => drop(parts.insert(name.into(), json!(value.trim()))),
                None => details.push(part.clone()),
            }
        }
        if !details.is_empty() {
            parts.insert("details".into(), json!(details));
        }
        json!({ "error": { "message": self.summary, "parts": parts, "hint": self.hint } })
    }
}

/// The libraries' errors are texts of one form: the thing, indented parts, an empty line, `hint: ` and the way out.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let text = error.to_string();
        let (above, hint) = match text.split_once("\n\nhint: ") {
            Some((above, hint)) => (above, Some(hint.to_owned())),
            None => (text.as_str(), None),
        };
        let mut lines = above.lines();
        let summary = lines.next().unwrap_or_default().to_owned();
        let parts = lines.map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned()).collect();
        Self { summary, parts, hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_librarys_error_keeps_its_parts() {
        let failure = Failure::from(std::io::Error::other("`x` is wrong\n  expected  1\n  got       2\n\nhint: say 1"));
        let by_hand = Failure::new("`x` is wrong").part("expected", 1).part("got", 2).hint("say 1");
        assert_eq!(failure, by_hand);
    }

    #[test]
    fn the_parsers_words_are_taken_apart() {
        let error = clap::Command::new("lare").arg(clap::arg!(<PICTURE>)).try_get_matches_from(["lare"]).unwrap_err();
        let failure = Failure::usage(&error);
        assert_eq!(failure.summary, "the following required arguments were not provided:");
        assert_eq!(failure.parts, ["<PICTURE>"]);
        assert!(failure.hint.is_some_and(|hint| hint.starts_with("Usage: lare <PICTURE>; For more")));
    }

    #[test]
    fn parts_have_their_names_in_json() {
        let json = Failure::new("x").part("expected", "a  b").part("got", 2).json();
        assert_eq!(json["error"]["parts"], json!({ "expected": "a  b", "got": "2" }));
    }
}
