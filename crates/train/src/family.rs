//! What is added to a pretrained model as the subject of a run: a latent step, heads that give its thoughts a meaning, and
//! low-rank changes to its language model. The model itself is frozen; what its vision tower saw in a picture is kept.

mod asked;
mod lessons;
mod ruler;
mod sight;

pub use ruler::Ruler;

use crate::batch::{Batch, Place, check_recipe, of_block, place, recipe};
use crate::config::{Config, HALTING_HEAD, Mix, Stage};
use crate::subject::{Dropped, Learner, Subject};
use crate::{Error, Result};
use asked::{Asked, Needs, Teller};
use candle_core::Tensor;
use lare_data::suite::GroupRecipe;
use lare_data::{Split, Suite};
use lare_model::adapter::{self, Base, Settings};
use lare_model::config::Refocus;
use lare_model::pretrained::parts::Parts;
use lare_model::pretrained::{Picture, Text};
use lare_model::reasoning::Scene;
use lare_model::semantic::{Clean, Semantic};
use lare_model::{Path as Module, Refocused, Source, Thread};
use lessons::Lessons;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What several rows share: a prompt up to its last picture.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Its ids.
    pub ids: Vec<u32>,
    /// Its pictures.
    pub pictures: Vec<Picture>,
}

impl Shared {
    fn text(&self) -> Text<'_> {
        Text { ids: &self.ids, pictures: &self.pictures }
    }
}

impl Learner for Refocused {
    type Pictures = Arc<Vec<Shared>>;
    type Seen = Arc<Vec<Shared>>;

    const MARKED: bool = false;

    fn look_at(&self, batch: &Batch<Arc<Vec<Shared>>>) -> Result<(Scene, Self::Seen)> {
        let texts: Vec<Text> = batch.pictures.iter().map(Shared::text).collect();
        Ok((self.look(&texts)?, batch.pictures.clone()))
    }

    fn fine(&self, seen: &Self::Seen) -> Result<Tensor> {
        let (width, per_token) = self.base.fine().unwrap_or_default();
        let of_text = |shared: &Shared| -> Result<Tensor> {
            let parts: Vec<&Tensor> = shared.pictures.iter().map(|picture| &picture.seen.fine).collect();
            Ok(Tensor::cat(&parts, 0)?) // [P' * E, Dv]
        };
        let all = seen.iter().map(of_text).collect::<Result<Vec<_>>>()?;
        let lengths = all.iter().map(|fine| Ok(fine.dim(0)?)).collect::<Result<Vec<_>>>()?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let padded = all.iter().zip(lengths).map(|(fine, own)| Ok(fine.pad_with_zeros(0, 0, longest - own)?));
        let all = Tensor::stack(&padded.collect::<Result<Vec<_>>>()?, 0)?;
        Ok(all.reshape((seen.len(), longest / per_token.max(1), per_token, width))?.detach())
    }

    fn semantic(&self) -> Option<&Semantic> {
        self.semantic.as_ref()
    }

    /// The features of what the step should have looked at or, where that is not known, did, pooled to a few tokens, each of mean
    /// 0 and variance 1.
    fn clean(
        &self,
        fine: &Tensor,
        batch: &Batch<Self::Pictures>,
        thread: &Thread,
        (row, k): (usize, usize),
    ) -> Result<Vec<f32>> {
        let Some(Clean::Features { tokens, width }) = self.semantic.as_ref().map(|s| s.denoiser.clean()) else {
            let (expected, got) = ("heads that find features".into(), "none".into());
            return Err(lare_model::Error::Arguments { what: "the term rec", expected, got }.into());
        };
        let (_, p, per_cell, _) = fine.dims4()?;
        let picture = batch.prompts.picture_of_row[row];
        let covered = batch.rows[row].targets.get(k).map_or(&[][..], |target| &target.coverage[..]);
        let mut cells: Vec<u32> = (0..covered.len() as u32).filter(|cell| covered[*cell as usize] > 0.0).collect();
        if cells.is_empty() {
            cells.clone_from(&thread.steps[k].chosen[row]);
            cells.sort_unstable();
        }
        if cells.is_empty() {
            let own: usize =
                batch.pictures[picture as usize].pictures.iter().flat_map(|p| &p.grids).map(|g| g.cells()).sum();
            cells = (0..own as u32).collect();
        }
        let entry = |cell: &u32| {
            let first = (picture * p as u32 + cell) * per_cell as u32;
            first..first + per_cell as u32
        };
        let entries: Vec<u32> = cells.iter().flat_map(entry).collect();
        let count = entries.len();
        let index = Tensor::from_vec(entries, count, fine.device())?;
        let all: Vec<f32> = fine.reshape(((), width))?.index_select(&index, 0)?.flatten_all()?.to_vec1()?;
        Ok(pooled(&all, tokens, width))
    }
}

/// Features one after the other as so many, each the mean of a run of them, at mean 0 and variance 1.
fn pooled(all: &[f32], tokens: usize, width: usize) -> Vec<f32> {
    let count = all.len() / width;
    let mut clean = Vec::with_capacity(tokens * width);
    for token in 0..tokens {
        let first = token * count / tokens;
        let run = first..((token + 1) * count / tokens).max(first + 1); // fewer features than tokens stand more than once
        let mean = |channel: usize| run.clone().map(|at| all[at * width + channel]).sum::<f32>() / run.len() as f32;
        let values: Vec<f32> = (0..width).map(mean).collect();
        let middle = values.iter().sum::<f32>() / width as f32;
        let variance = values.iter().map(|v| (v - middle).powi(2)).sum::<f32>() / width as f32;
        clean.extend(values.iter().map(|v| (v - middle) / (variance + 1e-6).sqrt()));
    }
    clean
}

/// A run that adds to a pretrained model.
pub struct Family<'a> {
    config: &'a Config,
    refocus: &'a Refocus,
    suite: &'a Suite,
    parts: Parts,
    base: Base,
    teller: Teller,
    lessons: Lessons,
}

impl<'a> Family<'a> {
    /// Loads the model in `folder`, and reads and checks all files with samples.
    ///
    /// # Errors
    /// Names the file, the field, the sample or the picture that does not fit.
    pub fn open(config: &'a Config, suite: &'a Suite, folder: &Path) -> Result<Self> {
        let (Some(base), Some(refocus)) = (&config.base, &config.refocus) else {
            return Err(config.without("base"));
        };
        let parts = Parts::of_folder(folder, base.dtype.format())?;
        let teller = Teller::open(&parts.published, folder, &Needs::of(config, refocus))?;
        let lessons = Lessons::read(config, &teller)?;
        // A path is a matter of this machine; the name of its folder says enough.
        let path = Path::new(&base.model);
        let name = path.file_name().filter(|_| path.exists()).map(|name| name.to_string_lossy().into_owned());
        let base = Base::of(folder, &name.unwrap_or_else(|| base.model.clone()))?;
        Ok(Self { config, refocus, suite, parts, base, teller, lessons })
    }

    /// Pictures of the suite, with so many questions on each, of one pass.
    fn drawn(&mut self, stage: &Stage, mix: &Mix, which: &Drawn) -> Result<Vec<Asked>> {
        let (pictures, questions) = self.config.batch_shape(stage, mix);
        check_recipe(&which.recipe, which.split, stage)?;
        let mut asked = Vec::with_capacity(pictures * questions);
        for number in (0..pictures as u64).map(|i| which.first + i) {
            let group = self.suite.group(which.split, number, &which.recipe);
            let name = format!("{} {} of {number}", which.split, which.name);
            let sight = self.teller.sights.of(&self.parts.published, &name, &mut || Ok(group.picture.clone()))?;
            let own = group.questions.iter().skip(which.pass * questions).take(questions);
            asked.extend(own.map(|question| Asked::of_question(question, &sight)));
        }
        Ok(asked)
    }

    /// Samples of files.
    fn told(&mut self, numbers: &[usize], validation: bool) -> Result<Vec<Asked>> {
        let mut asked = Vec::with_capacity(numbers.len());
        for number in numbers {
            let lesson = self.lessons.get(*number, validation);
            let mut sights = Vec::with_capacity(lesson.example.pictures.len());
            for at in &lesson.example.pictures {
                let mut open = || Ok(self.lessons.album.open(at)?);
                sights.push(self.teller.sights.of(&self.parts.published, &at.to_string(), &mut open)?);
            }
            asked.push(Asked::of_lesson(lesson, sights));
        }
        Ok(asked)
    }

    /// A batch of rows, those with the same prompt up to their last picture beside each other in what they share.
    fn assemble(&self, stage: &Stage, asked: &[Asked]) -> Result<Batch<Arc<Vec<Shared>>>> {
        let (mut rows, mut picture_of_row) = (Vec::with_capacity(asked.len()), Vec::with_capacity(asked.len()));
        let mut shared: Vec<(Shared, Vec<*const sight::Sight>)> = Vec::new();
        for asked in asked {
            let (first, row) = self.teller.row(stage, asked)?;
            let of: Vec<*const sight::Sight> = asked.sights.iter().map(Arc::as_ptr).collect();
            let known = shared.iter().position(|(known, pictures)| known.ids == first && *pictures == of);
            picture_of_row.push(known.unwrap_or(shared.len()) as u32);
            if known.is_none() {
                let pictures = asked.sights.iter().map(|sight| sight.picture.clone()).collect();
                shared.push((Shared { ids: first, pictures }, of));
            }
            rows.push(row);
        }
        let shared = shared.into_iter().map(|(shared, _)| shared).collect();
        Ok(Batch::new(Arc::new(shared), rows, picture_of_row, stage))
    }
}

/// Which pictures of the suite are drawn.
struct Drawn {
    split: Split,
    first: u64,
    pass: usize,
    recipe: GroupRecipe,
    /// What tells pictures of one recipe from those of another.
    name: String,
}

impl Subject for Family<'_> {
    type Model = Refocused;
    type Heads = ();

    const ENCODERS: &'static [&'static str] = &[];

    fn build(&self, source: &dyn Source) -> Result<(Refocused, ())> {
        let base = match &self.config.lora {
            Some(lora) => self.parts.adapted(lora, source)?,
            None => self.parts.published.clone(),
        };
        let mut model = Refocused::new(base, self.refocus, Module::root(source))?;
        if let Some(heads) = &self.config.semantic {
            model = model.with_heads(heads, Module::root(source))?;
        }
        Ok((model, ()))
    }

    fn batch(&mut self, stage: usize, index: usize, _: Option<&Refocused>) -> Result<Batch<Arc<Vec<Shared>>>> {
        let (config, kind) = (self.config, &self.config.stages[stage]);
        let asked = if config.data.files.is_empty() {
            let passes = config.data.passes_per_block;
            let Place { block, turn, pass } = place(config, stage, index, passes);
            let (mix, first) = of_block(config, stage, block)[turn];
            let (recipe, name) = (recipe(config, kind, &kind.mix[mix], passes), format!("{stage} {mix}"));
            self.drawn(kind, &kind.mix[mix], &Drawn { split: Split::Train, first, pass, recipe, name })?
        } else {
            let numbers = self.lessons.of_batch(config.seed, (stage, index), kind.pictures_per_batch);
            self.told(&numbers, false)?
        };
        let mut batch = self.assemble(kind, &asked)?;
        batch.draw_spare_steps(config, (stage, index))?;
        Ok(batch)
    }

    fn validation(&mut self, stage: usize, number: usize, _: &Refocused) -> Result<Option<Batch<Arc<Vec<Shared>>>>> {
        let (config, kind) = (self.config, &self.config.stages[stage]);
        let asked = if config.data.files.is_empty() {
            let mut before = 0;
            let parts = |mix: &Mix| config.validation_pictures.div_ceil(config.batch_shape(kind, mix).0);
            let found = kind.mix.iter().position(|mix| {
                before += parts(mix);
                number < before
            });
            let Some(mix) = found else { return Ok(None) };
            let part = number + parts(&kind.mix[mix]) - before;
            let first = (part * config.batch_shape(kind, &kind.mix[mix]).0) as u64;
            let (recipe, name) = (recipe(config, kind, &kind.mix[mix], 1), format!("{stage} {mix}"));
            self.drawn(kind, &kind.mix[mix], &Drawn { split: Split::Val, first, pass: 0, recipe, name })?
        } else {
            let most = config.validation_pictures.min(self.lessons.validation.len());
            let first = number * kind.pictures_per_batch;
            if first >= most {
                return Ok(None);
            }
            let numbers: Vec<usize> = (first..most.min(first + kind.pictures_per_batch)).collect();
            self.told(&numbers, true)?
        };
        self.assemble(kind, &asked).map(Some)
    }

    fn dropped(&self) -> &[Dropped] {
        &self.lessons.dropped
    }

    /// An adapter folder, which `lare ask --adapter` takes.
    fn export(&self, run: &Path, weights: &BTreeMap<String, Tensor>) -> Result<PathBuf> {
        let folder = run.join("adapter");
        let (lora, heads) = (self.config.lora.clone(), self.config.semantic.clone());
        let settings = Settings::new(self.base.clone(), self.refocus.clone(), lora, heads);
        let settings =
            settings.with_auto_steps(if halts(weights)? { None } else { Some(self.config.last_latent_steps()) });
        adapter::write(&folder, &settings, weights)?;
        Ok(folder)
    }
}

/// Whether the halting head was trained, by this run or the one that it began from: until then it is zeros.
fn halts(weights: &BTreeMap<String, Tensor>) -> Result<bool> {
    for (_, tensor) in weights.iter().filter(|(name, _)| name.starts_with(HALTING_HEAD)) {
        if tensor.abs()?.sum_all()?.to_scalar::<f32>()? > 0.0 {
            return Ok(true);
        }
    }
    Ok(false)
}

impl From<lare_data::ImageError> for Error {
    fn from(error: lare_data::ImageError) -> Self {
        Self::Picture(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_pooled_in_runs_and_stand_again_where_they_are_fewer() {
        let all = [1.0, 3.0, 3.0, 5.0, 10.0, 30.0];
        let unit = |x: f32| (x.abs() - 1.0).abs() < 1e-3;
        let clean = pooled(&all, 3, 2);
        assert!(clean.len() == 6 && clean.iter().all(|x| unit(*x)) && clean[0] < 0.0, "{clean:?}");
        assert_eq!(pooled(&all[..2], 2, 2)[..2], pooled(&all[..2], 2, 2)[2..]);
        let mean = pooled(&[1.0, 2.0, 9.0, 3.0, 4.0, 5.0], 1, 3); // of (1, 2, 9) and (3, 4, 5): (2, 3, 7)
        assert!(mean[0] < mean[1] && mean[1] < 0.0 && mean[2] > 1.0, "{mean:?}");
    }
}
