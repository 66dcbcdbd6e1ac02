//! `lare report`: a saved trace, shown again, or evaluated runs side by side; neither needs the model.

use super::eval::{Found, shown};
use super::{Outcome, counted};
use crate::args;
use crate::failure::Failure;
use crate::messages::{Messages, Report};
use crate::{embedded, files};
use lare_eval::report::{Difference, Run};
use lare_trace::measures::{self, StepMeasures};
use lare_trace::{PictureRef, Record, Written, render, write_folder};
use serde_json::{Value, json};
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

/// What makes a folder a trace, and a run.
const TRACE: &str = "trace.json";
const RUN: &str = "settings.json";

/// Shows what the paths hold.
pub fn run(report: &args::Report, messages: &Messages) -> Result<Outcome, Failure> {
    let kinds = report.paths.iter().map(|path| Kind::of(path)).collect::<Result<Vec<_>, _>>()?;
    let first_of =
        |kind: Kind| kinds.iter().position(|other| *other == kind).map(|place| report.paths[place].display());
    match (first_of(Kind::Trace), first_of(Kind::Run)) {
        (Some(trace), Some(run)) => Err(Failure::new("a trace and a run cannot be shown together")
            .part("trace", trace)
            .part("run", run)
            .hint("show one after the other")),
        (None, Some(_)) => runs(report, messages),
        _ => match &report.paths[..] {
            [path] => trace(path, report, messages),
            paths => Err(Failure::new("several traces cannot be shown together")
                .part("expected", "one trace, or folders of runs")
                .part("got", format!("{} traces", paths.len()))
                .hint("show one after the other")),
        },
    }
}

/// What a path is: that follows from what lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Trace,
    Run,
}

impl Kind {
    fn of(path: &Path) -> Result<Self, Failure> {
        if !path.is_dir() {
            return Ok(Self::Trace); // a file that is none is refused when it is read
        }
        let expected = format!("{TRACE}, as `lare ask --trace` writes it, or {RUN}, as `lare eval` does");
        match (path.join(TRACE).exists(), path.join(RUN).exists()) {
            (true, false) => Ok(Self::Trace),
            (false, true) => Ok(Self::Run),
            (true, true) => Err(Failure::new(format!("`{}` holds both a trace and a run", path.display()))
                .part("expected", expected)
                .part("got", format!("{TRACE} and {RUN}"))
                .hint("name the file of the trace, or move it to a folder of its own")),
            (false, false) => Err(Failure::new(format!("`{}` holds neither a trace nor a run", path.display()))
                .part("expected", expected)
                .part("got", listed(path))
                .hint("name the folder of one trace, or those of the runs themselves")),
        }
    }
}

/// Some of what lies in a folder.
fn listed(folder: &Path) -> String {
    let entries: Vec<DirEntry> = fs::read_dir(folder).map(|entries| entries.flatten().collect()).unwrap_or_default();
    let mut names: Vec<String> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    match (&names[..], names.get(4)) {
        ([], _) => "an empty folder".to_owned(),
        (some, None) => some.join(", "),
        (many, Some(_)) => format!("{} and {} more", many[..3].join(", "), many.len() - 3),
    }
}

/// Shows a trace as text, and draws it when there is a picture.
fn trace(path: &Path, report: &args::Report, messages: &Messages) -> Result<Outcome, Failure> {
    let file = if path.is_dir() { path.join(TRACE) } else { path.to_owned() };
    let text = files::text(&file, "the trace")?;
    let in_file = |error| {
        let mut failure = Failure::from(error);
        failure.parts.insert(0, format!("file      {}", file.display()));
        failure
    };
    let record = Record::from_json(&text).map_err(in_file)?;
    let written = match (&report.picture, &report.out) {
        (Some(picture), Some(out)) => Some(draw(&record, picture, out, messages)?),
        (None, Some(_)) => {
            return Err(Failure::new("`--out` draws the trace on its picture")
                .part("expected", "`--picture FILE`")
                .hint("name the picture that was asked about; `lare eval --keep` puts it beside the trace"));
        }
        _ => None,
    };
    messages.report(&Shown { record: &record, written: written.as_ref() })?;
    if let Some(written) = written {
        messages.note(&format!("drawn again: {}", written.page.display()));
    }
    Ok(Outcome::Done)
}

fn draw(record: &Record, picture: &Path, out: &Path, messages: &Messages) -> Result<Written, Failure> {
    let source = files::picture(picture)?;
    if source.hash != record.input.picture_hash {
        messages.warning(&format!("{} is not the file that was asked about: its bytes differ", source.name));
    }
    let picture = &source.opened.picture;
    let picture = PictureRef { width: picture.width as u32, height: picture.height as u32, rgb: &picture.rgb };
    Ok(write_folder(out, record, picture)?)
}

/// Puts runs side by side.
fn runs(report: &args::Report, messages: &Messages) -> Result<Outcome, Failure> {
    if report.picture.is_some() {
        return Err(Failure::new("`--picture` draws a trace")
            .part("expected", "a trace")
            .part("got", format!("`{}`, a run", report.paths[0].display()))
            .hint("leave it out; kept traces of a run have their pictures"));
    }
    if report.out.is_none() && report.paths.len() > 1 {
        return Err(Failure::new("several runs need a folder to be compared in")
            .part("expected", "`--out DIR`")
            .part("got", counted(report.paths.len(), "run"))
            .hint("name a folder; it may be new"));
    }
    let runs = report.paths.iter().map(|path| Run::read(path)).collect::<Result<Vec<_>, _>>()?;
    for run in runs.iter().filter(|run| run.records.len() < run.asked()) {
        let (done, asked) = (run.records.len(), run.asked());
        messages.warning(&format!("{} stopped after {done} of {asked} questions", run.folder.display()));
    }
    let own_weights = lare_infer::load::sha256(embedded::files().weights);
    let report_of = lare_eval::Report::new(runs, &own_weights);
    let written = report.out.as_deref().map(|out| report_of.write(out)).transpose()?;
    messages.report(&Compared { report: &report_of, written: written.as_ref() })?;
    if let Some(written) = written {
        messages.note(&format!("open {}", written.page.display()));
    }
    Ok(Outcome::Done)
}

/// A trace.
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

/// A run, as `lare eval` shows it.
fn found(run: &Run) -> Found<'_> {
    Found { settings: &run.settings, summary: &run.summary, rules: &run.rules, folder: &run.folder }
}

/// Runs.
struct Compared<'a> {
    report: &'a lare_eval::Report,
    written: Option<&'a lare_eval::report::Written>,
}

impl Compared<'_> {
    fn run(&self, run: &Run) -> Value {
        let mut object = found(run).json();
        if let Value::Object(fields) = &mut object {
            fields.insert("label".into(), json!(run.label));
            fields.insert("command".into(), json!(self.report.command(run)));
            fields.insert("answered".into(), json!(run.records.len()));
            fields.insert("asked".into(), json!(run.asked()));
            fields.insert("kept".into(), json!(run.kept.iter().map(|kept| &kept.folder).collect::<Vec<_>>()));
        }
        object
    }

    fn label(&self, run: usize) -> &str {
        &self.report.runs()[run].label
    }

    fn difference(&self, found: &Difference) -> Value {
        let tasks = found.tasks.iter().map(|(task, gap)| json!({ "task": task, "gap": gap }));
        let looks = found.looks.iter().map(|(task, looks, gap)| json!({ "task": task, "looks": looks, "gap": gap }));
        json!({
            "run": self.label(found.run),
            "to": self.label(found.to),
            "of": found.of,
            "all": found.all,
            "tasks": tasks.collect::<Vec<_>>(),
            "looks": looks.collect::<Vec<_>>(),
        })
    }

    fn files(&self) -> Vec<(&'static str, &PathBuf)> {
        let Some(written) = self.written else {
            return Vec::new();
        };
        vec![
            ("page", &written.page),
            ("tables", &written.tables),
            ("results", &written.results),
            ("causal", &written.causal),
        ]
    }
}

impl Report for Compared<'_> {
    /// One run as `lare eval` shows it; of a written report what each run came to, and where the rest is.
    fn text(&self) -> String {
        let runs = self.report.runs();
        if let (None, [run]) = (self.written, runs) {
            return found(run).text();
        }
        let width = runs.iter().map(|run| run.label.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for run in runs {
            let (right, questions) = run.right();
            text += &format!("{:<width$}  {} of {}\n", run.label, shown(&right), counted(questions, "question"));
        }
        for found in self.report.differences() {
            let [by, low, high] = [found.all.by.value, found.all.by.low, found.all.by.high].map(|share| 100.0 * share);
            let (run, to) = (self.label(found.run), self.label(found.to));
            let p = if found.all.p < 0.001 { "< 0.001".to_owned() } else { format!("= {:.3}", found.all.p) };
            text += &format!("{run} minus {to}: {by:+.1} points [{low:.1}, {high:.1}], p {p}\n");
        }
        for (_, path) in self.files() {
            text += &format!("{}\n", path.display());
        }
        text
    }

    fn json(&self) -> Value {
        let files = self.files().into_iter().map(|(name, path)| (name.to_owned(), json!(path)));
        json!({
            "runs": self.report.runs().iter().map(|run| self.run(run)).collect::<Vec<_>>(),
            "differences": self.report.differences().iter().map(|found| self.difference(found)).collect::<Vec<_>>(),
            "files": self.written.map(|_| Value::Object(files.collect())),
        })
    }
}
