//! `lare bench-serve`: questions of the suite, as fast as a server answers them.

use super::Outcome;
use crate::args::{BenchServe, StepCount};
use crate::failure::Failure;
use crate::files;
use crate::messages::{Messages, Report};
use lare_data::{Suite, Task};
use lare_server::bench::{self, Asked, Percentiles, Plan, Target};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_millis(250);

/// Asks; the answer is no when a request had none.
pub fn run(args: &BenchServe, messages: &Messages) -> Result<Outcome, Failure> {
    let plan = Plan {
        target: Target::new(&args.url, args.anywhere)?,
        concurrency: args.concurrency,
        bodies: bodies(args, messages)?,
        key: key(args)?,
        timeout: Duration::from_secs(args.timeout),
    };
    let mut progress = messages.progress("asking", Some(plan.bodies.len() as u64));
    let done = Arc::new(AtomicUsize::new(0));
    let counted = done.clone();
    let load = std::thread::spawn(move || bench::run(&plan, move |count| counted.store(count, Ordering::Relaxed)));
    while !load.is_finished() {
        progress.at(done.load(Ordering::Relaxed) as u64, "asking");
        std::thread::sleep(TOLD_EVERY);
    }
    progress.finish();
    let report = load.join().map_err(|_| Failure::new("the load ended in a panic"))??;
    messages.report(&Told(&report))?;
    Ok(if report.errors.is_empty() { Outcome::Done } else { Outcome::No })
}

/// The same numbers are the same requests everywhere.
fn bodies(args: &BenchServe, messages: &Messages) -> Result<Vec<String>, Failure> {
    let (suite, all) = (Suite::new(), Task::ALL.to_vec());
    let tasks = if args.tasks.is_empty() { &all } else { &args.tasks };
    let mut progress = messages.progress("drawing pictures", Some(args.count as u64));
    let bodies = (0..args.count).map(|at| {
        progress.at(at as u64, "drawing pictures");
        let place = at % args.pictures.unwrap_or(args.count).max(1);
        let (task, number) = (tasks[place % tasks.len()], args.first + (place / tasks.len()) as u64);
        let sample = suite.sample(args.split, task, number);
        let steps = match args.steps[at % args.steps.len()] {
            StepCount::Auto => None,
            StepCount::Fixed(steps) => Some(steps),
        };
        let asked = Asked {
            model: args.name.as_deref(),
            picture: (!args.text).then_some(&*sample.picture),
            question: &sample.question.text,
            steps,
            max_tokens: args.max_tokens,
        };
        bench::body(&asked).map_err(Failure::new)
    });
    let bodies = bodies.collect();
    progress.finish();
    bodies
}

fn key(args: &BenchServe) -> Result<Option<String>, Failure> {
    let Some(file) = &args.api_key_file else {
        return Ok(None);
    };
    let text = files::text(file, "the file of the API key")?;
    Ok(text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned))
}

/// What the load came to.
struct Told<'a>(&'a bench::Report);

impl Report for Told<'_> {
    fn text(&self) -> String {
        let report = self.0;
        let times = |name: &str, times: &Percentiles| {
            let Percentiles { p50, p95, p99, max } = times;
            format!("{name:<13} p50 {p50:.0} ms, p95 {p95:.0} ms, p99 {p99:.0} ms, most {max:.0} ms\n")
        };
        let mut text = format!(
            "answered      {} of {}, {} at once, in {:.1} s: {:.1} a second\n\
             text tokens   {}, {:.1} a second\n\
             latent steps  {}, {:.1} a second\n",
            report.answered,
            report.requests,
            report.concurrency,
            report.seconds,
            report.requests_per_second,
            report.text_tokens,
            report.text_tokens_per_second,
            report.latent_steps,
            report.latent_steps_per_second,
        );
        text += &times("first token", &report.first_token_ms);
        text += &times("whole answer", &report.total_ms);
        for (why, count) in &report.errors {
            text += &format!("no answer     {count}: {why}\n");
        }
        text
    }

    fn json(&self) -> Value {
        json!(self.0)
    }
}
