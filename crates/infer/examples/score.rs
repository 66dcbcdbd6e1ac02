//! Answers questions of the suite greedily and counts what is right, by task and by looks needed.
//!
//! ```text
//! cargo run --release -p lare-infer --example score -- MODEL_FOLDER [SPLIT] [QUESTIONS_PER_TASK] [STEPS]
//! ```
//!
//! `SPLIT` is `val` unless given, `QUESTIONS_PER_TASK` 200, `STEPS` a fixed number of latent steps in place of the
//! halting head. Intervals are Wilson's at 95 %. "hits" is the share of the rationale's looks whose main cell was
//! among the patches chosen at that step; looks of a rationale in any order are matched to its regions first. Times are
//! of single questions, one after the other.

#![allow(clippy::print_stdout)]

use lare_data::{Region, Sample, Split, Suite, Task, order_taken};
use lare_infer::{Answer, Assistant, Batch, Options, Question, Steps, session};
use std::collections::BTreeMap;
use std::path::Path;

/// Questions answered together.
const TOGETHER: u64 = 16;
/// Questions answered alone, for their time.
const ALONE: u64 = 20;

#[derive(Clone, Copy, Default)]
struct Tally {
    right: usize,
    all: usize,
    hits: usize,
    looks: usize,
    steps: usize,
    words: usize,
}

impl Tally {
    fn add(&mut self, sample: &Sample, answer: &Answer) {
        self.all += 1;
        self.right += usize::from(answer.text.trim() == sample.question.answer);
        self.steps += answer.usage.latent_steps;
        self.words += answer.usage.text_tokens;
        for (region, look) in in_the_order_taken(sample, answer).iter().zip(&answer.looks) {
            self.looks += 1;
            self.hits += usize::from(look.chosen.contains(&main_cell(region)));
        }
    }

    /// Share right with Wilson's interval at 95 %, in percent.
    fn shares(&self) -> [f64; 3] {
        const Z: f64 = 1.959_964;
        let (n, p) = (self.all.max(1) as f64, self.right as f64 / self.all.max(1) as f64);
        let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        [p, middle - half, middle + half].map(|share| 100.0 * share)
    }

    fn line(&self, name: &str) {
        let [share, low, high] = self.shares();
        let per = |count: usize, all: usize| count as f64 / all.max(1) as f64;
        println!(
            "{name:12} {share:5.1} % ({low:.1} to {high:.1}) of {}; hits {:.1} %, {:.2} steps, {:.2} words",
            self.all,
            100.0 * per(self.hits, self.looks),
            per(self.steps, self.all),
            per(self.words, self.all)
        );
    }
}

/// Areas in each cell of the regions of a rationale, in its order or, where that does not matter, in the order in which
/// the answer's looks took them.
fn in_the_order_taken(sample: &Sample, answer: &Answer) -> Vec<Vec<f32>> {
    let regions: Vec<Vec<f32>> = sample.question.steps.iter().map(|step| areas(&step.region, answer)).collect();
    if !sample.question.task.any_order() {
        return regions;
    }
    let shares = |areas: &Vec<f32>| -> Vec<f32> {
        let sum: f32 = areas.iter().sum();
        areas.iter().map(|area| area / sum.max(1e-6)).collect()
    };
    let shares: Vec<Vec<f32>> = regions.iter().map(shares).collect();
    let shares: Vec<&[f32]> = shares.iter().map(|s| &s[..]).collect();
    let looks: Vec<&[f32]> = answer.looks.iter().map(|look| &look.scores[..]).collect();
    order_taken(&looks, &shares).into_iter().map(|which| regions[which].clone()).collect()
}

/// How much of a region lies in each cell.
fn areas(region: &Region, answer: &Answer) -> Vec<f32> {
    let grid = &answer.grid;
    let overlap = |from: f32, to: f32, at: usize, cell: f32| {
        (to.min((at + 1) as f32 * cell) - from.max(at as f32 * cell)).max(0.0)
    };
    let area = |i: usize| {
        overlap(region.top, region.bottom, i / grid.cols, grid.cell_px_y)
            * overlap(region.left, region.right, i % grid.cols, grid.cell_px_x)
    };
    (0..grid.rows * grid.cols).map(area).collect()
}

/// The cell with most of a region.
fn main_cell(areas: &[f32]) -> usize {
    (0..areas.len()).max_by(|&a, &b| areas[a].total_cmp(&areas[b]).then(b.cmp(&a))).unwrap_or(0)
}

fn ask(assistant: &Assistant, samples: &[Sample], options: Options) -> lare_infer::Result<Vec<Answer>> {
    let pictures: Vec<_> = samples.iter().map(|s| &*s.picture).collect();
    let questions: Vec<_> =
        samples.iter().enumerate().map(|(picture, s)| Question { picture, text: &s.question.text, options }).collect();
    session::answer(assistant, &Batch { pictures: &pictures, questions: &questions }, &mut |_| {})
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().ok_or("give a model folder, as `lare train` writes it")?;
    let split: Split = arguments.get(1).map_or("val", String::as_str).parse()?;
    let count: u64 = arguments.get(2).map_or("200", String::as_str).parse()?;
    let steps = arguments.get(3).map(|s| s.parse()).transpose()?.map(Steps::Fixed);
    let options = Options { nearest_words: 0, steps: steps.unwrap_or(Options::default().steps), ..Options::default() };
    let assistant = Assistant::from_folder(Path::new(folder))?;
    let suite = Suite::new();
    let mut time = 0.0;
    for task in Task::ALL {
        let (mut all, mut by_looks) = (Tally::default(), BTreeMap::<usize, Tally>::new());
        for first in (0..count).step_by(TOGETHER as usize) {
            let samples: Vec<_> =
                (first..(first + TOGETHER).min(count)).map(|i| suite.sample(split, task, i)).collect();
            for (sample, answer) in samples.iter().zip(ask(&assistant, &samples, options)?) {
                all.add(sample, &answer);
                by_looks.entry(sample.question.looks).or_default().add(sample, &answer);
            }
        }
        all.line(task.name());
        for (looks, tally) in by_looks {
            tally.line(&format!("  {looks} looks"));
        }
        for index in 0..ALONE {
            let answers = ask(&assistant, &[suite.sample(split, task, index)], options)?;
            time += answers.iter().map(|a| a.timing.total).sum::<f64>();
        }
    }
    println!("one question alone takes {:.1} ms on average", time / (ALONE * Task::ALL.len() as u64) as f64);
    Ok(())
}
