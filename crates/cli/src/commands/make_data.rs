//! `lare make-data`: any part of the suite as files that other tools read.

use super::Outcome;
use crate::args::{Format, MakeData};
use crate::failure::Failure;
use crate::messages::{Messages, Report};
use lare_data::export::{self, Selection, Written};
use lare_data::{Suite, Task};
use serde_json::{Value, json};

/// Samples side by side on a sheet.
const SHEET_COLUMNS: usize = 5;

/// Writes the files.
pub fn run(make: &MakeData, messages: &Messages) -> Result<Outcome, Failure> {
    let tasks = if make.tasks.is_empty() { Task::ALL.to_vec() } else { make.tasks.clone() };
    let samples = make.count * tasks.len() as u64;
    let selection = Selection { split: make.split, tasks, count: make.count, first: make.first };
    let progress = messages.progress(&format!("writing {samples} samples to {}", make.out.display()), None);
    let suite = Suite::new();
    let written = match make.format {
        Format::Folder => export::folder(&suite, &selection, &make.out)?,
        Format::Llava => export::llava(&suite, &selection, &make.out)?,
        Format::Tsv => export::tsv(&suite, &selection, &make.out)?,
        Format::Sheet => export::contact_sheet(&suite, &selection, SHEET_COLUMNS, &make.out)?,
        Format::Parquet => parquet(&suite, &selection, make)?,
    };
    progress.finish();
    messages.report(&Done(written))?;
    Ok(Outcome::Done)
}

#[cfg(feature = "parquet")]
fn parquet(suite: &Suite, selection: &Selection, make: &MakeData) -> Result<Written, Failure> {
    Ok(export::parquet(suite, selection, &make.out)?)
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: &Suite, _: &Selection, _: &MakeData) -> Result<Written, Failure> {
    Err(Failure::new("this build of lare does not write parquet")
        .part("expected", "a build with the feature `parquet`")
        .hint("build it with `cargo build --release --features parquet`, or choose `--format folder`"))
}

struct Done(Written);

impl Report for Done {
    fn text(&self) -> String {
        format!("{} samples in {}", self.0.samples, self.0.path.display())
    }

    fn json(&self) -> Value {
        json!({ "samples": self.0.samples, "path": self.0.path })
    }
}
