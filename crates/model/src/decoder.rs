//! The decoder that all language models here share: pre-norm blocks with rotary positions, grouped-query attention and
//! SwiGLU; what families differ in is a field of [`Shape`].
//!
//! It runs in two ways over the same blocks: over a prefix, whose keys and values become the shared part of a [`Cache`]
//! (the nano model's pictures, where every token sees every other; a pretrained model's prompt up to its last picture,
//! which is causal); and over words and latents, appended to a cache.

use crate::cache::{Cache, Slab};
use crate::context::{Apart, Context, Own, Together};
use crate::mask::{self, Slots};
use crate::nn::{FeedForward, Linear, Norm, Part, Weight, residual_std};
use crate::rope::{Angles, Place, Rope};
use crate::tap::Tap;
use crate::weights::{Init, Path};
use crate::{Error, Result};
use candle_core::{D, DType, Device, Tensor};
use lare_kernels::{self as kernels, Sight};
use std::sync::Arc;

/// Sizes and switches of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// `V`.
    pub vocabulary: usize,
    /// `D`.
    pub width: usize,
    /// `L`.
    pub layers: usize,
    /// `H`.
    pub heads: usize,
    /// `G`, a divisor of `H`.
    pub kv_heads: usize,
    /// `Dh`; `H * Dh` may differ from `D`.
    pub head_width: usize,
    /// Inner width of the feed-forward.
    pub feed_forward: usize,
    /// Added to the mean square inside norms.
    pub norm_eps: f64,
    /// Most positions of one conversation.
    pub max_positions: usize,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether each head's query and key pass a norm before they are turned.
    pub qk_norm: bool,
    /// Whether the token embedding is also the output layer.
    pub tied: bool,
    /// Rotary positions.
    pub rope: Rope,
}

/// What a run over a prefix is given.
#[derive(Clone, Debug)]
pub struct Opening<'a> {
    /// Embeddings, `[S, P, D]`.
    pub tokens: &'a Tensor,
    /// `[S * P]`.
    pub places: &'a [Place],
    /// `[S * P]`, false for padding behind a shorter prefix.
    pub visible: Arc<[bool]>,
    /// Whether a token sees those after it not.
    pub causal: bool,
    /// Added to the output of the first layers, one after another, each `[S, P, D]` (DeepStack).
    pub added: &'a [Tensor],
}

/// What a run over a prefix leaves for the conversations that share it.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// Keys and values per layer, each `[S, P, 2, G, Dh]`.
    pub kv: Vec<Tensor>,
    /// Normalised last hidden states, `[S, P, D]`.
    pub hidden: Tensor,
    /// `[S * P]`, false where a smaller picture was padded.
    pub visible: Arc<[bool]>,
    /// `[S]`, where the first slot behind each stands.
    pub next_position: Vec<u32>,
}

impl Prefix {
    /// Conversations that go on from these prefixes. `of_row`: `[B]`.
    pub fn begin(&self, of_row: Arc<[u32]>) -> Cache {
        Cache::new(&self.kv, Slots::new(of_row, self.visible.clone(), &self.next_position))
    }
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
    head_norms: Option<[Norm; 2]>, // of queries, of keys
    output: Linear,
    feed_forward_norm: Norm,
    feed_forward: FeedForward,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
}

impl Block {
    fn new(path: Path, c: &Shape) -> Result<Self> {
        let (queries, keys, depth) = (c.heads * c.head_width, c.kv_heads * c.head_width, 2 * c.layers);
        let parts = [Part::new("query", queries), Part::new("key", keys), Part::new("value", keys)];
        let head_norm = |name| path.at(name, |p| Norm::new(p, c.head_width, c.norm_eps));
        Ok(Self {
            attention_norm: path.at("attention_norm", |p| Norm::new(p, c.width, c.norm_eps))?,
            qkv: path.at("qkv", |p| {
                let linear = Linear::of_parts(p, c.width, &parts)?;
                if c.qkv_bias { linear.biased(p, 0.0) } else { Ok(linear) }
            })?,
            head_norms: if c.qk_norm { Some([head_norm("query_norm")?, head_norm("key_norm")?]) } else { None },
            output: path.at("output", |p| Linear::with_std(p, queries, c.width, residual_std(c.width, depth)))?,
            feed_forward_norm: path.at("feed_forward_norm", |p| Norm::new(p, c.width, c.norm_eps))?,
            feed_forward: path.at("feed_forward", |p| {
                FeedForward::new(p, c.width, c.feed_forward, residual_std(c.feed_forward, depth))
            })?,
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_width: c.head_width,
        })
    }

    /// Queries `[B, T, H, Dh]` and keys with values `[B, T, 2, G, Dh]`, rotated to their positions.
    fn project(&self, x: &Tensor, angles: &Angles) -> Result<(Tensor, Tensor)> {
        let (b, t, _) = x.dims3()?;
        let (h, g, width) = (self.heads, self.kv_heads, self.head_width);
        let mut qkv = self.qkv.forward(&self.attention_norm.forward(x)?)?.reshape((b, t, h + 2 * g, width))?;
        if let Some([query, key]) = &self.head_norms {
            let part = |from, heads| Ok::<_, Error>(qkv.narrow(2, from, heads)?.contiguous()?);
            let (queries, keys) = (query.forward(&part(0, h)?)?, key.forward(&part(h, g)?)?);
            qkv = Tensor::cat(&[queries, keys, part(h + g, g)?], 2)?;
        }
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

    fn over_prefix(&self, x: &Tensor, sight: &Sight, angles: &Angles) -> Result<(Tensor, Tensor)> {
        let (q, kv) = self.project(x, angles)?;
        let seen = kernels::attention(&q, &kv, None, sight)?;
        Ok((self.finish(x, &seen)?, kv))
    }

    fn over_slots(&self, x: &Tensor, layer: usize, context: &mut dyn Context, angles: &Angles) -> Result<Tensor> {
        let (q, kv) = self.project(x, angles)?;
        self.finish(x, &context.attend(layer, &q, kv)?)
    }
}

/// Blocks, final norm, the token embedding and the output layer, which may be the same.
#[derive(Clone, Debug)]
pub struct Decoder {
    embedding: Weight,    // [V, D]
    head: Option<Linear>, // none: the embedding
    blocks: Vec<Block>,
    norm: Norm,
    rope: Rope,
    max_positions: usize,
}

/// Start of the token embeddings: tied to the output, this gives logits of variance near 1 for any width.
fn embedding_std(width: usize) -> f64 {
    1.0 / (width as f64).sqrt()
}

impl Decoder {
    /// Builds the decoder at `path`.
    pub fn new(path: Path, c: &Shape) -> Result<Self> {
        let start = Init::Normal(embedding_std(c.width));
        let head = |p: Path| Linear::with_std(p, c.width, c.vocabulary, embedding_std(c.width));
        Ok(Self {
            embedding: path.weight("embedding", [c.vocabulary, c.width], start)?,
            head: if c.tied { None } else { Some(path.at("head", head)?) },
            blocks: (0..c.layers)
                .map(|i| path.at("blocks", |p| p.at(i, |p| Block::new(p, c))))
                .collect::<Result<_>>()?,
            norm: path.at("norm", |p| Norm::new(p, c.width, c.norm_eps))?,
            rope: c.rope.clone(),
            max_positions: c.max_positions,
        })
    }

    /// Token embeddings, `ids` `[B, T]` (u32) to `[B, T, D]`.
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        Ok(self.embedding.gather(&ids.flatten_all()?)?.reshape((b, t, ()))?)
    }

    /// `[V, D]`, the token embeddings.
    pub fn embedding(&self) -> &Weight {
        &self.embedding
    }

    /// Root mean square of the token embeddings, detached: the norm that latents are kept at.
    pub fn embedding_rms(&self) -> Result<f64> {
        self.embedding.root_mean_square()
    }

    /// The vocabulary words nearest to thoughts `[B, D]`: cosine similarities `[B, V]`.
    pub fn nearest_words(&self, thoughts: &Tensor) -> Result<Tensor> {
        let norm = (thoughts.sqr()?.sum_keepdim(D::Minus1)?.sqrt()? + 1e-12)?;
        let along = self.embedding.product(&thoughts.broadcast_div(&norm)?, None)?;
        Ok(along.broadcast_div(&self.embedding.row_norms(thoughts.device())?)?)
    }

    /// Hidden states `[.., D]` to logits `[.., V]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        match &self.head {
            Some(head) => head.forward(hidden),
            None => self.embedding.product(hidden, None),
        }
    }

    /// A prefix of nothing, for conversations that begin with their first word.
    pub fn no_prefix(&self, device: &Device) -> Result<Prefix> {
        let [groups, width] = self.kv_shape();
        let nothing = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device);
        let kv = self.blocks.iter().map(|_| nothing(&[1, 0, 2, groups, width])).collect::<candle_core::Result<_>>()?;
        let hidden = nothing(&[1, 0, self.norm.width()])?;
        Ok(Prefix { kv, hidden, visible: Arc::from([]), next_position: vec![0] })
    }

    /// `[G, Dh]`.
    fn kv_shape(&self) -> [usize; 2] {
        self.blocks.first().map_or([1, 1], |block| [block.kv_heads, block.head_width])
    }

    /// Runs a prefix.
    pub fn over_prefix(&self, opening: &Opening, tap: &dyn Tap) -> Result<Prefix> {
        let Opening { tokens, places, visible, causal, added } = opening;
        let (s, p, _) = tokens.dims3()?;
        self.check_positions(
            places.iter().zip(visible.iter()).filter(|(_, real)| **real).flat_map(|(place, _)| place),
        )?;
        let angles = self.rope.angles(places, (s, p), tokens.device())?;
        let sight = if *causal { mask::in_order(s, visible.clone()) } else { mask::everyone(s, visible.clone()) };
        let mut x = (*tokens).clone();
        let mut kv = Vec::with_capacity(self.blocks.len());
        for (i, block) in self.blocks.iter().enumerate() {
            tap.see("hidden", i, &x);
            let (next, layer) = block.over_prefix(&x, &sight, &angles)?;
            x = match added.get(i) {
                Some(added) => (next + added)?,
                None => next,
            };
            kv.push(layer);
        }
        tap.see("hidden", self.blocks.len(), &x);
        let next = |row: usize| {
            let real = (row * p..(row + 1) * p).filter(|at| visible[*at]);
            real.flat_map(|at| places[at]).max().map_or(0, |last| last + 1)
        };
        let next_position = (0..s).map(next).collect();
        Ok(Prefix { kv, hidden: self.norm.forward(&x)?, visible: visible.clone(), next_position })
    }

    fn check_positions<'a>(&self, mut positions: impl Iterator<Item = &'a u32>) -> Result<()> {
        match positions.find(|p| **p as usize >= self.max_positions) {
            None => Ok(()),
            Some(last) => Err(Error::Arguments {
                what: "positions of one conversation",
                expected: format!("less than {}", self.max_positions),
                got: last.to_string(),
            }),
        }
    }

    /// Appends words, `ids` `[B]` lists; shorter ones get holes `before` or behind them, which nobody sees. As
    /// [`Decoder::over_slots`].
    ///
    /// # Errors
    /// [`Error::Arguments`] when a conversation outgrows `max_positions`.
    pub fn over_words(
        &self,
        ids: &[Vec<u32>],
        before: bool,
        cache: &mut Cache,
        rows: Rows,
        tap: &dyn Tap,
    ) -> Result<Run> {
        let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
        let first = |row: &Vec<u32>| if before { longest - row.len() } else { 0 };
        let slots = |row: &Vec<u32>| (0..longest).map(|slot| row.get(slot.wrapping_sub(first(row))).copied()).collect();
        let slots: Vec<Vec<Option<u32>>> = ids.iter().map(slots).collect();
        let real: Vec<Vec<bool>> = slots.iter().map(|row| row.iter().map(Option::is_some).collect()).collect();
        let padded: Vec<u32> = slots.iter().flatten().map(|id| id.unwrap_or(0)).collect();
        let ids = Tensor::from_vec(padded, (ids.len(), longest), cache.device())?;
        self.over_slots(&self.embed(&ids)?, &real, cache, rows, tap)
    }

    /// Appends embeddings `[B, T, D]` to the conversations; `real[b][t]` is false for padding.
    ///
    /// # Errors
    /// [`Error::Arguments`] when a conversation outgrows `max_positions`.
    pub fn over_slots(
        &self,
        x: &Tensor,
        real: &[Vec<bool>],
        cache: &mut Cache,
        rows: Rows,
        tap: &dyn Tap,
    ) -> Result<Run> {
        let mut slots = cache.slots.clone();
        let (sight, positions) = slots.append(real);
        self.check_positions(positions.iter())?;
        cache.slots = slots;
        let mut together = Together { layers: &mut cache.layers, sight, rows, found: Vec::new() };
        let hidden = self.run(x, positions, &mut together, tap)?;
        Ok(Run { hidden, rows: together.found })
    }

    /// Appends embeddings `[N, D]` to conversations that stand apart, so many to each as it says, one behind the other. Their
    /// lines are left as they are.
    ///
    /// Gives the normalised last hidden states `[N, D]`, and of each conversation that wants them its last new slot's
    /// probabilities on the prefix per layer, `[1, H, P]`.
    ///
    /// # Errors
    /// [`Error::Arguments`] when a conversation outgrows `max_positions`.
    pub fn over_apart(&self, x: &Tensor, all: &[Own]) -> Result<(Tensor, Vec<Vec<Tensor>>)> {
        let positions: Vec<u32> = all.iter().flat_map(|own| own.line.next_positions(own.new)).collect();
        self.check_positions(positions.iter())?;
        let mut apart = Apart { all, found: vec![Vec::new(); all.len()] };
        let hidden = self.run(&x.unsqueeze(0)?, positions, &mut apart, &())?.squeeze(0)?;
        Ok((hidden, apart.found))
    }

    /// The blocks over new slots `[B, T, D]` at `[B * T]` positions.
    fn run(&self, x: &Tensor, positions: Vec<u32>, context: &mut dyn Context, tap: &dyn Tap) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let places: Vec<Place> = positions.into_iter().map(|p| [p; 3]).collect();
        let angles = self.rope.angles(&places, (b, t), x.device())?;
        let mut x = x.clone();
        for (i, block) in self.blocks.iter().enumerate() {
            tap.see("hidden", i, &x);
            x = block.over_slots(&x, i, context, &angles)?;
        }
        tap.see("hidden", self.blocks.len(), &x);
        self.norm.forward(&x)
    }

    /// Room for the keys and values of `slots` slots of a conversation that stands apart.
    pub fn slab(&self, slots: usize, device: &Device) -> Result<Slab> {
        Slab::new(slots, self.blocks.len(), self.kv_shape(), device)
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        self.norm.device()
    }

    /// Its number of blocks.
    pub fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes of one slot's keys and values.
    pub fn slot_bytes(&self) -> usize {
        self.blocks.iter().map(|block| 2 * block.kv_heads * block.head_width * size_of::<f32>()).sum()
    }
}
