//! The LQ-Former (Latent Q-Former; name from the paper, inside [ours]): a query transformer that reads the chosen
//! part of the visual memory with the present thought and all earlier ones as queries.
//!
//! Pre-norm blocks of self-attention over the query set, cross-attention to the memory with the log of the scores
//! as bias, and a SwiGLU feed-forward. The keys and values of the whole memory are projected once per picture
//! ([`QFormer::remember`]): a look then projects none of the patches it reads.

use crate::Result;
use crate::config::Refocus;
use crate::mask;
use crate::nn::{FeedForward, Linear, Norm, residual_std};
use crate::refocus::Around;
use crate::weights::{Init, Path};
use candle_core::{IndexOp, Tensor};
use lare_kernels::{self as kernels, Collected};
use std::sync::Arc;

/// What one look reads: entries of the memory and how much each was wanted.
#[derive(Clone, Debug)]
pub struct Reading {
    /// `[B * R']`, entries of the row's memory, `u32::MAX` where there is none.
    pub entries: Arc<[u32]>,
    /// `[B, R']`, added to the attention's logits: the log of the scores.
    pub bias: Tensor,
    /// `[B]`, the memory that each row reads.
    pub memory_of_row: Arc<[u32]>,
}

#[derive(Clone, Debug)]
struct Block {
    self_norm: Norm,
    self_qkv: Linear,
    self_output: Linear,
    cross_norm: Norm,
    cross_query: Linear,
    cross_memory: Linear,
    cross_output: Linear,
    feed_forward_norm: Norm,
    feed_forward: FeedForward,
    heads: usize,
}

impl Block {
    fn new(path: Path, around: Around, r: &Refocus) -> Result<Self> {
        let (d, std) = (around.width, residual_std(around.width, 3 * r.blocks));
        let norm = |name| path.at(name, |p| Norm::new(p, d, around.norm_eps));
        Ok(Self {
            self_norm: norm("self_norm")?,
            self_qkv: path.at("self_qkv", |p| Linear::new(p, d, 3 * d))?,
            self_output: path.at("self_output", |p| Linear::with_std(p, d, d, std))?,
            cross_norm: norm("cross_norm")?,
            cross_query: path.at("cross_query", |p| Linear::new(p, d, d))?,
            cross_memory: path.at("cross_memory", |p| Linear::new(p, around.memory_width, 2 * d))?,
            cross_output: path.at("cross_output", |p| Linear::with_std(p, d, d, std))?,
            feed_forward_norm: norm("feed_forward_norm")?,
            feed_forward: path.at("feed_forward", |p| {
                FeedForward::new(p, d, r.feed_forward, residual_std(r.feed_forward, 3 * r.blocks))
            })?,
            heads: r.heads,
        })
    }

    /// `x`: `[B, Q, D]`; `memory`: `[S, M, 2, H, Dh]`.
    fn forward(&self, x: &Tensor, memory: &Collected, reading: &Reading) -> Result<Tensor> {
        let (b, q, d) = x.dims3()?;
        let width = d / self.heads;
        let qkv = self.self_qkv.forward(&self.self_norm.forward(x)?)?;
        let queries = qkv.narrow(2, 0, d)?.contiguous()?.reshape((b, q, self.heads, width))?;
        let own = qkv.narrow(2, d, 2 * d)?.contiguous()?.reshape((b, q, 2, self.heads, width))?;
        let sight = mask::everyone(b, vec![true; b * q].into());
        let x = (x + self.self_output.forward(&kernels::attention(&queries, &own, None, &sight)?)?)?;

        let queries = self.cross_query.forward(&self.cross_norm.forward(&x)?)?.reshape((b, q, self.heads, width))?;
        let seen =
            kernels::chosen_attention(&queries, memory, &reading.bias, &reading.entries, &reading.memory_of_row)?;
        let x = (&x + self.cross_output.forward(&seen)?)?;
        let y = self.feed_forward.forward(&self.feed_forward_norm.forward(&x)?)?;
        Ok((x + y)?)
    }
}

/// The blocks, with an embedding of the step in the queries.
#[derive(Clone, Debug)]
pub struct QFormer {
    step: Tensor, // [max_steps, D]
    blocks: Vec<Block>,
    norm: Norm,
}

impl QFormer {
    /// Builds the blocks at `path`.
    pub fn new(path: Path, around: Around, r: &Refocus) -> Result<Self> {
        let d = around.width;
        Ok(Self {
            step: path.get("step", &[r.max_steps, d], Init::Normal(0.1))?,
            blocks: (0..r.blocks)
                .map(|i| path.at("blocks", |p| p.at(i, |p| Block::new(p, around, r))))
                .collect::<Result<_>>()?,
            norm: path.at("norm", |p| Norm::new(p, d, around.norm_eps))?,
        })
    }

    /// Keys and values of a memory `[S, M, Dm]` for each block, `[S, M, 2, H, Dh]`.
    pub fn remember(&self, memory: &Tensor) -> Result<Vec<Collected>> {
        let (s, m, _) = memory.dims3()?;
        let project = |block: &Block| -> Result<Collected> {
            block.cross_memory.collected(memory, &[s, m, 2, block.heads, self.width(block)?])
        };
        self.blocks.iter().map(project).collect()
    }

    fn width(&self, block: &Block) -> Result<usize> {
        let (_, d) = self.step.dims2()?;
        Ok(d / block.heads)
    }

    /// Fuses what a look reads into one vector.
    ///
    /// - `hidden`: `[B, D]`, the present hidden state, the first query
    /// - `earlier`: the thoughts so far, each `[B, D]`
    /// - `memory`: per block `[S, M, 2, H, Dh]`
    ///
    /// Returns the output at the first query, normalised, `[B, D]`.
    pub fn forward(
        &self,
        hidden: &Tensor,
        earlier: &[Tensor],
        memory: &[Collected],
        reading: &Reading,
    ) -> Result<Tensor> {
        // The present state carries the present step's embedding, each earlier thought its own step's.
        let present = hidden.broadcast_add(&self.step.i(earlier.len())?)?;
        let mut queries = vec![present];
        for (step, thought) in earlier.iter().enumerate() {
            queries.push(thought.broadcast_add(&self.step.i(step)?)?);
        }
        let mut x = Tensor::stack(&queries, 1)?; // [B, Q, D]
        for (block, memory) in self.blocks.iter().zip(memory) {
            x = block.forward(&x, memory, reading)?;
        }
        self.norm.forward(&x.i((.., 0))?.contiguous()?)
    }
}
