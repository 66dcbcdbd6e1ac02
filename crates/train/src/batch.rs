//! Batches as a pure function of the config and the step: nothing but the step number needs to be saved to go on.
//!
//! A batch is `S` pictures with `Q` questions each, rows ordered picture by picture. While the encoders are
//! frozen, a block of batches is drawn and encoded once (features in f16) and gone through several times, each
//! time with other questions on the same pictures.

use crate::config::{Config, Mix, Stage};
use crate::vars::dice;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use half::f16;
use lare_data::scenes::{Group, Object};
use lare_data::suite::GroupRecipe;
use lare_data::{Question, Region, Split, Suite, Task, Tokenizer, prompt};
use lare_model::{Prompts, Reasoner, Views};
use rand::RngExt;
use rayon::prelude::*;
use std::sync::Arc;

/// What one latent step should look at and find.
#[derive(Clone, Debug)]
pub struct Target {
    /// Share of the step's region in each coarse cell, `[P]`, summing to 1.
    pub coverage: Vec<f32>,
    /// Ids of the words that it reads.
    pub words: Vec<u32>,
    /// Centre of the region, in pixels of the prepared picture.
    pub centre: (f32, f32),
}

/// One question, ready.
#[derive(Clone, Debug)]
pub struct Row {
    /// The task, for reports.
    pub task: Task,
    /// Looks that the question needs.
    pub looks: usize,
    /// `<question> .. <think>`.
    pub prompt: Vec<u32>,
    /// `</think> .. <end>`, with what is said of the rationale before it.
    pub answer: Vec<u32>,
    /// One for each step of the rationale.
    pub targets: Vec<Target>,
    /// Where a step that is not latent is to be looked for by the decoder's own attention: place in `answer` of the token
    /// that is fed, and the step.
    pub gaze: Vec<(usize, usize)>,
}

/// A smaller picture, from which drawings are cut: `[h, w, 3]`, 0..1.
#[derive(Clone, Debug)]
pub struct Small {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Row-major pixels.
    pub values: Vec<f32>,
}

/// What the model starts from.
#[derive(Clone, Debug)]
pub enum Pictures {
    /// `[S, H, W, 3]` in 0..1: the encoders are being trained.
    Pixels(Tensor),
    /// Their features: the encoders are frozen.
    Views(Views),
}

/// Rows that are trained on together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The pictures.
    pub pictures: Pictures,
    /// The questions, picture by picture.
    pub rows: Vec<Row>,
    /// Token ids of the questions.
    pub prompts: Prompts,
    /// Latent steps of each row that its rationale has.
    pub steps: Vec<usize>,
    /// Latent steps that each row takes after those.
    pub spare: Vec<usize>,
    /// The smaller pictures from which drawings are cut.
    pub small: Arc<Vec<Small>>,
    /// How many times smaller they are.
    pub shrink: usize,
    /// What is in the pictures.
    pub groups: Arc<Vec<Group>>,
    /// The word for each object of each picture; `None` for a tag on a page, which belongs to no object.
    pub names: Vec<Vec<Option<u32>>>,
}

impl Batch {
    /// Latent steps that each row takes, spare ones included.
    pub fn taken(&self) -> Vec<usize> {
        self.steps.iter().zip(&self.spare).map(|(steps, spare)| steps + spare).collect()
    }
}

/// Drawn and, where the encoders are frozen, encoded pictures of one batch.
struct Drawn {
    questions: usize, // of each picture in one pass
    groups: Arc<Vec<Group>>,
    small: Arc<Vec<Small>>,
    coarse: Option<Vec<f16>>,
    fine: Option<Vec<f16>>,
}

struct Block {
    place: (usize, usize), // stage, number
    batches: Vec<Drawn>,
}

/// Makes the batches of a run.
pub struct Feeder<'a> {
    config: &'a Config,
    suite: &'a Suite,
    tokenizer: &'a Tokenizer,
    device: Device,
    block: Option<Block>,
}

impl<'a> Feeder<'a> {
    /// Nothing is drawn until the first batch is asked for.
    pub fn new(config: &'a Config, suite: &'a Suite, tokenizer: &'a Tokenizer, device: Device) -> Self {
        Self { config, suite, tokenizer, device, block: None }
    }

    /// Batch number `index` (optimiser step times `accumulate`, plus the part) of a stage. `frozen` gives the model
    /// when its encoders do not change in this stage.
    pub fn batch(&mut self, stage: usize, index: usize, frozen: Option<&Reasoner>) -> Result<Batch> {
        let (data, kind) = (&self.config.data, &self.config.stages[stage]);
        let passes = if frozen.is_some() { data.passes_per_block } else { 1 };
        let per_block = data.batches_per_block * passes;
        let (block, within) = (index / per_block, index % per_block);
        if self.block.as_ref().is_none_or(|b| b.place != (stage, block)) {
            self.block = None; // frees the old features before the new ones are made
            self.block = Some(self.make_block(stage, block, passes, frozen)?);
        }
        let (pass, turn) = (within / data.batches_per_block, within % data.batches_per_block);
        let order = shuffled(data.batches_per_block, self.config.seed, (stage, block, pass));
        let drawn = self.block.as_ref().and_then(|b| b.batches.get(order[turn]));
        let Some(drawn) = drawn else {
            return Err(Error::Recipe { stage: kind.name.clone(), reason: "the block has no such batch".into() });
        };
        let mut batch = self.assemble(kind, drawn, pass)?;
        let mut dice = dice(self.config.seed, &format!("spare steps of stage {stage}"), index as u64);
        let most = self.config.model.refocus.max_steps;
        batch.spare =
            batch.steps.iter().map(|steps| dice.random_range(0..=kind.spare_steps.min(most - steps))).collect();
        Ok(batch)
    }

    /// Pictures and questions for validation: `pictures` of them, the same in every stage that asks for this mix.
    pub fn validation(&self, stage: usize, mix: &Mix, model: &Reasoner, part: usize) -> Result<Batch> {
        let kind = &self.config.stages[stage];
        let (pictures, _) = self.config.batch_shape(kind, mix);
        let drawn = self.draw(kind, mix, Split::Val, (part * pictures) as u64, 1, Some(model))?;
        self.assemble(kind, &drawn, 0)
    }

    fn make_block(&self, stage: usize, block: usize, passes: usize, frozen: Option<&Reasoner>) -> Result<Block> {
        let (data, kind) = (&self.config.data, &self.config.stages[stage]);
        let most = kind.mix.iter().map(|mix| self.config.batch_shape(kind, mix).0).max().unwrap_or(0);
        let mut batches = Vec::with_capacity(data.batches_per_block);
        for (i, mix) in portions(kind, data.batches_per_block).into_iter().enumerate() {
            let batch = (block * data.batches_per_block + i) as u64;
            let first = first_of_stage(self.config.seed, stage) + batch * most as u64;
            batches.push(self.draw(kind, &kind.mix[mix], Split::Train, first, passes, frozen)?);
        }
        Ok(Block { place: (stage, block), batches })
    }

    fn draw(
        &self,
        stage: &Stage,
        mix: &Mix,
        split: Split,
        first: u64,
        passes: usize,
        frozen: Option<&Reasoner>,
    ) -> Result<Drawn> {
        let (pictures, questions) = self.config.batch_shape(stage, mix);
        let recipe = GroupRecipe {
            tasks: mix.tasks.iter().map(|(task, weight)| (*task, *weight)).collect(),
            questions: questions * passes,
            min_looks: mix.looks[0],
            max_looks: mix.looks[1],
            templates: mix.templates.clone(),
        };
        let refused = |e: lare_data::RecipeError| Error::Recipe { stage: stage.name.clone(), reason: e.to_string() };
        let pages = recipe.tasks.is_empty();
        if !pages {
            recipe.check(split).map_err(refused)?;
        }
        let make = |i| {
            if pages { self.suite.page(split, first + i) } else { self.suite.group(split, first + i, &recipe) }
        };
        let groups: Vec<Group> = (0..pictures as u64).into_par_iter().map(make).collect();
        let times = self.config.model.semantic.shrink();
        let small: Vec<Small> = groups.par_iter().map(|g| shrink(&g.picture, times)).collect();
        let (mut coarse, mut fine) = (None, None);
        if let Some(model) = frozen {
            let views = model.encode(&pixels(&groups, &self.device)?)?;
            let half = |t: &Tensor| -> Result<Vec<f16>> { Ok(t.to_dtype(DType::F16)?.flatten_all()?.to_vec1()?) };
            coarse = Some(half(&views.coarse)?);
            fine = Some(half(&views.fine)?);
        }
        Ok(Drawn { questions, groups: Arc::new(groups), small: Arc::new(small), coarse, fine })
    }

    fn assemble(&self, stage: &Stage, drawn: &Drawn, pass: usize) -> Result<Batch> {
        let q = drawn.questions;
        let mut rows = Vec::with_capacity(drawn.groups.len() * q);
        let mut picture_of_row = Vec::with_capacity(rows.capacity());
        for (picture, group) in drawn.groups.iter().enumerate() {
            for question in group.questions.iter().skip(pass * q).take(q) {
                rows.push(self.row(stage, question, group)?);
                picture_of_row.push(picture as u32);
            }
        }
        let prompts =
            Prompts { ids: rows.iter().map(|r| r.prompt.clone()).collect(), picture_of_row: picture_of_row.into() };
        let steps = rows.iter().map(|r| r.looks.min(stage.latent_steps)).collect();
        let spare = vec![0; rows.len()];
        let pictures = self.pictures(drawn)?;
        let (small, groups) = (drawn.small.clone(), drawn.groups.clone());
        let name =
            |object: &Object| (object.body.right > object.body.left).then(|| self.tokenizer.id(object.name)).flatten();
        let names = groups.iter().map(|group| group.objects.iter().map(name).collect()).collect();
        let shrink = self.config.model.semantic.shrink();
        Ok(Batch { pictures, rows, prompts, steps, spare, small, shrink, groups, names })
    }

    fn pictures(&self, drawn: &Drawn) -> Result<Pictures> {
        let (Some(coarse), Some(fine), Some(group)) = (&drawn.coarse, &drawn.fine, drawn.groups.first()) else {
            return Ok(Pictures::Pixels(pixels(&drawn.groups, &self.device)?));
        };
        let cell = self.config.model.vision.cell_px;
        let grid = lare_model::refocus::Grid { rows: group.picture.height / cell, cols: group.picture.width / cell };
        let (s, p) = (drawn.groups.len(), grid.cells());
        let per_cell = self.config.model.vision.fine_per_side.pow(2);
        let tensor = |values: &[f16], rows: usize| -> Result<Tensor> {
            let width = values.len() / (s * rows);
            Ok(Tensor::from_slice(values, (s, rows, width), &self.device)?.to_dtype(DType::F32)?)
        };
        Ok(Pictures::Views(Views {
            coarse: tensor(coarse, p)?,
            fine: tensor(fine, p * per_cell)?,
            grids: vec![grid; s],
        }))
    }

    fn row(&self, stage: &Stage, question: &Question, group: &Group) -> Result<Row> {
        let cell = self.config.model.vision.cell_px as f32;
        let (rows, cols) = (group.picture.height / cell as usize, group.picture.width / cell as usize);
        let target = |step: &lare_data::Step| Target {
            coverage: coverage(&step.region, rows, cols, cell),
            words: self.tokenizer.encode(&step.reads),
            centre: ((step.region.left + step.region.right) / 2.0, (step.region.top + step.region.bottom) / 2.0),
        };
        let rest = question.steps.iter().skip(stage.latent_steps).filter(|_| stage.say_rest);
        let said = rest.map(|s| s.says.as_str()).collect::<Vec<_>>().join(" ");
        let said = self.config.model.language.says_steps.then_some(&said[..]);
        let answer = prompt::answer_ids(self.tokenizer, said, &question.answer);
        let gaze = gaze(self.tokenizer, &question.steps, stage, said, answer.len());
        Ok(Row {
            task: question.task,
            looks: question.looks,
            prompt: prompt::lay_out(self.tokenizer, &question.text).ids,
            answer,
            targets: question.steps.iter().map(target).collect(),
            gaze,
        })
    }
}

/// For each token that is fed to say a step up to the last word it reads, that step; for each of an answer without its
/// steps before it, latent or said, the last. `fed`: tokens of the answer with `<end>`, which is never fed.
fn gaze(
    tokenizer: &Tokenizer,
    steps: &[lare_data::Step],
    stage: &Stage,
    said: Option<&str>,
    fed: usize,
) -> Vec<(usize, usize)> {
    let rest = steps.iter().enumerate().skip(stage.latent_steps);
    if said.is_none_or(str::is_empty) {
        return rest.last().map_or_else(Vec::new, |(last, _)| (0..fed - 1).map(|place| (place, last)).collect());
    }
    let mut start = 0; // the token before a sentence's first is fed to say that
    let mut places = Vec::new();
    for (k, step) in rest {
        let (sentence, reads) = (tokenizer.encode(&step.says), tokenizer.encode(&step.reads));
        let found = sentence.windows(reads.len().max(1)).position(|words| words == reads);
        let length = found.map_or(sentence.len(), |at| at + reads.len());
        places.extend((start..start + length).map(|place| (place, k)));
        start += sentence.len();
    }
    places
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

/// `[S, H, W, 3]` in 0..1.
pub fn pixels(groups: &[Group], device: &Device) -> Result<Tensor> {
    let (h, w) = groups.first().map_or((0, 0), |g| (g.picture.height, g.picture.width));
    let mut values = vec![0f32; groups.len() * h * w * 3];
    values.par_chunks_mut((h * w * 3).max(1)).zip(groups).for_each(|(out, group)| {
        for (to, from) in out.iter_mut().zip(&group.picture.rgb) {
            *to = f32::from(*from) / 255.0;
        }
    });
    Ok(Tensor::from_vec(values, (groups.len(), h, w, 3), device)?)
}

fn shrink(picture: &lare_data::Picture, times: usize) -> Small {
    let (height, width) = (picture.height / times, picture.width / times);
    let mut values = vec![0f32; height * width * 3];
    for y in 0..height * times {
        for x in 0..width * times {
            for c in 0..3 {
                let from = picture.rgb[(y * picture.width + x) * 3 + c];
                values[((y / times) * width + x / times) * 3 + c] += f32::from(from) / (255 * times * times) as f32;
            }
        }
    }
    Small { height, width, values }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_is_held_to_a_step_while_its_sentence_is_said() {
        let (suite, tokenizer) = (Suite::new(), Tokenizer::suite().unwrap());
        let stage = Stage { latent_steps: 0, say_rest: true, ..stage() };
        for index in 0..200 {
            let question = suite.question(Split::Val, Task::Relate, index);
            let said = question.steps.iter().map(|s| s.says.as_str()).collect::<Vec<_>>().join(" ");
            let answer = prompt::answer_ids(&tokenizer, Some(&said), &question.answer);
            let places = gaze(&tokenizer, &question.steps, &stage, Some(&said), answer.len());
            for (k, step) in question.steps.iter().enumerate() {
                let of_step: Vec<u32> = places.iter().filter(|p| p.1 == k).map(|p| answer[p.0 + 1]).collect();
                let sentence = tokenizer.decode(&of_step);
                assert!(step.says.starts_with(&sentence) && sentence.ends_with(&step.reads), "{sentence}: {step:?}");
            }
        }
    }

    #[test]
    fn an_answer_without_its_steps_is_held_to_the_last_and_one_after_latent_steps_to_none() {
        let (suite, tokenizer) = (Suite::new(), Tokenizer::suite().unwrap());
        let question = suite.question(Split::Val, Task::Locate, 0);
        let places = |latent_steps| gaze(&tokenizer, &question.steps, &Stage { latent_steps, ..stage() }, None, 3);
        assert_eq!(places(0), [(0, 1), (1, 1)]);
        assert_eq!(places(8), []);
    }

    fn stage() -> Stage {
        let config = Config::from_toml(include_str!("../tests/tiny.toml"), "tiny.toml").unwrap();
        config.stages.into_iter().next_back().unwrap()
    }

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
