//! The vision tower of Qwen2.5-VL: patches in squares, two-dimensional rotary positions, attention inside windows in
//! most blocks and over the picture in some, and a merger of 2 x 2 patches to one token. Read in transformers 5.23
//! (`models/qwen2_5_vl/modeling_qwen2_5_vl.py`); docs/families.md section 5.

use super::fields::{FEED_FORWARD, FEW, Fields, LAYERS, SIDE_PX};
use super::vision::{Runs, angles_of, biased, in_squares, index, turned, width_and_heads};
use super::{PatchGrid, Seen};
use crate::Result;
use crate::nn::{Linear, Norm, Part};
use crate::rope::Angles;
use crate::tap::Tap;
use crate::weights::Path;
use candle_core::Tensor;
use std::collections::BTreeSet;

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
    window_px: usize,
    whole: BTreeSet<usize>,
    language_width: usize,
    rope_theta: f64,
}

impl Shape {
    /// From `vision_config`.
    ///
    /// # Errors
    /// [`crate::Error::Config`] names the field.
    pub fn new(fields: Fields, language_width: usize) -> Result<Self> {
        fields.must_be("hidden_act", "silu")?;
        let [width, heads] = width_and_heads(fields, language_width)?;
        let shape = Self {
            depth: fields.up_to("depth", LAYERS)?,
            width,
            heads,
            feed_forward: fields.up_to("intermediate_size", FEED_FORWARD)?,
            channels: fields.up_to_or("in_channels", FEW, 3)?,
            patch_px: fields.up_to("patch_size", SIDE_PX)?,
            frames: fields.up_to("temporal_patch_size", FEW)?,
            merge: fields.up_to("spatial_merge_size", FEW)?,
            window_px: fields.up_to("window_size", SIDE_PX)?,
            whole: fields.counts("fullatt_block_indexes")?.into_iter().collect(),
            language_width,
            rope_theta: fields
                .within("rope_parameters", "vision_config.rope_parameters.")
                .number_or("rope_theta", 1e4)?,
        };
        if shape.window_tokens() == 0 {
            return Err(fields.error("window_size", "at least a merged token's side", "the file is damaged"));
        }
        Ok(shape)
    }

    /// Merged tokens along a window's side.
    fn window_tokens(&self) -> usize {
        self.window_px / self.merge / self.patch_px
    }
}

#[derive(Clone, Debug)]
struct Block {
    norm1: Norm,
    qkv: Linear,
    proj: Linear,
    norm2: Norm,
    gate_up: [Linear; 2],
    down: Linear,
}

impl Block {
    fn new(path: Path, c: &Shape) -> Result<Self> {
        let w = c.width;
        let inner = |p: Path, name| biased(p, name, w, c.feed_forward);
        Ok(Self {
            norm1: path.at("norm1", |p| Norm::new(p, w, NORM_EPS))?,
            qkv: path.at("attn", |p| biased(p, "qkv", w, 3 * w))?,
            proj: path.at("attn", |p| biased(p, "proj", w, w))?,
            norm2: path.at("norm2", |p| Norm::new(p, w, NORM_EPS))?,
            gate_up: path.at("mlp", |p| Ok([inner(p, "gate_proj")?, inner(p, "up_proj")?]))?,
            down: path.at("mlp", |p| biased(p, "down_proj", c.feed_forward, w))?,
        })
    }

    /// `[N, Dv]` to `[N, Dv]`.
    fn forward(&self, x: &Tensor, heads: usize, runs: &Runs, angles: &Angles) -> Result<Tensor> {
        let qkv = turned(&self.qkv.forward(&self.norm1.forward(x)?)?, heads, angles)?;
        let x = (x + self.proj.forward(&runs.attention(&qkv)?)?)?;
        let y = self.norm2.forward(&x)?;
        let [gate, up] = &self.gate_up;
        let fed = (gate.forward(&y)?.silu()? * up.forward(&y)?)?;
        Ok((&x + self.down.forward(&fed)?)?)
    }
}

/// The tower with its merger.
#[derive(Clone, Debug)]
pub struct Tower {
    patch: Linear,
    blocks: Vec<Block>,
    merger_norm: Norm,
    merger: [Linear; 2],
    shape: Shape,
}

impl Tower {
    /// Builds the tower at `path`.
    pub fn new(path: Path, shape: Shape) -> Result<Self> {
        let (w, square) = (shape.width, shape.width * shape.merge * shape.merge);
        let numbers = shape.channels * shape.frames * shape.patch_px * shape.patch_px;
        let patch = |p: Path| p.at("proj", |p| Linear::of_parts(p, numbers, &[Part::new("", w)]));
        Ok(Self {
            patch: path.at("patch_embed", patch)?,
            blocks: (0..shape.depth)
                .map(|i| path.at("blocks", |p| p.at(i, |p| Block::new(p, &shape))))
                .collect::<Result<_>>()?,
            merger_norm: path.at("merger", |p| p.at("ln_q", |p| Norm::new(p, w, NORM_EPS)))?,
            merger: path.at("merger", |p| {
                p.at("mlp", |p| Ok([biased(p, "0", square, square)?, biased(p, "2", square, shape.language_width)?]))
            })?,
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
        let per_token = c.merge * c.merge;
        let windows = windows(grid.rows / c.merge, grid.cols / c.merge, c.window_tokens());
        let order: Vec<u32> = windows.iter().flatten().copied().collect(); // [M], merged tokens
        let places = in_squares(grid.rows, grid.cols, c.merge);
        let of_token = |token: u32| (0..per_token).map(move |i| token as usize * per_token + i);
        let reordered: Vec<[u32; 2]> = order.iter().copied().flat_map(of_token).map(|patch| places[patch]).collect();
        let angles = angles_of(&reordered, c.width / c.heads, c.rope_theta, device)?;

        let x = self.patch.forward(patches)?; // [N, Dv]
        let (n, _) = x.dims2()?;
        let mut x = x
            .reshape((n / per_token, per_token * c.width))?
            .index_select(&index(&order, device)?, 0)?
            .reshape((n, c.width))?;
        let lengths: Vec<usize> = windows.iter().map(|window| window.len() * per_token).collect();
        let (inside, over) = (Runs::new(&lengths), Runs::new(&[n]));
        for (i, block) in self.blocks.iter().enumerate() {
            tap.see("vision_hidden", i, &x);
            x = block.forward(&x, c.heads, if c.whole.contains(&i) { &over } else { &inside }, &angles)?;
        }
        tap.see("vision_hidden", self.blocks.len(), &x);

        let mut back = vec![0u32; order.len()];
        order.iter().enumerate().for_each(|(at, token)| back[*token as usize] = at as u32);
        let back = index(&back, device)?;
        let squares = x.reshape((n / per_token, per_token * c.width))?.index_select(&back, 0)?; // row by row again
        let fine = squares.reshape((n, c.width))?;
        let [first, second] = &self.merger;
        let merged = self.merger_norm.forward(&fine)?.reshape((n / per_token, per_token * c.width))?;
        let tokens = second.forward(&first.forward(&merged)?.gelu_erf()?)?;
        Ok(Seen { tokens, fine, added: Vec::new() })
    }
}

/// The merged tokens of each window, row by row; those at the lower and right edge are cut short.
fn windows(rows: usize, cols: usize, side: usize) -> Vec<Vec<u32>> {
    let starts = |length: usize| (0..length).step_by(side);
    let window = |top: usize, left: usize| {
        let row = |row: usize| (left..cols.min(left + side)).map(move |col| (row * cols + col) as u32);
        (top..rows.min(top + side)).flat_map(row).collect()
    };
    starts(rows)
        .flat_map(|top| starts(cols).map(move |left| (top, left)))
        .map(|(top, left)| window(top, left))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_picture_once_and_are_cut_short_at_its_edges() {
        assert_eq!(windows(3, 3, 2), [vec![0, 1, 3, 4], vec![2, 5], vec![6, 7], vec![8]]);
    }
}
