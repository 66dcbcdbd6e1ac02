//! The vision tower of SmolVLM and Idefics3: SigLIP over square tiles, then squares of patches put beside each other
//! (pixel shuffle) and projected. Read in transformers 5.23 (`models/smolvlm/modeling_smolvlm.py`); docs/families.md
//! section 7.

use super::Seen;
use super::fields::{FEED_FORWARD, FEW, Fields, HEADS, LAYERS, SIDE_PX, WIDTH};
use super::vision::{LayerNorm, Runs, biased, index};
use crate::nn::{Linear, Part};
use crate::tap::Tap;
use crate::weights::{Init, Path};
use crate::{Error, Result};
use candle_core::Tensor;

/// The tower's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    depth: usize,
    width: usize,
    heads: usize,
    feed_forward: usize,
    channels: usize,
    patch_px: usize,
    tile_px: usize,
    shuffle: usize,
    language_width: usize,
    norm_eps: f64,
}

impl Shape {
    /// From `vision_config`, with the defaults of the reference's config class, which released files rely on, and
    /// `scale_factor` of the whole file.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn new(vision: Fields, whole: Fields, language_width: usize) -> Result<Self> {
        vision.must_be("hidden_act", "gelu_pytorch_tanh")?;
        let (width, heads) =
            (vision.up_to_or("hidden_size", WIDTH, 1152)?, vision.up_to_or("num_attention_heads", HEADS, 16)?);
        if width % heads != 0 {
            return Err(vision.error("num_attention_heads", "a divisor of hidden_size", "the file is damaged"));
        }
        let (tile_px, patch_px) =
            (vision.up_to_or("image_size", SIDE_PX, 224)?, vision.up_to_or("patch_size", SIDE_PX, 32)?);
        let shuffle = whole.up_to_or("scale_factor", FEW, 2)?;
        if tile_px % patch_px != 0 || tile_px / patch_px % shuffle != 0 {
            let expected = "a multiple of patch_size times scale_factor";
            return Err(vision.error("image_size", expected, "the file is damaged"));
        }
        Ok(Self {
            depth: vision.up_to_or("num_hidden_layers", LAYERS, 12)?,
            width,
            heads,
            feed_forward: vision.up_to_or("intermediate_size", FEED_FORWARD, 3072)?,
            channels: vision.up_to_or("num_channels", FEW, 3)?,
            patch_px,
            tile_px,
            shuffle,
            language_width,
            norm_eps: vision.number_or("layer_norm_eps", 1e-6)?,
        })
    }

    fn side(&self) -> usize {
        self.tile_px / self.patch_px
    }
}

#[derive(Clone, Debug)]
struct Block {
    norm1: LayerNorm,
    query_key_value: [Linear; 3],
    output: Linear,
    norm2: LayerNorm,
    inner: Linear,
    outer: Linear,
}

impl Block {
    fn new(path: Path, c: &Shape) -> Result<Self> {
        let w = c.width;
        let norm = |name| path.at(name, |p| LayerNorm::new(p, w, c.norm_eps));
        let attention = |name| path.at("self_attn", |p| biased(p, name, w, w));
        Ok(Self {
            norm1: norm("layer_norm1")?,
            query_key_value: [attention("q_proj")?, attention("k_proj")?, attention("v_proj")?],
            output: attention("out_proj")?,
            norm2: norm("layer_norm2")?,
            inner: path.at("mlp", |p| biased(p, "fc1", w, c.feed_forward))?,
            outer: path.at("mlp", |p| biased(p, "fc2", c.feed_forward, w))?,
        })
    }

    /// `[N, Dv]` to `[N, Dv]`.
    fn forward(&self, x: &Tensor, heads: usize, runs: &Runs) -> Result<Tensor> {
        let (n, w) = x.dims2()?;
        let y = self.norm1.forward(x)?;
        let [q, k, v] = &self.query_key_value;
        let all = Tensor::stack(&[q.forward(&y)?, k.forward(&y)?, v.forward(&y)?], 1)?; // [N, 3, Dv]
        let seen = runs.attention(&all.reshape((n, 3, heads, w / heads))?)?;
        let x = (x + self.output.forward(&seen)?)?;
        let fed = self.inner.forward(&self.norm2.forward(&x)?)?.gelu()?;
        Ok((&x + self.outer.forward(&fed)?)?)
    }
}

/// The tower with its connector.
#[derive(Clone, Debug)]
pub struct Tower {
    patch: Linear,
    places: Tensor, // [side * side, Dv]
    blocks: Vec<Block>,
    norm: LayerNorm,
    connector: Linear,
    shape: Shape,
}

impl Tower {
    /// Builds the tower at `vision_model` and its connector beside it.
    pub fn new(path: Path, shape: Shape) -> Result<Self> {
        let c = &shape;
        let (numbers, square) = (c.channels * c.patch_px * c.patch_px, c.width * c.shuffle * c.shuffle);
        let embeddings = |p: Path| {
            let table = |p: Path| p.get("weight", &[c.side() * c.side(), c.width], Init::Normal(0.02));
            Ok((biased(p, "patch_embedding", numbers, c.width)?, p.at("position_embedding", table)?))
        };
        let block = |i: usize| move |p: Path| p.at("layers", |p| p.at(i, |p| Block::new(p, c)));
        let (patch, places) = path.at("vision_model", |p| p.at("embeddings", embeddings))?;
        let project = |p: Path| Linear::of_parts(p, square, &[Part::new("", c.language_width)]);
        Ok(Self {
            patch,
            places,
            blocks: (0..c.depth)
                .map(|i| path.at("vision_model", |p| p.at("encoder", block(i))))
                .collect::<Result<_>>()?,
            norm: path.at("vision_model", |p| p.at("post_layernorm", |p| LayerNorm::new(p, c.width, c.norm_eps)))?,
            connector: path.at("connector", |p| p.at("modality_projection", |p| p.at("proj", project)))?,
            shape,
        })
    }

    /// Side of a tile in pixels.
    pub fn tile_px(&self) -> usize {
        self.shape.tile_px
    }

    /// Image tokens along a tile's side.
    pub fn tokens_per_side(&self) -> usize {
        self.shape.side() / self.shape.shuffle
    }

    /// Patches along the side of one image token.
    pub fn merge(&self) -> usize {
        self.shape.shuffle
    }

    /// Side of an image token in pixels.
    pub fn token_px(&self) -> usize {
        self.shape.patch_px * self.shape.shuffle
    }

    /// `Dv`.
    pub fn width(&self) -> usize {
        self.shape.width
    }

    /// Encodes the tiles of one picture, `[n, 3, S, S]`.
    pub fn encode(&self, tiles: &Tensor, tap: &dyn Tap) -> Result<Seen> {
        let c = &self.shape;
        let (n, channels, height, width) = tiles.dims4()?;
        if (channels, height, width) != (c.channels, c.tile_px, c.tile_px) {
            let expected = format!("[n, {}, {}, {}]", c.channels, c.tile_px, c.tile_px);
            return Err(Error::Arguments { what: "tiles", expected, got: format!("{:?}", tiles.dims()) });
        }
        let (side, px) = (c.side(), c.patch_px);
        let split = tiles.reshape(&[n, channels, side, px, side, px][..])?; // [n, C, rows, y, cols, x]
        let patches = split.permute([0, 2, 4, 1, 3, 5])?.contiguous()?.reshape((n, side * side, channels * px * px))?;
        let x = self.patch.forward(&patches)?.broadcast_add(&self.places)?;
        let mut x = x.reshape((n * side * side, c.width))?;
        let runs = Runs::new(&vec![side * side; n]);
        let seen = |i, x: &Tensor| -> Result<()> {
            tap.see("vision_hidden", i, &x.reshape((n, side * side, c.width))?);
            Ok(())
        };
        for (i, block) in self.blocks.iter().enumerate() {
            seen(i, &x)?;
            x = block.forward(&x, c.heads, &runs)?;
        }
        seen(self.blocks.len(), &x)?;
        let x = self.norm.forward(&x)?;
        // Squares of patches beside each other, as pixel shuffle lays them out.
        let order: Vec<u32> = (0..n).flat_map(|tile| self.in_tile(tile)).collect();
        let fine = x.index_select(&index(&order, x.device())?, 0)?;
        let squares = fine.reshape((order.len() / (c.shuffle * c.shuffle), c.shuffle * c.shuffle * c.width))?;
        Ok(Seen { tokens: self.connector.forward(&squares)?, fine, added: Vec::new() })
    }

    /// The patches of a tile in squares.
    fn in_tile(&self, tile: usize) -> impl Iterator<Item = u32> {
        let side = self.shape.side();
        let places = super::vision::in_squares(side, side, self.shape.shuffle);
        places.into_iter().map(move |[row, col]| (tile * side * side) as u32 + row * side as u32 + col)
    }
}
