//! TSV and CSV files, as Python's `csv` and pandas write them: quoted fields may hold tabs, commas and lines.
//!
//! Rows are read once; of the pictures, which are most of such a file, only their places are kept.

use super::base64::{self, Texts};
use super::table::{Cell, Row, Spot, Table, place, shortened};
use crate::error::{Error, Result, Unusable};
use csv::{ErrorKind, Position, Reader, ReaderBuilder, StringRecord};
use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes in which the first line is looked for.
const FIRST_LINE: u64 = 1 << 16;

/// One TSV or CSV file.
pub(super) struct Delimited {
    files: Vec<PathBuf>,
    columns: Vec<String>,
    delimiter: u8,
    /// Where each row starts, once they have been read.
    starts: RefCell<Vec<Position>>,
}

impl Delimited {
    /// Reads the columns. A file whose first line has a tab is a TSV.
    pub fn open(path: &Path) -> Result<Self> {
        let mut table = Self {
            files: vec![path.to_owned()],
            columns: Vec::new(),
            delimiter: delimiter(path)?,
            starts: RefCell::default(),
        };
        let mut header = StringRecord::new();
        let read = table.reader()?.read_record(&mut header).map_err(|error| table.failed(None, &error))?;
        if !read {
            return Err(empty(path));
        }
        table.columns = header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
        Ok(table)
    }

    fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), PathBuf::as_path)
    }

    fn reader(&self) -> Result<Reader<File>> {
        let mut builder = ReaderBuilder::new();
        builder.delimiter(self.delimiter).has_headers(false).buffer_capacity(1 << 16);
        builder.from_path(self.path()).map_err(|error| self.failed(None, &error))
    }

    fn place_of(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|name| name == column)
    }

    /// The reader's error, about a row or about the first line.
    fn failed(&self, row: Option<usize>, error: &csv::Error) -> Error {
        let path = self.path();
        let line = error.position().map_or(String::new(), |position| format!(" (line {})", position.line()));
        let (what, expected, got) = match error.kind() {
            ErrorKind::Io(error) => return Error::file("read", path, error),
            ErrorKind::UnequalLengths { expected_len, len, .. } => (
                "a row has another number of fields than the first line",
                format!("{expected_len} fields"),
                format!("{len} fields"),
            ),
            ErrorKind::Utf8 { err, .. } => ("a row is no text", "UTF-8".to_owned(), err.to_string()),
            _ => ("a row cannot be read", "TSV or CSV".to_owned(), error.to_string()),
        };
        let place = row.map_or_else(|| format!("{}, the first line", path.display()), |row| place(path, row));
        Unusable {
            what: what.to_owned(),
            place: format!("{place}{line}"),
            expected,
            got,
            hint: "fetch the file again; a quote that is never closed takes in what follows it".to_owned(),
        }
        .into()
    }
}

impl Table for Delimited {
    fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn pictures(&self) -> &[String] {
        &[]
    }

    fn is_text(&self) -> bool {
        true
    }

    fn each_row(&self, columns: &[&str], each: &mut dyn FnMut(&Row) -> Result<()>) -> Result<()> {
        let places: Vec<(&str, usize)> =
            columns.iter().filter_map(|column| Some((*column, self.place_of(column)?))).collect();
        let (mut reader, mut record, mut starts) = (self.reader()?, StringRecord::new(), Vec::new());
        reader.read_record(&mut record).map_err(|error| self.failed(None, &error))?;
        while reader.read_record(&mut record).map_err(|error| self.failed(Some(starts.len()), &error))? {
            let cell = |at: usize| match record.get(at) {
                None | Some("") => Cell::Missing,
                Some(text) => Cell::Text(text.to_owned()),
            };
            let row = starts.len();
            starts.push(record.position().cloned().unwrap_or_else(Position::new));
            let cells = places.iter().map(|(column, at)| (*column, cell(*at))).collect();
            each(&Row { spot: Spot { file: 0, row }, number: row, path: self.path(), cells })?;
        }
        *self.starts.borrow_mut() = starts;
        Ok(())
    }

    fn picture(&self, spot: Spot, column: &str) -> Result<Vec<u8>> {
        let unusable = |expected: &str, got: String| -> Error {
            Unusable {
                what: format!("`{column}` holds no picture"),
                place: place(self.path(), spot.row),
                expected: expected.to_owned(),
                got,
                hint: "the file may have changed since it was opened; begin again with the file as it is".to_owned(),
            }
            .into()
        };
        let start = self.starts.borrow().get(spot.row).cloned();
        let (Some(start), Some(at)) = (start, self.place_of(column)) else {
            return Err(unusable("a row of the file", "none".to_owned()));
        };
        let (mut reader, mut record) = (self.reader()?, StringRecord::new());
        let read = reader.seek(start).and_then(|()| reader.read_record(&mut record));
        read.map_err(|error| self.failed(Some(spot.row), &error))?;
        let text = record.get(at).unwrap_or_default();
        match base64::texts(text) {
            Ok(Texts::One(text)) => base64::decode(&text).map_err(|error| unusable("a picture in base64", error)),
            _ => Err(unusable("one picture in base64", shortened(text))),
        }
    }
}

fn delimiter(path: &Path) -> Result<u8> {
    let failed = |error: std::io::Error| Error::file("read", path, &error);
    let mut line = Vec::new();
    let file = File::open(path).map_err(failed)?;
    BufReader::new(file.take(FIRST_LINE)).read_until(b'\n', &mut line).map_err(failed)?;
    Ok(if line.contains(&b'\t') { b'\t' } else { b',' })
}

fn empty(path: &Path) -> Error {
    Unusable {
        what: "an empty file is no benchmark".to_owned(),
        place: path.display().to_string(),
        expected: "a first line with the names of columns, and rows".to_owned(),
        got: "nothing".to_owned(),
        hint: "fetch the file again".to_owned(),
    }
    .into()
}
