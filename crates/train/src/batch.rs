//! Batches as a pure function of the config and the step: nothing but the step number needs to be saved to go on.
//!
//! A batch is `S` pictures with `Q` questions each, rows ordered picture by picture. What a picture is to a model is for
//! [`crate::nano`] and [`crate::family`].

use crate::config::{Config, Mix, Stage};
use crate::vars::dice;
use crate::{Error, Result};
use lare_data::suite::GroupRecipe;
use lare_data::{Region, Split};
use lare_model::Prompts;
use rand::RngExt;
use std::sync::Arc;

/// What one latent step should look at and find.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Share of the step's region in each cell, `[P]`, summing to 1; empty where no region is known.
    pub coverage: Vec<f32>,
    /// Ids of the words that it reads.
    pub words: Vec<u32>,
    /// Centre of the region, in pixels of the prepared picture.
    pub centre: (f32, f32),
}

/// One question, ready.
#[derive(Clone, Debug)]
pub struct Row {
    /// What its results are counted with: the task, or the file.
    pub group: Arc<str>,
    /// Whether its looks lead to the answer in any order.
    pub any_order: bool,
    /// Looks that the question needs.
    pub looks: usize,
    /// What stands between its pictures and its first thought.
    pub prompt: Vec<u32>,
    /// All that follows the last thought, with what is said of the rationale before the answer.
    pub answer: Vec<u32>,
    /// Of these the words, without marks.
    pub words: Vec<u32>,
    /// One for each step that is latent at least.
    pub targets: Vec<Target>,
    /// Where a step that is not latent is to be looked for by the decoder's own attention: place in `answer` of the token
    /// that is fed, and the step.
    pub gaze: Vec<(usize, usize)>,
}

/// Rows that are trained on together. `P`: the pictures, as the model takes them.
#[derive(Clone, Debug)]
pub struct Batch<P> {
    /// The pictures.
    pub pictures: P,
    /// The questions, picture by picture.
    pub rows: Vec<Row>,
    /// Token ids of the questions.
    pub prompts: Prompts,
    /// Latent steps of each row that its rationale has.
    pub steps: Vec<usize>,
    /// Latent steps that each row takes after those.
    pub spare: Vec<usize>,
}

impl<P> Batch<P> {
    /// Rows about pictures; `picture_of_row` as in [`Prompts`].
    pub fn new(pictures: P, rows: Vec<Row>, picture_of_row: Vec<u32>, stage: &Stage) -> Self {
        let ids = rows.iter().map(|row| row.prompt.clone()).collect();
        let steps = rows.iter().map(|row| row.looks.min(stage.latent_steps)).collect();
        let spare = vec![0; rows.len()];
        Self { pictures, prompts: Prompts { ids, picture_of_row: picture_of_row.into() }, rows, steps, spare }
    }

    /// Latent steps that each row takes, spare ones included.
    pub fn taken(&self) -> Vec<usize> {
        self.steps.iter().zip(&self.spare).map(|(steps, spare)| steps + spare).collect()
    }

    /// Lets rows take as many steps more as the dice say and the model has, at most as the stage allows.
    pub(crate) fn draw_spare_steps(&mut self, config: &Config, (stage, index): (usize, usize)) -> Result<()> {
        let mut dice = dice(config.seed, &format!("spare steps of stage {stage}"), index as u64);
        let (most, spare) = (config.latent_step()?.max_steps, config.stages[stage].spare_steps);
        self.spare = self.steps.iter().map(|steps| dice.random_range(0..=spare.min(most - steps))).collect();
        Ok(())
    }
}

/// Which pictures of the suite a batch has, and which of their questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The block it belongs to.
    pub block: usize,
    /// Its place in the block.
    pub turn: usize,
    /// How often the block was gone through.
    pub pass: usize,
}

/// Where batch number `index` of a stage belongs, if a block is gone through so many times.
pub(crate) fn place(config: &Config, stage: usize, index: usize, passes: usize) -> Place {
    let per_block = config.data.batches_per_block * passes;
    let (block, within) = (index / per_block, index % per_block);
    let (pass, turn) = (within / config.data.batches_per_block, within % config.data.batches_per_block);
    let order = shuffled(config.data.batches_per_block, config.seed, (stage, block, pass));
    Place { block, turn: order[turn], pass }
}

/// Number of the first picture of each batch of a block, and its kind.
pub(crate) fn of_block(config: &Config, stage: usize, block: usize) -> Vec<(usize, u64)> {
    let kind = &config.stages[stage];
    let most = kind.mix.iter().map(|mix| config.batch_shape(kind, mix).0).max().unwrap_or(0);
    let first = first_of_stage(config.seed, stage);
    let number = |i: usize| first + (block * config.data.batches_per_block + i) as u64 * most as u64;
    let kinds = portions(kind, config.data.batches_per_block).into_iter().enumerate();
    kinds.map(|(i, mix)| (mix, number(i))).collect()
}

/// What is asked of each picture of a kind of batch in so many passes.
pub(crate) fn recipe(config: &Config, stage: &Stage, mix: &Mix, passes: usize) -> GroupRecipe {
    let (_, questions) = config.batch_shape(stage, mix);
    GroupRecipe {
        tasks: mix.tasks.iter().map(|(task, weight)| (*task, *weight)).collect(),
        questions: questions * passes,
        min_looks: mix.looks[0],
        max_looks: mix.looks[1],
        templates: mix.templates.clone(),
    }
}

/// Refuses a recipe that no picture of the split fits.
pub(crate) fn check_recipe(recipe: &GroupRecipe, split: Split, stage: &Stage) -> Result<()> {
    recipe.check(split).map_err(|e| Error::Recipe { stage: stage.name.clone(), reason: e.to_string() })
}

/// Which kind of batch each place of a block has, in proportion to the shares, at least the most wanted one.
fn portions(stage: &Stage, batches: usize) -> Vec<usize> {
    let total: f64 = stage.mix.iter().map(|m| m.share).sum();
    let mut debts = vec![0.0; stage.mix.len()];
    let mut kinds = Vec::with_capacity(batches);
    for _ in 0..batches {
        let mut next = 0;
        for (i, mix) in stage.mix.iter().enumerate() {
            debts[i] += mix.share / total;
            if debts[i] > debts[next] {
                next = i;
            }
        }
        debts[next] -= 1.0;
        kinds.push(next);
    }
    kinds
}

/// Number of a stage's first scene: no two stages or seeds share scenes, but by a chance in 2^20 or less.
fn first_of_stage(seed: u64, stage: usize) -> u64 {
    dice(seed, "scenes of a stage", stage as u64).random::<u64>() >> 1
}

fn shuffled(count: usize, seed: u64, (stage, block, pass): (usize, usize, usize)) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut dice = dice(seed, &format!("order {stage} {block} {pass}"), 0);
    for i in (1..count).rev() {
        order.swap(i, dice.random_range(0..=i));
    }
    order
}

/// The share of `region` in each cell, `[rows * cols]`, summing to 1 (all zero for a region outside the grid).
pub fn coverage(region: &Region, rows: usize, cols: usize, cell: f32) -> Vec<f32> {
    let overlap =
        |from: f32, to: f32, at: usize| (to.min((at + 1) as f32 * cell) - from.max(at as f32 * cell)).max(0.0);
    let mut shares: Vec<f32> = (0..rows * cols)
        .map(|i| overlap(region.top, region.bottom, i / cols) * overlap(region.left, region.right, i % cols))
        .collect();
    let sum: f32 = shares.iter().sum();
    shares.iter_mut().for_each(|s| *s /= sum.max(1e-6));
    shares
}

/// The share of `region` in each of the cells `[P]` of a picture, which may overlap one another, summing to 1 (all zero for a
/// region outside of all).
pub fn coverage_of(region: &Region, cells: &[Region]) -> Vec<f32> {
    let overlap = |cell: &Region| {
        let side = |from: f32, to: f32, first: f32, last: f32| (to.min(last) - from.max(first)).max(0.0);
        side(region.left, region.right, cell.left, cell.right) * side(region.top, region.bottom, cell.top, cell.bottom)
    };
    let mut shares: Vec<f32> = cells.iter().map(overlap).collect();
    let sum: f32 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= sum.max(1e-6));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_split_by_area_and_sums_to_one() {
        let region = Region { left: 32.0, top: 0.0, right: 96.0, bottom: 64.0 };
        assert_eq!(coverage(&region, 2, 2, 64.0), [0.5, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn coverage_of_a_wide_grid_falls_into_the_right_column() {
        let corner = Region { left: 600.0, top: 340.0, right: 630.0, bottom: 380.0 };
        let shares = coverage(&corner, 6, 10, 64.0);
        assert!((shares[59] - 1.0).abs() < 1e-6, "{shares:?}");
    }
}
