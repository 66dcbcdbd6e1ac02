//! Rows of parquet files, with the pictures in them.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::album::PictureAt;
use super::fault::ExamplesError;
use super::found::Format;
use super::record::{ANSWERS, Each, IMAGES, INSIDE, Raw, TURNS, expected_keys, is_read};
use super::{Origin, Place};
use crate::columnar::{self, Columnar};

/// Calls `each` with every row. Columns that no sample has are not read, whatever they hold.
pub(super) fn each(path: &Arc<Path>, each: Each) -> Result<(), ExamplesError> {
    let table = Columnar::open(path)?;
    let has = |keys: &[&str]| table.columns().iter().any(|name| keys.contains(&name.as_str()));
    if !has(&TURNS) && !has(&ANSWERS) {
        return Err(ExamplesError::Format {
            path: path.to_path_buf(),
            expected: format!("columns with {}", expected_keys(Format::Parquet)),
            got: format!("the columns {}", table.columns().join(", ")),
            hint: "rename the columns; docs/data.md has those that are read".to_owned(),
        });
    }
    // A table's only pictures are the sample's, whatever their column is called.
    let implied = !has(&IMAGES);
    let is_wanted = |name: &&String| is_read(name) || implied && table.pictures().contains(name);
    let wanted: Vec<&str> = table.columns().iter().filter(is_wanted).map(String::as_str).collect();
    for (row, object) in table.rows(&wanted)?.enumerate() {
        let mut inside = Vec::new();
        let object: Map<String, Value> = object?
            .into_iter()
            .map(|(column, value)| {
                let mut take = |nth: usize| {
                    let column = Arc::from(column.as_str());
                    inside.push(PictureAt::Cell { file: path.clone(), column, row, nth });
                    inside.len() - 1
                };
                let value = if table.pictures().contains(&column) { numbered(value, &mut take) } else { value };
                (column, value)
            })
            .collect();
        let origin = Origin { file: path.clone(), place: Place::Row(row + 1) };
        each(Ok(Raw { origin, number: row + 1, value: Value::Object(object), inside, implied }))?;
    }
    Ok(())
}

/// The same value, its pictures numbered among those of the row instead of those of the column.
fn numbered(value: Value, take: &mut dyn FnMut(usize) -> usize) -> Value {
    if let Some(nth) = columnar::picture(&value) {
        return json!({ INSIDE: take(nth) });
    }
    match value {
        Value::Array(all) => {
            // A list may have empty places; they are no pictures.
            let some = all.into_iter().filter(|one| !one.is_null());
            Value::Array(some.map(|one| numbered(one, take)).collect())
        }
        Value::Object(all) => {
            Value::Object(all.into_iter().map(|(name, value)| (name, numbered(value, take))).collect())
        }
        other => other,
    }
}
