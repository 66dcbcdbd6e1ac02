//! The exceptions in `tidy.toml`: each with a reason, none longer than it is needed.

use serde::Deserialize;

use crate::violation::Violation;

/// Where the exceptions are written, from the root.
pub const FILE: &str = "xtask/tidy.toml";
/// A reason shorter than this is a word and not a reason.
const SHORTEST_REASON_CHARACTERS: usize = 20;

/// All exceptions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exceptions {
    #[serde(default)]
    exception: Vec<Exception>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    rule: String,
    path: String,
    /// The function or crate; `None` for everything in the file.
    name: Option<String>,
    reason: String,
}

impl Exceptions {
    /// Reads the file's text; an unknown key or a missing reason is an error.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// What is left to complain about: unexcused violations, empty reasons, needless exceptions.
    pub fn apply(&self, found: Vec<Violation>) -> Vec<Violation> {
        let needless = self.exception.iter().filter(|exception| !found.iter().any(|one| exception.excuses(one)));
        let mut own: Vec<Violation> = needless.map(Exception::needless).collect();
        own.extend(self.exception.iter().filter_map(Exception::unreasoned));
        let excused = |one: &Violation| self.exception.iter().any(|exception| exception.excuses(one));
        let mut left: Vec<Violation> = found.into_iter().filter(|one| !excused(one)).collect();
        left.append(&mut own);
        left
    }
}

impl Exception {
    fn excuses(&self, one: &Violation) -> bool {
        self.rule == one.rule && self.path == one.path && (self.name.is_none() || self.name == one.name)
    }

    fn needless(&self) -> Violation {
        self.violation("no violation that it excuses", "one or more", "remove the exception")
    }

    fn unreasoned(&self) -> Option<Violation> {
        let short = self.reason.trim().chars().count() < SHORTEST_REASON_CHARACTERS;
        short.then(|| {
            self.violation(
                &format!("reason `{}`", self.reason.trim()),
                "a reason a stranger would accept",
                "write the reason, or keep the rule",
            )
        })
    }

    fn violation(&self, got: &str, limit: &str, way_out: &'static str) -> Violation {
        Violation {
            path: FILE.to_owned(),
            line: 1,
            rule: "exception",
            name: None,
            what: format!("{} for {} {}", self.rule, self.path, self.name.as_deref().unwrap_or("(whole file)")),
            got: got.to_owned(),
            limit: limit.to_owned(),
            way_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_long(name: &str) -> Violation {
        Violation {
            path: "a.rs".to_owned(),
            line: 3,
            rule: "function-lines",
            name: Some(name.to_owned()),
            what: format!("fn {name}"),
            got: "70".to_owned(),
            limit: "60".to_owned(),
            way_out: "",
        }
    }

    fn exceptions(name: &str, reason: &str) -> Exceptions {
        let text = format!(
            "[[exception]]\nrule = \"function-lines\"\npath = \"a.rs\"\nname = \"{name}\"\nreason = \"{reason}\""
        );
        Exceptions::parse(&text).unwrap()
    }

    const GOOD: &str = "one table of cases; cut in two it says less";

    #[test]
    fn an_exception_excuses_its_function_and_no_other() {
        let left = exceptions("long", GOOD).apply(vec![too_long("long"), too_long("other")]);
        assert_eq!(left, [too_long("other")]);
    }

    #[test]
    fn an_exception_that_excuses_nothing_is_a_violation() {
        let left = exceptions("long", GOOD).apply(vec![]);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].way_out, "remove the exception");
    }

    #[test]
    fn an_exception_needs_a_reason() {
        let left = exceptions("long", "later").apply(vec![too_long("long")]);
        assert!(left[0].to_string().contains("got reason `later`"), "{}", left[0]);
        assert!(Exceptions::parse("[[exception]]\nrule = \"arguments\"\npath = \"a.rs\"").is_err());
    }
}
