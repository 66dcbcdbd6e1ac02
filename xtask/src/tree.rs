//! The files of the workspace, as `.gitignore` leaves them.

use std::{error::Error, fs, path::Path};

use ignore::WalkBuilder;

/// Every file that is, or could be, committed.
pub struct Tree {
    /// In order of their paths.
    pub files: Vec<File>,
}

/// A file, by name and size; the text only where a rule reads it.
pub struct File {
    /// Path from the root, with forward slashes.
    pub path: String,
    /// Size on the disk.
    pub bytes: u64,
    /// Content of the kinds of files that rules read; `None` for all others.
    pub text: Option<String>,
}

/// Endings of the files whose text is read.
const READ: [&str; 11] = ["rs", "md", "toml", "sh", "py", "snap", "txt", "yml", "css", "js", "run"];

impl Tree {
    /// Walks the folder, without build outputs and what `.gitignore` names.
    pub fn read(root: &Path) -> Result<Self, Box<dyn Error>> {
        let walk = WalkBuilder::new(root)
            .hidden(false)
            .parents(false)
            .git_global(false)
            .require_git(false)
            .sort_by_file_path(Path::cmp)
            .filter_entry(|entry| {
                let name = entry.file_name().to_string_lossy();
                name != ".git" && !(entry.depth() == 1 && name.starts_with("target"))
            })
            .build();
        let mut files = Vec::new();
        for entry in walk {
            let entry = entry?;
            // Other tools make and remove files while this one walks: what is gone is not in the tree.
            let Ok(metadata) = entry.path().metadata() else {
                continue;
            };
            if metadata.is_file() {
                files.push(File::read(root, entry.path(), metadata.len()));
            }
        }
        Ok(Self { files })
    }
}

impl File {
    fn read(root: &Path, path: &Path, bytes: u64) -> Self {
        let relative = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
        let ending = relative.rsplit(['.', '/']).next().unwrap_or_default();
        let text = READ.contains(&ending).then(|| fs::read_to_string(path).ok()).flatten();
        Self { path: relative, bytes, text }
    }
}
