//! What can go wrong with a trace, each with the thing, the expectation, the value and the way out.

use std::{fmt, io, path::PathBuf};

/// Why a trace could not be read, drawn or written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The record says it follows another version of the format.
    #[error(
        "trace has schema version {got}, which this program does not know\n  expected  {expected}\n  got       {got}\n\nhint: {}",
        version_hint(*.expected, *.got)
    )]
    UnknownSchema {
        /// The version this program reads.
        expected: u32,
        /// The version the record says it has.
        got: u32,
    },
    /// The text is not a trace record: broken JSON, a missing, misspelt or unknown field.
    #[error(
        "trace is not a record of this format\n  got       {0}\n\nhint: pass the trace.json that `lare ask --trace` wrote, unedited"
    )]
    Json(#[source] serde_json::Error),
    /// A field holds a value that cannot be true.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A picture could not be encoded.
    #[error(
        "could not draw {what}\n  got       {source}\n\nhint: this is a defect of the renderer; please report it with the trace"
    )]
    Draw {
        /// What was being drawn.
        what: &'static str,
        /// The encoder's own words.
        #[source]
        source: image::ImageError,
    },
    /// A file or folder could not be written; what was there before is untouched.
    #[error(
        "could not write {}\n  expected  {}\n  got       {source}\n\nhint: {}",
        path.display(), problem.expected(), problem.hint()
    )]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Which of the known problems it is.
        problem: WriteProblem,
        /// The system's own words.
        #[source]
        source: io::Error,
    },
}

/// A field of a record whose value cannot be true.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trace field `{field}` is wrong\n  expected  {expected}\n  got       {got}\n\nhint: {hint}")]
pub struct Invalid {
    /// Path of the field, as in `steps[1].weights`.
    pub field: String,
    /// What the format asks for.
    pub expected: String,
    /// What the record holds.
    pub got: String,
    /// The way out.
    pub hint: &'static str,
}

/// The ways in which writing fails that have a way out of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteProblem {
    /// The folder, or the disk under it, may not be written.
    ReadOnly,
    /// No space left, or the quota is used up.
    DiskFull,
    /// A file stands where the folder is to be, or a folder where a file is to be.
    PathTaken,
    /// Anything else; the system's own words say what.
    Other,
}

impl Invalid {
    pub(crate) fn new(field: impl Into<String>, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Self { field: field.into(), expected: expected.to_string(), got: got.to_string(), hint: "" }
    }

    pub(crate) fn hint(self, hint: &'static str) -> Self {
        Self { hint, ..self }
    }

    /// The same error, its field seen from one level further out.
    pub(crate) fn inside(self, outer: &str) -> Self {
        Self { field: format!("{outer}.{}", self.field), ..self }
    }
}

impl WriteProblem {
    /// Sorts an error of the system into the problems that have a way out.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => {
                Self::PathTaken
            }
            _ => Self::Other,
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::ReadOnly => "a folder this user may write to",
            Self::DiskFull => "room for the trace on the disk",
            Self::PathTaken => "a folder, new or existing, with every name of the trace free or a file",
            Self::Other => "to write the file",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::ReadOnly => "pass another folder, or make this one writable",
            Self::DiskFull => "free some space, or pass a folder on another disk; nothing was left half-written",
            Self::PathTaken => "pass the name of another folder, or move what stands there",
            Self::Other => "pass another folder; nothing was left half-written",
        }
    }
}

fn version_hint(expected: u32, got: u32) -> &'static str {
    if got > expected {
        "the trace is from a newer lare: update this one, or write the trace again with it"
    } else {
        "the trace is from an older lare: write it again with this one"
    }
}
