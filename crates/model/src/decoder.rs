//! The decoder: pre-norm blocks with rotary positions, grouped-query attention and SwiGLU.
//!
//! It runs in two ways over the same blocks: over pictures, where every token sees every other and the keys and
//! values become the shared part of a [`Cache`]; and over words and latents, appended to a cache.

use crate::cache::{Cache, LayerCache};
use crate::config::Language;
use crate::mask;
use crate::nn::{FeedForward, Linear, Norm, residual_std};
use crate::weights::{Init, Path};
use crate::{Error, Result};
use candle_core::{IndexOp, Tensor};
use lare_kernels::{self as kernels, Sight};
use std::sync::Arc;

/// What a run over pictures leaves for the conversations about them.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// Keys and values per layer, each `[S, P, 2, G, Dh]`.
    pub kv: Vec<Tensor>,
    /// Normalised last hidden states, `[S, P, D]`.
    pub hidden: Tensor,
    /// `[S * P]`, false where a smaller picture was padded.
    pub visible: Arc<[bool]>,
}

/// What a run over new slots gives.
#[derive(Clone, Debug)]
pub struct Run {
    /// Normalised last hidden states of the new slots, `[B, T, D]`.
    pub hidden: Tensor,
    /// Per layer, what [`Rows`] asked for.
    pub rows: Vec<Tensor>,
}

/// Which attention rows a run over new slots gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// None.
    None,
    /// The last new slot's probabilities on the picture, `[B, H, P]`; what is missing to 1 went to own slots.
    Last,
    /// Every new slot's attention to the picture as if it saw nothing else, `[B, T, H, P]`: each row sums to 1.
    OverPicture,
}

#[derive(Clone, Debug)]
struct Block {
    attention_norm: Norm,
    qkv: Linear,
    output: Linear,
    feed_forward_norm: Norm,
    feed_forward: FeedForward,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
}

impl Block {
    fn new(path: Path, c: &Language) -> Result<Self> {
        let head_width = c.width / c.heads;
        let depth = 2 * c.layers;
        Ok(Self {
            attention_norm: path.at("attention_norm", |p| Norm::new(p, c.width, c.norm_eps))?,
            qkv: path.at("qkv", |p| Linear::new(p, c.width, (c.heads + 2 * c.kv_heads) * head_width))?,
            output: path
                .at("output", |p| Linear::with_std(p, c.heads * head_width, c.width, residual_std(c.width, depth)))?,
            feed_forward_norm: path.at("feed_forward_norm", |p| Norm::new(p, c.width, c.norm_eps))?,
            feed_forward: path.at("feed_forward", |p| {
                FeedForward::new(p, c.width, c.feed_forward, residual_std(c.feed_forward, depth))
            })?,
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_width,
        })
    }

    /// Queries `[B, T, H, Dh]` and keys with values `[B, T, 2, G, Dh]`, rotated to their positions.
    fn project(&self, x: &Tensor, angles: &Angles) -> Result<(Tensor, Tensor)> {
        let (b, t, _) = x.dims3()?;
        let (h, g, width) = (self.heads, self.kv_heads, self.head_width);
        let qkv = self.qkv.forward(&self.attention_norm.forward(x)?)?.reshape((b, t, h + 2 * g, width))?;
        let turned = kernels::rotary(&qkv, &angles.cos, &angles.sin, h + g)?; // queries, keys, values
        let queries = turned.narrow(2, 0, h)?.contiguous()?;
        let kv = turned.narrow(2, h, 2 * g)?.contiguous()?.reshape((b, t, 2, g, width))?;
        Ok((queries, kv))
    }

    fn finish(&self, x: &Tensor, seen: &Tensor) -> Result<Tensor> {
        let x = (x + self.output.forward(seen)?)?;
        let y = self.feed_forward.forward(&self.feed_forward_norm.forward(&x)?)?;
        Ok((x + y)?)
    }

    fn over_picture(&self, x: &Tensor, sight: &Sight, angles: &Angles) -> Result<(Tensor, Tensor)> {
        let (q, kv) = self.project(x, angles)?;
        let seen = kernels::attention(&q, &kv, None, sight)?;
        Ok((self.finish(x, &seen)?, kv))
    }

    fn over_slots(
        &self,
        x: &Tensor,
        cache: &mut LayerCache,
        sight: &Sight,
        angles: &Angles,
        rows: Rows,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (q, kv) = self.project(x, angles)?;
        let (_, t, _, _) = q.dims4()?;
        let own = cache.append(kv)?;
        let seen = kernels::attention(&q, &own, Some(&cache.shared), sight)?;
        let row = match rows {
            Rows::None => None,
            Rows::Last => {
                let last = Sight { first_slot: sight.first_slot + t - 1, ..sight.clone() };
                Some(kernels::attention_row(&q.i((.., t - 1))?.contiguous()?, &own, &cache.shared, &last)?)
            }
            Rows::OverPicture => Some(over_picture_alone(&q, &cache.shared, sight)?),
        };
        Ok((self.finish(x, &seen)?, row))
    }
}

/// Attention probabilities of queries `[B, T, H, Dh]` on the pictures `[S, P, 2, G, Dh]` and nothing else, `[B, T, H, P]`.
fn over_picture_alone(q: &Tensor, shared: &Tensor, sight: &Sight) -> Result<Tensor> {
    let ((b, t, h, width), (_, p, _, g, _)) = (q.dims4()?, shared.dims5()?);
    // The kernel takes one query a row and as many heads as there are: the positions of one head pass for heads.
    let queries = q.transpose(1, 2)?.contiguous()?.reshape((b, h * t, width))?;
    let nothing = Tensor::zeros(&[b, 1, 2, g, width][..], q.dtype(), q.device())?;
    let alone = mask::picture_alone(sight.shared_of_row.clone(), sight.shared_visible.clone());
    let rows = kernels::attention_row(&queries, &nothing, shared, &alone)?;
    Ok(rows.reshape((b, h, t, p))?.transpose(1, 2)?.contiguous()?)
}

/// Cosines and sines of the rotary angles, each `[B, T, Dh / 2]`.
struct Angles {
    cos: Tensor,
    sin: Tensor,
}

/// Blocks, final norm and the token embedding, which is also the output layer.
#[derive(Clone, Debug)]
pub struct Decoder {
    embedding: Tensor, // [V, D]
    blocks: Vec<Block>,
    norm: Norm,
    frequencies: Vec<f64>,
    max_positions: usize,
}

/// Start of the token embeddings: tied to the output, this gives logits of variance near 1 for any width.
fn embedding_std(width: usize) -> f64 {
    1.0 / (width as f64).sqrt()
}

impl Decoder {
    /// Builds the decoder at `path`.
    pub fn new(path: Path, c: &Language) -> Result<Self> {
        let half = c.width / c.heads / 2;
        Ok(Self {
            embedding: path.get("embedding", &[c.vocabulary, c.width], Init::Normal(embedding_std(c.width)))?,
            blocks: (0..c.layers)
                .map(|i| path.at("blocks", |p| p.at(i, |p| Block::new(p, c))))
                .collect::<Result<_>>()?,
            norm: path.at("norm", |p| Norm::new(p, c.width, c.norm_eps))?,
            frequencies: (0..half).map(|i| c.rope_theta.powf(-(i as f64) / half as f64)).collect(),
            max_positions: c.max_positions,
        })
    }

    /// Token embeddings, `ids` `[B, T]` (u32) to `[B, T, D]`.
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        Ok(self.embedding.index_select(&ids.flatten_all()?, 0)?.reshape((b, t, ()))?)
    }

    /// `[V, D]`, tied to the output layer.
    pub fn embedding(&self) -> &Tensor {
        &self.embedding
    }

    /// Root mean square of the token embeddings, detached: the norm that latents are kept at.
    pub fn embedding_rms(&self) -> Result<f64> {
        Ok(f64::from(self.embedding.detach().sqr()?.mean_all()?.sqrt()?.to_scalar::<f32>()?))
    }

    /// Hidden states `[.., D]` to logits `[.., V]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(kernels::linear(hidden, &self.embedding, None)?)
    }

    /// Runs image tokens `[S, P, D]`; `visible`: `[S * P]`.
    pub fn over_pictures(&self, tokens: &Tensor, visible: Arc<[bool]>) -> Result<Prefix> {
        let (s, p, _) = tokens.dims3()?;
        let angles = self.angles(&vec![0; s * p], s, p, tokens)?;
        let sight = mask::everyone(s, visible.clone());
        let mut x = tokens.clone();
        let mut kv = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (next, layer) = block.over_picture(&x, &sight, &angles)?;
            x = next;
            kv.push(layer);
        }
        Ok(Prefix { kv, hidden: self.norm.forward(&x)?, visible })
    }

    /// Appends embeddings `[B, T, D]` to the conversations; `real[b][t]` is false for padding.
    ///
    /// # Errors
    /// [`Error::Arguments`] when a conversation outgrows `max_positions`.
    pub fn over_slots(&self, x: &Tensor, real: &[Vec<bool>], cache: &mut Cache, rows: Rows) -> Result<Run> {
        let (b, t, _) = x.dims3()?;
        let mut slots = cache.slots.clone();
        let (sight, positions) = slots.append(real);
        if let Some(last) = positions.iter().find(|p| **p as usize >= self.max_positions) {
            return Err(Error::Arguments {
                what: "positions of one conversation",
                expected: format!("less than {}", self.max_positions),
                got: last.to_string(),
            });
        }
        cache.slots = slots;
        let angles = self.angles(&positions, b, t, x)?;
        let mut x = x.clone();
        let mut maps = Vec::new();
        for (block, layer) in self.blocks.iter().zip(&mut cache.layers) {
            let (next, row) = block.over_slots(&x, layer, &sight, &angles, rows)?;
            x = next;
            maps.extend(row);
        }
        Ok(Run { hidden: self.norm.forward(&x)?, rows: maps })
    }

    fn angles(&self, positions: &[u32], b: usize, t: usize, like: &Tensor) -> Result<Angles> {
        let angle = positions.iter().flat_map(|p| self.frequencies.iter().map(move |f| f64::from(*p) * f));
        let (sin, cos): (Vec<f32>, Vec<f32>) = angle.map(|a| (a.sin() as f32, a.cos() as f32)).unzip();
        let shape = (b, t, self.frequencies.len());
        Ok(Angles {
            cos: Tensor::from_vec(cos, shape, like.device())?,
            sin: Tensor::from_vec(sin, shape, like.device())?,
        })
    }
}
