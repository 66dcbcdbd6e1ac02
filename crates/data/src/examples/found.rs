//! Which files a path stands for, and what they are.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::fault::ExamplesError;
use super::json;
use super::record::{expected_keys, layout};

/// How every parquet file begins.
const PARQUET: &[u8] = b"PAR1";
/// What stands at this place in a tar archive.
const TAR: (usize, &[u8]) = (257, b"ustar");
/// How files begin that have to be unpacked first.
const PACKED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\xfd7zXZ", "an xz file"),
];
/// Most files that a name with a part in braces stands for.
const MOST_FILES: usize = 100_000;
/// Parts of a data set that never belong together.
const SPLITS: [&str; 6] = ["train", "training", "validation", "val", "dev", "test"];

/// Formats of files with samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// LLaVA's: `conversations` of `from` and `value`, as a list or a line each. ShareGPT's is the same.
    Llava,
    /// ShareGPT's.
    Sharegpt,
    /// `messages` of `role` and `content`, a line each or as a list.
    Messages,
    /// `question` and `answer`, a line each or as a list.
    Questions,
    /// Hugging Face's parquet files, with pictures in them.
    Parquet,
    /// WebDataset's tar archives.
    Webdataset,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 6] =
        [Format::Llava, Format::Sharegpt, Format::Messages, Format::Questions, Format::Parquet, Format::Webdataset];

    /// Its name in configs and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Llava => "llava",
            Self::Sharegpt => "sharegpt",
            Self::Messages => "messages",
            Self::Questions => "questions",
            Self::Parquet => "parquet",
            Self::Webdataset => "webdataset",
        }
    }

    /// Whether it can be read as that: LLaVA's and ShareGPT's are one.
    fn is(self, wanted: Format) -> bool {
        let turns = |format| matches!(format, Self::Llava | Self::Sharegpt);
        self == wanted || turns(self) && turns(wanted)
    }
}

/// The files that a path stands for.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, ExamplesError> {
    if path.is_dir() {
        return of_folder(path);
    }
    let name = path.to_string_lossy();
    if path.exists() || !name.contains('{') {
        return Ok(vec![path.to_owned()]);
    }
    let names = expanded(&name).ok_or_else(|| ExamplesError::Format {
        path: path.to_owned(),
        expected: format!("a part in braces as {{000..015}} or {{a,b}}, for at most {MOST_FILES} files"),
        got: "other braces".to_owned(),
        hint: "write the numbers of the first and the last file, with as many digits as the names have".to_owned(),
    })?;
    Ok(names.into_iter().map(PathBuf::from).collect())
}

/// Names with every part in braces written out.
fn expanded(name: &str) -> Option<Vec<String>> {
    let Some(open) = name.find('{') else { return Some(vec![name.to_owned()]) };
    let close = open + name[open..].find('}')?;
    let inner = &name[open + 1..close];
    let parts: Vec<String> = match inner.split_once("..") {
        Some((first, last)) => {
            let (from, to): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            if to < from || to - from >= MOST_FILES as u64 {
                return None;
            }
            let digits = if first.starts_with('0') { first.len() } else { 1 };
            (from..=to).map(|number| format!("{number:0digits$}")).collect()
        }
        None => inner.split(',').map(str::to_owned).collect(),
    };
    let behind = expanded(&name[close + 1..])?;
    if parts.len().saturating_mul(behind.len()) > MOST_FILES {
        return None;
    }
    let before = &name[..open];
    let all = parts.iter().flat_map(|part| behind.iter().map(move |rest| format!("{before}{part}{rest}")));
    Some(all.collect())
}

/// All parquet files of a folder, or all archives, or its one file of JSON.
fn of_folder(folder: &Path) -> Result<Vec<PathBuf>, ExamplesError> {
    let failed = |error: std::io::Error| ExamplesError::Read { path: folder.to_owned(), reason: error.to_string() };
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.is_file() {
            all.push(path);
        }
    }
    all.sort();
    let ending = |path: &Path, endings: &[&str]| {
        path.extension().is_some_and(|own| endings.iter().any(|one| own.eq_ignore_ascii_case(one)))
    };
    for endings in [&["parquet"][..], &["tar"], &["jsonl", "json", "ndjson"]] {
        let found: Vec<PathBuf> = all.iter().filter(|path| ending(path, endings)).cloned().collect();
        let named = |paths: &[PathBuf]| {
            let names = paths.iter().take(6).filter_map(|path| path.file_name());
            names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>().join(", ")
        };
        let refused = |expected: &str, got: String, hint: &str| {
            let (path, expected, hint) = (folder.to_owned(), expected.to_owned(), hint.to_owned());
            Err(ExamplesError::Format { path, expected, got, hint })
        };
        let of = splits(found.iter().map(PathBuf::as_path));
        if of.len() > 1 {
            let hint = "name the files of one, as train-{00000..00003}.parquet: what is trained on is no test";
            return refused("files of one split", of.join(", "), hint);
        }
        match found.len() {
            0 => {}
            many if many > 1 && endings.contains(&"json") => {
                let hint = "name one of them, or several as train-{0..3}.jsonl";
                return refused("one file of JSON, or parquet files or tar archives", named(&found), hint);
            }
            _ => return Ok(found),
        }
    }
    Err(ExamplesError::Format {
        path: folder.to_owned(),
        expected: "parquet files, tar archives, or one file of JSON (.json, .jsonl)".to_owned(),
        got: format!("{} other files", all.len()),
        hint: "name the file with the samples, or the folder that it lies in".to_owned(),
    })
}

/// The splits that files name themselves after, as `datasets` does: `test-00000-of-00003.parquet`.
pub fn splits<'a>(files: impl Iterator<Item = &'a Path>) -> Vec<&'a str> {
    let split = |file: &'a Path| {
        let (split, shard) = file.file_name()?.to_str()?.split_once('-')?;
        (SPLITS.contains(&split) && shard.starts_with(|c: char| c.is_ascii_digit())).then_some(split)
    };
    let mut all: Vec<&str> = files.filter_map(split).collect();
    all.dedup();
    all
}

/// What a file is, by its content. `wanted`: what it must be.
pub(super) fn recognise(path: &Path, wanted: Option<Format>) -> Result<Format, ExamplesError> {
    let failed = |error: std::io::Error| ExamplesError::Read { path: path.to_owned(), reason: error.to_string() };
    let mut start = Vec::new();
    let most = (TAR.0 + TAR.1.len()) as u64;
    File::open(path).map_err(failed)?.take(most).read_to_end(&mut start).map_err(failed)?;
    let refused = |expected: String, got: String, hint: &str| {
        Err(ExamplesError::Format { path: path.to_owned(), expected, got, hint: hint.to_owned() })
    };
    if let Some((_, what)) = PACKED.iter().find(|(mark, _)| start.starts_with(mark)) {
        return refused(wanted.map_or_else(any, expected), (*what).to_owned(), "unpack it first");
    }
    let named_tar = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar"));
    let found = if start.starts_with(PARQUET) {
        Ok(Format::Parquet)
    } else if start.get(TAR.0..) == Some(TAR.1) || named_tar && start.len() >= TAR.0 {
        Ok(Format::Webdataset)
    } else {
        of_json(path, &start)?
    };
    match (found, wanted) {
        (Ok(format), None) => Ok(format),
        (Ok(format), Some(wanted)) if format.is(wanted) => Ok(wanted),
        (Ok(format), Some(wanted)) => {
            let got = format!("{}, {}", format.name(), expected(format));
            refused(expected(wanted), got, "leave `format` out: it is recognised")
        }
        // A first sample that is broken does not make a file another's.
        (Err(_), Some(wanted)) if !matches!(wanted, Format::Parquet | Format::Webdataset) && is_json(&start) => {
            Ok(wanted)
        }
        (Err(got), _) => {
            refused(wanted.map_or_else(any, expected), got, "docs/data.md has the formats that are read, with examples")
        }
    }
}

fn is_json(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    text.starts_with(b"[") || text.starts_with(b"{")
}

/// The layout of a file's first object, or what it is instead.
fn of_json(path: &Path, start: &[u8]) -> Result<Result<Format, String>, ExamplesError> {
    if !is_json(start) {
        let shown = &start[..start.len().min(16)];
        let what = if shown.is_empty() {
            "an empty file".to_owned()
        } else {
            format!("a file that begins `{}`", shown.escape_ascii())
        };
        return Ok(Err(what));
    }
    let in_list = !start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start().starts_with(b"{");
    Ok(match json::peek(&Arc::from(path))? {
        None => Err("no sample".to_owned()),
        Some(Err(fault)) => Err(format!("{}: {}", fault.origin.place, fault.got)),
        Some(Ok(Value::Object(object))) => layout(&object, in_list).ok_or_else(|| {
            let keys: Vec<&str> = object.keys().map(String::as_str).take(12).collect();
            format!("a first sample with the keys {}", keys.join(", "))
        }),
        Some(Ok(other)) => Err(format!("a first sample that is no object: {}", super::turns::short(&other))),
    })
}

fn expected(format: Format) -> String {
    let what = match format {
        Format::Llava | Format::Sharegpt | Format::Messages | Format::Questions => "JSON, a list or a line each, with",
        Format::Parquet => "a parquet file with",
        Format::Webdataset => "a tar archive of KEY.json, KEY.txt, KEY.jpg, with",
    };
    format!("{what} {}", expected_keys(format))
}

fn any() -> String {
    let all = [
        "JSON (a list, or a line each) with `conversations`, `messages`, or `question` and `answer`",
        "a parquet file",
        "a WebDataset tar archive",
    ];
    all.join("; or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_in_braces_stands_for_numbers_or_words() {
        let all = |name| expanded(name).map(|names| names.join(" "));
        assert_eq!(all("a-{08..11}.tar").as_deref(), Some("a-08.tar a-09.tar a-10.tar a-11.tar"));
        assert_eq!(all("{a,b}-{1..2}").as_deref(), Some("a-1 a-2 b-1 b-2"));
        for name in ["{3..1}", "{1..", "{a..b}", "{0..99999999}", "{1..1000}{1..1000}"] {
            assert_eq!(all(name), None, "{name}");
        }
    }
}
