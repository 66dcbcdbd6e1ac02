//! One JSON line a logged step, and the same numbers as TensorBoard events. A number that is not finite ends the
//! run and is named.

use crate::config::LossWeights;
use crate::loss::LossTerms;
use crate::monitor::Health;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use tensorboard_rs::summary_writer::SummaryWriter;

/// What is known of one step.
#[derive(Clone, Debug, Default)]
pub struct StepRecord {
    /// Optimiser steps before this one.
    pub step: usize,
    /// The stage's name.
    pub stage: String,
    /// Learning rate.
    pub rate: f64,
    /// Joint norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Terms of the loss by name.
    pub terms: Vec<(&'static str, f64)>,
    /// Share of rows with every answer token right.
    pub right: Option<f64>,
    /// Shares that the encoders' warm-up gets right.
    pub reading: Vec<(&'static str, f64)>,
    /// Health of the thoughts.
    pub health: Option<Health>,
    /// The reconstruction loss with thoughts about other pictures.
    pub rec_of_another: Option<f64>,
    /// Rows trained on per second since the last line.
    pub rows_per_second: f64,
}

impl StepRecord {
    fn json(&self) -> Value {
        let mut line = Map::new();
        line.insert("step".into(), json!(self.step));
        line.insert("stage".into(), json!(self.stage));
        line.insert("rate".into(), json!(self.rate));
        line.insert("gradient_norm".into(), json!(self.gradient_norm));
        line.insert("rows_per_second".into(), json!((self.rows_per_second * 10.0).round() / 10.0));
        for (name, value) in self.terms.iter().chain(&self.reading) {
            line.insert((*name).into(), json!(value));
        }
        if let Some(right) = self.right {
            line.insert("right".into(), json!(right));
        }
        if let Some(another) = self.rec_of_another {
            line.insert("rec_of_another".into(), json!(another));
        }
        if let Some(h) = &self.health {
            line.insert("latent_norm_ratio".into(), json!(h.latent_norm_ratio));
            line.insert("collapse_cosine".into(), json!(h.collapse_cosine));
            line.insert("focus_entropy".into(), json!(h.focus_entropy));
            line.insert("region_mass".into(), json!(h.region_mass));
            line.insert("region_hit".into(), json!(h.region_hit));
            line.insert("gate".into(), json!(h.gate));
        }
        Value::Object(line)
    }
}

/// Refuses terms that are not finite; gives their values by name.
///
/// # Errors
/// [`Error::NotFinite`] with the first such term.
pub fn finite(step: usize, terms: &LossTerms, weights: &LossWeights) -> Result<Vec<(&'static str, f64)>> {
    let mut values = Vec::new();
    for (term, tensor, _) in terms.named(weights) {
        if let Some(tensor) = tensor {
            let value = f64::from(tensor.detach().to_scalar::<f32>()?);
            if !value.is_finite() {
                return Err(Error::NotFinite { step, term, value });
            }
            values.push((term, value));
        }
    }
    Ok(values)
}

/// The metrics of a run, appended to.
pub struct Metrics {
    path: PathBuf,
    file: File,
    events: SummaryWriter,
}

impl Metrics {
    /// Opens `metrics.jsonl` and `events/` in a run's folder. Lines at or after `from_step` are dropped: they will
    /// be written again.
    pub fn open(folder: &Path, from_step: usize) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        if path.exists() {
            keep_before(&path, from_step)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| Error::file("write", &path, &e))?;
        let events = folder.join("events");
        std::fs::create_dir_all(&events).map_err(|e| Error::file("write", &events, &e))?;
        Ok(Self { path, file, events: SummaryWriter::new(&events) })
    }

    /// Writes one step.
    pub fn write(&mut self, record: &StepRecord) -> Result<()> {
        let line = record.json();
        self.line(&line)?;
        if let Value::Object(fields) = &line {
            for (name, value) in fields {
                self.event(&format!("{}/{name}", record.stage), value, record.step);
            }
        }
        self.events.flush();
        Ok(())
    }

    /// Writes what a validation found: shares right by task.
    pub fn validation(&mut self, step: usize, stage: &str, right: &[(String, f64)]) -> Result<()> {
        let shares: Map<String, Value> = right.iter().map(|(task, share)| (task.clone(), json!(share))).collect();
        for (task, share) in right {
            self.event(&format!("validation/{task}"), &json!(share), step);
        }
        self.events.flush();
        self.line(&json!({ "step": step, "stage": stage, "validation": shares }))
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        writeln!(self.file, "{value}").map_err(|e| Error::file("write", &self.path, &e))
    }

    fn event(&mut self, name: &str, value: &Value, step: usize) {
        match value {
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.event(&format!("{name}/{}", i + 1), item, step);
                }
            }
            _ => {
                if let Some(number) = value.as_f64().filter(|_| !name.ends_with("/step")) {
                    self.events.add_scalar(name, number as f32, step);
                }
            }
        }
    }
}

fn keep_before(path: &Path, from_step: usize) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::file("read", path, &e))?;
    let mut kept = String::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|e| Error::file("read", path, &e))?;
        // A line cut short by a kill is no JSON and is dropped too.
        let parsed = serde_json::from_str::<Value>(&line).unwrap_or_default();
        // A validation stands after the steps it counts, and before the checkpoint of the same number.
        let before = from_step + usize::from(parsed.get("validation").is_some());
        if parsed["step"].as_u64().is_some_and(|step| (step as usize) < before) {
            kept.push_str(&line);
            kept.push('\n');
        }
    }
    crate::checkpoint::write_atomically(path, kept.as_bytes())
}
