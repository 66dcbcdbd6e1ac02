//! What can be wrong with samples: of one, which leaves the others, or of a file.

use std::path::PathBuf;

use super::Origin;

/// What kind of thing is wrong with a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// It is no JSON, or has not the keys of its format.
    Layout,
    /// Its turns make no conversation.
    Turns,
    /// Places for pictures are not as many as pictures.
    Places,
    /// A picture is named in a way that leads nowhere.
    Picture,
    /// An answer says nothing.
    EmptyAnswer,
    /// A region has no area.
    EmptyRegion,
    /// A region is not four numbers, or it is unclear what they count.
    Region,
}

impl FaultKind {
    /// What to do.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Layout => "docs/data.md has the formats that are read; correct the sample, or take it out",
            Self::Turns => "let every answer follow a question, or take the sample out",
            Self::Places => {
                "write `<image>`, or a part of type `image`, once for each picture, in the order of the pictures"
            }
            Self::Picture => "name a file that lies on this machine",
            Self::EmptyAnswer => "write the answer, or take the sample out",
            Self::EmptyRegion => "write left < right and top < bottom, or take the region out",
            Self::Region => {
                "say what the numbers count: `bbox_format` in the sample, or for all files in the config, is `pixels`, `normalised` (0 to 1) or `thousandths` (0 to 1000)"
            }
        }
    }
}

/// A sample that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "sample `{id}` cannot be used\n  at        {origin}\n  field     `{field}`\n  expected  {expected}\n  got       {got}\n\nhint: {}", kind.hint()
)]
pub struct Fault {
    /// What is wrong with it.
    pub kind: FaultKind,
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub origin: Origin,
    /// The key in it.
    pub field: String,
    /// What would be used.
    pub expected: String,
    /// What stands there.
    pub got: String,
}

/// Why samples could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ExamplesError {
    /// The operating system refused.
    #[error("cannot read the samples in `{path}`: {reason}\n\nhint: check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// It is of none of the formats, or of another than was said.
    #[error("`{path}` holds no samples that are read\n  expected  {expected}\n  got       {got}\n\nhint: {hint}")]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What would be read.
        expected: String,
        /// What it is.
        got: String,
        /// The way out.
        hint: String,
    },
    /// It ends early, or is damaged in the middle.
    #[error(
        "`{path}` cannot be read to its end\n  expected  {expected}\n  got       {got}\n\nhint: fetch or write it again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What its reader said, with the place.
        got: String,
    },
    /// A parquet file cannot be used.
    #[cfg(feature = "parquet")]
    #[error(transparent)]
    Columnar(#[from] crate::columnar::ColumnarError),
    /// This program cannot read parquet files.
    #[error(
        "parquet files are not read by this program\n  file      {path}\n  expected  a program built with the feature `parquet`\n\nhint: build it with `cargo build --release --features parquet`"
    )]
    NoParquet {
        /// The file.
        path: PathBuf,
    },
    /// A sample makes no sense.
    #[error(transparent)]
    Sample(#[from] Box<Fault>),
}
