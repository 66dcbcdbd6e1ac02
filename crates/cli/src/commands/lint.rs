//! `lare data lint`: what is wrong with files of samples, before a run finds it out.

use super::Outcome;
use crate::args::Lint as Args;
use crate::failure::Failure;
use crate::files;
use crate::hub;
use crate::messages::{Messages, Report};
use lare_data::examples::{Format, Reading, Unit};
use lare_data::lint::{Findings, Lint, Problem, Range, Ruler, Severity};
use lare_train::Config;
use lare_train::family;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Reads everything once; the answer is no where a run could not begin.
pub fn run(args: &Args, messages: &Messages) -> Result<Outcome, Failure> {
    let config = args.config.as_deref().map(config).transpose()?;
    let wanted = wanted(args, config.as_ref())?;
    let ruler = ruler(args, config.as_ref())?;
    let mut bar = messages.progress("reading samples", None);
    let progress: lare_data::lint::Progress = &mut |read| bar.at(read, format!("{read} samples"));
    let mut lint = Lint::new(args.named, ruler.as_ref().map(|(_, ruler)| ruler as &dyn Ruler), progress);
    for (path, reading) in wanted {
        lint.path(&path, reading);
    }
    let findings = lint.end();
    bar.finish();
    let no = findings.count(Severity::Error) > 0;
    messages.report(&Told { findings, model: ruler.map(|(name, _)| name) })?;
    Ok(if no { Outcome::No } else { Outcome::Done })
}

fn config(path: &Path) -> Result<Config, Failure> {
    Ok(Config::from_toml(&files::text(path, "the run config")?, &path.display().to_string())?)
}

/// The paths that are given, else those of the config.
fn wanted(args: &Args, config: Option<&Config>) -> Result<Vec<(PathBuf, Reading)>, Failure> {
    if !args.paths.is_empty() {
        let reading = Reading {
            format: args.format.map(Format::from),
            pictures: args.pictures.clone(),
            boxes: args.bbox_format.map(Unit::from),
            question: args.question.clone(),
        };
        return Ok(args.paths.iter().map(|path| (path.clone(), reading.clone())).collect());
    }
    let of_config: Vec<_> = config.into_iter().flat_map(|config| &config.data.files).collect();
    if of_config.is_empty() {
        return Err(Failure::new("there is nothing to read")
            .part("expected", "PATH, or a config with `[[data.files]]`")
            .part("got", "a config that trains on the suite")
            .hint("name the files: lare data lint train.json --config FILE"));
    }
    Ok(of_config.into_iter().map(|files| (files.file.clone(), files.reading())).collect())
}

/// The model that tokens are counted with, and its name.
fn ruler(args: &Args, config: Option<&Config>) -> Result<Option<(String, family::Ruler)>, Failure> {
    if let Some(model) = &args.model {
        let folder = hub::folder(model)?;
        return Ok(Some((model.display().to_string(), family::Ruler::of_folder(&folder)?)));
    }
    let Some((config, base)) = config.and_then(|config| Some((config, config.base.as_ref()?))) else { return Ok(None) };
    let folder = hub::folder(Path::new(&base.model))?;
    Ok(Some((base.model.clone(), family::Ruler::of_run(config, &folder)?)))
}

struct Told {
    findings: Findings,
    model: Option<String>,
}

impl Told {
    fn totals(&self) -> (usize, usize) {
        let files = self.findings.files.iter();
        files.fold((0, 0), |(samples, examples), file| (samples + file.samples, examples + file.examples))
    }

    fn too_long(&self) -> usize {
        let most = self.findings.most.unwrap_or(usize::MAX);
        self.findings.lengths.iter().filter(|length| **length > most).count()
    }

    fn table(&self) -> String {
        let mut rows = vec![["file", "format", "samples", "answers"].map(str::to_owned)];
        for file in &self.findings.files {
            let (samples, examples) = (file.samples.to_string(), file.examples.to_string());
            rows.push([file.file.display().to_string(), file.format.name().to_owned(), samples, examples]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [0, 1, 2, 3].map(width);
        let line = |[file, format, samples, examples]: &[String; 4]| {
            let [a, b, c, d] = widths;
            format!("{file:a$}  {format:b$}  {samples:>c$}  {examples:>d$}\n")
        };
        rows.iter().map(line).collect()
    }

    fn numbers(&self) -> String {
        let findings = &self.findings;
        let (samples, examples) = self.totals();
        let (looks, regions) = findings.looks;
        let mut lines = vec![
            format!("\nsamples   {samples}, with {examples} answers"),
            format!("pictures  {}, at {} places in prompts", findings.pictures, findings.places),
            format!("looks     {looks} known, {regions} of them with a region"),
        ];
        let shown =
            |range: Range| format!("min {}, median {}, p95 {}, max {}", range.min, range.median, range.p95, range.max);
        if let (Some(model), Some(range)) = (&self.model, Range::of(&findings.lengths)) {
            let most = findings.most.unwrap_or(0);
            lines.push(format!(
                "tokens    {}; {} of {} above {most} (of {model})",
                shown(range),
                self.too_long(),
                findings.lengths.len()
            ));
        }
        if let Some(range) = Range::of(&findings.per_picture) {
            lines.push(format!("of each picture  {}", shown(range)));
        }
        lines.join("\n") + "\n"
    }
}

/// `train.jsonl, line 7, sample `x`, `image`: what`.
fn named(problem: &Problem) -> String {
    let mut parts = vec![problem.at.clone()];
    if !problem.id.is_empty() {
        parts.push(format!("sample `{}`", problem.id));
    }
    if !problem.field.is_empty() {
        parts.push(format!("`{}`", problem.field));
    }
    format!("  {}: {}\n", parts.join(", "), problem.what)
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

impl Report for Told {
    fn text(&self) -> String {
        let mut text = if self.findings.files.is_empty() { String::new() } else { self.table() + &self.numbers() };
        let mut kinds: Vec<_> = self.findings.problems.iter().collect();
        kinds.sort_by_key(|(kind, _)| kind.severity());
        for (kind, (count, first)) in kinds {
            text += &format!("\n{}: {count} x {}\n", severity(kind.severity()), kind.name().replace('_', " "));
            text.extend(first.iter().map(named));
            if *count > first.len() {
                text += &format!("  and {} more\n", count - first.len());
            }
            text += &format!("  -> {}\n", kind.hint());
        }
        let (errors, warnings) = (self.findings.count(Severity::Error), self.findings.count(Severity::Warning));
        text + &format!("\n{}, {}", super::counted(errors, "error"), super::counted(warnings, "warning"))
    }

    fn json(&self) -> Value {
        let findings = &self.findings;
        let (samples, examples) = self.totals();
        let range = |numbers: &[usize]| {
            Range::of(numbers).map(|r| json!({ "min": r.min, "median": r.median, "p95": r.p95, "max": r.max }))
        };
        let file = |file: &lare_data::lint::Counted| json!({ "file": file.file.display().to_string(), "format": file.format.name(), "samples": file.samples, "answers": file.examples });
        let problem = |problem: &Problem| json!({ "at": problem.at, "sample": problem.id, "field": problem.field, "what": problem.what });
        let kind = |(kind, (count, first)): (&lare_data::lint::Kind, &(usize, Vec<Problem>))| {
            json!({
                "kind": kind.name(),
                "severity": severity(kind.severity()),
                "count": count,
                "examples": first.iter().map(problem).collect::<Vec<_>>(),
                "hint": kind.hint(),
            })
        };
        json!({
            "files": findings.files.iter().map(file).collect::<Vec<_>>(),
            "samples": samples,
            "answers": examples,
            "pictures": findings.pictures,
            "places": findings.places,
            "looks": findings.looks.0,
            "regions": findings.looks.1,
            "model": self.model,
            "max_tokens": findings.most,
            "tokens": range(&findings.lengths),
            "too_long": self.model.as_ref().map(|_| self.too_long()),
            "tokens_per_picture": range(&findings.per_picture),
            "errors": findings.count(Severity::Error),
            "warnings": findings.count(Severity::Warning),
            "problems": findings.problems.iter().map(kind).collect::<Vec<_>>(),
        })
    }
}
