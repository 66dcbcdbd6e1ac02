//! The vision tower of Qwen3-VL: learned positions stretched over the picture besides rotary ones, attention over the whole
//! picture, a merger, and further mergers whose tokens are added behind the decoder's first layers (DeepStack). Read in
//! transformers 5.23 (`models/qwen3_vl/modeling_qwen3_vl.py`); docs/families.md section 6.

use super::fields::{FEED_FORWARD, FEW, Fields, LAYERS, SIDE_PX};
use super::vision::{LayerNorm, Runs, angles_of, biased, in_squares, index, turned, width_and_heads};
use super::{PatchGrid, Seen};
use crate::Result;
use crate::nn::Linear;
use crate::rope::Angles;
use crate::tap::Tap;
use crate::weights::{Init, Path};
use candle_core::Tensor;

/// Written into the reference, in no config.
const NORM_EPS: f64 = 1e-6;

/// The tower's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    depth: usize,
    width: usize,
    heads: usize,
    feed_forward: usize,
    channels: usize,
    patch_px: usize,
    frames: usize,
    merge: usize,
    places_side: usize,
    deepstack: Vec<usize>,
    language_width: usize,
    rope_theta: f64,
}

impl Shape {
    /// From `vision_config`.
    ///
    /// # Errors
    /// [`crate::Error::Config`] names the field.
    pub fn new(fields: Fields, language_width: usize) -> Result<Self> {
        fields.must_be("hidden_act", "gelu_pytorch_tanh")?;
        let [width, heads] = width_and_heads(fields, language_width)?;
        let places_side = fields.size("num_position_embeddings")?.isqrt();
        if places_side * places_side != fields.size("num_position_embeddings")? {
            return Err(fields.error("num_position_embeddings", "a square", "the file is damaged"));
        }
        let (depth, deepstack) = (fields.up_to("depth", LAYERS)?, fields.counts("deepstack_visual_indexes")?);
        if deepstack.iter().any(|block| *block >= depth) {
            return Err(fields.error(
                "deepstack_visual_indexes",
                &format!("blocks below {depth}"),
                "the file is damaged",
            ));
        }
        Ok(Self {
            depth,
            width,
            heads,
            feed_forward: fields.up_to("intermediate_size", FEED_FORWARD)?,
            channels: fields.up_to_or("in_channels", FEW, 3)?,
            patch_px: fields.up_to("patch_size", SIDE_PX)?,
            frames: fields.up_to("temporal_patch_size", FEW)?,
            merge: fields.up_to("spatial_merge_size", FEW)?,
            places_side,
            deepstack,
            language_width,
            rope_theta: fields
                .within("rope_parameters", "vision_config.rope_parameters.")
                .number_or("rope_theta", 1e4)?,
        })
    }
}

#[derive(Clone, Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    inner: Linear,
    outer: Linear,
}

impl Block {
    fn new(path: Path, c: &Shape) -> Result<Self> {
        let w = c.width;
        Ok(Self {
            norm1: path.at("norm1", |p| LayerNorm::new(p, w, NORM_EPS))?,
            qkv: path.at("attn", |p| biased(p, "qkv", w, 3 * w))?,
            proj: path.at("attn", |p| biased(p, "proj", w, w))?,
            norm2: path.at("norm2", |p| LayerNorm::new(p, w, NORM_EPS))?,
            inner: path.at("mlp", |p| biased(p, "linear_fc1", w, c.feed_forward))?,
            outer: path.at("mlp", |p| biased(p, "linear_fc2", c.feed_forward, w))?,
        })
    }

    /// `[N, Dv]` to `[N, Dv]`.
    fn forward(&self, x: &Tensor, heads: usize, runs: &Runs, angles: &Angles) -> Result<Tensor> {
        let qkv = turned(&self.qkv.forward(&self.norm1.forward(x)?)?, heads, angles)?;
        let x = (x + self.proj.forward(&runs.attention(&qkv)?)?)?;
        let fed = self.inner.forward(&self.norm2.forward(&x)?)?.gelu()?;
        Ok((&x + self.outer.forward(&fed)?)?)
    }
}

/// Squares of patches to tokens.
#[derive(Clone, Debug)]
struct Merger {
    norm: LayerNorm,
    inner: Linear,
    outer: Linear,
    /// Whether the norm comes after patches are put beside each other.
    late: bool,
}

impl Merger {
    fn new(path: Path, c: &Shape, late: bool) -> Result<Self> {
        let square = c.width * c.merge * c.merge;
        Ok(Self {
            norm: path.at("norm", |p| LayerNorm::new(p, if late { square } else { c.width }, NORM_EPS))?,
            inner: biased(path, "linear_fc1", square, square)?,
            outer: biased(path, "linear_fc2", square, c.language_width)?,
            late,
        })
    }

    /// `[N, Dv]` to `[N / m^2, D]`.
    fn forward(&self, x: &Tensor, merge: usize) -> Result<Tensor> {
        let (n, w) = x.dims2()?;
        let per_token = merge * merge;
        let beside = |x: &Tensor| x.reshape((n / per_token, per_token * w));
        let x = if self.late { self.norm.forward(&beside(x)?)? } else { beside(&self.norm.forward(x)?)? };
        self.outer.forward(&self.inner.forward(&x)?.gelu_erf()?)
    }
}

/// The tower with its mergers.
#[derive(Clone, Debug)]
pub struct Tower {
    patch: Linear,
    places: Tensor, // [side * side, Dv]
    blocks: Vec<Block>,
    merger: Merger,
    deepstack: Vec<(usize, Merger)>,
    shape: Shape,
}

impl Tower {
    /// Builds the tower at `path`.
    pub fn new(path: Path, shape: Shape) -> Result<Self> {
        let c = &shape;
        let numbers = c.channels * c.frames * c.patch_px * c.patch_px;
        let extra = |j: usize| path.at("deepstack_merger_list", |p| p.at(j, |p| Merger::new(p, c, true)));
        Ok(Self {
            patch: path.at("patch_embed", |p| biased(p, "proj", numbers, c.width))?,
            places: path
                .at("pos_embed", |p| p.get("weight", &[c.places_side * c.places_side, c.width], Init::Normal(0.02)))?,
            blocks: (0..c.depth)
                .map(|i| path.at("blocks", |p| p.at(i, |p| Block::new(p, c))))
                .collect::<Result<_>>()?,
            merger: path.at("merger", |p| Merger::new(p, c, false))?,
            deepstack: c.deepstack.iter().enumerate().map(|(j, at)| Ok((*at, extra(j)?))).collect::<Result<_>>()?,
            shape,
        })
    }

    /// Numbers in a patch as the processor gives it.
    pub fn patch_numbers(&self) -> usize {
        self.shape.channels * self.shape.frames * self.shape.patch_px * self.shape.patch_px
    }

    /// Patches along the side of one image token.
    pub fn merge(&self) -> usize {
        self.shape.merge
    }

    /// Side of an image token in pixels.
    pub fn token_px(&self) -> usize {
        self.shape.patch_px * self.shape.merge
    }

    /// `Dv`.
    pub fn width(&self) -> usize {
        self.shape.width
    }

    /// Encodes one picture. `patches`: `[N, channels * frames * px * px]` in the processor's order.
    pub fn encode(&self, patches: &Tensor, grid: PatchGrid, tap: &dyn Tap) -> Result<Seen> {
        let (c, device) = (&self.shape, patches.device());
        let places = in_squares(grid.rows, grid.cols, c.merge);
        let angles = angles_of(&places, c.width / c.heads, c.rope_theta, device)?;
        let mut x = (self.patch.forward(patches)? + self.learned_places(&places, grid)?)?; // [N, Dv]
        let whole = Runs::new(&[places.len()]);
        let mut added = Vec::with_capacity(self.deepstack.len());
        for (i, block) in self.blocks.iter().enumerate() {
            tap.see("vision_hidden", i, &x);
            x = block.forward(&x, c.heads, &whole, &angles)?;
            for (_, merger) in self.deepstack.iter().filter(|(at, _)| *at == i) {
                added.push(merger.forward(&x, c.merge)?);
            }
        }
        tap.see("vision_hidden", self.blocks.len(), &x);
        Ok(Seen { tokens: self.merger.forward(&x, c.merge)?, fine: x, added })
    }

    /// The learned positions, stretched over the picture corner to corner, `[N, Dv]`.
    fn learned_places(&self, places: &[[u32; 2]], grid: PatchGrid) -> Result<Tensor> {
        let side = self.shape.places_side;
        // Two rows (or columns) of the table for each place, and the weight of the second.
        let taps = |at: u32, length: usize| {
            // In the order of the reference: where a place falls on a row of the table, rounding decides between two.
            let source = at as f32 * (side - 1) as f32 / length.saturating_sub(1).max(1) as f32;
            let first = source.floor();
            (first as usize, (first as usize + 1).min(side - 1), source - first)
        };
        let mut which: [Vec<u32>; 4] = Default::default();
        let mut weights: [Vec<f32>; 4] = Default::default();
        for [row, col] in places {
            let ((top, bottom, down), (left, right, across)) = (taps(*row, grid.rows), taps(*col, grid.cols));
            let corners = [
                (top, left, (1.0 - down) * (1.0 - across)),
                (top, right, (1.0 - down) * across),
                (bottom, left, down * (1.0 - across)),
                (bottom, right, down * across),
            ];
            for ((which, weights), (row, col, weight)) in which.iter_mut().zip(&mut weights).zip(corners) {
                which.push((row * side + col) as u32);
                weights.push(weight);
            }
        }
        let mut sum: Option<Tensor> = None;
        for (which, weights) in which.iter().zip(weights) {
            let rows = self.places.index_select(&index(which, self.places.device())?, 0)?;
            let weights = Tensor::from_vec(weights, (which.len(), 1), self.places.device())?;
            let part = rows.broadcast_mul(&weights)?;
            sum = Some(match sum {
                None => part,
                Some(sum) => (sum + part)?,
            });
        }
        Ok(sum.unwrap_or(self.places.narrow(0, 0, 0)?))
    }
}
