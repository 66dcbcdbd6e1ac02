//! Parquet files, as Hugging Face `datasets` and pandas write them.
//!
//! A column of pictures is a group with the field `bytes` (what `datasets` writes for its `Image` feature) or, where the
//! name begins with `image`, bytes that are not marked as text (what pandas writes).

use super::table::{Cell, Row, Spot, Table, place};
use crate::error::{Error, Result, Unusable};
use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Fields};
use parquet::schema::types::{Type, TypePtr};
use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Rows of a column that are decoded together: pictures are large.
const ROWS: usize = 16;

/// Parquet files with the same columns.
pub(super) struct Columnar {
    files: Vec<PathBuf>,
    columns: Vec<String>,
    pictures: Vec<String>,
    /// Where the last picture was read.
    open: RefCell<Option<Cursor>>,
}

/// The columns of pictures of one file, from some row on.
struct Cursor {
    file: usize,
    next: usize,
    rows: RowIter<'static>,
}

impl Columnar {
    /// Reads the columns, which must be the same in all files.
    pub fn open(files: Vec<PathBuf>) -> Result<Self> {
        let mut table = Self { files, columns: Vec::new(), pictures: Vec::new(), open: RefCell::default() };
        for file in &table.files {
            let reader = reader(file)?;
            let schema = reader.metadata().file_metadata().schema();
            let columns: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
            if table.columns.is_empty() {
                let pictures = schema.get_fields().iter().filter(|field| holds_pictures(field));
                table.pictures = pictures.map(|field| field.name().to_owned()).collect();
                table.columns = columns;
            } else if table.columns != columns {
                return Err(Unusable {
                    what: "files with other columns are not of the same benchmark".to_owned(),
                    place: file.display().to_string(),
                    expected: format!("those of the first file: {}", table.columns.join(", ")),
                    got: columns.join(", "),
                    hint: "name one file, or put the files of one benchmark into a folder of their own".to_owned(),
                }
                .into());
            }
        }
        Ok(table)
    }

    fn path(&self, file: usize) -> &Path {
        self.files.get(file).map_or(Path::new(""), PathBuf::as_path)
    }

    /// All rows of one file, with some of its columns.
    fn rows(&self, file: usize, columns: &[&str]) -> Result<RowIter<'static>> {
        let path = self.path(file);
        let reader = reader(path)?;
        let schema = reader.metadata().file_metadata().schema();
        let fields = schema.get_fields().iter().filter(|field| columns.contains(&field.name()));
        let fields: Vec<TypePtr> = fields.cloned().collect();
        for field in &fields {
            readable(path, field)?;
        }
        let chosen = Type::group_type_builder(schema.name()).with_fields(fields).build();
        let rows = chosen.and_then(|chosen| RowIter::from_file_into(Box::new(reader)).project(Some(chosen)));
        Ok(rows.map_err(|error| damaged(path, None, &error))?.with_batch_size(ROWS))
    }

    /// The fields of one row's pictures. Rows after the last one are read on from there.
    fn pictures_of(&self, spot: Spot) -> Result<Option<Fields>> {
        let mut open = self.open.borrow_mut();
        let here = open.take().filter(|cursor| cursor.file == spot.file && cursor.next <= spot.row);
        let mut cursor = match here {
            Some(cursor) => cursor,
            None => {
                let columns: Vec<&str> = self.pictures.iter().map(String::as_str).collect();
                Cursor { file: spot.file, next: 0, rows: self.rows(spot.file, &columns)? }
            }
        };
        let mut found = None;
        while cursor.next <= spot.row {
            let path = self.path(spot.file);
            found = cursor.rows.next().transpose().map_err(|error| damaged(path, Some(cursor.next), &error))?;
            cursor.next += 1;
        }
        *open = Some(cursor);
        Ok(found)
    }
}

impl Table for Columnar {
    fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn pictures(&self) -> &[String] {
        &self.pictures
    }

    fn is_text(&self) -> bool {
        false
    }

    fn each_row(&self, columns: &[&str], each: &mut dyn FnMut(&Row) -> Result<()>) -> Result<()> {
        let mut number = 0;
        for (file, path) in self.files.iter().enumerate() {
            for (row, fields) in self.rows(file, columns)?.enumerate() {
                let fields = fields.map_err(|error| damaged(path, Some(row), &error))?.into_columns();
                let mut cells = Vec::with_capacity(fields.len());
                for (name, field) in fields {
                    let Some(column) = columns.iter().find(|column| **column == name) else { continue };
                    let cell = cell(field, self.pictures.contains(&name));
                    cells.push((*column, cell.map_err(|got| strange(path, row, &name, got))?));
                }
                each(&Row { spot: Spot { file, row }, number, path, cells })?;
                number += 1;
            }
        }
        Ok(())
    }

    fn picture(&self, spot: Spot, column: &str) -> Result<Vec<u8>> {
        let fields = self.pictures_of(spot)?.map_or_else(Vec::new, Fields::into_columns);
        let field = fields.into_iter().find(|(name, _)| name == column);
        field.and_then(|(_, field)| bytes(field)).ok_or_else(|| {
            let got = "a row without one: the file may have changed since it was opened";
            strange(self.path(spot.file), spot.row, column, got)
        })
    }
}

fn reader(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(|error| Error::file("read", path, &error))?;
    SerializedFileReader::new(file).map_err(|error| damaged(path, None, &error))
}

fn is_bytes(field: &Type) -> bool {
    field.is_primitive() && field.get_physical_type() == Physical::BYTE_ARRAY
}

/// Refuses columns of types that the library has no value for, or no check.
fn readable(path: &Path, field: &Type) -> Result<()> {
    let unmarked = field.get_basic_info().converted_type() == ConvertedType::NONE;
    let is_group = field.is_group() && unmarked && field.get_fields().iter().all(|inner| is_value(inner));
    if is_value(field) || is_list(field) || is_group {
        return Ok(());
    }
    Err(Unusable {
        what: format!("the column `{}` cannot be used", field.name()),
        place: path.display().to_string(),
        expected: "text, numbers, lists of these, or pictures".to_owned(),
        got: if field.is_group() {
            "another nested type".to_owned()
        } else {
            format!("{:?}", field.get_physical_type())
        },
        hint: "write the file anew with `datasets` or pandas, with this column as text".to_owned(),
    }
    .into())
}

/// Text, bytes or a number, and not a date, a time or a decimal.
fn is_value(field: &Type) -> bool {
    use ConvertedType as Mark;
    let mark = field.get_basic_info().converted_type();
    field.is_primitive()
        && match field.get_physical_type() {
            Physical::BYTE_ARRAY => matches!(mark, Mark::NONE | Mark::UTF8 | Mark::ENUM | Mark::JSON | Mark::BSON),
            Physical::INT32 => matches!(
                mark,
                Mark::NONE | Mark::INT_8 | Mark::INT_16 | Mark::INT_32 | Mark::UINT_8 | Mark::UINT_16 | Mark::UINT_32
            ),
            Physical::INT64 => matches!(mark, Mark::NONE | Mark::INT_64 | Mark::UINT_64),
            Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE => true,
            _ => false,
        }
}

/// A list of values, with or without a name for the elements.
fn is_list(field: &Type) -> bool {
    if !field.is_group() || field.get_basic_info().converted_type() != ConvertedType::LIST {
        return false;
    }
    let [repeated] = field.get_fields() else { return false };
    let info = repeated.get_basic_info();
    let element = if repeated.is_group() { repeated.get_fields().first() } else { Some(repeated) };
    let plain = repeated.is_primitive() || repeated.get_fields().len() == 1;
    info.has_repetition()
        && info.repetition() == Repetition::REPEATED
        && plain
        && element.is_some_and(|element| is_value(element))
}

fn holds_pictures(field: &Type) -> bool {
    if field.is_group() {
        return field.get_fields().iter().any(|inner| inner.name() == "bytes" && is_bytes(inner));
    }
    let unmarked = field.get_basic_info().converted_type() == ConvertedType::NONE;
    is_bytes(field) && unmarked && field.name().starts_with("image")
}

/// A value as a cell, or what it is instead.
fn cell(field: Field, picture: bool) -> std::result::Result<Cell, &'static str> {
    if picture {
        return Ok(bytes(field).map_or(Cell::Missing, |_| Cell::Picture));
    }
    Ok(Cell::Text(match field {
        Field::Null => return Ok(Cell::Missing),
        Field::Str(text) => text,
        Field::Bytes(bytes) => String::from_utf8(bytes.data().to_vec()).map_err(|_| "bytes that are no text")?,
        Field::Bool(value) => value.to_string(),
        Field::Byte(value) => value.to_string(),
        Field::Short(value) => value.to_string(),
        Field::Int(value) => value.to_string(),
        Field::Long(value) => value.to_string(),
        Field::UByte(value) => value.to_string(),
        Field::UShort(value) => value.to_string(),
        Field::UInt(value) => value.to_string(),
        Field::ULong(value) => value.to_string(),
        Field::Float(value) => return Ok(number(f64::from(value))),
        Field::Double(value) => return Ok(number(value)),
        Field::ListInternal(list) => {
            let texts = list.elements().iter().map(|element| match cell(element.clone(), false)? {
                Cell::Text(text) => Ok(text),
                Cell::Missing => Ok(String::new()),
                Cell::List(_) | Cell::Picture => Err("a list of lists"),
            });
            return Ok(Cell::List(texts.collect::<std::result::Result<_, _>>()?));
        }
        _ => return Err("a value that is neither text nor number"),
    }))
}

/// pandas makes floating-point numbers of whole ones where a value is missing.
fn number(value: f64) -> Cell {
    if value.is_nan() { Cell::Missing } else { Cell::Text(value.to_string()) }
}

/// The bytes of a picture, if there are any.
fn bytes(field: Field) -> Option<Vec<u8>> {
    match field {
        Field::Bytes(bytes) if !bytes.is_empty() => Some(bytes.data().to_vec()),
        Field::Group(group) => {
            let inner = group.into_columns().into_iter().find(|(name, _)| name == "bytes");
            inner.and_then(|(_, field)| bytes(field))
        }
        _ => None,
    }
}

fn strange(path: &Path, row: usize, column: &str, got: &str) -> Error {
    Unusable {
        what: format!("`{column}` cannot be used"),
        place: place(path, row),
        expected: "text, a number, a list of these, or a picture's bytes".to_owned(),
        got: got.to_owned(),
        hint: "fetch the file again, or write it anew with `datasets` or pandas".to_owned(),
    }
    .into()
}

/// The library's words about a file, or about one of its rows.
fn damaged(path: &Path, row: Option<usize>, error: &ParquetError) -> Error {
    Unusable {
        what: "a parquet file cannot be read".to_owned(),
        place: row.map_or_else(|| path.display().to_string(), |row| place(path, row)),
        expected: "a whole parquet file, not compressed or with Snappy".to_owned(),
        got: error.to_string(),
        hint: "fetch the file again: it may be cut short; where its compression is another, write it anew with Snappy"
            .to_owned(),
    }
    .into()
}
