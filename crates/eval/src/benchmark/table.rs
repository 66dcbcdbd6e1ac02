//! Rows of files, whatever wrote them: cells by column, pictures on request.

use crate::error::{Error, Result, Unusable};
use std::path::{Path, PathBuf};

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// Which of the files.
    pub file: usize,
    /// Which of its rows, from 0; a header is none.
    pub row: usize,
}

/// What stands in a row under a column.
#[cfg_attr(not(feature = "parquet"), allow(dead_code, reason = "text files hold neither lists nor pictures"))]
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// Nothing.
    Missing,
    /// Text, or a number as text.
    Text(String),
    /// Several texts.
    List(Vec<String>),
    /// A picture, to be asked for with [`Table::picture`].
    Picture,
}

/// One row, with the columns that were asked for.
pub(super) struct Row<'a> {
    /// Where it is.
    pub spot: Spot,
    /// Its number among the rows of all files, from 0.
    pub number: usize,
    /// Its file.
    pub path: &'a Path,
    /// Columns that the file has, with what stands there.
    pub cells: Vec<(&'a str, Cell)>,
}

/// Files with the same columns, read as one.
pub(super) trait Table {
    /// The files.
    fn files(&self) -> &[PathBuf];
    /// The columns.
    fn columns(&self) -> &[String];
    /// Those that hold pictures themselves, not text.
    fn pictures(&self) -> &[String];
    /// Whether the files are text, so that a picture in them is text too.
    fn is_text(&self) -> bool;
    /// Gives every row in order, with those of `columns` that the files have.
    ///
    /// # Errors
    /// Where a file cannot be read to its end, and what `each` says.
    fn each_row(&self, columns: &[&str], each: &mut dyn FnMut(&Row) -> Result<()>) -> Result<()>;
    /// The bytes of the picture in a cell. The rows must have been read once; asking in their order is fastest.
    ///
    /// # Errors
    /// Where there is none.
    fn picture(&self, spot: Spot, column: &str) -> Result<Vec<u8>>;
}

/// A row for messages, counted from 1.
pub(super) fn place(path: &Path, row: usize) -> String {
    format!("{}, row {}", path.display(), row + 1)
}

impl Row<'_> {
    fn cell(&self, column: &str) -> &Cell {
        self.cells.iter().find(|(name, _)| *name == column).map_or(&Cell::Missing, |(_, cell)| cell)
    }

    /// The text of a cell; `None` where there is none. `nan` is none too: it is how a missing value becomes text on its
    /// way through pandas, and the published files have it.
    pub fn maybe(&self, column: &str) -> Option<&str> {
        match self.cell(column) {
            Cell::Text(text) => Some(text.as_str()).filter(|text| !matches!(text.trim(), "" | "nan" | "NaN")),
            _ => None,
        }
    }

    /// The text of a cell that must have one.
    pub fn text(&self, column: &str) -> Result<&str> {
        self.maybe(column).ok_or_else(|| self.unusable(column, "a text", self.kind(column)))
    }

    /// The texts of a cell that must hold a list.
    pub fn list(&self, column: &str) -> Result<&[String]> {
        match self.cell(column) {
            Cell::List(texts) => Ok(texts),
            _ => Err(self.unusable(column, "a list of texts", self.kind(column))),
        }
    }

    /// Whether there is a picture in a column of pictures.
    pub fn has_picture(&self, column: &str) -> bool {
        *self.cell(column) == Cell::Picture
    }

    /// An error about one cell.
    pub fn unusable(&self, column: &str, expected: &str, got: &str) -> Error {
        let unusable = Unusable {
            what: format!("`{column}` cannot be used"),
            place: place(self.path, self.spot.row),
            expected: expected.to_owned(),
            got: shortened(got),
            hint: "correct the row or take it out, in a copy of the file; or fetch the file again".to_owned(),
        };
        unusable.into()
    }

    fn kind(&self, column: &str) -> &'static str {
        match self.cell(column) {
            Cell::Missing | Cell::Text(_) => "nothing",
            Cell::List(_) => "a list",
            Cell::Picture => "a picture",
        }
    }
}

/// Texts of a file in a message: as they are, but not pages of them.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    if text.chars().nth(MOST).is_some() { format!("{line}... ({} characters)", text.chars().count()) } else { line }
}
