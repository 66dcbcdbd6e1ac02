//! `lare report`: a saved trace, shown again without the model.

use super::Outcome;
use crate::args;
use crate::failure::Failure;
use crate::files;
use crate::messages::{Messages, Report};
use lare_trace::measures::{self, StepMeasures};
use lare_trace::{PictureRef, Record, Written, render, write_folder};
use serde_json::{Value, json};

/// Shows the trace as text, and draws it when there is a picture.
pub fn run(report: &args::Report, messages: &Messages) -> Result<Outcome, Failure> {
    let file = if report.trace.is_dir() { report.trace.join("trace.json") } else { report.trace.clone() };
    let text = files::text(&file, "the trace")?;
    let in_file = |error| {
        let mut failure = Failure::from(error);
        failure.parts.insert(0, format!("file      {}", file.display()));
        failure
    };
    let record = Record::from_json(&text).map_err(in_file)?;
    let mut written = None;
    if let (Some(path), Some(out)) = (&report.picture, &report.out) {
        let source = files::picture(path)?;
        if source.hash != record.input.picture_hash {
            messages.warning(&format!("{} is not the file that was asked about: its bytes differ", source.name));
        }
        let picture = &source.opened.picture;
        let picture = PictureRef { width: picture.width as u32, height: picture.height as u32, rgb: &picture.rgb };
        written = Some(write_folder(out, &record, picture)?);
    }
    messages.report(&Shown { record: &record, written: written.as_ref() })?;
    if let Some(written) = written {
        messages.note(&format!("drawn again: {}", written.page.display()));
    }
    Ok(Outcome::Done)
}

struct Shown<'a> {
    record: &'a Record,
    written: Option<&'a Written>,
}

impl Report for Shown<'_> {
    fn text(&self) -> String {
        render::text::text(self.record)
    }

    fn json(&self) -> Value {
        let record = self.record;
        json!({
            "question": record.input.question,
            "answer": record.answer,
            "usage": record.usage,
            "timing_ms": record.timing_ms,
            "model": record.model,
            "steps": measures::of(record).iter().map(measured).collect::<Vec<_>>(),
            "files": self.written.map(|w| json!({ "page": w.page, "steps": w.steps, "animation": w.animation })),
        })
    }
}

fn measured(step: &StepMeasures) -> Value {
    json!({
        "focus_entropy_nats": step.focus_entropy_nats,
        "drift": step.drift.map(|d| json!({ "total_variation": d.total_variation, "shift_px": d.shift_px })),
        "on_region": step.on_region.map(|r| json!({ "mass": r.mass, "hit": r.hit, "pointing": r.pointing })),
    })
}
