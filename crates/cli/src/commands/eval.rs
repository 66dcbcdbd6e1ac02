//! `lare eval`: a model on a part of the suite or on a benchmark, graded item by item, and whether its thoughts matter.

use super::{Outcome, assistant, counted, generate};
use crate::args::{Eval, Place, StepCount};
use crate::failure::Failure;
use crate::hub;
use crate::messages::{Messages, Report};
use clap::ValueEnum;
use lare_data::Task;
use lare_eval::rules::{BothRight, Circular, YesNo};
use lare_eval::summary::{Effect, Group};
use lare_eval::{Intervention, Job, Refocus, Rules, Settings, Source, Summary, benchmark, stats::Interval};
use lare_infer::Options;
use lare_infer::model::Speaking;
use lare_infer::session::Answers;
use lare_trace::ModelInfo;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Most tokens of a pretrained model's answer where nobody says otherwise.
const ANSWER_TOKENS: usize = 512;
/// Questions of each task of the suite, unless said otherwise.
const COUNT: usize = 200;

/// Asks what has not been asked yet, and tells what came of it all.
pub fn run(eval: &Eval, messages: &Messages) -> Result<Outcome, Failure> {
    refuse_nothing(eval)?;
    lare_train::round_products_to_bf16(eval.bf16).map_err(|e| {
        Failure::new("`--bf16` does not work here")
            .part("expected", "a processor with AMX or AVX-512 BF16, on Linux")
            .part("got", e)
            .hint("leave it out: f32 is computed everywhere")
    })?;
    let source = source(eval)?;
    let asked = asked(eval, messages)?;
    let settings = settings(eval, &asked, &*source)?;
    let folder = eval.out.clone().unwrap_or_else(|| {
        let model = settings.model.replace('/', "-"); // of a hub's id
        PathBuf::from("runs/eval").join(format!("{model}-{}-{}", settings.items.name(), settings.digest()))
    });
    let left_out = settings.items.left_out();
    if !left_out.is_empty() {
        messages.note(&format!("left out: {}", left_out.join("; ")));
    }
    let mut bar = messages.progress("answering", Some(source.count() as u64));
    let interrupted = super::listen()?;
    let job = Job { model: &*asked.model, source: &*source, settings: &settings, folder: &folder, keep: eval.keep };
    let found = job.run(&mut |done| {
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
    warn(&settings, &summary, messages);
    let rules = Rules::of(&settings.items, &found.records);
    messages.report(&Found { settings: &settings, summary: &summary, rules: &rules, folder: &folder })?;
    messages.note(&format!("results of every question: {}", folder.join("items.jsonl").display()));
    if eval.keep > 0 {
        messages.note(&format!("kept answers: {}; `lare report` shows them", folder.join("traces").display()));
    }
    Ok(Outcome::Done)
}

/// Who is asked.
struct Asked {
    model: Box<dyn Answers>,
    identity: ModelInfo,
    /// Whether it was taught to take latent steps.
    takes_steps: bool,
    /// Most tokens of an answer, where the context alone would be too many.
    most_tokens: Option<usize>,
}

/// Loads the model: of `lare train`, or from a Hugging Face folder.
fn asked(eval: &Eval, messages: &Messages) -> Result<Asked, Failure> {
    let folder = eval.model.as_deref().map(hub::folder).transpose()?;
    let Some(folder) = folder.as_deref().filter(|folder| generate::is_for(folder)) else {
        super::ask::refuse_what_pretrained_models_have(eval.dtype, eval.adapter.as_deref())?;
        let model = assistant(folder.as_deref(), &eval.computing.open()?)?;
        return Ok(Asked { identity: model.identity(), model: Box::new(model), takes_steps: true, most_tokens: None });
    };
    let adapter = eval.adapter.as_deref().map(generate::open_adapter).transpose()?;
    let generator =
        generate::load(folder, eval.computing.holding(eval.dtype.map(Into::into))?, adapter.as_ref(), messages)?;
    if generator.base().fine().is_none() {
        return Err(Failure::new("all questions are about pictures")
            .part("expected", "a model that sees")
            .part("got", format!("{}, which reads text alone", generator.base().architecture.family)));
    }
    if let StepCount::Auto = eval.steps {
        generate::settled(&generator, Options::default().steps, messages);
    }
    let identity = match &adapter {
        Some(adapter) => generate::identity(adapter),
        None => generate::identity_as_published(folder, &generator)?,
    };
    let most_tokens = Some(generator.manner().answer_tokens.unwrap_or(ANSWER_TOKENS));
    Ok(Asked { identity, model: Box::new(generator), takes_steps: adapter.is_some(), most_tokens })
}

/// How they are asked.
fn settings(eval: &Eval, asked: &Asked, source: &dyn Source) -> Result<Settings, Failure> {
    Ok(Settings {
        steps: match eval.steps {
            StepCount::Auto if asked.takes_steps => None,
            StepCount::Auto => Some(0),
            StepCount::Fixed(steps) => Some(steps),
        },
        dtype: eval.dtype.and_then(|dtype| Some(dtype.to_possible_value()?.get_name().to_owned())),
        device: (eval.computing.device != Place::Cpu).then(|| eval.computing.device.to_string()),
        max_tokens: eval.max_tokens.or(asked.most_tokens),
        halt_threshold: eval.halt_threshold,
        interventions: interventions(eval)?,
        seed: eval.seed,
        batch: eval.batch,
        bf16: eval.bf16,
        ..Settings::new(asked.identity.clone(), source)
    })
}

/// Says what a reader of the numbers should know.
fn warn(settings: &Settings, summary: &Summary, messages: &Messages) {
    if summary.never_thought() && settings.steps != Some(0) {
        messages.warning(
            "latent mode was never entered: the model stopped before its first step on every question. Its accuracy is that \
             of the plain model; `--steps N` makes it think",
        );
    }
    if let Some(untried) = summary.says_untried() {
        let all =
            if summary.causal.is_empty() { ". This run says nothing about what the thoughts are worth" } else { "" };
        messages.warning(&format!("{untried}{all}"));
    }
    if summary.all.refused > 0 {
        let (refused, all) = (summary.all.refused, summary.all.items);
        messages.warning(&format!(
            "{refused} of {all} questions were not asked, because they do not fit the model's context; they count as unparsed"
        ));
    }
}

fn refuse_nothing(eval: &Eval) -> Result<(), Failure> {
    for (flag, value) in [("--count", eval.count), ("--batch", Some(eval.batch)), ("--max-tokens", eval.max_tokens)] {
        if value == Some(0) {
            return Err(Failure::new(format!("`{flag} 0` asks nothing")).part("expected", "at least 1").part("got", 0));
        }
    }
    Ok(())
}

/// What is asked: a benchmark's files, or a part of the suite.
fn source(eval: &Eval) -> Result<Box<dyn Source>, Failure> {
    let Some(path) = &eval.data else {
        let tasks = if eval.tasks.is_empty() { Task::ALL.to_vec() } else { once(&eval.tasks) };
        return Ok(Box::new(Refocus::new(eval.split, tasks, eval.count.unwrap_or(COUNT))));
    };
    let mut found = benchmark::open(path)?;
    if eval.circular {
        found = found.circular()?;
    }
    Ok(Box::new(match eval.count {
        Some(count) => found.first(count),
        None => found,
    }))
}

/// What is replaced. A benchmark does not say where to look, so that there is no true region to read.
fn interventions(eval: &Eval) -> Result<Vec<Intervention>, Failure> {
    let regions_are_known = eval.data.is_none();
    if !regions_are_known && eval.replace.contains(&Intervention::OraclePatches) {
        let summary = format!("`--replace {}` needs to know where to look", Intervention::OraclePatches);
        return Err(Failure::new(summary)
            .part("expected", "questions of the suite, which come with their regions")
            .part("got", "a benchmark, which has none")
            .hint("leave it out, or leave out `--data`"));
    }
    Ok(match eval.causal {
        true => Intervention::ALL
            .into_iter()
            .filter(|what| regions_are_known || *what != Intervention::OraclePatches)
            .collect(),
        false => once(&eval.replace),
    })
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

/// What a run found; `lare report` shows the same.
pub(super) struct Found<'a> {
    pub settings: &'a Settings,
    pub summary: &'a Summary,
    pub rules: &'a Rules,
    pub folder: &'a Path,
}

impl Report for Found<'_> {
    fn text(&self) -> String {
        let summary = self.summary;
        let steps = self.settings.steps.map_or("auto".to_owned(), |steps| steps.to_string());
        let hash: String = self.settings.weights_hash.chars().take(8).collect();
        let names = summary.tasks.iter().map(|(task, _)| task.chars().count() + 1);
        let width = names.max().unwrap_or(0).max(12);
        let mut text = format!(
            "{} ({hash}), {}, latent steps: {steps}{}\n\n{:<width$}{:>6}  {:<14}{:>7}{:>7}{:>11}{:>8}{:>10}\n",
            self.settings.model,
            counted(summary.all.items, "question"),
            if self.settings.bf16 { ", in bf16" } else { "" },
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
            text += &row(task, width, group);
            let of_task: Vec<_> = summary.looks.iter().filter(|(name, ..)| name == task).collect();
            for (_, looks, group) in of_task.iter().filter(|_| of_task.len() > 1) {
                text += &row(&format!("  {looks} looks"), width, group);
            }
        }
        text += &row("all", width, &summary.all);
        text += &by_the_rules(self.rules);
        let thought = 100.0 * summary.all.thought as f64 / summary.all.asked().max(1) as f64;
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
        if let Some(untried) = summary.says_untried() {
            text += &format!("{untried}\n");
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
            "untried": summary.untried,
            "rules": self.rules,
        })
    }
}

fn row(name: &str, width: usize, group: &Group) -> String {
    let percent = |x: f64| 100.0 * x;
    let Interval { value, low, high } = group.right;
    let hits = group.hit_rate().map_or(String::new(), |hits| format!("{:.1} %", percent(hits.value)));
    format!(
        "{name:<width$}{:>6.1}  {:<14}{:>7.2}{:>7.2}{:>11.1}{hits:>8}{:>10}\n",
        percent(value),
        format!("{:.1} to {:.1}", percent(low), percent(high)),
        group.latent_steps,
        group.text_tokens,
        group.processed_positions,
        group.unparsed
    )
}

/// What a benchmark's own rules give, where it has any.
fn by_the_rules(rules: &Rules) -> String {
    let mut text = String::new();
    if let Some(Circular { questions, right, first, .. }) = &rules.circular {
        let (all, first) = (shown(right), 100.0 * first.value);
        text += &format!(
            "\ncircular: {all} of {questions} questions right in every order of their options; {first:.1} % in the first\n"
        );
    }
    if !rules.yes_no.is_empty() {
        text += &format!("\n{:<14}{:>9}{:>11}{:>8}{:>7}{:>7}\n", "", "accuracy", "precision", "recall", "F1", "yes");
    }
    for YesNo { category, accuracy, precision, recall, f1, yes_rate, .. } in &rules.yes_no {
        let [accuracy, precision, recall, f1, yes] = [Some(*accuracy), *precision, *recall, *f1, Some(*yes_rate)]
            .map(|share| share.map_or("-".to_owned(), |share| format!("{:.1}", 100.0 * share)));
        text += &format!("{category:<14}{accuracy:>9}{precision:>11}{recall:>8}{f1:>7}{yes:>7}\n");
    }
    if let Some(BothRight { pairs, right, alone }) = &rules.pairs {
        text += &format!("\npairs: {} of {pairs} pairs with both right", shown(right));
        text += &if *alone > 0 { format!("; {alone} without their pair do not count\n") } else { "\n".to_owned() };
    }
    text
}

/// A share with its interval.
pub(super) fn shown(Interval { value, low, high }: &Interval) -> String {
    format!("{:.1} % [{:.1}, {:.1}]", 100.0 * value, 100.0 * low, 100.0 * high)
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
