//! The nano backbone: two small convolutional encoders and a decoder, [ours].
//!
//! The first look is coarse: the picture shrunk four times, one token per 64 px cell. What a second look reads
//! comes from another encoder at full resolution, one feature per 16 px, which shares nothing with the first, so
//! details cannot leak into the context. The same backbone can put all fine features into the context, which is
//! the natural form of the baselines that never look again.
//!
//! Features are laid out cell by cell: fine features `p * E .. (p + 1) * E` belong to coarse token `p`, whatever
//! the picture's shape.

use crate::config::{Config, Context, Vision};
use crate::decoder::{Decoder, Opening, Prefix};
use crate::nn::{Linear, Norm, grid_positions};
use crate::refocus::Grid;
use crate::weights::{Init, Path};
use crate::{Error, Result};
use candle_core::Tensor;
use lare_kernels::{self as kernels, Windows};
use std::sync::Arc;

/// What the encoders saw in `S` pictures. Depends on the encoders' weights alone, so it can be kept while they
/// are frozen.
#[derive(Clone, Debug)]
pub struct Views {
    /// `[S, P, D]`, before positions; rows past a picture's own cells are zero.
    pub coarse: Tensor,
    /// `[S, P * E, Dv]`, before positions, cell by cell.
    pub fine: Tensor,
    /// `[S]`.
    pub grids: Vec<Grid>,
}

impl Views {
    /// Joins views, padding the smaller pictures' cells with zeros.
    pub fn stack(parts: &[Self]) -> Result<Self> {
        let most = parts.iter().flat_map(|v| &v.grids).map(|g| g.cells()).max().unwrap_or(0);
        let (mut coarse, mut fine, mut grids) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            let (_, p, _) = part.coarse.dims3()?;
            let (_, f, _) = part.fine.dims3()?;
            coarse.push(part.coarse.pad_with_zeros(1, 0, most - p)?);
            fine.push(part.fine.pad_with_zeros(1, 0, (most - p) * (f / p.max(1)))?);
            grids.extend(&part.grids);
        }
        Ok(Self { coarse: Tensor::cat(&coarse, 0)?, fine: Tensor::cat(&fine, 0)?, grids })
    }

    /// `[S * P]`: which cells are real.
    pub fn visible(&self) -> Result<Arc<[bool]>> {
        let (_, p, _) = self.coarse.dims3()?;
        Ok(self.grids.iter().flat_map(|g| (0..p).map(|i| i < g.cells())).collect())
    }
}

/// A convolution, norm over channels, ReLU.
#[derive(Clone, Debug)]
struct Conv {
    filters: Tensor, // [C', side * side * C]
    bias: Tensor,    // [C']
    scale: Tensor,   // [C']
    windows: Windows,
}

impl Conv {
    fn new(path: Path, inputs: usize, outputs: usize, [side, stride, pad]: [usize; 3]) -> Result<Self> {
        let window = side * side * inputs;
        // ReLU halves the variance: He's factor 2 keeps it.
        let start = Init::Normal((2.0 / window as f64).sqrt());
        Ok(Self {
            filters: path.at("conv", |p| p.get("weight", &[outputs, window], start))?,
            bias: path.at("conv", |p| p.get("bias", &[outputs], Init::Zeros))?,
            scale: path.at("norm", |p| p.get("weight", &[outputs], Init::Ones))?,
            windows: Windows { side, stride, pad },
        })
    }

    /// `[S, H, W, C]` to `[S, H / stride, W / stride, C']`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(kernels::convolution(x, &self.filters, [&self.bias, &self.scale], self.windows, 1e-4)?)
    }
}

#[derive(Clone, Debug)]
struct FineEncoder {
    stages: Vec<Conv>,
    blocks: Vec<Conv>,
}

impl FineEncoder {
    fn new(path: Path, c: &Vision) -> Result<Self> {
        let [first, second, third] = c.fine_channels;
        let stage = |i: usize, from, to, shape| path.at("stages", |p| p.at(i, |p| Conv::new(p, from, to, shape)));
        Ok(Self {
            stages: vec![
                stage(0, 3, first, [6, 4, 1])?,
                stage(1, first, second, [3, 2, 1])?,
                stage(2, second, third, [3, 2, 1])?,
            ],
            blocks: (0..c.fine_blocks)
                .map(|i| path.at("blocks", |p| p.at(i, |p| Conv::new(p, third, third, [3, 1, 1]))))
                .collect::<Result<_>>()?,
        })
    }

    /// `[S, H, W, 3]` to `[S, H / 16, W / 16, Dv]`.
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut x = pixels.clone();
        for stage in &self.stages {
            x = stage.forward(&x)?;
        }
        for block in &self.blocks {
            x = (&x + block.forward(&x)?)?;
        }
        Ok(x)
    }
}

#[derive(Clone, Debug)]
struct CoarseEncoder {
    stages: Vec<Conv>,
    shrink: usize,
}

impl CoarseEncoder {
    fn new(path: Path, c: &Vision, width: usize) -> Result<Self> {
        let [first, second, third] = c.coarse_channels;
        let stage = |i: usize, from, to, shape| path.at("stages", |p| p.at(i, |p| Conv::new(p, from, to, shape)));
        Ok(Self {
            stages: vec![
                stage(0, 3, first, [5, 2, 2])?,
                stage(1, first, second, [3, 2, 1])?,
                stage(2, second, third, [3, 2, 1])?,
                stage(3, third, width, [3, 2, 1])?,
            ],
            shrink: c.coarse_shrink,
        })
    }

    /// `[S, H, W, 3]` to `[S, H / cell, W / cell, D]`, from the picture shrunk by averaging.
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (s, h, w, _) = pixels.dims4()?;
        let n = self.shrink;
        let mut x = pixels.reshape((s, h / n, n, w / n, n * 3))?.mean(2)?; // [S, h, w, n * 3]
        x = x.reshape((s, h / n, w / n, n, 3))?.mean(3)?; // [S, h, w, 3]
        for stage in &self.stages {
            x = stage.forward(&x)?;
        }
        Ok(x)
    }
}

/// Encoders, positions and decoder.
#[derive(Clone, Debug)]
pub struct Nano {
    fine: FineEncoder,
    coarse: CoarseEncoder,
    coarse_norm: Norm,
    coarse_position: Linear,
    fine_norm: Norm,
    fine_position: Linear,
    fine_in_context: Option<Linear>,
    /// The decoder.
    pub language: Decoder,
    cell_px: usize,
    per_side: usize,
    merge: usize,
    frequencies: usize,
}

impl Nano {
    /// Builds the backbone at the root of the tree.
    pub fn new(path: Path, config: &Config) -> Result<Self> {
        let (v, l, dv) = (&config.vision, &config.language, config.fine_width());
        let features = 4 * v.position_frequencies;
        let language = path.at("language", |p| Decoder::new(p, &l.shape()))?;
        path.at("vision", |path| {
            Ok(Self {
                fine: path.at("fine", |p| FineEncoder::new(p, v))?,
                coarse: path.at("coarse", |p| CoarseEncoder::new(p, v, l.width))?,
                coarse_norm: path.at("coarse_norm", |p| Norm::new(p, l.width, l.norm_eps))?,
                coarse_position: path.at("coarse_position", |p| Linear::new(p, features, l.width))?,
                fine_norm: path.at("fine_norm", |p| Norm::new(p, dv, l.norm_eps))?,
                fine_position: path.at("fine_position", |p| Linear::new(p, features, dv))?,
                fine_in_context: match l.context {
                    Context::Coarse => None,
                    Context::CoarseAndFine => {
                        Some(path.at("fine_in_context", |p| Linear::new(p, config.merged_width(), l.width))?)
                    }
                },
                language,
                cell_px: v.cell_px,
                per_side: v.fine_per_side,
                merge: v.spatial_merge,
                frequencies: v.position_frequencies,
            })
        })
    }

    /// Encodes pictures of one shape. `pixels`: `[S, H, W, 3]`, 0 to 1, sides multiples of `cell_px`.
    pub fn encode(&self, pixels: &Tensor) -> Result<Views> {
        let (s, h, w, _) = pixels.dims4()?;
        if h % self.cell_px != 0 || w % self.cell_px != 0 || h * w == 0 {
            return Err(Error::Arguments {
                what: "sides of the prepared picture",
                expected: format!("multiples of {} px", self.cell_px),
                got: format!("{w} x {h} px"),
            });
        }
        let grid = Grid { rows: h / self.cell_px, cols: w / self.cell_px };
        // Centred near the suite's and most pictures' mean, one unit per quarter of the range.
        let x = pixels.affine(4.0, -2.5)?;
        let coarse = self.coarse.forward(&x)?.reshape((s, grid.cells(), ()))?;
        let fine = by_cell(&self.fine.forward(&x)?, grid, self.per_side)?;
        Ok(Views { coarse, fine, grids: vec![grid; s] })
    }

    /// The coarse tokens with their positions, `[S, P, D]`.
    pub fn coarse_tokens(&self, views: &Views) -> Result<Tensor> {
        let places = self.places(views, 1)?;
        Ok((self.coarse_norm.forward(&views.coarse)? + self.coarse_position.forward(&places)?)?)
    }

    /// The fine features with their positions, `[S, P * E, Dv]`.
    pub fn fine_features(&self, views: &Views) -> Result<Tensor> {
        let places = self.places(views, self.per_side)?;
        Ok((self.fine_norm.forward(&views.fine)? + self.fine_position.forward(&places)?)?)
    }

    /// Runs the picture through the decoder: the part of the context that all questions about it share.
    pub fn first_look(&self, views: &Views, coarse: &Tensor, fine: &Tensor) -> Result<Prefix> {
        let visible = views.visible()?;
        let Some(project) = &self.fine_in_context else {
            return self.over_pictures(coarse, visible);
        };
        let merged = self.merged(fine)?;
        let ((_, p, _), (_, m, _)) = (coarse.dims3()?, merged.dims3()?);
        let per_cell = m / p.max(1);
        let all = Tensor::cat(&[coarse, &project.forward(&merged)?], 1)?;
        let mut both = Vec::with_capacity(visible.len() * (1 + per_cell));
        for cells in visible.chunks(p) {
            both.extend_from_slice(cells);
            both.extend(cells.iter().flat_map(|v| std::iter::repeat_n(*v, per_cell)));
        }
        self.over_pictures(&all, both.into())
    }

    /// Inside the picture every token sees every other and all stand at position 0: their own features say where they are.
    fn over_pictures(&self, tokens: &Tensor, visible: Arc<[bool]>) -> Result<Prefix> {
        let places = vec![[0; 3]; visible.len()];
        let mut prefix =
            self.language.over_prefix(&Opening { tokens, places: &places, visible, causal: false, added: &[] }, &())?;
        prefix.next_position.fill(1); // also behind a picture without cells
        Ok(prefix)
    }

    /// Squares of fine features side by side, `[S, P * E, Dv]` to `[S, P * E / m^2, m^2 * Dv]` for `m` merged along each side.
    pub fn merged(&self, fine: &Tensor) -> Result<Tensor> {
        let (m, n) = (self.merge, self.per_side);
        if m == 1 {
            return Ok(fine.clone());
        }
        let (s, entries, dv) = fine.dims3()?;
        // A cell's entries lie row by row: rows of squares, rows in one, then its columns beside each other.
        let split = fine.reshape(&[s * entries / (n * n) * (n / m), m, n / m, m * dv][..])?;
        let together = split.transpose(1, 2)?.contiguous()?;
        Ok(together.reshape((s, entries / (m * m), m * m * dv))?)
    }

    /// Position features of every cell (`per_side` 1) or fine feature, `[S, .., 4 * frequencies]`.
    fn places(&self, views: &Views, per_side: usize) -> Result<Tensor> {
        let (_, most, _) = views.coarse.dims3()?;
        let one = |grid: &Grid| -> Result<Tensor> {
            let (rows, cols) = (grid.rows * per_side, grid.cols * per_side);
            let flat = grid_positions(rows, cols, per_side, self.frequencies, &views.coarse)?;
            let cells = by_cell(&flat.reshape((1, rows, cols, ()))?, *grid, per_side)?;
            Ok(cells.pad_with_zeros(1, 0, (most - grid.cells()) * per_side * per_side)?)
        };
        let mut shapes: Vec<(Grid, Tensor)> = Vec::new();
        let mut places = Vec::with_capacity(views.grids.len());
        for grid in &views.grids {
            let known = shapes.iter().find(|(g, _)| g == grid).map(|(_, t)| t.clone());
            let tensor = match known {
                Some(tensor) => tensor,
                None => {
                    let tensor = one(grid)?;
                    shapes.push((*grid, tensor.clone()));
                    tensor
                }
            };
            places.push(tensor);
        }
        Ok(Tensor::cat(&places, 0)?)
    }
}

/// `[S, rows * n, cols * n, C]` to `[S, rows * cols * n * n, C]`, the `n * n` entries of a cell together.
fn by_cell(x: &Tensor, grid: Grid, n: usize) -> Result<Tensor> {
    let (s, _, _, c) = x.dims4()?;
    let split = x.reshape(&[s, grid.rows, n, grid.cols, n * c][..])?;
    Ok(split.transpose(2, 3)?.contiguous()?.reshape((s, grid.cells() * n * n, c))?)
}
