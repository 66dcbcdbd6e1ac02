//! Keeps the tree as STYLE.md and ARCHITECTURE.md say it is.
//!
//! - `cargo xtask tidy` checks every rule and prints one line per violation.
//! - `cargo xtask docs` writes the pages that `lare` generates about itself.
//!
//! `cargo test` runs the same checks through the test at the end of this file.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool: printing is its job")]

mod exceptions;
mod rules;
mod source;
mod tree;
mod violation;

use std::{error::Error, path::Path, path::PathBuf, process::ExitCode};

use exceptions::Exceptions;
use rules::{docs, files, graph, sizes, tokens};
use tree::Tree;

fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    let done = match command.as_str() {
        // A tree that does not build can still be untidy: the other rules need no binary.
        "tidy" => tidy(&root(), docs::build(&root()).ok().as_deref()),
        "docs" => docs::build(&root()).and_then(|binary| docs::write(&root(), &binary)).map(|()| true),
        _ => {
            eprintln!("usage: cargo xtask tidy | docs");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// The workspace's root: this crate lies directly in it.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Checks everything, prints what is wrong, and returns whether nothing was.
///
/// `binary` is a `lare` built from this tree, to compare the generated pages with.
fn tidy(root: &Path, binary: Option<&Path>) -> Result<bool, Box<dyn Error>> {
    let tree = Tree::read(root)?;
    let (sources, mut found) = source::parse_all(&tree);
    found.extend(sizes::check(&sources));
    found.extend(tokens::check(&sources));
    found.extend(files::check(&tree));
    found.extend(graph::check(root)?);
    let generated = docs::check(root, binary);
    found.extend(generated.violations);
    let exceptions = Exceptions::parse(&std::fs::read_to_string(root.join(exceptions::FILE))?)?;
    let left = exceptions.apply(found);

    for reason in generated.skipped {
        println!("skipped: {reason}");
    }
    for violation in &left {
        println!("{violation}");
    }
    println!("tidy: {} files, {} violations", tree.files.len(), left.len());
    Ok(left.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let binary = docs::beside_this_test();
        assert!(tidy(&root(), binary.as_deref()).unwrap(), "run `cargo xtask tidy` for the list");
    }
}
