//! The rules, one file a kind. Each takes what it looks at and returns what is wrong.

pub mod docs;
pub mod files;
pub mod graph;
pub mod sizes;
pub mod tokens;
