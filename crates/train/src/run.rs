//! The training loop.

use crate::batch::Batch;
use crate::checkpoint::{self, State};
use crate::config::{Config, LossWeights, Objective, Precision, Stage};
use crate::family::Family;
use crate::folder::RunFolder;
use crate::language;
use crate::loss;
use crate::metrics::{Metrics, StepRecord, finite};
use crate::nano::Nano;
use crate::stages::{self, Staged};
use crate::subject::{Dropped, PicturesOf, Subject};
use crate::vars::{Vars, dice};
use crate::{Error, Result, monitor, schedule};
use candle_core::{Device, Tensor};
use lare_data::{Suite, Tokenizer};
use lare_model::{Init, Source};
use rayon::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What the caller sees and decides while a run goes on.
pub trait Hooks {
    /// After every step.
    fn step(&mut self, done: usize, of: usize, record: &StepRecord);
    /// After every validation: shares right with averaged weights and as many latent steps as the rationale has, by task
    /// (`hop`), by task and looks (`hop 3`), and by task and thought (`hop thought 2`: it names what that step of the
    /// rationale reads).
    fn validation(&mut self, step: usize, right: &[(String, f64)]);
    /// Asked before every step; true ends the run with a checkpoint.
    fn stop(&self) -> bool;
    /// Before the first step: samples that were left out because they do not fit.
    fn dropped(&mut self, _: &[Dropped]) {}
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether all steps were done.
    pub complete: bool,
    /// Steps done.
    pub step: usize,
    /// The last checkpoint, or the exported model when complete.
    pub path: PathBuf,
}

/// Weights that a run starts from.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// A checkpoint or model folder.
    pub path: &'a Path,
    /// Takes only the tensors whose names begin with one of these; empty for all, which must then be this model's.
    pub only: &'a [String],
}

/// What one run needs besides its config.
pub struct Setting<'a> {
    /// The run's folder, held for it.
    pub folder: &'a RunFolder,
    /// Goes on from the newest checkpoint in the folder.
    pub resume: bool,
    /// Starts from these weights instead of random ones.
    pub init: Option<Start<'a>>,
    /// Of a nano model: starts its decoder from that of this Hugging Face folder or GGUF file.
    pub language: Option<&'a Path>,
    /// Where tensors live.
    pub device: Device,
    /// Draws pictures.
    pub suite: &'a Suite,
    /// The nano model's tokenizer and its file's text, which is saved with the model.
    pub tokenizer: (&'a Tokenizer, &'a str),
    /// The folder of the pretrained model that `base.model` of the config names; `None` for the nano model.
    pub base: Option<&'a Path>,
}

/// Performs a run, from its beginning or from its newest checkpoint.
pub fn train(config: &Config, setting: &Setting, hooks: &mut dyn Hooks) -> Result<Ended> {
    match config.model {
        Some(_) => {
            let nano = Nano::new(config, setting.suite, setting.tokenizer, setting.device.clone())?;
            Run::open(config, setting, nano)?.perform(hooks)
        }
        None => {
            let folder = setting.base.ok_or_else(|| config.without("base"))?;
            let family = Family::open(config, setting.suite, folder)?;
            hooks.dropped(family.dropped());
            Run::open(config, setting, family)?.perform(hooks)
        }
    }
}

struct Run<'a, S: Subject> {
    config: &'a Config,
    setting: &'a Setting<'a>,
    subject: S,
    vars: Vars,
    staged: Staged<S>,
    metrics: Metrics,
    state: State,
    last_line: (Instant, usize),
}

impl<'a, S: Subject> Run<'a, S> {
    fn perform(mut self, hooks: &mut dyn Hooks) -> Result<Ended> {
        while self.state.stage < self.config.stages.len() {
            if hooks.stop() {
                return self.end(false);
            }
            let record = self.step()?;
            hooks.step(self.state.step, self.config.total_steps(), &record);
            if self.due(self.config.validate_every_steps) {
                hooks.validation(self.state.step, &self.validate()?);
            }
            // Before the checkpoint: one that says a stage is over would take a step too many when resumed.
            if self.state.step_in_stage == self.config.stages[self.state.stage].steps {
                self.next_stage()?;
            }
            if self.due(self.config.checkpoint_every_steps) {
                self.save()?;
            }
        }
        self.end(true)
    }

    fn open(config: &'a Config, setting: &'a Setting, subject: S) -> Result<Self> {
        lare_kernels::round_products_to_bf16(config.precision == Precision::Bf16)
            .map_err(|e| Error::Precision { reason: e.to_string() })?;
        let vars = Vars::new(config.seed, setting.device.clone());
        let folder = setting.folder.path();
        let newest = if setting.resume { checkpoint::newest(folder, config)? } else { None };
        let mut state = State { step: 0, stage: 0, step_in_stage: 0, updates: 0 };
        if let Some((path, found)) = &newest {
            state = found.clone();
            checkpoint::read_weights(path, &[], &vars, &setting.device)?;
        } else if let Some(Start { path, only }) = setting.init {
            checkpoint::read_weights(path, only, &vars, &setting.device)?;
        }
        if let Some(folder) = setting.language.filter(|_| newest.is_none()) {
            let model = config.model.as_ref().ok_or_else(|| config.without("model"))?;
            language::start(folder, &model.language, setting.tokenizer.0, &vars)?;
            language::fit_eyes(model, &vars)?;
        }
        let stage = state.stage.min(config.stages.len() - 1);
        let given: BTreeSet<String> = vars.all().into_iter().map(|(name, _)| name).collect();
        let mut staged = stages::enter(&subject, config, &config.stages[stage], &vars)?;
        if let Some(start) = setting.init.filter(|_| newest.is_none()) {
            same_tensors(start, &given, &vars.asked())?;
        }
        // At the start of a stage its optimiser is fresh; after the last stage its averages are what is exported.
        if let Some((path, _)) = newest.filter(|_| state.step_in_stage > 0 || state.stage >= config.stages.len()) {
            checkpoint::read_optimizer(&path, &state, &mut staged.trained)?;
        }
        checkpoint::write_atomically(&folder.join("config.toml"), config.to_toml()?.as_bytes())?;
        let line = |left: &Dropped| format!("{}\n", json!({ "id": left.id, "reason": left.reason }));
        let dropped: String = subject.dropped().iter().map(line).collect();
        if !dropped.is_empty() {
            checkpoint::write_atomically(&folder.join("dropped.jsonl"), dropped.as_bytes())?;
        }
        let metrics = Metrics::open(folder, state.step)?;
        let last_line = (Instant::now(), 0);
        Ok(Self { config, setting, subject, vars, staged, metrics, state, last_line })
    }

    /// One optimiser step: batches, losses, gradients, update, metrics.
    fn step(&mut self) -> Result<StepRecord> {
        let stage = &self.config.stages[self.state.stage];
        let logged = self.state.step.is_multiple_of(self.config.log_every_steps);
        let mut batches = Vec::with_capacity(stage.accumulate);
        for part in 0..stage.accumulate {
            let index = self.state.step_in_stage * stage.accumulate + part;
            let frozen = self.staged.frozen_encoders.then_some(&self.staged.model);
            let batch = self.subject.batch(self.state.stage, index, frozen)?;
            self.last_line.1 += batch.rows.len();
            batches.push(batch);
        }
        let (subject, staged) = (&self.subject, &self.staged);
        let work = Work { subject, staged, stage, seed: self.config.seed, step: self.state.step, logged };
        // Side by side: a graph of small operations keeps one core busy and hardly two.
        let parts: Vec<Part> =
            batches.par_iter().enumerate().map(|(part, batch)| work.part(part, batch)).collect::<Result<_>>()?;
        let mut sum: Vec<Option<Tensor>> = vec![None; self.staged.trained.names.len()];
        for part in &parts {
            for (sum, gradient) in sum.iter_mut().zip(&part.gradients) {
                *sum = match (sum.take(), gradient) {
                    (Some(sum), Some(gradient)) => Some((sum + gradient)?),
                    (sum, gradient) => sum.or_else(|| gradient.clone()),
                };
            }
        }
        let mut record = mean_record(parts);
        (record.step, record.stage) = (self.state.step, stage.name.clone());
        record.rate = schedule::rate(stage, self.state.step_in_stage);
        let trained = &mut self.staged.trained;
        let (rates, clip) = (&trained.rate_scale, self.config.optimizer.clip_norm);
        record.gradient_norm = trained.optimizer.step_from(&sum, record.rate, rates, clip)?;
        if !record.gradient_norm.is_finite() {
            return Err(Error::NotFinite { step: self.state.step, term: "gradient_norm", value: record.gradient_norm });
        }
        if logged {
            record.rows_per_second = self.last_line.1 as f64 / self.last_line.0.elapsed().as_secs_f64().max(1e-9);
            self.last_line = (Instant::now(), 0);
            self.metrics.write(&record)?;
        }
        self.state.step += 1;
        self.state.step_in_stage += 1;
        self.state.updates = self.staged.trained.optimizer.steps();
        Ok(record)
    }

    /// Shares right by task, by task and looks, and of thoughts that name what their step reads, on pictures of the
    /// validation split and with averaged weights.
    fn validate(&mut self) -> Result<Vec<(String, f64)>> {
        let index = self.state.stage;
        let stage = &self.config.stages[index];
        if stage.objective == Objective::Read {
            return Ok(Vec::new());
        }
        let (model, _) = self.subject.build(&Averaged(self.staged.trained.averaged()?))?;
        let mut tally: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut number = 0;
        while let Some(batch) = self.subject.validation(index, number, &model)? {
            number += 1;
            let outcome = loss::reason(&model, &batch, &LossWeights::default(), &mut dice(0, "validation", 0))?;
            let mut count = |key: String, right: bool| {
                let entry = tally.entry(key).or_default();
                *entry = (entry.0 + usize::from(right), entry.1 + 1);
            };
            let named = loss::named(&model, &outcome.thread, &outcome.batch)?;
            for ((row, right), named) in batch.rows.iter().zip(outcome.right).zip(named) {
                count(row.group.to_string(), right);
                count(format!("{} {}", row.group, row.looks), right);
                for (k, named) in named.into_iter().enumerate() {
                    count(format!("{} thought {}", row.group, k + 1), named);
                }
            }
        }
        let shares: Vec<(String, f64)> =
            tally.into_iter().map(|(key, (right, all))| (key, right as f64 / all as f64)).collect();
        self.metrics.validation(self.state.step, &stage.name, &shares)?;
        Ok(shares)
    }

    fn next_stage(&mut self) -> Result<()> {
        self.state = State { stage: self.state.stage + 1, step_in_stage: 0, ..self.state.clone() };
        if let Some(stage) = self.config.stages.get(self.state.stage) {
            self.staged = stages::enter(&self.subject, self.config, stage, &self.vars)?;
            self.state.updates = 0;
        }
        Ok(())
    }

    fn save(&self) -> Result<PathBuf> {
        checkpoint::save(self.setting.folder.path(), self.config, &self.state, &self.vars, &self.staged.trained)
    }

    fn due(&self, every: usize) -> bool {
        self.state.step.is_multiple_of(every)
    }

    fn end(self, complete: bool) -> Result<Ended> {
        let mut path = self.save()?;
        if complete {
            path = self.subject.export(self.setting.folder.path(), &self.staged.trained.averaged()?)?;
        }
        Ok(Ended { complete, step: self.state.step, path })
    }
}

/// Refuses initial weights with a tensor too many or too few: they belong to another model. The reading heads are not
/// part of exported models and may be missing. Of a part, each prefix must find something, and what it finds be all
/// that the model has under it.
fn same_tensors(start: Start, given: &BTreeSet<String>, asked: &BTreeSet<String>) -> Result<()> {
    let Start { path, only } = start;
    if let Some(prefix) = only.iter().find(|prefix| !given.iter().any(|name| name.starts_with(prefix.as_str()))) {
        let expected = "tensors that begin with each prefix of `--init-only`; `lare inspect` lists a model's".into();
        let got = format!("none that begins with `{prefix}`");
        return Err(Error::Init { path: path.to_owned(), expected, got });
    }
    let wanted = |name: &&String| only.is_empty() || only.iter().any(|prefix| name.starts_with(prefix.as_str()));
    let missing = asked.difference(given).filter(wanted).find(|name| !name.starts_with("reading."));
    let (what, name) = match (given.difference(asked).next(), missing) {
        (Some(extra), _) => ("unknown to it", extra),
        (None, Some(missing)) => ("missing", missing),
        (None, None) => return Ok(()),
    };
    let (expected, got) = (format!("{} tensors", asked.len()), format!("{}, with `{name}` {what}", given.len()));
    Err(Error::Init { path: path.to_owned(), expected, got })
}

/// What the parts of a step have in common.
struct Work<'a, S: Subject> {
    subject: &'a S,
    staged: &'a Staged<S>,
    stage: &'a Stage,
    seed: u64,
    step: usize,
    logged: bool,
}

/// What one batch of a step gives.
struct Part {
    gradients: Vec<Option<Tensor>>, // of the optimiser's parameters, divided by `accumulate`
    record: StepRecord,
}

impl<S: Subject> Work<'_, S> {
    /// The stage's objective on one batch, and its gradients; monitors of the first part go into the record.
    fn part(&self, part: usize, batch: &Batch<PicturesOf<S>>) -> Result<Part> {
        let Self { staged, stage, .. } = self;
        let mut record = StepRecord::default();
        let terms = match stage.objective {
            Objective::Read => {
                let (terms, right) = self.subject.read((&staged.model, &staged.heads), batch)?;
                record.reading = right;
                terms
            }
            Objective::Halt => loss::halt(&staged.model, batch)?,
            Objective::Reason => {
                let number = (self.step * stage.accumulate + part) as u64;
                let outcome = loss::reason(&staged.model, batch, &stage.loss, &mut dice(self.seed, "loss", number))?;
                let right = outcome.right.iter().filter(|r| **r).count();
                record.right = Some(right as f64 / outcome.right.len().max(1) as f64);
                record.rec_of_another = outcome.rec_of_another;
                if self.logged && part == 0 {
                    record.health = Some(monitor::health(&staged.model, &outcome.thread, &outcome.batch)?);
                }
                outcome.terms
            }
        };
        record.terms = finite(self.step, &terms, &stage.loss)?;
        let gradients = lare_kernels::backward(&(terms.total(&stage.loss)? / stage.accumulate as f64)?)?;
        let gradients = staged.trained.optimizer.params().iter().map(|var| gradients.get(var).cloned()).collect();
        Ok(Part { gradients, record })
    }
}

/// One record from all parts: each value averaged over the parts that have it; health is the first part's.
fn mean_record(parts: Vec<Part>) -> StepRecord {
    fn mean(all: Vec<Vec<(&'static str, f64)>>) -> Vec<(&'static str, f64)> {
        let mut sums: Vec<(&'static str, f64, f64)> = Vec::new();
        for (name, value) in all.into_iter().flatten() {
            match sums.iter_mut().find(|(known, _, _)| *known == name) {
                Some((_, sum, count)) => (*sum, *count) = (*sum + value, *count + 1.0),
                None => sums.push((name, value, 1.0)),
            }
        }
        sums.into_iter().map(|(name, sum, count)| (name, sum / count)).collect()
    }
    let one = |name: &'static str, of: fn(&StepRecord) -> Option<f64>, records: &[StepRecord]| {
        let values = records.iter().filter_map(of).map(|value| vec![(name, value)]).collect();
        mean(values).first().map(|(_, value)| *value)
    };
    let mut records: Vec<StepRecord> = parts.into_iter().map(|part| part.record).collect();
    StepRecord {
        right: one("right", |r| r.right, &records),
        rec_of_another: one("rec_of_another", |r| r.rec_of_another, &records),
        terms: mean(records.iter().map(|r| r.terms.clone()).collect()),
        reading: mean(records.iter().map(|r| r.reading.clone()).collect()),
        health: records.first_mut().and_then(|r| r.health.take()),
        ..StepRecord::default()
    }
}

/// Averaged weights as a source.
struct Averaged(BTreeMap<String, Tensor>);

impl Source for Averaged {
    fn tensor(&self, name: &str, shape: &[usize], _: Init) -> lare_model::Result<Tensor> {
        self.0.get(name).cloned().ok_or_else(|| lare_model::Error::Missing {
            file: "the variables of this run".into(),
            name: name.into(),
            expected: shape.to_vec(),
            nearest: "none".into(),
        })
    }
}
