//! Bytes of pictures in parquet files, in any order. Pages before the wanted row are passed over, not decoded.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::ByteArrayType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::{Result, damaged, reader, strange};

/// Places in files that are kept open, each with a page of pictures in memory.
const OPEN: usize = 8;
/// Rows that are passed over rather than opening the file once more.
const NEAR: usize = 64;

/// Reads pictures. Asked in the order of rows, it reads on from where it is; several threads may ask at once.
#[derive(Default)]
pub struct Pictures {
    open: Mutex<Vec<Cursor>>,
}

/// A column of a file, from some row on.
struct Cursor {
    path: PathBuf,
    column: String,
    file: SerializedFileReader<File>,
    leaf: usize,
    group: usize,
    /// The first row of the group, and of the group behind it.
    rows: (usize, usize),
    next: usize,
    pages: ColumnReaderImpl<ByteArrayType>,
}

impl Pictures {
    /// Picture number `nth` of a row's column, both counted from 0.
    ///
    /// # Errors
    /// Where the file cannot be read, or there is none.
    pub fn read(&self, path: &Path, column: &str, (row, nth): (usize, usize)) -> Result<Vec<u8>> {
        let failed = |error: ParquetError| damaged(path, Some(row), &error);
        let mut cursor = match self.taken(path, column, row) {
            Some(cursor) => cursor.at(row).map_err(failed)?,
            None => Cursor::new(path, column, row)?,
        };
        let found = cursor.read(row).map_err(failed)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() == OPEN {
            open.remove(0);
        }
        open.push(cursor);
        drop(open);
        found.into_iter().nth(nth).filter(|bytes| !bytes.is_empty()).ok_or_else(|| {
            strange(path, row, column, "a row without one: the file may have changed since it was opened")
        })
    }

    /// A cursor on that column: the one that is just before the row or, where several are open, the one not used for longest.
    /// Threads that go through different parts of a file have one each.
    fn taken(&self, path: &Path, column: &str, row: usize) -> Option<Cursor> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_file = |cursor: &Cursor| cursor.path == path && cursor.column == column;
        let near = |cursor: &Cursor| of_file(cursor) && cursor.next <= row && row - cursor.next < NEAR;
        let nearest = open.iter().position(near);
        let spare = || (open.len() >= OPEN).then(|| open.iter().position(of_file)).flatten();
        let at = nearest.or_else(spare)?;
        Some(open.remove(at))
    }
}

impl Cursor {
    fn new(path: &Path, column: &str, row: usize) -> Result<Self> {
        let file = reader(path)?;
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        let leaf = schema.columns().iter().position(|leaf| {
            let parts = leaf.path().parts();
            let own = parts.first().is_some_and(|first| first == column);
            own && (parts.last().is_some_and(|last| last == "bytes") || !is_field(parts))
        });
        let Some(leaf) = leaf else { return Err(strange(path, row, column, "a file without such a column")) };
        let (group, rows) = group_of(&file, row).ok_or_else(|| strange(path, row, column, "fewer rows"))?;
        let pages = pages(&file, group, leaf).map_err(|error| damaged(path, Some(row), &error))?;
        let (path, column, next) = (path.to_owned(), column.to_owned(), rows.0);
        Ok(Self { path, column, file, leaf, group, rows, next, pages })
    }

    /// The same column at or before another row.
    fn at(mut self, row: usize) -> std::result::Result<Self, ParquetError> {
        if row < self.next || row >= self.rows.1 {
            let few = || ParquetError::General(format!("row {} is behind the last", row + 1));
            (self.group, self.rows) = group_of(&self.file, row).ok_or_else(few)?;
            self.next = self.rows.0;
            self.pages = pages(&self.file, self.group, self.leaf)?;
        }
        Ok(self)
    }

    /// All pictures of a row; the cursor goes behind it.
    fn read(&mut self, row: usize) -> std::result::Result<Vec<Vec<u8>>, ParquetError> {
        self.pages.skip_records(row - self.next)?;
        self.next = row + 1;
        let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
        self.pages.read_records(1, Some(&mut defined), Some(&mut repeated), &mut values)?;
        Ok(values.into_iter().map(|value| value.data().to_vec()).collect())
    }
}

/// Whether a leaf is a field of a group, and so one beside the `bytes` of a picture; elements of lists are none.
fn is_field(parts: &[String]) -> bool {
    !(parts.len() == 1 || parts.len() == 3 && ["list", "bag", "array"].contains(&parts[1].as_str()))
}

/// The row group that holds a row, and its first row and the one behind its last.
fn group_of(file: &SerializedFileReader<File>, row: usize) -> Option<(usize, (usize, usize))> {
    let mut first = 0;
    for (number, group) in file.metadata().row_groups().iter().enumerate() {
        let behind = first + usize::try_from(group.num_rows()).ok()?;
        if row < behind {
            return Some((number, (first, behind)));
        }
        first = behind;
    }
    None
}

fn pages(
    file: &SerializedFileReader<File>,
    group: usize,
    leaf: usize,
) -> std::result::Result<ColumnReaderImpl<ByteArrayType>, ParquetError> {
    match file.get_row_group(group)?.get_column_reader(leaf)? {
        ColumnReader::ByteArrayColumnReader(pages) => Ok(pages),
        _ => Err(ParquetError::General("a column of pictures that holds no bytes".to_owned())),
    }
}

impl std::fmt::Debug for Pictures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pictures")
    }
}
