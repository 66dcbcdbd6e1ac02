//! `lare make-data`: any part of the suite as files that other tools read.

use super::Outcome;
use crate::args::{Format, MakeData};
use crate::failure::Failure;
use crate::messages::{Messages, Report};
use lare_data::export::{self, ExportError, Selection, Written};
use lare_data::{Suite, Task};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

/// Samples side by side on a sheet.
const SHEET_COLUMNS: usize = 5;

/// Writes the files.
pub fn run(make: &MakeData, messages: &Messages) -> Result<Outcome, Failure> {
    let tasks = tasks(make);
    let samples = make.count.saturating_mul(tasks.len() as u64);
    let selection = Selection { split: make.split, tasks, count: make.count, first: make.first };
    let what = format!("samples to {}", make.out.display());
    let mut bar = messages.progress(&what, Some(samples));
    let interrupted = super::listen()?;
    let progress: export::Progress = &mut |done| {
        bar.at(done, what.as_str());
        !interrupted.load(Ordering::Relaxed)
    };
    let suite = Suite::new();
    let written = match make.format {
        Format::Folder => export::folder(&suite, &selection, &make.out, progress),
        Format::Llava => export::llava(&suite, &selection, &make.out, progress),
        Format::Tsv => export::tsv(&suite, &selection, &make.out, progress),
        Format::Sheet => export::contact_sheet(&suite, &selection, SHEET_COLUMNS, &make.out),
        #[cfg(feature = "parquet")]
        Format::Parquet => export::parquet(&suite, &selection, &make.out, progress),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => return Err(no_parquet()),
    };
    bar.finish();
    match written {
        Ok(written) => {
            if written.samples < samples {
                let (shown, most) = (written.samples, export::MOST_ON_A_SHEET);
                messages.warning(&format!(
                    "the sheet shows {shown} of {samples} samples, the first of each task: it holds at most {most}"
                ));
            }
            messages.report(&Done(written))?;
        }
        Err(ExportError::Stopped { path, written }) => {
            let place = path.display();
            messages.warning(&format!("stopped after {written} of {samples} samples; nothing was left in {place}"));
            return Ok(Outcome::Interrupted);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Outcome::Done)
}

/// The tasks that are wanted, each once: a sample that is written twice would be two of one name.
fn tasks(make: &MakeData) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    let wanted: &[Task] = if make.tasks.is_empty() { &Task::ALL } else { &make.tasks };
    for task in wanted {
        if !tasks.contains(task) {
            tasks.push(*task);
        }
    }
    tasks
}

#[cfg(not(feature = "parquet"))]
fn no_parquet() -> Failure {
    Failure::new("this build of lare does not write parquet")
        .part("expected", "a build with the feature `parquet`")
        .hint("build it with `cargo build --release --features parquet`, or choose `--format folder`")
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
