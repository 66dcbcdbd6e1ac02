//! What can end an evaluation.

use std::path::{Path, PathBuf};

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every error names the thing, what was expected, what was found and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A question could not be answered.
    #[error(transparent)]
    Answer(#[from] lare_infer::Error),

    /// A benchmark's file does not hold what its layout asks for.
    #[error(transparent)]
    Benchmark(#[from] Box<Unusable>),

    /// A picture of a benchmark cannot be used.
    #[error(transparent)]
    Picture(#[from] lare_data::ImageError),

    /// An intervention borrows the thoughts of another question, and there is none.
    #[error(
        "nothing can be borrowed for `{item}`\n  expected  another question beside it\n  got       none\n\nhint: leave the interventions out, or take more questions"
    )]
    Alone {
        /// The item's name.
        item: String,
    },

    /// A file could not be read or written.
    #[error("cannot {what} {path}: {reason}")]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },

    /// The folder holds results of other settings.
    #[error(
        "`{folder}` holds the results of other settings\n  {changes}\n\nhint: give those settings to go on with it, or another folder with `--out`"
    )]
    OtherSettings {
        /// The folder.
        folder: PathBuf,
        /// The keys with both values, a line each.
        changes: String,
    },

    /// A trace could not be made.
    #[error(transparent)]
    Trace(#[from] lare_trace::TraceError),

    /// A trace beside the results cannot be shown.
    #[error(
        "`{path}` does not show how its question was answered: {reason}\n\nhint: remove its folder; `lare eval --keep` with the same settings writes it again"
    )]
    Kept {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A run that has not answered anything.
    #[error(
        "`{folder}` has no results yet\n  expected  a line in items.jsonl for each question\n  got       none\n\nhint: the `lare eval` that began it goes on where it stopped"
    )]
    NoResults {
        /// The run's folder.
        folder: PathBuf,
    },

    /// A line of results is none.
    #[error(
        "line {line} of {path} is no result: {reason}\n\nhint: results are written by `lare eval` alone; put the line right, or remove the folder to begin again"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The parser's words.
        reason: String,
    },
}

/// What a benchmark's file has where something else is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}\n  file      {place}\n  expected  {expected}\n  got       {got}\n\nhint: {hint}")]
pub struct Unusable {
    /// One line that names the thing.
    pub what: String,
    /// The file, and the row where it is one row's fault, counted from 1.
    pub place: String,
    /// What is needed there.
    pub expected: String,
    /// What is there.
    pub got: String,
    /// The way out.
    pub hint: String,
}

impl From<Unusable> for Error {
    fn from(unusable: Unusable) -> Self {
        Self::Benchmark(Box::new(unusable))
    }
}

impl Error {
    pub(crate) fn file(what: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::File { what, path: path.into(), reason: error.to_string() }
    }
}
