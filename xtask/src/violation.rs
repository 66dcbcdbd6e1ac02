//! One thing that is not as it should be.

use std::fmt;

/// What is wrong, where, and what to do: one line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path from the root of the workspace.
    pub path: String,
    /// Line, from 1; 1 when the whole file is meant.
    pub line: usize,
    /// Name of the rule, as in `tidy.toml`.
    pub rule: &'static str,
    /// The function or crate, when the rule is about one.
    pub name: Option<String>,
    /// The thing that breaks the rule.
    pub what: String,
    /// What was found.
    pub got: String,
    /// What is allowed.
    pub limit: String,
    /// What to do.
    pub way_out: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let Self { path, line, rule, what, got, limit, way_out, .. } = self;
        write!(out, "{path}:{line}: {rule}: {what}, got {got}, limit {limit}; {way_out}")
    }
}
