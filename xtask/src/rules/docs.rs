//! Pages that the program writes about itself: what is committed is what it prints.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::violation::Violation;

/// The page, and what to ask the program for.
const PAGES: [(&str, [&str; 2]); 2] = [("docs/cli.md", ["docs", "cli"]), ("docs/config.md", ["docs", "config"])];

/// What was wrong, and what could not be looked at.
#[derive(Default)]
pub struct Checked {
    /// Pages that are not what the program prints.
    pub violations: Vec<Violation>,
    /// Why a page was not compared.
    pub skipped: Vec<String>,
}

/// Builds the program in the same profile and with the same features as `cargo test --workspace`.
pub fn build(root: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status =
        Command::new(cargo).args(["build", "--quiet", "--workspace", "--bin", "lare"]).current_dir(root).status()?;
    if !status.success() {
        return Err("lare does not build: run cargo check".into());
    }
    beside(&std::env::current_exe()?).ok_or_else(|| "cargo built lare, but not beside xtask".into())
}

/// The program that `cargo test --workspace` built beside this test, if it did.
#[cfg(test)]
pub fn beside_this_test() -> Option<PathBuf> {
    beside(&std::env::current_exe().ok()?)
}

/// `lare` in the folder of an executable, or, for tests, in the folder above.
fn beside(executable: &Path) -> Option<PathBuf> {
    let name = format!("lare{}", std::env::consts::EXE_SUFFIX);
    executable.ancestors().skip(1).take(2).map(|folder| folder.join(&name)).find(|path| path.is_file())
}

/// Writes every page the program can print.
pub fn write(root: &Path, binary: &Path) -> Result<(), Box<dyn Error>> {
    for (page, arguments) in PAGES {
        match printed(binary, arguments)? {
            Some(text) => {
                fs::write(root.join(page), text)?;
                println!("wrote {page}");
            }
            None => println!("skipped: {page}: lare {} prints nothing yet", arguments.join(" ")),
        }
    }
    Ok(())
}

/// Compares every page with what the program prints.
pub fn check(root: &Path, binary: Option<&Path>) -> Checked {
    let mut checked = Checked::default();
    for (page, arguments) in PAGES {
        let committed = fs::read_to_string(root.join(page)).ok();
        let printed = binary.and_then(|binary| printed(binary, arguments).ok().flatten());
        if binary.is_none() {
            checked.skipped.push(format!("{page}: lare is not built here; run cargo test --workspace"));
        } else {
            match compare(page, committed.as_deref(), printed.as_deref()) {
                Compared::Same => {}
                Compared::Different(violation) => checked.violations.push(*violation),
                Compared::Neither => {
                    checked.skipped.push(format!("{page}: lare {} prints nothing yet", arguments.join(" ")));
                }
            }
        }
    }
    checked
}

enum Compared {
    Same,
    Different(Box<Violation>),
    /// No page, and no command that prints it.
    Neither,
}

fn compare(page: &str, committed: Option<&str>, printed: Option<&str>) -> Compared {
    let (got, line) = match (committed, printed) {
        (None, None) => return Compared::Neither,
        (Some(committed), Some(printed)) if committed == printed => return Compared::Same,
        (Some(_), None) => ("a page, but no command that prints it", 1),
        (None, Some(_)) => ("no page", 1),
        (Some(committed), Some(printed)) => ("another text", first_difference(committed, printed)),
    };
    Compared::Different(Box::new(Violation {
        path: page.to_owned(),
        line,
        rule: "generated-docs",
        name: None,
        what: "generated page".to_owned(),
        got: got.to_owned(),
        limit: "what lare prints".to_owned(),
        way_out: "run cargo xtask docs",
    }))
}

fn first_difference(committed: &str, printed: &str) -> usize {
    committed.lines().zip(printed.lines()).take_while(|(committed, printed)| committed == printed).count() + 1
}

/// What the program prints; `None` when it does not know the command.
fn printed(binary: &Path, arguments: [&str; 2]) -> io::Result<Option<String>> {
    let output = Command::new(binary).args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.success() && !text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(committed: Option<&str>, printed: Option<&str>) -> (&'static str, usize) {
        match compare("docs/cli.md", committed, printed) {
            Compared::Same => ("same", 0),
            Compared::Neither => ("neither", 0),
            Compared::Different(violation) => ("different", violation.line),
        }
    }

    #[test]
    fn a_page_is_what_the_program_prints() {
        assert_eq!(verdict(Some("# lare\n"), Some("# lare\n")), ("same", 0));
        assert_eq!(verdict(Some("# lare\nold\n"), Some("# lare\nnew\n")), ("different", 2));
        assert_eq!(verdict(None, Some("# lare\n")), ("different", 1));
        assert_eq!(verdict(Some("# lare\n"), None), ("different", 1));
        assert_eq!(verdict(None, None), ("neither", 0));
    }
}
