//! One question of a benchmark, as every layout gives it.

use super::table::{Row, Spot, Table};
use crate::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A question with its right answer, and where its picture is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    /// Names it in its benchmark.
    pub id: String,
    /// Its number, where the layout numbers its questions.
    pub index: Option<u64>,
    /// Number of its row among those of all files, from 0.
    pub number: usize,
    /// What results are grouped by.
    pub task: String,
    /// The question itself.
    pub text: String,
    /// What stands before it.
    pub hint: Option<String>,
    /// What is right, and what could be an answer.
    pub answer: Answer,
    /// Its picture.
    pub picture: Place,
}

/// What is right, and what could be an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// One of lettered options.
    Option {
        /// Their texts; the first is `A`. An empty one is not offered.
        texts: Vec<String>,
        /// Index of the right one.
        right: usize,
        /// Where the model reads them.
        read: Read,
    },
    /// Yes or no.
    YesNo(bool),
}

/// Where the model reads the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// In a list below the question, which the prompt writes.
    Below,
    /// In the question's own text.
    InText,
    /// In the picture, with the question.
    InPicture,
}

/// Where a picture is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a cell.
    Cell(Spot, String),
    /// In a file of its own.
    File(PathBuf),
}

/// Why a row of a benchmark is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOut {
    /// It has no picture.
    NoPicture,
    /// It has several pictures, and the model takes one.
    SeveralPictures,
    /// Its right answer is not published.
    NoAnswer,
    /// It has no options and is no yes-no question: nothing here grades free text.
    OpenQuestion,
    /// It is another row's question with the options in another order, and those are asked in circular evaluation alone.
    OtherOrder,
}

impl LeftOut {
    /// Follows "3 rows".
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::NoPicture => "without a picture",
            Self::SeveralPictures => "with several pictures, of which the model takes one",
            Self::NoAnswer => "without a published answer",
            Self::OpenQuestion => "with an open question, which is not graded here",
            Self::OtherOrder => "with the question of another row and its options in another order",
        }
    }
}

/// A row, read: a question, or why it is none.
pub(super) type Asked = std::result::Result<Question, LeftOut>;

/// The questions of a benchmark.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Those that are asked.
    pub asked: Vec<Question>,
    /// How many are not, by reason.
    pub left_out: BTreeMap<LeftOut, usize>,
}

impl Questions {
    /// Reads all rows of a table with `read`, which gets those of `columns` that the table has.
    pub fn of(table: &dyn Table, columns: &[&str], mut read: impl FnMut(&Row) -> Result<Asked>) -> Result<Self> {
        let mut found = Self::default();
        table.each_row(columns, &mut |row| {
            found.add(read(row)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Adds a row.
    pub fn add(&mut self, asked: Asked) {
        match asked {
            Ok(question) => self.asked.push(question),
            Err(reason) => *self.left_out.entry(reason).or_default() += 1,
        }
    }
}

/// The first of some columns that has a text: what results are grouped by.
pub(super) fn task(row: &Row, columns: &[&str], otherwise: &str) -> String {
    columns.iter().find_map(|column| row.maybe(column)).unwrap_or(otherwise).trim().to_owned()
}
