//! What is kept of every item: one JSON line.

use crate::grade::Outcome;
use crate::intervene::Intervention;
use crate::item::Item;
use lare_trace::Usage;
use serde::{Deserialize, Serialize};

/// One item, answered and graded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The item's name.
    pub id: String,
    /// Its task or category.
    pub task: String,
    /// Looks that it needs, where that is known.
    pub looks: Option<usize>,
    /// What the model was asked.
    pub prompt: String,
    /// The right answer.
    pub expected: String,
    /// What the model said, as it said it.
    pub said: String,
    /// The steps it said before that, of a model that says steps.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub steps: String,
    /// What the answer is worth.
    pub outcome: Outcome,
    /// Why it was not asked at all, where the model cannot be asked it; then nothing was said, and it is not right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Latent steps and tokens.
    pub usage: Usage,
    /// For each step whose true region is known: whether the cell with most of it was read.
    pub hits: Vec<bool>,
    /// Time of the batch that the item was answered in, shared among its items, in milliseconds. Interventions are not in
    /// it.
    pub time_ms: f64,
    /// The thoughts' cosine similarity with those of the same step about another question of the task, for each step.
    pub likeness: Vec<f32>,
    /// The same item with thoughts or looks replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<Replacement>,
}

/// The outcome of one intervention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replacement {
    /// What was replaced.
    pub what: Intervention,
    /// What the model said.
    pub said: String,
    /// What that is worth.
    pub outcome: Outcome,
}

impl Record {
    /// An item of which nothing is known yet but what is asked.
    #[must_use]
    pub fn unasked(item: &Item) -> Self {
        Self {
            id: item.id.clone(),
            task: item.task.clone(),
            looks: item.looks,
            prompt: item.prompt.clone(),
            expected: item.expected.text(),
            said: String::new(),
            steps: String::new(),
            outcome: Outcome::Unparsed,
            refused: None,
            usage: Usage::default(),
            hits: Vec::new(),
            time_ms: 0.0,
            likeness: Vec::new(),
            replaced: Vec::new(),
        }
    }

    /// Whether the answer is right.
    #[must_use]
    pub fn right(&self) -> bool {
        self.outcome == Outcome::Correct
    }

    /// The outcome under an intervention, if it was tried.
    #[must_use]
    pub fn under(&self, what: Intervention) -> Option<Outcome> {
        self.replaced.iter().find(|r| r.what == what).map(|r| r.outcome)
    }
}
