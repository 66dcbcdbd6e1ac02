//! What new slots attend to: in a batch of conversations of one length, or in conversations that stand apart.

use crate::Result;
use crate::cache::{LayerCache, Slab};
use crate::decoder::{Prefix, Rows};
use crate::mask::{self, Line};
use candle_core::{IndexOp, Tensor};
use lare_kernels::{self as kernels, Conversation, Sight};

/// What a decoder's new slots attend to, layer by layer.
pub(crate) trait Context {
    /// Takes up the new slots' keys and values of a layer, `[B, T, 2, G, Dh]`, and gives what their queries `[B, T, H, Dh]`
    /// see, `[B, T, H * Dh]`.
    fn attend(&mut self, layer: usize, q: &Tensor, kv: Tensor) -> Result<Tensor>;
}

/// A batch whose rows have equally many slots, holes included; part of the graph in training.
pub(crate) struct Together<'a> {
    pub layers: &'a mut [LayerCache],
    pub sight: Sight,
    pub rows: Rows,
    /// Per layer, what `rows` asks for.
    pub found: Vec<Tensor>,
}

impl Context for Together<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, kv: Tensor) -> Result<Tensor> {
        let ((_, t, _, _), cache, sight) = (q.dims4()?, &mut self.layers[layer], &self.sight);
        let own = cache.append(kv)?;
        let (_, places, _, _, _) = cache.shared.dims5()?;
        let shared = (places > 0).then_some(&cache.shared);
        let seen = kernels::attention(q, &own, shared, sight)?;
        self.found.extend(match self.rows {
            Rows::None => None,
            Rows::Last => {
                let last = Sight { first_slot: sight.first_slot + t - 1, ..sight.clone() };
                Some(kernels::attention_row(&q.i((.., t - 1))?.contiguous()?, &own, &cache.shared, &last)?)
            }
            Rows::OverPicture => Some(over_picture_alone(q, &cache.shared, sight)?),
        });
        Ok(seen)
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

/// The context of one conversation that stands apart.
#[derive(Clone, Copy)]
pub struct Own<'a> {
    /// What it goes on from: one prefix, without padding.
    pub prefix: &'a Prefix,
    /// Where its keys and values are written.
    pub slab: &'a Slab,
    /// Its slots before the new ones.
    pub line: Line,
    /// How many new ones there are.
    pub new: usize,
    /// Whether the last one's attention to the prefix is wanted.
    pub row: bool,
}

/// Conversations that stand apart; their new slots come one behind the other in a batch of one row.
pub(crate) struct Apart<'a> {
    pub all: &'a [Own<'a>],
    /// Of each conversation, per layer, its row over the prefix.
    pub found: Vec<Vec<Tensor>>,
}

impl Context for Apart<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, kv: Tensor) -> Result<Tensor> {
        let (mut conversations, mut first) = (Vec::with_capacity(self.all.len()), 0);
        for &Own { prefix, slab, line, new, row } in self.all {
            slab.write(layer, &kv.narrow(1, first, new)?, line.slots())?;
            first += new;
            let prefix = Some(&prefix.kv[layer]).filter(|_| !prefix.visible.is_empty());
            let slots = line.slots() + new;
            conversations.push(Conversation { prefix, own: slab.layer(layer), slots, queries: new, row });
        }
        let kernels::Apart { seen, rows } = kernels::attention_apart(&q.squeeze(0)?, &conversations)?;
        for (found, row) in self.found.iter_mut().zip(rows) {
            found.extend(row);
        }
        Ok(seen.unsqueeze(0)?)
    }
}
