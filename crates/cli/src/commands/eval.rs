//! `lare eval`: a model on a part of the suite, graded item by item, and whether its thoughts matter.

use super::{Outcome, assistant};
use crate::args::{Eval, StepCount};
use crate::failure::Failure;
use crate::messages::{Messages, Report};
use lare_data::Task;
use lare_eval::summary::{Effect, Group};
use lare_eval::{Intervention, Refocus, Settings, Source, Summary, stats::Interval};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Asks what has not been asked yet, and tells what came of it all.
pub fn run(eval: &Eval, messages: &Messages) -> Result<Outcome, Failure> {
    refuse_nothing(eval)?;
    let assistant = assistant(eval.model.as_deref())?;
    let tasks = if eval.tasks.is_empty() { Task::ALL.to_vec() } else { once(&eval.tasks) };
    let source = Refocus::new(eval.split, tasks, eval.count);
    let settings = Settings {
        steps: match eval.steps {
            StepCount::Auto => None,
            StepCount::Fixed(steps) => Some(steps),
        },
        halt_threshold: eval.halt_threshold,
        interventions: if eval.causal { Intervention::ALL.to_vec() } else { once(&eval.replace) },
        seed: eval.seed,
        batch: eval.batch,
        ..Settings::new(&assistant, &source)
    };
    let folder = eval.out.clone().unwrap_or_else(|| {
        PathBuf::from("runs/eval").join(format!("{}-{}-{}", settings.model, eval.split, settings.digest()))
    });
    let mut bar = messages.progress("answering", Some(source.count() as u64));
    let interrupted = super::listen()?;
    let found = lare_eval::run(&assistant, &source, &settings, &folder, &mut |done| {
        bar.at(done as u64, "answering");
        !interrupted.load(Ordering::Relaxed)
    });
    bar.finish();
    let found = found?;
    if !found.complete {
        let (done, all) = (found.records.len(), source.count());
        messages.warning(&format!(
            "stopped after {done} of {all} questions; the same command goes on, from {}",
            folder.display()
        ));
        return Ok(Outcome::Interrupted);
    }
    let Some(summary) = Summary::of(&settings, &found.records) else {
        return Err(Failure::new("there are no results"));
    };
    if summary.all.thought == 0 && settings.steps != Some(0) {
        messages.warning(
            "latent mode was never entered: the model stopped before its first step on every question. Its accuracy is that \
             of the plain model; `--steps N` makes it think",
        );
    }
    messages.report(&Found { settings: &settings, summary: &summary, folder: &folder })?;
    messages.note(&format!("results of every question: {}", folder.join("items.jsonl").display()));
    Ok(Outcome::Done)
}

fn refuse_nothing(eval: &Eval) -> Result<(), Failure> {
    for (flag, value) in [("--count", eval.count), ("--batch", eval.batch)] {
        if value == 0 {
            return Err(Failure::new(format!("`{flag} 0` asks nothing")).part("expected", "at least 1").part("got", 0));
        }
    }
    Ok(())
}

/// Each once, in order.
fn once<T: PartialEq + Copy>(all: &[T]) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for one in all {
        if !kept.contains(one) {
            kept.push(*one);
        }
    }
    kept
}

struct Found<'a> {
    settings: &'a Settings,
    summary: &'a Summary,
    folder: &'a Path,
}

impl Report for Found<'_> {
    fn text(&self) -> String {
        let summary = self.summary;
        let steps = self.settings.steps.map_or("auto".to_owned(), |steps| steps.to_string());
        let hash = &self.settings.weights_hash[..8.min(self.settings.weights_hash.len())];
        let mut text = format!(
            "{} ({hash}), {} questions, latent steps: {steps}\n\n{:<12}{:>6}  {:<14}{:>7}{:>7}{:>11}{:>8}{:>10}\n",
            self.settings.model,
            summary.all.items,
            "",
            "right",
            "95 %",
            "steps",
            "words",
            "positions",
            "hits",
            "unparsed"
        );
        for (task, group) in &summary.tasks {
            text += &row(task, group);
            let of_task: Vec<_> = summary.looks.iter().filter(|(name, ..)| name == task).collect();
            for (_, looks, group) in of_task.iter().filter(|_| of_task.len() > 1) {
                text += &row(&format!("  {looks} looks"), group);
            }
        }
        text += &row("all", &summary.all);
        let thought = 100.0 * summary.all.thought as f64 / summary.all.items as f64;
        text += &format!("\nlatent mode was entered in {thought:.1} % of the answers\n");
        if !summary.likeness.is_empty() {
            let each: Vec<String> = summary.likeness.iter().map(|x| format!("{x:.2}")).collect();
            text += &format!(
                "thoughts about different questions of a task are alike by (cosine, step by step) {}\n",
                each.join(" ")
            );
        }
        for effect in &summary.causal {
            text += &format!("{}\n", effect.verdict());
        }
        text
    }

    fn json(&self) -> Value {
        let summary = self.summary;
        let tasks: Vec<Value> =
            summary.tasks.iter().map(|(task, found)| group(found, json!({ "task": task }))).collect();
        let looks = summary.looks.iter();
        let looks: Vec<Value> =
            looks.map(|(task, looks, found)| group(found, json!({ "task": task, "looks": looks }))).collect();
        let by_task: Vec<Value> = summary
            .causal_by_task
            .iter()
            .filter(|(_, effects)| !effects.is_empty())
            .map(|(task, effects)| json!({ "task": task, "effects": effects.iter().map(effect).collect::<Vec<_>>() }))
            .collect();
        json!({
            "settings": self.settings,
            "folder": self.folder,
            "all": group(&summary.all, json!({})),
            "tasks": tasks,
            "looks": looks,
            "likeness": summary.likeness,
            "causal": summary.causal.iter().map(effect).collect::<Vec<_>>(),
            "causal_by_task": by_task,
        })
    }
}

fn row(name: &str, group: &Group) -> String {
    let percent = |x: f64| 100.0 * x;
    let Interval { value, low, high } = group.right;
    let hits = group.hit_rate().map_or(String::new(), |hits| format!("{:.1} %", percent(hits.value)));
    format!(
        "{name:<12}{:>6.1}  {:<14}{:>7.2}{:>7.2}{:>11.1}{hits:>8}{:>10}\n",
        percent(value),
        format!("{:.1} to {:.1}", percent(low), percent(high)),
        group.latent_steps,
        group.text_tokens,
        group.processed_positions,
        group.unparsed
    )
}

/// A group as an object, beside what names it.
fn group(group: &Group, mut named: Value) -> Value {
    let hit_rate = group.hit_rate();
    if let (Value::Object(named), Ok(Value::Object(fields))) = (&mut named, serde_json::to_value(group)) {
        named.extend(fields);
        named.insert("hit_rate".into(), json!(hit_rate));
    }
    named
}

fn effect(effect: &Effect) -> Value {
    json!({
        "what": effect.what,
        "items": effect.items,
        "right": effect.right,
        "cost": effect.cost,
        "p": effect.p,
        "verdict": effect.verdict(),
    })
}
