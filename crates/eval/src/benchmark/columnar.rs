//! Parquet files as the rows of a benchmark.

use super::table::{Cell, Row, Spot, Table};
use crate::error::{Error, Result, Unusable};
use lare_data::columnar::{self, Columnar, ColumnarError, Pictures};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Parquet files with the same columns.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    files: Vec<Columnar>,
    pictures: Pictures,
}

impl Files {
    /// Reads the columns, which must be the same in all files.
    pub fn open(paths: Vec<PathBuf>) -> Result<Self> {
        let files = paths.iter().map(|path| Ok(Columnar::open(path)?)).collect::<Result<Vec<_>>>()?;
        let table = Self { paths, files, pictures: Pictures::default() };
        let other = table.files.iter().position(|file| file.columns() != table.columns());
        let Some(other) = other else { return Ok(table) };
        Err(Unusable {
            what: "files with other columns are not of the same benchmark".to_owned(),
            place: table.path(other).display().to_string(),
            expected: format!("those of the first file: {}", table.columns().join(", ")),
            got: table.files[other].columns().join(", "),
            hint: "name one file, or put the files of one benchmark into a folder of their own".to_owned(),
        }
        .into())
    }

    fn path(&self, file: usize) -> &Path {
        self.paths.get(file).map_or(Path::new(""), PathBuf::as_path)
    }
}

impl Table for Files {
    fn files(&self) -> &[PathBuf] {
        &self.paths
    }

    fn columns(&self) -> &[String] {
        self.files.first().map_or(&[], Columnar::columns)
    }

    fn pictures(&self) -> &[String] {
        self.files.first().map_or(&[], Columnar::pictures)
    }

    fn is_text(&self) -> bool {
        false
    }

    fn each_row(&self, columns: &[&str], each: &mut dyn FnMut(&Row) -> Result<()>) -> Result<()> {
        let mut number = 0;
        for (file, one) in self.files.iter().enumerate() {
            let path = self.path(file);
            for (row, values) in one.rows(columns)?.enumerate() {
                let mut cells = Vec::with_capacity(columns.len());
                for (name, value) in values? {
                    let Some(column) = columns.iter().find(|column| **column == name) else { continue };
                    let cell = if one.pictures().contains(&name) { picture(&value) } else { cell(value) };
                    cells.push((*column, cell));
                }
                each(&Row { spot: Spot { file, row }, number, path, cells })?;
                number += 1;
            }
        }
        Ok(())
    }

    fn picture(&self, spot: Spot, column: &str) -> Result<Vec<u8>> {
        Ok(self.pictures.read(self.path(spot.file), column, (spot.row, 0))?)
    }
}

/// A picture, if there is one: bytes, or a group of its bytes and its path.
fn picture(value: &Value) -> Cell {
    let own = value.get("bytes").unwrap_or(value);
    if columnar::picture(own).is_some() { Cell::Picture } else { Cell::Missing }
}

/// A value as a cell: text, numbers as text, lists of these. Of what is nested deeper, its JSON.
fn cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Missing,
        Value::String(text) => Cell::Text(text),
        Value::Number(number) if number.is_f64() => Cell::Text(number.as_f64().unwrap_or_default().to_string()),
        Value::Array(values) => {
            let text = |value| match cell(value) {
                Cell::Text(text) => text,
                Cell::Missing | Cell::List(_) | Cell::Picture => String::new(),
            };
            Cell::List(values.into_iter().map(text).collect())
        }
        other => Cell::Text(other.to_string()),
    }
}

impl From<ColumnarError> for Error {
    fn from(error: ColumnarError) -> Self {
        match error {
            ColumnarError::Read { path, reason } => Self::file("read", &path, &reason),
            ColumnarError::Unusable { what, place, expected, got, hint } => {
                Unusable { what, place, expected, got, hint }.into()
            }
        }
    }
}
