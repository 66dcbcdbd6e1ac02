//! `lare train`: performs a run, shows how it stands, and ends with a checkpoint when asked to.

use super::Outcome;
use crate::args::Train;
use crate::failure::Failure;
use crate::files;
use crate::hub;
use crate::messages::{Messages, Progress, Report};
use lare_data::{Suite, Tokenizer};
use lare_infer::Device;
use lare_train::Config;
use lare_train::checkpoint::checkpoints;
use lare_train::folder::RunFolder;
use lare_train::metrics::StepRecord;
use lare_train::overrides;
use lare_train::run::{Ended, Hooks, Setting, Start, train};
use lare_train::subject::Dropped;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Trains.
pub fn run(args: &Train, messages: &Messages) -> Result<Outcome, Failure> {
    let file = args.config.display().to_string();
    let text = overrides::with(&files::text(&args.config, "the run config")?, &args.set, &file)?;
    let config = Config::from_toml(&text, &file)?;
    let folder = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&config.name));
    let text = lare_data::tokenizer::build();
    let tokenizer = Tokenizer::from_bytes(text.as_bytes())?;
    check_vocabulary(&config, &tokenizer, &file)?;
    let base = config.base.as_ref().map(|base| hub::folder(Path::new(&base.model))).transpose()?;
    let language = args.language.as_deref().map(hub::folder).transpose()?;

    // Before the folder is touched: a run that is told to end while its model is built ends as any other.
    let interrupted = super::listen()?;
    let claimed = RunFolder::claim(&folder, args.resume)?;
    let from = newest_step(&folder).filter(|_| args.resume).unwrap_or(0);
    let (total, place) = (config.total_steps(), folder.display());
    messages.note(&match from {
        0 => format!("{total} steps into {place}"),
        step => format!("going on from step {step} of {total} in {place}"),
    });
    if args.init.is_none() {
        warn_of_halting(&config, messages);
    }
    let suite = Suite::new();
    let setting = Setting {
        folder: &claimed,
        resume: args.resume,
        init: args.init.as_deref().map(|path| Start { path, only: &args.init_only }),
        language: language.as_deref(),
        device: Device::Cpu,
        suite: &suite,
        tokenizer: (&tokenizer, &text),
        base: base.as_deref(),
    };
    let mut watch = Watch {
        messages,
        progress: messages.progress("drawing the first pictures", Some(total as u64)),
        log_every: config.log_every_steps,
        stop_after: args.stop_after,
        done: from,
        rows_per_second: 0.0,
        interrupted,
    };
    let ended = train(&config, &setting, &mut watch);
    watch.progress.finish();
    let interrupted = watch.interrupted.load(Ordering::Relaxed);
    let base = config.base.as_ref().map(|base| base.model.clone());
    let ending = Ending { ended: ended?, of: total, folder: folder.clone(), base };
    messages.report(&ending)?;
    // A script must not go on with a model that is not finished because its user pressed Ctrl-C.
    Ok(if interrupted && !ending.ended.complete { Outcome::Interrupted } else { Outcome::Done })
}

fn newest_step(folder: &Path) -> Option<usize> {
    checkpoints(folder).last().map(|(step, _)| *step)
}

fn check_vocabulary(config: &Config, tokenizer: &Tokenizer, file: &str) -> Result<(), Failure> {
    let got = config.model.as_ref().map(|model| model.language.vocabulary);
    let (expected, Some(got)) = (tokenizer.vocab_size(), got) else { return Ok(()) };
    if expected == got {
        return Ok(());
    }
    Err(Failure::new(format!("`model.language.vocabulary` in {file} is not usable"))
        .part("expected", format!("{expected}   tokens of the suite"))
        .part("got", got)
        .hint(format!("write vocabulary = {expected}")))
}

/// A model that learns to think and not when to stop says one half to that question for ever.
fn warn_of_halting(config: &Config, messages: &Messages) {
    let steps = config.last_latent_steps();
    if config.teaches_halting() || steps == 0 {
        return;
    }
    let then = match config.base {
        Some(_) => format!(
            "`--steps auto` will take {} for every question, the most of the last stage, also for those that learn to answer after as many as they have looks",
            super::counted(steps, "latent step")
        ),
        None => "with `--steps auto` it will answer before the first latent step".to_owned(),
    };
    messages.warning(&format!(
        "no stage teaches the model when to stop thinking: {then}; a stage with `loss.halt` above 0 that trains `refocus.halt.` teaches it"
    ));
}

/// Shows how a run stands.
struct Watch<'a> {
    messages: &'a Messages,
    progress: Progress,
    log_every: usize,
    stop_after: Option<usize>,
    done: usize,
    /// Of the last line of metrics; steps in between have none.
    rows_per_second: f64,
    interrupted: Arc<AtomicBool>,
}

impl Hooks for Watch<'_> {
    fn step(&mut self, done: usize, of: usize, record: &StepRecord) {
        self.done = done;
        if record.rows_per_second > 0.0 {
            self.rows_per_second = record.rows_per_second;
        }
        self.progress.at(done as u64, status(record, self.rows_per_second));
        if self.messages.wants_json() && record.step.is_multiple_of(self.log_every) {
            self.object(line(record, of));
        }
    }

    fn validation(&mut self, step: usize, right: &[(String, f64)]) {
        if right.is_empty() {
            return;
        }
        if self.messages.wants_json() {
            let shares: serde_json::Map<String, Value> = right.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            self.object(json!({ "step": step, "validation": shares }));
        }
        // `read` stands for the task, `read 1` for its questions of one look.
        let tasks = right.iter().filter(|(name, _)| !name.contains(' '));
        let shares: Vec<String> = tasks.map(|(name, share)| format!("{name} {:.1} %", 100.0 * share)).collect();
        self.progress.note(&format!("validation at step {step}: {}", shares.join(", ")));
    }

    fn dropped(&mut self, dropped: &[Dropped]) {
        let Some(first) = dropped.first() else { return };
        let count = super::counted(dropped.len(), "sample");
        let first = format!("the first is `{}`: {}", first.id, first.reason);
        self.messages.warning(&format!("{count} left out, dropped.jsonl in the run's folder has all; {first}"));
    }

    fn stop(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.stop_after.is_some_and(|last| self.done >= last)
    }
}

impl Watch<'_> {
    /// Training goes on when nobody reads its lines any more.
    fn object(&self, value: Value) {
        drop(self.messages.result(&value.to_string()));
    }
}

fn status(record: &StepRecord, rows_per_second: f64) -> String {
    let mut parts = vec![record.stage.clone()];
    parts.extend(record.terms.iter().map(|(name, value)| format!("{name} {value:.3}")));
    parts.extend(record.reading.iter().map(|(name, share)| format!("{name} {:.0} %", 100.0 * share)));
    parts.extend(record.right.map(|share| format!("right {:.0} %", 100.0 * share)));
    parts.push(format!("rate {:.1e}", record.rate));
    if rows_per_second > 0.0 {
        parts.push(format!("{rows_per_second:.0} questions/s"));
    }
    parts.join("  ")
}

fn line(record: &StepRecord, of: usize) -> Value {
    let named = |pairs: &[(&'static str, f64)]| -> serde_json::Map<String, Value> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
    };
    json!({
        "step": record.step,
        "of": of,
        "stage": record.stage,
        "rate": record.rate,
        "loss": named(&record.terms),
        "reading": named(&record.reading),
        "right": record.right,
        "gradient_norm": record.gradient_norm,
        "rows_per_second": record.rows_per_second,
    })
}

/// How the run ended.
struct Ending {
    ended: Ended,
    of: usize,
    folder: PathBuf,
    /// Of an adapter.
    base: Option<String>,
}

impl Report for Ending {
    fn text(&self) -> String {
        let path = self.ended.path.display();
        match self.ended.complete {
            true => match &self.base {
                None => format!("{path}\nask it with: lare ask PICTURE QUESTION --model {path}"),
                Some(base) => format!("{path}\nask it with: lare ask PICTURE QUESTION --model {base} --adapter {path}"),
            },
            false => format!(
                "{path}\nstopped at step {} of {}; go on with --resume --out {}",
                self.ended.step,
                self.of,
                self.folder.display()
            ),
        }
    }

    fn json(&self) -> Value {
        json!({ "complete": self.ended.complete, "step": self.ended.step, "of": self.of, "path": self.ended.path })
    }
}
