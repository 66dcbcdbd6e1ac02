//! The refocus suite: any sample of any split, from its number alone.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use crate::image::Picture;
use crate::sample::{Question, Sample, Split, Task};
use crate::scenes::dice::{Dice, mix};
use crate::scenes::kinds::Category;
use crate::scenes::objects::{Focus, Plan};
use crate::scenes::sprites::{Artist, Glyphs, Sprites};
use crate::scenes::{Facts, Group, Scene, Want, chart, draw, objects, odd, page, path, questions};

/// Goes up whenever any sample of any split changes.
pub const VERSION: u64 = 3;
/// What pictures, questions and answers are drawn from; rationales can change without it.
const SCENES: u64 = 1;

/// Categories whose digits are arranged for counting when several questions share a scene.
const SHARED_FOCUSES: usize = 2;
/// Most objects that counting may claim in a shared scene: the smallest scenes have 8 places.
const SHARED_MEMBERS: usize = 7;
/// Tries to find another question before the same one is asked again.
const TRIES: usize = 8;

/// What questions to put on one picture when training.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRecipe {
    /// Tasks and how often each is wanted, relative to the others.
    pub tasks: Vec<(Task, f32)>,
    /// How many questions on the picture.
    pub questions: usize,
    /// Fewest looks a question may need.
    pub min_looks: usize,
    /// Most looks a question may need.
    pub max_looks: usize,
    /// Templates ([`Question::template`]) allowed of a task; all of a task that is not listed.
    pub templates: BTreeMap<Task, Vec<usize>>,
}

/// A recipe that no scene can satisfy.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "no question of split `{split}` fits the group recipe\n  expected  a task with a positive weight that can need {min_looks} to {max_looks} looks\n  got       {got}"
)]
pub struct RecipeError {
    /// The split asked for.
    pub split: Split,
    /// Fewest looks allowed.
    pub min_looks: usize,
    /// Most looks allowed.
    pub max_looks: usize,
    /// Each task of the recipe with its weight and the looks it can need.
    pub got: String,
}

/// How many looks questions of a task can need.
#[must_use]
pub fn looks(split: Split, task: Task) -> RangeInclusive<usize> {
    match task {
        Task::Read => 1..=1,
        Task::Locate | Task::Compare | Task::Chart => 2..=2,
        Task::Hop => moves(split).0 + 1..=moves(split).1 + 1,
        Task::Count => 1..=objects::MOST_MEMBERS,
        Task::Relate => 2..=3,
        Task::Odd => odd::COPIES.0..=odd::COPIES.1,
        Task::Path => path::LEVELS.0 + 1..=path::LEVELS.1 + 1,
    }
}

/// Fewest and most moves of a chain.
fn moves(split: Split) -> (usize, usize) {
    if split == Split::Hops { (5, 6) } else { (1, 4) }
}

/// Scenes of different families look different; questions of one family can share a scene.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Objects,
    Odd,
    Path,
    Chart,
}

impl Family {
    fn of(task: Task) -> Family {
        match task {
            Task::Odd => Family::Odd,
            Task::Path => Family::Path,
            Task::Chart => Family::Chart,
            _ => Family::Objects,
        }
    }
}

impl GroupRecipe {
    /// Whether any question of the split fits.
    ///
    /// # Errors
    /// If none does; the message lists how many looks each task can need.
    pub fn check(&self, split: Split) -> Result<(), RecipeError> {
        if !self.feasible(split).is_empty() {
            return Ok(());
        }
        let named = self.tasks.iter().map(|(task, weight)| {
            let range = looks(split, *task);
            format!("{task} (weight {weight}, {} to {} looks)", range.start(), range.end())
        });
        let got = named.collect::<Vec<_>>().join(", ");
        Err(RecipeError { split, min_looks: self.min_looks, max_looks: self.max_looks, got })
    }

    fn feasible(&self, split: Split) -> Vec<(Task, f32)> {
        let fits = |task: Task| {
            let range = looks(split, task);
            *range.start() <= self.max_looks && *range.end() >= self.min_looks
        };
        self.tasks.iter().copied().filter(|&(task, weight)| weight > 0.0 && fits(task)).collect()
    }
}

/// Draws samples. Making one rasterises emoji and characters once; after that it never changes, so any number
/// of threads can share it.
pub struct Suite {
    glyphs: Glyphs,
    noto: Sprites,
    fluent: OnceLock<Sprites>,
}

impl Default for Suite {
    fn default() -> Suite {
        Suite::new()
    }
}

impl Suite {
    /// Rasterises what the pictures are put together from.
    #[must_use]
    pub fn new() -> Suite {
        Suite { glyphs: Glyphs::rasterise(), noto: Sprites::rasterise(Artist::Noto), fluent: OnceLock::new() }
    }

    /// The sample with this number: the same bytes on every machine.
    #[must_use]
    pub fn sample(&self, split: Split, task: Task, index: u64) -> Sample {
        let (scene, question) = self.describe(split, task, index);
        let picture = Arc::new(self.draw(split, &scene));
        Sample { picture, question, split, index, seed: sample_seed(split, task, index) }
    }

    /// The question of [`Suite::sample`] without drawing its picture: about a hundred times faster.
    #[must_use]
    pub fn question(&self, split: Split, task: Task, index: u64) -> Question {
        self.describe(split, task, index).1
    }

    /// One scene with several questions on it, for training: one picture's features serve many questions.
    ///
    /// Depends on `(split, index, recipe)` alone. All questions fit the recipe's bounds; there are
    /// `recipe.questions` of them, none twice unless the scene has no more. A recipe that
    /// [`GroupRecipe::check`] refuses gives a group without questions.
    #[must_use]
    pub fn group(&self, split: Split, index: u64, recipe: &GroupRecipe) -> Group {
        let (scene, questions) = self.describe_group(split, index, recipe);
        let picture = self.draw(split, &scene);
        Group { picture, objects: scene.objects, marks: scene.marks, questions }
    }

    /// A page of about a hundred tags, without questions: what an encoder learns to read from. The tags are
    /// [`Group::objects`] whose bodies are empty.
    #[must_use]
    pub fn page(&self, split: Split, index: u64) -> Group {
        let mut dice = Dice::new(&[SCENES, split as u64, u64::MAX - 1, index]);
        let scene = page::describe(split, &self.glyphs, &mut dice);
        let picture = self.draw(split, &scene);
        Group { picture, objects: scene.objects, marks: scene.marks, questions: Vec::new() }
    }

    pub(crate) fn describe(&self, split: Split, task: Task, index: u64) -> (Scene, Question) {
        let mut dice = Dice::new(&[sample_seed(split, task, index)]);
        let range = looks(split, task);
        let want = Want { moves: moves(split), min_looks: *range.start(), max_looks: *range.end(), shared: false };
        loop {
            let scene = self.scene(split, &[task], want, &mut dice);
            // A scene that cannot carry its question is rare (three objects in a row, all alike); draw another.
            if let Some(question) = ask(task, &scene, want, &mut dice) {
                return (scene, question);
            }
        }
    }

    pub(crate) fn describe_group(&self, split: Split, index: u64, recipe: &GroupRecipe) -> (Scene, Vec<Question>) {
        let mut dice = Dice::new(&[SCENES, split as u64, u64::MAX, index]);
        let want = Want { moves: moves(split), min_looks: recipe.min_looks, max_looks: recipe.max_looks, shared: true };
        let feasible = recipe.feasible(split);
        let weights: Vec<f32> = feasible.iter().map(|(_, weight)| *weight).collect();
        let Some(lead) = dice.weighted(&weights) else {
            return (self.scene(split, &[Task::Read], want, &mut dice), Vec::new());
        };
        let family = Family::of(feasible[lead].0);
        let (tasks, weights): (Vec<Task>, Vec<f32>) =
            feasible.into_iter().filter(|(task, _)| Family::of(*task) == family).unzip();
        loop {
            let scene = self.scene(split, &tasks, want, &mut dice);
            let questions = ask_several(&scene, &tasks, &weights, recipe, want, &mut dice);
            if !questions.is_empty() || recipe.questions == 0 {
                return (scene, questions);
            }
        }
    }

    /// A scene that can carry questions of these tasks, which are all of one family.
    fn scene(&self, split: Split, tasks: &[Task], want: Want, dice: &mut Dice) -> Scene {
        let family = tasks.first().map_or(Family::Objects, |task| Family::of(*task));
        match family {
            Family::Odd => odd::describe(split, want, &self.glyphs, dice),
            Family::Path => path::describe(split, want, &self.glyphs, dice),
            Family::Chart => chart::describe(split, &self.glyphs, dice),
            Family::Objects => objects::describe(split, plan(tasks, want, dice), &self.glyphs, dice),
        }
    }

    pub(crate) fn draw(&self, split: Split, scene: &Scene) -> Picture {
        let sprites = match split {
            Split::Style => self.fluent.get_or_init(|| Sprites::rasterise(Artist::Fluent)),
            _ => &self.noto,
        };
        draw::draw(scene, sprites, &self.glyphs)
    }

    pub(crate) fn glyphs(&self) -> &Glyphs {
        &self.glyphs
    }
}

fn sample_seed(split: Split, task: Task, index: u64) -> u64 {
    mix(&[SCENES, split as u64, task as u64, index])
}

/// What a scene of objects needs to carry questions of these tasks.
fn plan(tasks: &[Task], want: Want, dice: &mut Dice) -> Plan {
    let mut plan = Plan { least: 0, focuses: Vec::new() };
    if tasks.contains(&Task::Hop) {
        plan.least = want.moves.1.min(want.max_looks.saturating_sub(1)) + 2;
    }
    if tasks.contains(&Task::Count) {
        let mut categories = Category::ALL;
        dice.shuffle(&mut categories);
        let mut room = SHARED_MEMBERS;
        for &category in &categories[..if want.shared { SHARED_FOCUSES } else { 1 }] {
            if room >= want.min_looks.max(1) {
                let focus = Focus::draw(category, (want.min_looks, want.max_looks.min(room)), dice);
                room -= focus.members;
                plan.focuses.push(focus);
            }
        }
    }
    plan
}

fn ask(task: Task, scene: &Scene, want: Want, dice: &mut Dice) -> Option<Question> {
    match scene.facts {
        Facts::Objects(_) => questions::ask(task, scene, want, dice),
        Facts::Odd(_) => odd::ask(scene, want, dice),
        Facts::Path(_) => path::ask(scene, want, dice),
        Facts::Chart(_) => chart::ask(scene, dice),
    }
}

/// Asks until there are enough questions, avoiding the same one twice.
fn ask_several(
    scene: &Scene,
    tasks: &[Task],
    weights: &[f32],
    recipe: &GroupRecipe,
    want: Want,
    dice: &mut Dice,
) -> Vec<Question> {
    let count = recipe.questions;
    let allowed = |q: &Question| recipe.templates.get(&q.task).is_none_or(|all| all.contains(&q.template));
    let mut asked: Vec<Question> = Vec::with_capacity(count);
    let mut tries = 0;
    while asked.len() < count && tries < TRIES * (count + TRIES) {
        let Some(task) = dice.weighted(weights) else {
            break;
        };
        tries += 1;
        let Some(question) = ask(tasks[task], scene, want, dice).filter(allowed) else {
            continue;
        };
        let again = asked.iter().any(|other| other.text == question.text);
        if !again || tries > TRIES * (asked.len() + 1) {
            asked.push(question);
        }
    }
    asked
}

#[cfg(test)]
mod tests;
