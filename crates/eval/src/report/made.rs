//! Runs made up for tests.

use super::run::Run;
use crate::record::Replacement;
use crate::{Intervention, Origin, Outcome, Record, Settings};
use lare_data::{Split, Task};
use lare_trace::Usage;

/// Right, or wrong.
pub fn outcome(right: bool) -> Outcome {
    if right { Outcome::Correct } else { Outcome::Wrong }
}

/// So many items of two tasks; every `right`-th is right, and of these every second one with noise for thoughts.
pub fn run(items: usize, right: usize) -> Run {
    let settings = Settings {
        model: "tiny".into(),
        weights_hash: "8be27d04".repeat(8),
        config_hash: "1f0c9a52".repeat(8),
        items: Origin::Suite { version: 3, split: Split::Val, tasks: vec![Task::Read, Task::Hop], per_task: items / 2 },
        steps: None,
        halt_threshold: 0.5,
        interventions: vec![Intervention::Noise],
        seed: 1,
        batch: 4,
        bf16: false,
        dtype: None,
        device: None,
        max_tokens: None,
    };
    let records = (0..items).map(|number| record(number, items, right)).collect();
    Run::new("runs/made".as_ref(), settings, records).unwrap()
}

fn record(number: usize, items: usize, right: usize) -> Record {
    let (task, looks) = if number < items / 2 { ("read", 1) } else { ("hop", 2 + number % 2) };
    let is_right = number.is_multiple_of(right);
    Record {
        id: format!("val/{task}/{number}"),
        task: task.into(),
        looks: Some(looks),
        prompt: "What is written left of the cat?".into(),
        expected: "7B".into(),
        said: if is_right { "7B" } else { "2C" }.into(),
        steps: String::new(),
        outcome: outcome(is_right),
        refused: None,
        usage: Usage { latent_steps: looks, text_tokens: 3, processed_positions: 60 + looks, ..Usage::default() },
        hits: vec![is_right; looks],
        time_ms: 4.0,
        likeness: vec![0.5; looks],
        replaced: vec![Replacement {
            what: Intervention::Noise,
            said: "3D".into(),
            outcome: outcome(number.is_multiple_of(2 * right)),
        }],
    }
}
