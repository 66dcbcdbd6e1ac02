//! Batches of the nano model. While the encoders are frozen, a block of batches is drawn and encoded once (features in f16)
//! and gone through several times, each time with other questions on the same pictures.

use super::{Pictures, Shown, Small};
use crate::batch::{Batch, Place, Row, Target, check_recipe, coverage, of_block, place, recipe};
use crate::config::{Config, Mix, Stage};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use half::f16;
use lare_data::scenes::{Group, Object};
use lare_data::tokenizer::END;
use lare_data::{Question, Split, Suite, Tokenizer, prompt};
use lare_model::{Reasoner, Views};
use rayon::prelude::*;
use std::sync::Arc;

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
    model: &'a lare_model::Config,
    suite: &'a Suite,
    tokenizer: &'a Tokenizer,
    device: Device,
    block: Option<Block>,
}

impl<'a> Feeder<'a> {
    /// Nothing is drawn until the first batch is asked for.
    ///
    /// # Errors
    /// [`Error::Config`] where the run is not of the nano model.
    pub fn new(config: &'a Config, suite: &'a Suite, tokenizer: &'a Tokenizer, device: Device) -> Result<Self> {
        Ok(Self { config, model: config.nano()?, suite, tokenizer, device, block: None })
    }

    /// Batch number `index` (optimiser step times `accumulate`, plus the part) of a stage. `frozen` gives the model
    /// when its encoders do not change in this stage.
    pub fn batch(&mut self, stage: usize, index: usize, frozen: Option<&Reasoner>) -> Result<Batch<Shown>> {
        let kind = &self.config.stages[stage];
        let passes = if frozen.is_some() { self.config.data.passes_per_block } else { 1 };
        let Place { block, turn, pass } = place(self.config, stage, index, passes);
        if self.block.as_ref().is_none_or(|b| b.place != (stage, block)) {
            self.block = None; // frees the old features before the new ones are made
            self.block = Some(self.make_block(stage, block, passes, frozen)?);
        }
        let Some(drawn) = self.block.as_ref().and_then(|b| b.batches.get(turn)) else {
            return Err(Error::Recipe { stage: kind.name.clone(), reason: "the block has no such batch".into() });
        };
        let mut batch = self.assemble(kind, drawn, pass)?;
        batch.draw_spare_steps(self.config, (stage, index))?;
        Ok(batch)
    }

    /// Pictures and questions for validation: `pictures` of them, the same in every stage that asks for this mix.
    pub fn validation(&self, stage: usize, mix: &Mix, model: &Reasoner, part: usize) -> Result<Batch<Shown>> {
        let kind = &self.config.stages[stage];
        let (pictures, _) = self.config.batch_shape(kind, mix);
        let drawn = self.draw(kind, mix, Split::Val, (part * pictures) as u64, 1, Some(model))?;
        self.assemble(kind, &drawn, 0)
    }

    fn make_block(&self, stage: usize, block: usize, passes: usize, frozen: Option<&Reasoner>) -> Result<Block> {
        let kind = &self.config.stages[stage];
        let draw = |(mix, first): (usize, u64)| self.draw(kind, &kind.mix[mix], Split::Train, first, passes, frozen);
        let batches = of_block(self.config, stage, block).into_iter().map(draw).collect::<Result<_>>()?;
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
        let recipe = recipe(self.config, stage, mix, passes);
        let pages = recipe.tasks.is_empty();
        if !pages {
            check_recipe(&recipe, split, stage)?;
        }
        let make = |i| {
            if pages { self.suite.page(split, first + i) } else { self.suite.group(split, first + i, &recipe) }
        };
        let groups: Vec<Group> = (0..pictures as u64).into_par_iter().map(make).collect();
        let times = self.model.semantic.shrink();
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

    fn assemble(&self, stage: &Stage, drawn: &Drawn, pass: usize) -> Result<Batch<Shown>> {
        let q = drawn.questions;
        let mut rows = Vec::with_capacity(drawn.groups.len() * q);
        let mut picture_of_row = Vec::with_capacity(rows.capacity());
        for (picture, group) in drawn.groups.iter().enumerate() {
            for question in group.questions.iter().skip(pass * q).take(q) {
                rows.push(self.row(stage, question, group));
                picture_of_row.push(picture as u32);
            }
        }
        let (small, groups) = (drawn.small.clone(), drawn.groups.clone());
        let name =
            |object: &Object| (object.body.right > object.body.left).then(|| self.tokenizer.id(object.name)).flatten();
        let names = groups.iter().map(|group| group.objects.iter().map(name).collect()).collect();
        let shrink = self.model.semantic.shrink();
        let shown = Shown { seen: self.pictures(drawn)?, small, shrink, groups, names };
        Ok(Batch::new(shown, rows, picture_of_row, stage))
    }

    fn pictures(&self, drawn: &Drawn) -> Result<Pictures> {
        let (Some(coarse), Some(fine), Some(group)) = (&drawn.coarse, &drawn.fine, drawn.groups.first()) else {
            return Ok(Pictures::Pixels(pixels(&drawn.groups, &self.device)?));
        };
        let cell = self.model.vision.cell_px;
        let grid = lare_model::refocus::Grid { rows: group.picture.height / cell, cols: group.picture.width / cell };
        let (s, p) = (drawn.groups.len(), grid.cells());
        let per_cell = self.model.vision.fine_per_side.pow(2);
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

    fn row(&self, stage: &Stage, question: &Question, group: &Group) -> Row {
        let cell = self.model.vision.cell_px as f32;
        let (rows, cols) = (group.picture.height / cell as usize, group.picture.width / cell as usize);
        let target = |step: &lare_data::Step| Target {
            coverage: coverage(&step.region, rows, cols, cell),
            words: self.tokenizer.encode(&step.reads),
            centre: ((step.region.left + step.region.right) / 2.0, (step.region.top + step.region.bottom) / 2.0),
        };
        let rest = question.steps.iter().skip(stage.latent_steps).filter(|_| stage.say_rest);
        let said = rest.map(|s| s.says.as_str()).collect::<Vec<_>>().join(" ");
        let said = self.model.language.says_steps.then_some(&said[..]);
        let answer = prompt::answer_ids(self.tokenizer, said, &question.answer);
        let gaze = gaze(self.tokenizer, &question.steps, stage, said, answer.len());
        Row {
            group: question.task.name().into(),
            any_order: question.task.any_order(),
            looks: question.looks,
            prompt: prompt::lay_out(self.tokenizer, &question.text).ids,
            words: answer.iter().copied().filter(|id| *id > END).collect(),
            answer,
            targets: question.steps.iter().map(target).collect(),
            gaze,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use lare_data::Task;

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
        let config = Config::from_toml(include_str!("../../tests/tiny.toml"), "tiny.toml").unwrap();
        config.stages.into_iter().next_back().unwrap()
    }
}
