//! What one training or test item is: a picture, a question on it, and the looks that lead to the answer.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::image::Picture;

/// An axis-aligned box in pixels of the picture; `right` and `bottom` are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// First column inside.
    pub left: f32,
    /// First row inside.
    pub top: f32,
    /// First column to the right of the box.
    pub right: f32,
    /// First row below the box.
    pub bottom: f32,
}

impl Region {
    /// A box from its corner and size.
    #[must_use]
    pub fn at(left: usize, top: usize, width: usize, height: usize) -> Region {
        Region { left: left as f32, top: top as f32, right: (left + width) as f32, bottom: (top + height) as f32 }
    }

    /// Whether `other` lies inside this box; shared edges count as inside.
    #[must_use]
    pub fn contains(&self, other: &Region) -> bool {
        self.left <= other.left && self.top <= other.top && self.right >= other.right && self.bottom >= other.bottom
    }

    /// Whether the two boxes share any area.
    #[must_use]
    pub fn overlaps(&self, other: &Region) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// The smallest box around both.
    #[must_use]
    pub fn union(&self, other: &Region) -> Region {
        Region {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    /// The same box in a picture whose pixels are `scale` times as many per side.
    #[must_use]
    pub fn scaled(&self, scale: f32) -> Region {
        Region {
            left: self.left * scale,
            top: self.top * scale,
            right: self.right * scale,
            bottom: self.bottom * scale,
        }
    }
}

/// One look at the picture on the way to the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// A short English sentence, as a text rationale would have it.
    pub says: String,
    /// What this look yields (`K7`, `cat`, `left 2`, `K7 dog`): words of the suite's vocabulary.
    pub reads: String,
    /// Where to look, in pixels of the picture.
    pub region: Region,
}

/// A question with its one right answer and the looks that lead to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Which task of the suite this is.
    pub task: Task,
    /// The question, in English.
    pub text: String,
    /// The one right answer: a word, a number or a tag.
    pub answer: String,
    /// The possible answers in order, where the question offers a small set.
    pub choices: Option<Vec<String>>,
    /// The looks, in order; the last one yields the answer.
    pub steps: Vec<Step>,
    /// How many looks the question needs: `steps.len()`.
    pub looks: usize,
    /// Which meaning of question within the task, whatever its wording: answers are balanced within it.
    pub template: usize,
}

/// A picture with one question: what a test set consists of.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The picture.
    pub picture: Arc<Picture>,
    /// The question on it.
    pub question: Question,
    /// The split it belongs to.
    pub split: Split,
    /// Its number within (split, task).
    pub index: u64,
    /// The seed of its random stream, for the record; `(split, task, index)` is enough to make it again.
    pub seed: u64,
}

/// The nine tasks of the refocus suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// The tag of a named object.
    Read,
    /// The neighbour of a named object.
    Locate,
    /// The object reached by following the letters.
    Hop,
    /// Which of two objects has the larger or smaller number.
    Compare,
    /// How many objects of a category have a number of some property.
    Count,
    /// The tag of an object given by its relation to others.
    Relate,
    /// The row or column of the copy whose tag differs.
    Odd,
    /// The end of a line through a ladder.
    Path,
    /// The letter under a bar of a given rank.
    Chart,
}

impl Task {
    /// Every task, in the order used wherever tasks are listed.
    pub const ALL: [Task; 9] = [
        Task::Read,
        Task::Locate,
        Task::Hop,
        Task::Compare,
        Task::Count,
        Task::Relate,
        Task::Odd,
        Task::Path,
        Task::Chart,
    ];

    /// Whether the looks of its rationale lead to the answer in any order.
    #[must_use]
    pub fn any_order(self) -> bool {
        matches!(self, Task::Count | Task::Odd)
    }

    /// The name used in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Task::Read => "read",
            Task::Locate => "locate",
            Task::Hop => "hop",
            Task::Compare => "compare",
            Task::Count => "count",
            Task::Relate => "relate",
            Task::Odd => "odd",
            Task::Path => "path",
            Task::Chart => "chart",
        }
    }
}

/// Parts of the suite that share no scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training; unbounded.
    Train,
    /// For choosing among runs.
    Val,
    /// Test: drawn as in training.
    Iid,
    /// Test: the same kinds drawn by other artists.
    Style,
    /// Test: longer chains than in training.
    Hops,
    /// Test: more objects in a picture.
    Dense,
    /// Test: other picture shapes.
    Size,
}

impl Split {
    /// Every split, in the order used wherever splits are listed.
    pub const ALL: [Split; 7] =
        [Split::Train, Split::Val, Split::Iid, Split::Style, Split::Hops, Split::Dense, Split::Size];

    /// The name used in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Iid => "iid",
            Split::Style => "style",
            Split::Hops => "hops",
            Split::Dense => "dense",
            Split::Size => "size",
        }
    }
}

/// A task or split name that the suite does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{got}`\n  expected  one of {expected}")]
pub struct UnknownName {
    /// `task` or `split`.
    pub what: &'static str,
    /// The name that was given.
    pub got: String,
    /// The names there are.
    pub expected: String,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Task, UnknownName> {
        let known = Task::ALL.into_iter().find(|task| task.name() == name);
        known.ok_or_else(|| UnknownName {
            what: "task",
            got: name.to_owned(),
            expected: Task::ALL.map(Task::name).join(", "),
        })
    }
}

impl FromStr for Split {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Split, UnknownName> {
        let known = Split::ALL.into_iter().find(|split| split.name() == name);
        known.ok_or_else(|| UnknownName {
            what: "split",
            got: name.to_owned(),
            expected: Split::ALL.map(Split::name).join(", "),
        })
    }
}
