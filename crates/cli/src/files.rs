//! Reading what the user names, and writing so that a name holds the old file or the whole new one.

use crate::failure::Failure;
use lare_data::image::{ImageError, MAX_FILE_BYTES, Opened, decode_noted};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

/// A picture as the user gave it.
pub struct Source {
    /// The file's name, or `standard input`.
    pub name: String,
    /// The decoded picture and what was done to it.
    pub opened: Opened,
    /// SHA-256 of the bytes, in hex.
    pub hash: String,
}

/// Reads a picture from a file, or from standard input for `-`.
pub fn picture(path: &Path) -> Result<Source, Failure> {
    let (name, bytes) = if path == Path::new("-") {
        let name = "standard input".to_owned();
        (name.clone(), limited(io::stdin().lock(), &name)?)
    } else {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| ImageError::Read { name: name.clone(), source })?;
        (name.clone(), limited(file, &name)?)
    };
    let opened = decode_noted(&bytes, &name)?;
    Ok(Source { name, opened, hash: lare_infer::load::sha256(&bytes) })
}

/// Reads no more than a picture may have, whatever the file claims or goes on giving.
fn limited(from: impl Read, name: &str) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| ImageError::Read { name: name.into(), source })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ImageError::TooLarge { name: name.into(), got: format!("more than {MAX_FILE_BYTES} bytes") });
    }
    Ok(bytes)
}

/// Reads a text file; `what` names it in the message.
pub fn text(path: &Path, what: &str) -> Result<String, Failure> {
    let name = format!("{what} `{}`", path.display());
    let bytes = fs::read(path).map_err(|error| {
        Failure::new(format!("{name} cannot be read")).part("got", error).hint("check the path and its permissions")
    })?;
    utf8(bytes, &name)
}

/// Reads text from standard input; `what` names it in the message.
pub fn input_text(what: &str) -> Result<String, Failure> {
    let name = format!("{what} on standard input");
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).map_err(|error| {
        Failure::new(format!("{name} cannot be read")).part("got", error).hint("name a file instead of `-`")
    })?;
    utf8(bytes, &name)
}

fn utf8(bytes: Vec<u8>, name: &str) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Failure::new(format!("{name} is not UTF-8 text"))
            .part("expected", "UTF-8")
            .part("got", format!("other bytes in line {line}"))
            .hint("save it as UTF-8, or name another file")
    })
}

/// Writes a file under another name and renames it when it is whole. A device or pipe is written as it is: a rename
/// would replace it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let special = fs::metadata(path).is_ok_and(|found| !found.is_file());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    let written = if special {
        File::options().write(true).open(path).and_then(|mut file| file.write_all(bytes))
    } else {
        fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path))
    };
    written.map_err(|error| {
        drop(fs::remove_file(&partial)); // there may be none
        could_not_write(path, &error)
    })
}

/// Says what could not be written, and what helps.
pub fn could_not_write(path: &Path, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space, or name a file on another disk",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "name a folder that you may write to",
        ErrorKind::NotFound => "create the folder first, or name another",
        ErrorKind::NotADirectory | ErrorKind::IsADirectory => "name another file: a part of this path is taken",
        _ => "name another file",
    };
    Failure::new(format!("`{}` cannot be written", path.display())).part("got", error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(write(&folder.path().join("taken"), b"x").is_err());
        assert!(write(&folder.path().join("no/such/folder"), b"x").is_err());
        write(&folder.path().join("new"), b"x").unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["new", "taken"]);
    }

    #[test]
    fn the_line_that_is_no_text_is_named() {
        let failure = utf8(b"one\ntwo\nthr\xe9e\n".to_vec(), "the list").unwrap_err();
        assert_eq!(failure.summary, "the list is not UTF-8 text");
        assert!(failure.parts[1].contains("line 3"), "{:?}", failure.parts);
    }

    #[test]
    fn what_never_ends_is_read_no_further_than_the_limit() {
        let error = limited(io::repeat(7), "zeros").unwrap_err().to_string();
        assert!(error.contains("too large"), "{error}");
    }
}
