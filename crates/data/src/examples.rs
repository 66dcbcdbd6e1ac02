//! Samples that others have written: pictures, what is asked about them, the answer and, where they are known, the looks that
//! lead to it.
//!
//! | files | a sample is |
//! |---|---|
//! | a JSON list, or lines of JSON | an object: `conversations` (LLaVA, ShareGPT), `messages`, or `question` and `answer` |
//! | parquet | a row, whose columns are the keys of such an object; pictures lie in the file |
//! | WebDataset tar archives | the members of one name: `KEY.json`, `KEY.txt`, `KEY.jpg` |
//!
//! Which of them a file is, its content says (`found.rs`); whatever it is, one function reads a sample of it (`record.rs`). Every
//! answer of a conversation becomes an [`Example`] of its own, with all that was said before it. Files are read from front to
//! back and never held; pictures are read one by one, when they are asked for ([`Album`]). Keys that are not named in
//! docs/data.md are not read.

mod album;
mod boxes;
#[cfg(feature = "parquet")]
mod columns;
mod fault;
mod found;
mod json;
mod options;
mod record;
mod tar;
mod turns;

pub use album::{Album, PictureAt};
pub use boxes::{Spot, Unit};
pub use fault::{ExamplesError, Fault, FaultKind};
pub use found::{Format, splits};

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chat::{Content, Message, Part};
use record::Raw;

/// One look that leads to an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// What is said of it; empty where nothing is.
    pub says: String,
    /// The words of that which stand in the picture; empty where nothing tells them from the rest.
    pub reads: String,
    /// Where to look in the first picture.
    pub region: Option<Spot>,
}

/// A question on pictures and its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Its name in reports: that of the sample, and `#2` for its second answer.
    pub id: String,
    /// Where it was read.
    pub origin: Origin,
    /// What was said before the answer.
    pub messages: Vec<Message>,
    /// The pictures in it, in order.
    pub pictures: Vec<PictureAt>,
    /// The answers that are offered; none where the question is open.
    pub choices: Vec<String>,
    /// What is to be answered.
    pub answer: String,
    /// The looks that lead to the answer; none where they are not known.
    pub looks: Vec<Look>,
}

impl Example {
    /// What is asked: the text of the last message.
    #[must_use]
    pub fn question(&self) -> String {
        match self.messages.last().map(|message| &message.content) {
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => {
                let text = |part: &Part| match part {
                    Part::Text(text) => Some(text.clone()),
                    Part::Picture => None,
                };
                parts.iter().filter_map(text).collect::<Vec<_>>().join(" ")
            }
            None => String::new(),
        }
    }
}

/// Where a sample stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The file.
    pub file: Arc<Path>,
    /// Where in it.
    pub place: Place,
}

/// Where in a file a sample stands; numbers are from 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Which entry of a list.
    Entry(usize),
    /// Which line.
    Line(usize),
    /// Which row.
    Row(usize),
    /// The name of its members, without endings.
    Key(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(number) => write!(f, "entry {number}"),
            Self::Line(number) => write!(f, "line {number}"),
            Self::Row(number) => write!(f, "row {number}"),
            Self::Key(key) => write!(f, "key {key}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.file.display(), self.place)
    }
}

/// What is known of files beside what stands in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What they must be; by default what they are.
    pub format: Option<Format>,
    /// The folder that names of pictures start from; by default the one that a file lies in.
    pub pictures: Option<PathBuf>,
    /// What numbers of `bboxes` count where a sample does not say it; by default what they can only be.
    pub boxes: Option<Unit>,
    /// What is asked where a sample has an answer and no question, as captions have.
    pub question: Option<String>,
}

/// Hears of every sample in turn: its examples, or what is wrong with it. An error ends the reading.
pub type Heard<'a> = &'a mut dyn FnMut(Result<Vec<Example>, Fault>) -> Result<(), ExamplesError>;

/// Files with samples.
#[derive(Clone, Debug)]
pub struct Samples {
    reading: Reading,
    files: Vec<(Arc<Path>, Format)>,
}

impl Samples {
    /// Finds the files that `path` stands for, a file, a folder or names with a part in braces (`train-{000..015}.tar`), and
    /// recognises them.
    ///
    /// # Errors
    /// For a file that cannot be read or is of none of the formats, and a folder in which it is unclear what is meant.
    pub fn open(path: &Path, reading: Reading) -> Result<Self, ExamplesError> {
        let paths = found::files(path)?;
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let format = found::recognise(&path, reading.format)?;
            files.push((Arc::from(path), format));
        }
        Ok(Self { reading, files })
    }

    /// The files, and what they are.
    #[must_use]
    pub fn files(&self) -> &[(Arc<Path>, Format)] {
        &self.files
    }

    /// Reads all files from front to back.
    ///
    /// # Errors
    /// For a file that cannot be read to its end, and what `heard` says.
    pub fn each(&self, heard: Heard) -> Result<(), ExamplesError> {
        (0..self.files.len()).try_for_each(|file| self.each_of(file, heard))
    }

    /// Reads one of the files.
    ///
    /// # Errors
    /// As [`Samples::each`].
    pub fn each_of(&self, file: usize, heard: Heard) -> Result<(), ExamplesError> {
        let Some((path, format)) = self.files.get(file) else { return Ok(()) };
        let own = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let folder = self.reading.pictures.clone().unwrap_or(own);
        let context = record::Context { reading: &self.reading, format: *format, folder: &folder };
        let each = &mut |raw: Result<Raw, Fault>| heard(raw.and_then(|raw| context.examples(raw)));
        match format {
            Format::Parquet => parquet(path, each),
            Format::Webdataset => tar::each(path, each),
            _ => json::each(path, each),
        }
    }

    /// All examples.
    ///
    /// # Errors
    /// As [`Samples::each`], and for the first sample that cannot be used.
    pub fn all(&self) -> Result<Vec<Example>, ExamplesError> {
        let mut all = Vec::new();
        self.each(&mut |read| {
            all.extend(read.map_err(|fault| ExamplesError::Sample(Box::new(fault)))?);
            Ok(())
        })?;
        Ok(all)
    }
}

#[cfg(feature = "parquet")]
fn parquet(path: &Arc<Path>, each: record::Each) -> Result<(), ExamplesError> {
    columns::each(path, each)
}

#[cfg(not(feature = "parquet"))]
fn parquet(path: &Arc<Path>, _: record::Each) -> Result<(), ExamplesError> {
    Err(ExamplesError::NoParquet { path: path.to_path_buf() })
}
