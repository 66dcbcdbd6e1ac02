//! The nano model as the subject of a run: its encoders are trained too, and what it learns from is drawn.

mod feeder;

pub use feeder::{Feeder, pixels};

use crate::batch::Batch;
use crate::checkpoint::{self, serialized, write_atomically};
use crate::config::Config;
use crate::loss::LossTerms;
use crate::reading::{Readers, cell_at};
use crate::subject::{Learner, Subject};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use lare_data::scenes::Group;
use lare_data::{Suite, Tokenizer};
use lare_kernels as kernels;
use lare_model::reasoning::Scene;
use lare_model::semantic::{Semantic, to_drawing};
use lare_model::{Path as Module, Reasoner, Source, Thread, Views};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// The pictures of a batch, and what is known of them.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What the model starts from.
    pub seen: Pictures,
    /// The smaller pictures from which drawings are cut.
    pub small: Arc<Vec<Small>>,
    /// How many times smaller they are.
    pub shrink: usize,
    /// What is in the pictures.
    pub groups: Arc<Vec<Group>>,
    /// The word for each object of each picture; `None` for a tag on a page, which belongs to no object.
    pub names: Vec<Vec<Option<u32>>>,
}

/// What the encoders see, now or, while they are frozen, once.
fn views_of(model: &Reasoner, batch: &Batch<Shown>) -> Result<Views> {
    Ok(match &batch.pictures.seen {
        Pictures::Pixels(pixels) => model.encode(pixels)?,
        Pictures::Views(views) => views.clone(),
    })
}

impl Learner for Reasoner {
    type Pictures = Shown;
    type Seen = Views;

    const MARKED: bool = true;

    fn look_at(&self, batch: &Batch<Shown>) -> Result<(Scene, Views)> {
        let views = views_of(self, batch)?;
        Ok((self.look(&views)?, views))
    }

    fn fine(&self, views: &Views) -> Result<Tensor> {
        let (s, p, _) = views.coarse.dims3()?;
        let (_, f, dv) = views.fine.dims3()?;
        Ok(views.fine.detach().reshape((s, p, f / p, dv))?)
    }

    fn semantic(&self) -> Option<&Semantic> {
        Some(&self.semantic)
    }

    fn clean(&self, _: &Tensor, batch: &Batch<Shown>, _: &Thread, (row, k): (usize, usize)) -> Result<Vec<f32>> {
        Ok(drawing(self, batch, row, k))
    }

    /// Cross-entropy of each object's name, said by the last hidden state of the coarse token at its centre as if it were the
    /// next word; `None` in pictures without objects.
    fn names(&self, scene: &Scene, batch: &Batch<Shown>) -> Result<Option<Tensor>> {
        let (_, all, d) = scene.prefix.hidden.dims3()?;
        let cell = self.config().vision.cell_px;
        let (mut places, mut names) = (Vec::new(), Vec::new());
        for (picture, (group, grid)) in batch.pictures.groups.iter().zip(scene.look.grids.iter().flatten()).enumerate()
        {
            for (object, name) in group.objects.iter().zip(&batch.pictures.names[picture]) {
                places.push((picture * all + cell_at(&object.body, (grid.rows, grid.cols), cell)) as u32);
                names.push(*name);
            }
        }
        let count = names.iter().flatten().count();
        if count == 0 {
            return Ok(None);
        }
        let hidden = scene.prefix.hidden.reshape(((), d))?;
        let index = Tensor::from_vec(places, names.len(), hidden.device())?;
        let logits = self.backbone.language.logits(&hidden.index_select(&index, 0)?)?;
        Ok(Some((kernels::cross_entropy(&logits, &names)?.sum_all()? / count as f64)?))
    }
}

/// The small picture around the region of a step, `[side * side * 3]`, about unit variance.
fn drawing(model: &Reasoner, batch: &Batch<Shown>, row: usize, k: usize) -> Vec<f32> {
    let side = model.config().semantic.drawing_px;
    let small = &batch.pictures.small[batch.prompts.picture_of_row[row] as usize];
    let shrink = batch.pictures.shrink as f32;
    let (x, y) = batch.rows[row].targets[k].centre;
    let corner = |centre: f32| (centre / shrink).round() as isize - side as isize / 2;
    let (left, top) = (corner(x), corner(y));
    // Past the edge the edge's own pixel stands again.
    let place = |at: isize, size: usize| at.clamp(0, size as isize - 1) as usize;
    let mut values = Vec::with_capacity(side * side * 3);
    for dy in 0..side as isize {
        for dx in 0..side as isize {
            let at = (place(top + dy, small.height) * small.width + place(left + dx, small.width)) * 3;
            values.extend(small.values[at..at + 3].iter().map(|v| to_drawing(*v)));
        }
    }
    values
}

/// A run of the nano model.
pub struct Nano<'a> {
    config: &'a Config,
    model: &'a lare_model::Config,
    feeder: Feeder<'a>,
    tokenizer: &'a str, // its file
}

impl<'a> Nano<'a> {
    /// Draws with `suite`; the tokenizer and its file's text, which is saved with the model.
    ///
    /// # Errors
    /// [`Error::Config`] where the run is not of the nano model.
    pub fn new(
        config: &'a Config,
        suite: &'a Suite,
        tokenizer: (&'a Tokenizer, &'a str),
        device: Device,
    ) -> Result<Self> {
        let feeder = Feeder::new(config, suite, tokenizer.0, device)?;
        Ok(Self { config, model: config.nano()?, feeder, tokenizer: tokenizer.1 })
    }
}

impl Subject for Nano<'_> {
    type Model = Reasoner;
    type Heads = Readers;

    const ENCODERS: &'static [&'static str] = &["vision.fine.", "vision.coarse."];

    fn build(&self, source: &dyn Source) -> Result<(Reasoner, Readers)> {
        let model = Reasoner::new(self.model, Module::root(source))?;
        Ok((model, Readers::new(Module::root(source), self.model)?))
    }

    fn batch(&mut self, stage: usize, index: usize, frozen: Option<&Reasoner>) -> Result<Batch<Shown>> {
        self.feeder.batch(stage, index, frozen)
    }

    fn validation(&mut self, stage: usize, number: usize, model: &Reasoner) -> Result<Option<Batch<Shown>>> {
        let kind = &self.config.stages[stage];
        let mut before = 0;
        for mix in &kind.mix {
            let parts = self.config.validation_pictures.div_ceil(self.config.batch_shape(kind, mix).0);
            if number < before + parts {
                return self.feeder.validation(stage, mix, model, number - before).map(Some);
            }
            before += parts;
        }
        Ok(None)
    }

    fn read(
        &self,
        (model, readers): (&Reasoner, &Readers),
        batch: &Batch<Shown>,
    ) -> Result<(LossTerms, Vec<(&'static str, f64)>)> {
        let (loss, right) = readers.loss(&views_of(model, batch)?, &batch.pictures.groups)?;
        Ok((LossTerms { read: Some(loss), ..LossTerms::default() }, right))
    }

    /// The model alone, as a folder that `lare` loads: `config.toml`, `model.safetensors` (f16) and `tokenizer.json`.
    fn export(&self, run: &Path, weights: &BTreeMap<String, Tensor>) -> Result<PathBuf> {
        let folder = run.join("model");
        let of_model = weights.iter().filter(|(name, _)| !name.starts_with("reading."));
        let half = of_model.map(|(name, tensor)| Ok((name.clone(), tensor.to_dtype(DType::F16)?)));
        let tensors: BTreeMap<String, Tensor> = half.collect::<Result<_>>()?;
        std::fs::create_dir_all(&folder).map_err(|e| Error::file("write", &folder, &e))?;
        // One fact: the file format keeps them in an order that changes from run to run.
        let facts = Some(("run_config_sha256".to_owned(), checkpoint::config_hash(self.config)?));
        let file = folder.join("model.safetensors");
        write_atomically(&file, &serialized(&file, &tensors, facts)?)?;
        write_atomically(&folder.join("config.toml"), self.model.to_toml()?.as_bytes())?;
        write_atomically(&folder.join("tokenizer.json"), self.tokenizer.as_bytes())?;
        Ok(folder)
    }
}
