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

/// The columns; [`Rows::write`] writes them in this order.
const SCHEMA: &str = "message sample {
    REQUIRED GROUP image { REQUIRED BINARY bytes; REQUIRED BINARY path (STRING); }
    REQUIRED BINARY id (STRING);
    REQUIRED BINARY question (STRING);
    REQUIRED BINARY answer (STRING);
    REQUIRED GROUP choices (LIST) { REPEATED GROUP list { REQUIRED BINARY element (STRING); } }
    REQUIRED BINARY steps (STRING);
    REQUIRED BINARY task (STRING);
    REQUIRED BINARY split (STRING);
    REQUIRED INT32 looks;
    REQUIRED INT64 index;
    REQUIRED BINARY seed (STRING);
}";

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
    /// For each choice 1; for a row without any, 0.
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
            self.choice_defined.push(0);
            self.choice_repeats.push(0);
        }
        for (number, choice) in choices.iter().enumerate() {
            self.choices.push(choice.as_str().into());
            self.choice_defined.push(1);
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
        for column in [&self.images, &self.paths, &self.ids, &self.questions, &self.answers] {
            text(group, column)?;
        }
        let levels = Some((self.choice_defined.as_slice(), self.choice_repeats.as_slice()));
        column::<ByteArrayType>(group, &self.choices, levels)?;
        for column in [&self.steps, &self.tasks, &self.splits] {
            text(group, column)?;
        }
        column::<Int32Type>(group, &self.looks, None)?;
        column::<Int64Type>(group, &self.indices, None)?;
        text(group, &self.seeds)
    }
}

fn text(group: &mut SerializedRowGroupWriter<'_, File>, values: &[ByteArray]) -> Result<(), ParquetError> {
    column::<ByteArrayType>(group, values, None)
}

/// Writes the next column; `levels` are its definition and repetition levels.
fn column<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    levels: Option<(&[i16], &[i16])>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("the schema has fewer columns than are written".to_owned()));
    };
    let (defined, repeats) = levels.unzip();
    column.typed::<T>().write_batch(values, defined, repeats)?;
    column.close()
}
