//! Warm-up of the encoders: naming what stands at known places. [ours]
//!
//! Letter and digit of a tag from a small window of fine features, kind of an object from a larger one, kind and
//! frame colour from the coarse token at its centre. Without it nothing downstream learns in any affordable time.
//! The heads belong to the training run alone; they are not part of the model.

use crate::Result;
use candle_core::Tensor;
use lare_data::Region;
use lare_data::scenes::{Colour, Group};
use lare_kernels as kernels;
use lare_model::nn::Linear;
use lare_model::{Config, Path, Views};

/// Rows and columns of the window of fine features around a tag.
const TAG_WINDOW: (usize, usize) = (2, 3);
/// Rows and columns of the window around an object.
const BODY_WINDOW: (usize, usize) = (4, 4);
/// Letters that tags can have.
const LETTERS: usize = 26;
const DIGITS: usize = 10;
/// Kinds, with room to grow.
const KINDS: usize = 96;
/// Frame colours, and none.
const COLOURS: usize = 7;

/// Heads that read.
pub struct Readers {
    tag: Linear,
    letter: Linear,
    digit: Linear,
    kind: Linear,
    coarse_kind: Linear,
    coarse_colour: Linear,
    per_side: usize,
    cell_px: usize,
}

/// Places in a batch to be read, and what stands there.
#[derive(Default)]
struct Places {
    index: Vec<u32>,
    targets: [Vec<Option<u32>>; 2],
}

impl Readers {
    /// Builds the heads at `reading`.
    pub fn new(path: Path, config: &Config) -> lare_model::Result<Self> {
        let (dv, d) = (config.fine_width(), config.language.width);
        let cells = |(rows, cols): (usize, usize)| rows * cols * dv;
        path.at("reading", |path| {
            let head = |name, inputs, outputs| path.at(name, |p| Linear::new(p, inputs, outputs)?.biased(p, 0.0));
            Ok(Self {
                tag: head("tag", cells(TAG_WINDOW), 128)?,
                letter: head("letter", 128, LETTERS)?,
                digit: head("digit", 128, DIGITS)?,
                kind: head("kind", cells(BODY_WINDOW), KINDS)?,
                coarse_kind: head("coarse_kind", d, KINDS)?,
                coarse_colour: head("coarse_colour", d, COLOURS)?,
                per_side: config.vision.fine_per_side,
                cell_px: config.vision.cell_px,
            })
        })
    }

    /// Mean cross-entropy in nats over the five heads, and the share that each gets right.
    pub fn loss(&self, views: &Views, groups: &[Group]) -> Result<(Tensor, Vec<(&'static str, f64)>)> {
        let (mut tags, mut bodies, mut coarse) = (Places::default(), Places::default(), Places::default());
        for (picture, group) in groups.iter().enumerate() {
            let grid = views.grids[picture];
            let shape =
                Shape { picture, rows: grid.rows, cols: grid.cols, per_side: self.per_side, cell: self.cell_px };
            for object in &group.objects {
                if object.tagged {
                    let letter = Some(u32::from(object.letter) - u32::from('A'));
                    tags.add(shape.window(&object.tag, TAG_WINDOW), [letter, Some(object.digit.into())]);
                }
                if object.body.right <= object.body.left {
                    continue; // a tag on a page belongs to no emoji
                }
                let kind = Some(object.kind as u32);
                bodies.add(shape.window(&object.body, BODY_WINDOW), [kind, None]);
                coarse.add(shape.cell_of(&object.body), [kind, Some(colour(object.frame))]);
            }
            for mark in &group.marks {
                let letter = Some(u32::from(mark.letter) - u32::from('A'));
                tags.add(shape.window(&mark.region, TAG_WINDOW), [letter, None]);
            }
        }
        let mut scores = Scores::default();
        if !tags.index.is_empty() {
            let seen = self.tag.forward(&tags.gather(&views.fine)?)?.relu()?;
            scores.add("letter", &self.letter.forward(&seen)?, &tags.targets[0])?;
            scores.add("digit", &self.digit.forward(&seen)?, &tags.targets[1])?;
        }
        if !bodies.index.is_empty() {
            scores.add("kind", &self.kind.forward(&bodies.gather(&views.fine)?)?, &bodies.targets[0])?;
            let seen = coarse.gather(&views.coarse)?;
            scores.add("coarse_kind", &self.coarse_kind.forward(&seen)?, &coarse.targets[0])?;
            scores.add("coarse_colour", &self.coarse_colour.forward(&seen)?, &coarse.targets[1])?;
        }
        scores.finish()
    }
}

fn colour(frame: Option<Colour>) -> u32 {
    frame.map_or(0, |c| 1 + c as u32)
}

/// Where the cells of one picture stand among all features of a batch.
struct Shape {
    picture: usize,
    rows: usize,
    cols: usize,
    per_side: usize,
    cell: usize,
}

impl Shape {
    /// Indices of the fine features in a window centred on a region, moved inward at the picture's edge.
    fn window(&self, region: &Region, (height, width): (usize, usize)) -> Vec<u32> {
        let n = self.per_side;
        let step = (self.cell / n) as f32;
        let start = |from: f32, to: f32, size: usize, most: usize| {
            let first = ((from + to) / 2.0 / step - size as f32 / 2.0).round().max(0.0) as usize;
            first.min(most - size)
        };
        let top = start(region.top, region.bottom, height, self.rows * n);
        let left = start(region.left, region.right, width, self.cols * n);
        let base = self.picture * self.rows * self.cols * n * n;
        let mut index = Vec::with_capacity(height * width);
        for y in top..top + height {
            for x in left..left + width {
                let cell = (y / n) * self.cols + x / n;
                index.push((base + cell * n * n + (y % n) * n + x % n) as u32);
            }
        }
        index
    }

    /// Index of the coarse token at a region's centre.
    fn cell_of(&self, region: &Region) -> Vec<u32> {
        let cell = cell_at(region, (self.rows, self.cols), self.cell);
        vec![(self.picture * self.rows * self.cols + cell) as u32]
    }
}

/// The cell at a region's centre, row by row in a grid of cells of so many pixels.
pub(crate) fn cell_at(region: &Region, (rows, cols): (usize, usize), cell: usize) -> usize {
    let at = |from: f32, to: f32, most: usize| (((from + to) / 2.0) as usize / cell).min(most - 1);
    at(region.top, region.bottom, rows) * cols + at(region.left, region.right, cols)
}

impl Places {
    fn add(&mut self, index: Vec<u32>, targets: [Option<u32>; 2]) {
        self.index.extend(index);
        self.targets.iter_mut().zip(targets).for_each(|(all, one)| all.push(one));
    }

    /// `[S, n, D]` to `[places, window * D]`.
    fn gather(&self, features: &Tensor) -> Result<Tensor> {
        let (s, n, d) = features.dims3()?;
        let index = Tensor::from_slice(&self.index, self.index.len(), features.device())?;
        Ok(features.reshape((s * n, d))?.index_select(&index, 0)?.reshape((self.targets[0].len(), ()))?)
    }
}

#[derive(Default)]
struct Scores {
    losses: Vec<Tensor>,
    right: Vec<(&'static str, f64)>,
}

impl Scores {
    fn add(&mut self, name: &'static str, logits: &Tensor, targets: &[Option<u32>]) -> Result<()> {
        let count = targets.iter().flatten().count();
        if count == 0 {
            return Ok(());
        }
        let best: Vec<u32> = logits.detach().argmax(1)?.to_vec1()?;
        let right = targets.iter().zip(&best).filter(|(t, b)| t.is_some_and(|t| t == **b)).count();
        self.losses.push((kernels::cross_entropy(logits, targets)?.sum_all()? / count as f64)?);
        self.right.push((name, right as f64 / count as f64));
        Ok(())
    }

    fn finish(self) -> Result<(Tensor, Vec<(&'static str, f64)>)> {
        Ok((Tensor::stack(&self.losses, 0)?.mean_all()?, self.right))
    }
}
