//! The suite as one parquet file with embedded pictures, as Hugging Face `datasets` reads it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::{ExportError, Progress, Record, Selection, Temporary, Written, doing, id};
use crate::sample::Sample;
use crate::suite::Suite;

/// Rows held in memory and written at once.
const ROWS: usize = 256;

/// The columns; [`Rows::write`] writes them in this order. All may be null, though none is: to `datasets` a column that may not be
/// null is of another type than its own features, and pictures in one stay bytes.
const SCHEMA: &str = "message sample {
    OPTIONAL GROUP image { OPTIONAL BINARY bytes; OPTIONAL BINARY path (STRING); }
    OPTIONAL BINARY id (STRING);
    OPTIONAL BINARY question (STRING);
    OPTIONAL BINARY answer (STRING);
    OPTIONAL GROUP choices (LIST) { REPEATED GROUP list { OPTIONAL BINARY element (STRING); } }
    OPTIONAL BINARY steps (STRING);
    OPTIONAL BINARY task (STRING);
    OPTIONAL BINARY split (STRING);
    OPTIONAL INT32 looks;
    OPTIONAL INT64 index;
    OPTIONAL BINARY seed (STRING);
}";

/// Definition levels: how many of a value's optional or repeated groups are there.
mod defined {
    pub const VALUE: i16 = 1;
    pub const IN_IMAGE: i16 = 2;
    pub const NO_CHOICES: i16 = 1;
    pub const CHOICE: i16 = 3;
}

/// Tells `datasets` that `image` holds pictures; without it they are shown as bytes.
const FEATURES: &str = r#"{"info": {"features": {
    "image": {"_type": "Image"},
    "id": {"dtype": "string", "_type": "Value"},
    "question": {"dtype": "string", "_type": "Value"},
    "answer": {"dtype": "string", "_type": "Value"},
    "choices": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "steps": {"dtype": "string", "_type": "Value"},
    "task": {"dtype": "string", "_type": "Value"},
    "split": {"dtype": "string", "_type": "Value"},
    "looks": {"dtype": "int32", "_type": "Value"},
    "index": {"dtype": "int64", "_type": "Value"},
    "seed": {"dtype": "string", "_type": "Value"}
}}}"#;

/// Writes a parquet file. `choices` is empty where a task offers none; `steps` is JSON, a list of objects with
/// `says`, `reads` and `region`.
///
/// # Errors
/// If the file exists, nothing was selected, or the disk refuses.
pub fn parquet(suite: &Suite, selection: &Selection, path: &Path, progress: Progress) -> Result<Written, ExportError> {
    selection.check(path)?;
    let place = Temporary::file(path);
    let file = File::create(&place.path).map_err(doing("create", &place.path))?;
    let target = place.path.clone();
    let failed = |error: ParquetError| doing("write", &target)(io_error(error));
    let properties = WriterProperties::builder()
        // PNG does not get smaller.
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_owned(), FEATURES.to_owned())]))
        .build();
    let schema = parse_message_type(SCHEMA).map_err(failed)?;
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
    let mut rows = Rows::default();
    selection.for_each(suite, path, progress, |sample, png| {
        rows.push(sample, png)?;
        if rows.ids.len() == ROWS { rows.flush(&mut writer).map_err(failed) } else { Ok(()) }
    })?;
    rows.flush(&mut writer).map_err(failed)?;
    let file = writer.into_inner().map_err(failed)?;
    file.sync_all().map_err(doing("write", &place.path))?;
    place.keep(selection)
}

/// The operating system's error inside, if that is what it was.
fn io_error(error: ParquetError) -> std::io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(inner) => *inner,
            Err(inner) => std::io::Error::other(inner),
        },
        other => std::io::Error::other(other),
    }
}

/// Rows waiting to be written, a column each.
#[derive(Default)]
struct Rows {
    images: Vec<ByteArray>,
    paths: Vec<ByteArray>,
    ids: Vec<ByteArray>,
    questions: Vec<ByteArray>,
    answers: Vec<ByteArray>,
    choices: Vec<ByteArray>,
    choice_defined: Vec<i16>,
    /// 0 where a row begins, 1 where it goes on.
    choice_repeats: Vec<i16>,
    steps: Vec<ByteArray>,
    tasks: Vec<ByteArray>,
    splits: Vec<ByteArray>,
    looks: Vec<i32>,
    indices: Vec<i64>,
    seeds: Vec<ByteArray>,
}

impl Rows {
    fn push(&mut self, sample: &Sample, png: &[u8]) -> Result<(), ExportError> {
        let record = Record::of(sample);
        let steps =
            serde_json::to_string(&record.steps).map_err(|error| super::encode_error(sample, "parquet", error))?;
        self.images.push(png.to_vec().into());
        self.paths.push(format!("{}.png", id(sample)).into_bytes().into());
        self.ids.push(record.id.as_str().into());
        self.questions.push(record.question.into());
        self.answers.push(record.answer.into());
        let choices = record.choices.as_deref().unwrap_or_default();
        if choices.is_empty() {
            self.choice_defined.push(defined::NO_CHOICES);
            self.choice_repeats.push(0);
        }
        for (number, choice) in choices.iter().enumerate() {
            self.choices.push(choice.as_str().into());
            self.choice_defined.push(defined::CHOICE);
            self.choice_repeats.push(i16::from(number > 0));
        }
        self.steps.push(steps.into_bytes().into());
        self.tasks.push(record.task.name().into());
        self.splits.push(record.split.name().into());
        self.looks.push(record.looks as i32);
        self.indices.push(record.index as i64);
        self.seeds.push(record.seed.as_str().into());
        Ok(())
    }

    fn flush(&mut self, writer: &mut SerializedFileWriter<File>) -> Result<(), ParquetError> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let mut group = writer.next_row_group()?;
        self.write(&mut group)?;
        group.close()?;
        *self = Rows::default();
        Ok(())
    }

    fn write(&self, group: &mut SerializedRowGroupWriter<'_, File>) -> Result<(), ParquetError> {
        for column in [&self.images, &self.paths] {
            all::<ByteArrayType>(group, column, defined::IN_IMAGE)?;
        }
        for column in [&self.ids, &self.questions, &self.answers] {
            all::<ByteArrayType>(group, column, defined::VALUE)?;
        }
        column::<ByteArrayType>(group, &self.choices, &self.choice_defined, Some(&self.choice_repeats))?;
        for column in [&self.steps, &self.tasks, &self.splits] {
            all::<ByteArrayType>(group, column, defined::VALUE)?;
        }
        all::<Int32Type>(group, &self.looks, defined::VALUE)?;
        all::<Int64Type>(group, &self.indices, defined::VALUE)?;
        all::<ByteArrayType>(group, &self.seeds, defined::VALUE)
    }
}

/// Writes the next column, which has a value in every row.
fn all<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    level: i16,
) -> Result<(), ParquetError> {
    column::<T>(group, values, &vec![level; values.len()], None)
}

/// Writes the next column with its definition and repetition levels.
fn column<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    defined: &[i16],
    repeats: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("the schema has fewer columns than are written".to_owned()));
    };
    column.typed::<T>().write_batch(values, Some(defined), repeats)?;
    column.close()
}
