//! Which files a path stands for, and what identifies them.

use crate::error::{Error, Result, Unusable};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// How every parquet file begins.
const PARQUET: &[u8; 4] = b"PAR1";

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A TSV or CSV file.
    Delimited(PathBuf),
    /// Parquet files, in the order of their names.
    Parquet(Vec<PathBuf>),
}

/// The file, or the files of the folder: all parquet files that lie in it, else its one TSV or CSV file. Parquet is told by
/// its first bytes.
///
/// # Errors
/// Where there is none, or where it is unclear which are meant.
pub(super) fn find(path: &Path) -> Result<Found> {
    if !path.is_dir() {
        let parquet = is_parquet(path)?;
        return Ok(if parquet { Found::Parquet(vec![path.to_owned()]) } else { Found::Delimited(path.to_owned()) });
    }
    let entries = entries(path)?;
    let files: Vec<&Path> = entries.iter().filter(|entry| entry.is_file()).map(PathBuf::as_path).collect();
    let mut parquet = Vec::new();
    for file in &files {
        if is_parquet(file)? {
            parquet.push(file.to_path_buf());
        }
    }
    if !parquet.is_empty() {
        one_split(path, &parquet)?;
        return Ok(Found::Parquet(parquet));
    }
    let is_table = |file: &Path| {
        file.extension().is_some_and(|end| ["tsv", "csv"].iter().any(|one| end.eq_ignore_ascii_case(one)))
    };
    let tables: Vec<&Path> = files.into_iter().filter(|file| is_table(file)).collect();
    match tables[..] {
        [one] => Ok(Found::Delimited(one.to_owned())),
        [] => Err(nothing(path, &entries)),
        _ => Err(Unusable {
            what: "a folder with several tables is no benchmark".to_owned(),
            place: path.display().to_string(),
            expected: "parquet files, or one TSV or CSV file".to_owned(),
            got: names(tables.iter().copied()),
            hint: "name one of them".to_owned(),
        }
        .into()),
    }
}

/// Everything in a folder but hidden files, by name.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| Error::file("read", folder, &error);
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// SHA-256 of a file, in hex.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    add(&mut hash, path)?;
    Ok(hex(hash))
}

/// SHA-256 over several files, each after its length, in hex.
pub(super) fn sha256_of_all<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<String> {
    let mut hash = Sha256::new();
    for path in paths {
        let length = fs::metadata(path).map_err(|error| Error::file("read", path, &error))?.len();
        hash.update(length.to_le_bytes());
        add(&mut hash, path)?;
    }
    Ok(hex(hash))
}

fn add(hash: &mut Sha256, path: &Path) -> Result<()> {
    let failed = |error: std::io::Error| Error::file("read", path, &error);
    let mut file = File::open(path).map_err(failed)?;
    let mut part = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut part).map_err(failed)?;
        if read == 0 {
            return Ok(());
        }
        hash.update(&part[..read]);
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_parquet(path: &Path) -> Result<bool> {
    let failed = |error: std::io::Error| Error::file("read", path, &error);
    let mut start = Vec::new();
    File::open(path).map_err(failed)?.take(PARQUET.len() as u64).read_to_end(&mut start).map_err(failed)?;
    Ok(start == PARQUET)
}

/// Refuses files that name themselves as different splits: answers to questions that were trained on say nothing.
fn one_split(folder: &Path, files: &[PathBuf]) -> Result<()> {
    let splits = lare_data::examples::splits(files.iter().map(PathBuf::as_path));
    if splits.len() < 2 {
        return Ok(());
    }
    Err(Unusable {
        what: "files of several splits are no benchmark".to_owned(),
        place: folder.display().to_string(),
        expected: "files of one split".to_owned(),
        got: splits.join(", "),
        hint: "name one file, or put the files of one split into a folder of their own".to_owned(),
    }
    .into())
}

fn nothing(folder: &Path, entries: &[PathBuf]) -> Error {
    let below = entries.iter().filter(|entry| entry.is_dir()).map(PathBuf::as_path);
    let hint = match names(below) {
        none if none.is_empty() => "name the file of the benchmark, or the folder that it lies in".to_owned(),
        folders => format!("name the folder that the files themselves lie in; in this one are {folders}"),
    };
    Unusable {
        what: "a folder without a table is no benchmark".to_owned(),
        place: folder.display().to_string(),
        expected: "parquet files, or one TSV or CSV file".to_owned(),
        got: match names(entries.iter().map(PathBuf::as_path)) {
            none if none.is_empty() => "an empty folder".to_owned(),
            names => names,
        },
        hint,
    }
    .into()
}

/// Names for a message, not too many.
fn names<'a>(paths: impl Iterator<Item = &'a Path>) -> String {
    const MOST: usize = 6;
    let all: Vec<String> = paths.filter_map(Path::file_name).map(|name| name.to_string_lossy().into_owned()).collect();
    let more = if all.len() > MOST { format!(" and {} more", all.len() - MOST) } else { String::new() };
    format!("{}{more}", all[..all.len().min(MOST)].join(", "))
}
