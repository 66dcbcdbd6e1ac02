//! Parquet files, as Hugging Face `datasets` and pandas write them: for benchmarks and for training data.
//!
//! A row is a JSON object. A column of pictures is a group with the field `bytes` (what `datasets` writes for its `Image`
//! feature), a list of such groups or, where the name begins with `image`, bytes that are not marked as text (what pandas
//! writes). Their bytes are not part of a row: in their place stands [`PICTURE`] with a number, and [`Pictures`] reads them.

mod pictures;

pub use pictures::Pictures;

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value, json};

/// Rows of a column that are decoded together: pictures are large.
const ROWS: usize = 16;
/// The key of an object that stands for the bytes of a picture; its value counts those of the row's column.
pub const PICTURE: &str = "$picture";

/// A parquet file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ColumnarError {
    /// The operating system refused.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// It does not hold what is needed.
    #[error("{what}\n  file      {place}\n  expected  {expected}\n  got       {got}\n\nhint: {hint}")]
    Unusable {
        /// One line that names the thing.
        what: String,
        /// The file, and the row where it is one row's fault, counted from 1.
        place: String,
        /// What is needed there.
        expected: String,
        /// What is there.
        got: String,
        /// The way out.
        hint: String,
    },
}

type Result<T> = std::result::Result<T, ColumnarError>;

/// A parquet file and its columns.
#[derive(Clone, Debug)]
pub struct Columnar {
    path: PathBuf,
    columns: Vec<String>,
    pictures: Vec<String>,
}

impl Columnar {
    /// Reads which columns there are.
    ///
    /// # Errors
    /// For a file that cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Self> {
        let reader = reader(path)?;
        let fields = reader.metadata().file_metadata().schema().get_fields();
        let name = |field: &TypePtr| field.name().to_owned();
        let pictures = fields.iter().filter(|field| holds_pictures(field)).map(name).collect();
        Ok(Self { path: path.to_owned(), columns: fields.iter().map(name).collect(), pictures })
    }

    /// All columns, in their order.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Those that hold pictures themselves.
    #[must_use]
    pub fn pictures(&self) -> &[String] {
        &self.pictures
    }

    /// All rows in order, with those of `columns` that there are.
    ///
    /// # Errors
    /// For a column of a type that is not read.
    pub fn rows(&self, columns: &[&str]) -> Result<Rows> {
        let reader = reader(&self.path)?;
        let schema = reader.metadata().file_metadata().schema();
        let fields = schema.get_fields().iter().filter(|field| columns.contains(&field.name()));
        let fields: Vec<TypePtr> = fields.cloned().collect();
        fields.iter().try_for_each(|field| readable(&self.path, field))?;
        let chosen = Type::group_type_builder(schema.name()).with_fields(fields).build();
        let rows = chosen.and_then(|chosen| RowIter::from_file_into(Box::new(reader)).project(Some(chosen)));
        let rows = rows.map_err(|error| damaged(&self.path, None, &error))?.with_batch_size(ROWS);
        Ok(Rows { path: self.path.clone(), pictures: self.pictures.clone(), rows, next: 0 })
    }
}

/// The rows of a file, one after the other.
pub struct Rows {
    path: PathBuf,
    pictures: Vec<String>,
    rows: RowIter<'static>,
    next: usize,
}

impl Iterator for Rows {
    type Item = Result<Map<String, Value>>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        let number = self.next;
        self.next += 1;
        Some(row.map_err(|error| damaged(&self.path, Some(number), &error)).and_then(|row| self.object(row, number)))
    }
}

impl Rows {
    fn object(&self, row: Row, number: usize) -> Result<Map<String, Value>> {
        let column = |(name, field): (String, Field)| {
            let mut found = self.pictures.contains(&name).then_some(0);
            match value(field, &mut found) {
                Ok(value) => Ok((name, value)),
                Err(got) => Err(strange(&self.path, number, &name, got)),
            }
        };
        row.into_columns().into_iter().map(column).collect()
    }
}

/// The number of the picture that a value stands for.
#[must_use]
pub fn picture(value: &Value) -> Option<usize> {
    let number = value.get(PICTURE)?.as_u64()?;
    usize::try_from(number).ok()
}

fn reader(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(|reason| ColumnarError::Read { path: path.into(), reason })?;
    SerializedFileReader::new(file).map_err(|error| damaged(path, None, &error))
}

fn is_bytes(field: &Type) -> bool {
    field.is_primitive() && field.get_physical_type() == Physical::BYTE_ARRAY
}

/// Refuses columns of types that the library has no value for, or no check.
fn readable(path: &Path, field: &Type) -> Result<()> {
    if is_readable(field) {
        return Ok(());
    }
    Err(ColumnarError::Unusable {
        what: format!("the column `{}` cannot be used", field.name()),
        place: path.display().to_string(),
        expected: "text, numbers, lists and groups of these, or pictures".to_owned(),
        got: if field.is_group() {
            "another nested type".to_owned()
        } else {
            format!("{:?}", field.get_physical_type())
        },
        hint: "write the file anew with `datasets` or pandas, with this column as text".to_owned(),
    })
}

fn is_readable(field: &Type) -> bool {
    let unmarked = field.get_basic_info().converted_type() == ConvertedType::NONE;
    let is_group = field.is_group() && unmarked && field.get_fields().iter().all(|inner| is_readable(inner));
    is_value(field) || is_list(field) || is_group
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

/// A list of what is read, with or without a name for the elements.
fn is_list(field: &Type) -> bool {
    element(field).is_some_and(is_readable)
}

/// What a list holds.
fn element(field: &Type) -> Option<&Type> {
    if !field.is_group() || field.get_basic_info().converted_type() != ConvertedType::LIST {
        return None;
    }
    let [repeated] = field.get_fields() else { return None };
    let info = repeated.get_basic_info();
    if !info.has_repetition() || info.repetition() != Repetition::REPEATED {
        return None;
    }
    match repeated.is_group() {
        false => Some(repeated),
        true if repeated.get_fields().len() == 1 => repeated.get_fields().first().map(AsRef::as_ref),
        true => None,
    }
}

fn holds_pictures(field: &Type) -> bool {
    let is_picture = |one: &Type| match one.is_group() {
        true => one.get_fields().iter().any(|inner| inner.name() == "bytes" && is_bytes(inner)),
        false => {
            let unmarked = one.get_basic_info().converted_type() == ConvertedType::NONE;
            is_bytes(one) && unmarked && field.name().starts_with("image")
        }
    };
    is_picture(field) || element(field).is_some_and(is_picture)
}

/// A value, or what it is instead. `pictures`: in a column of pictures, how many were found in it.
fn value(field: Field, pictures: &mut Option<usize>) -> std::result::Result<Value, &'static str> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Str(text) => text.into(),
        Field::Bytes(bytes) => match pictures {
            Some(found) => {
                *found += 1;
                // Nothing is a picture of no bytes.
                if bytes.is_empty() { Value::Null } else { json!({ PICTURE: *found - 1 }) }
            }
            None => String::from_utf8(bytes.data().to_vec()).map_err(|_| "bytes that are no text")?.into(),
        },
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        // What is not finite is how pandas writes that nothing is there.
        Field::Float(value) => f64::from(value).into(),
        Field::Double(value) => value.into(),
        Field::ListInternal(list) => {
            let elements = list.elements().iter().map(|element| value(element.clone(), pictures));
            Value::Array(elements.collect::<std::result::Result<_, _>>()?)
        }
        Field::Group(group) => {
            let inner = |(name, field): (String, Field)| {
                let mut none = None;
                // Beside its bytes a picture has a path.
                let found = if name == "bytes" { &mut *pictures } else { &mut none };
                Ok((name, value(field, found)?))
            };
            let fields = group.into_columns().into_iter().map(inner);
            Value::Object(fields.collect::<std::result::Result<_, &'static str>>()?)
        }
        _ => return Err("a value that is neither text nor number"),
    })
}

/// A row for messages, counted from 1.
fn place(path: &Path, row: usize) -> String {
    format!("{}, row {}", path.display(), row + 1)
}

fn strange(path: &Path, row: usize, column: &str, got: &str) -> ColumnarError {
    ColumnarError::Unusable {
        what: format!("`{column}` cannot be used"),
        place: place(path, row),
        expected: "text, a number, a list or group of these, or a picture's bytes".to_owned(),
        got: got.to_owned(),
        hint: "fetch the file again, or write it anew with `datasets` or pandas".to_owned(),
    }
}

/// The library's words about a file, or about one of its rows.
fn damaged(path: &Path, row: Option<usize>, error: &ParquetError) -> ColumnarError {
    ColumnarError::Unusable {
        what: "a parquet file cannot be read".to_owned(),
        place: row.map_or_else(|| path.display().to_string(), |row| place(path, row)),
        expected: "a whole parquet file, not compressed or with Snappy".to_owned(),
        got: error.to_string(),
        hint: "fetch the file again: it may be cut short; where its compression is another, write it anew with Snappy"
            .to_owned(),
    }
}
