//! What may not be committed: paths of one machine, and large files.

use crate::{
    tree::{File, Tree},
    violation::Violation,
};

const MB: u64 = 1_000_000;
const MOST_FILE_BYTES: u64 = 20 * MB;
/// Folders with a limit on everything in them together.
const FOLDERS: [(&str, u64); 2] = [("fixtures/", 5 * MB), ("weights/", 20 * MB)];
/// Folders that exist on the writer's machine and perhaps on no other.
const MACHINE: [&str; 4] = ["/home/", "/root/", "/tmp/", "/Users/"];
/// The one file that must spell them.
const SELF: &str = "xtask/src/rules/files.rs";

/// Looks through all files.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found: Vec<Violation> = tree.files.iter().flat_map(machine_paths).collect();
    found.extend(tree.files.iter().filter_map(large_file));
    found.extend(FOLDERS.iter().filter_map(|&(folder, most)| large_folder(tree, folder, most)));
    found
}

fn machine_paths(file: &File) -> Vec<Violation> {
    let text = if file.path == SELF { "" } else { file.text.as_deref().unwrap_or_default() };
    let lines = text.lines().enumerate().filter(|(_, line)| names_a_machine(line));
    lines
        .map(|(place, line)| Violation {
            path: file.path.clone(),
            line: place + 1,
            rule: "machine-path",
            name: None,
            what: "path of one machine".to_owned(),
            got: format!("`{}`", line.trim()),
            limit: "none".to_owned(),
            way_out: "write it relative to the repository, or as FOLDER",
        })
        .collect()
}

/// Whether an absolute path into a personal or temporary folder starts somewhere in the line.
fn names_a_machine(line: &str) -> bool {
    MACHINE.iter().any(|folder| {
        line.match_indices(folder).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|sign| !sign.is_alphanumeric() && !"._-}>".contains(sign))
        })
    })
}

fn large_file(file: &File) -> Option<Violation> {
    let way_out = "leave it out, or make it with a script";
    (file.bytes > MOST_FILE_BYTES).then(|| too_large(&file.path, "file", file.bytes, MOST_FILE_BYTES, way_out))
}

fn large_folder(tree: &Tree, folder: &str, most: u64) -> Option<Violation> {
    let bytes = tree.files.iter().filter(|file| file.path.starts_with(folder)).map(|file| file.bytes).sum();
    let way_out = "keep fewer or smaller files in it";
    (bytes > most).then(|| too_large(folder, "folder", bytes, most, way_out))
}

fn too_large(path: &str, what: &str, bytes: u64, most: u64, way_out: &'static str) -> Violation {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / MB as f64);
    Violation {
        path: path.to_owned(),
        line: 1,
        rule: "bytes",
        name: None,
        what: what.to_owned(),
        got: megabytes(bytes),
        limit: megabytes(most),
        way_out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: u64, text: &str) -> File {
        File { path: path.to_owned(), bytes, text: Some(text.to_owned()) }
    }

    fn rules(files: Vec<File>) -> Vec<&'static str> {
        check(&Tree { files }).iter().map(|one| one.rule).collect()
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        for text in ["see /home/ada/lare", "`/root/.cache`", "cd /tmp/x", "path = \"/Users/ada/x\""] {
            assert_eq!(rules(vec![file("docs/a.md", 1, text)]), ["machine-path"], "{text}");
        }
    }

    #[test]
    fn a_path_inside_the_repository_is_fine() {
        for text in ["crates/tmp/a.rs", "https://example.org/home/a", "$HOME/x", "the /homes of"] {
            assert!(rules(vec![file("docs/a.md", 1, text)]).is_empty(), "{text}");
        }
    }

    #[test]
    fn large_files_and_full_folders_are_found() {
        assert_eq!(rules(vec![file("examples/a.png", 21 * MB, "")]), ["bytes"]);
        assert_eq!(rules(vec![file("fixtures/a", 3 * MB, ""), file("fixtures/b", 3 * MB, "")]), ["bytes"]);
        assert_eq!(rules(vec![file("weights/a", 19 * MB, ""), file("weights/b", 2 * MB, "")]), ["bytes"]);
        assert!(rules(vec![file("weights/a", 19 * MB, ""), file("fixtures/b", 4 * MB, "")]).is_empty());
    }
}
