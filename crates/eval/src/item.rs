//! What is asked: items by number, whatever they come from.

use crate::Result;
use crate::benchmark::{Layout, LeftOut};
use crate::grade::{Expected, Form};
use lare_data::{Picture, Region, Sample, Split, Suite, Task, suite};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One question with its right answer.
#[derive(Clone, Debug)]
pub struct Item {
    /// Names it for good: `iid/read/17`.
    pub id: String,
    /// What results are grouped by: a task of the suite, a category of a benchmark.
    pub task: String,
    /// Looks that it needs, where that is known.
    pub looks: Option<usize>,
    /// The picture.
    pub picture: Arc<Picture>,
    /// What the model is asked.
    pub prompt: String,
    /// What is right.
    pub expected: Expected,
    /// Where its looks should fall, where that is known.
    pub rationale: Option<Rationale>,
}

/// The regions of an item's looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Rationale {
    /// In pixels of the picture, in order.
    pub regions: Vec<Region>,
    /// Whether they can be looked at in any order.
    pub any_order: bool,
}

/// Items that can be asked for by number.
pub trait Source {
    /// Items.
    fn count(&self) -> usize;
    /// One of them; the same every time.
    ///
    /// # Errors
    /// Where its file cannot be read any more.
    fn item(&self, index: usize) -> Result<Item>;
    /// What they are, so that two runs on the same items can be told from others.
    fn origin(&self) -> Origin;
    /// Other items of the same tasks, whose thoughts interventions borrow; not of the split that is judged, where there is
    /// another.
    ///
    /// # Errors
    /// As [`Source::item`].
    fn others(&self) -> Result<Vec<Item>>;
}

/// What the items of a run are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Origin {
    /// A part of the refocus suite.
    Suite {
        /// Its version.
        version: u64,
        /// The split.
        split: Split,
        /// The tasks, in order.
        tasks: Vec<Task>,
        /// Questions of each task, from number 0.
        per_task: usize,
    },
    /// A benchmark in its own files.
    Benchmark {
        /// How its files are laid out.
        layout: Layout,
        /// SHA-256 of each file, in hex; last, where pictures are files of their own, that over all of these.
        sha256: Vec<String>,
        /// Whether each question is asked in every order of its options.
        circular: bool,
        /// Items.
        items: usize,
        /// Rows that are not asked, by reason.
        left_out: BTreeMap<LeftOut, usize>,
    },
}

impl Origin {
    /// A short name: the split, or the layout.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Suite { split, .. } => split.name(),
            Self::Benchmark { layout, .. } => layout.name(),
        }
    }

    /// How many items there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Suite { tasks, per_task, .. } => tasks.len() * per_task,
            Self::Benchmark { items, .. } => *items,
        }
    }

    /// Whether each question is asked in every order of its options.
    #[must_use]
    pub fn is_circular(&self) -> bool {
        matches!(self, Self::Benchmark { circular: true, .. })
    }

    /// What is not asked of a benchmark, such as `3 rows without a picture`; empty where all is.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let Self::Benchmark { left_out, .. } = self else {
            return Vec::new();
        };
        let row = |(why, count): (&LeftOut, &usize)| {
            format!("{count} row{} {}", if *count == 1 { "" } else { "s" }, why.says())
        };
        left_out.iter().map(row).collect()
    }
}

/// Questions of each task whose thoughts are borrowed.
const OTHERS: u64 = 16;

/// A part of the refocus suite, task by task.
pub struct Refocus {
    suite: Suite,
    split: Split,
    tasks: Vec<Task>,
    per_task: usize,
}

impl Refocus {
    /// The first `per_task` questions of each task.
    #[must_use]
    pub fn new(split: Split, tasks: Vec<Task>, per_task: usize) -> Self {
        Self { suite: Suite::new(), split, tasks, per_task }
    }
}

impl Source for Refocus {
    fn count(&self) -> usize {
        self.tasks.len() * self.per_task
    }

    fn item(&self, index: usize) -> Result<Item> {
        let task = self.tasks[index / self.per_task];
        Ok(of_sample(&self.suite.sample(self.split, task, (index % self.per_task) as u64)))
    }

    fn origin(&self) -> Origin {
        let (split, tasks, per_task) = (self.split, self.tasks.clone(), self.per_task);
        Origin::Suite { version: suite::VERSION, split, tasks, per_task }
    }

    fn others(&self) -> Result<Vec<Item>> {
        // Never of the split that is judged.
        let split = if self.split == Split::Val { Split::Train } else { Split::Val };
        let of = |task: &Task| (0..OTHERS).map(|index| of_sample(&self.suite.sample(split, *task, index))).collect();
        Ok(self.tasks.iter().flat_map(|task| -> Vec<Item> { of(task) }).collect())
    }
}

fn of_sample(sample: &Sample) -> Item {
    let question = &sample.question;
    let form = match (&question.choices, question.answer.as_bytes()) {
        (Some(choices), _) => Form::OneOf(choices.clone()),
        (None, [l, d]) if l.is_ascii_uppercase() && d.is_ascii_digit() => Form::Tag,
        (None, digits) if digits.iter().all(u8::is_ascii_digit) => Form::Number,
        _ => Form::Any,
    };
    Item {
        id: format!("{}/{}/{}", sample.split, question.task, sample.index),
        task: question.task.to_string(),
        looks: Some(question.looks),
        picture: sample.picture.clone(),
        prompt: question.text.clone(),
        expected: Expected::Words { right: question.answer.clone(), form },
        rationale: Some(Rationale {
            regions: question.steps.iter().map(|step| step.region).collect(),
            any_order: question.task.any_order(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    #[test]
    fn items_of_the_suite_come_task_by_task_and_their_own_answer_is_right() {
        let source = Refocus::new(Split::Val, vec![Task::Read, Task::Count], 3);
        assert_eq!(source.count(), 6);
        let ids: Vec<String> = (0..6).map(|i| source.item(i).unwrap().id).collect();
        assert_eq!((ids[0].as_str(), ids[5].as_str()), ("val/read/0", "val/count/2"));
        for index in 0..6 {
            let item = source.item(index).unwrap();
            assert_eq!(item.expected.grade(&item.expected.text()), Outcome::Correct, "{}", item.id);
            assert_eq!(item.expected.grade("nonsense words"), Outcome::Unparsed, "{}", item.id);
            assert_eq!(item.looks, item.rationale.map(|r| r.regions.len()));
        }
    }
}
