//! Who may see whom in attention, and the attention formula as ordinary candle operations.
//!
//! The ordinary form serves devices other than the CPU, and the tests as the thing to agree with.

use candle_core::{D, DType, Result, Tensor, bail};
use std::sync::Arc;

/// Who may see whom, decided by the caller and obeyed by the kernels.
#[derive(Clone, Debug)]
pub struct Sight {
    /// `[B]`: which shared segment each row reads. Ignored when no shared segment is given.
    pub shared_of_row: Arc<[u32]>,
    /// `[S * P]`: which places of each shared segment may be seen.
    pub shared_visible: Arc<[bool]>,
    /// `[B * C]`: which of a row's own slots may be seen.
    pub own_visible: Arc<[bool]>,
    /// Query `t` of a row stands at own slot `first_slot + t`.
    pub first_slot: usize,
    /// `true`: a query at slot `s` sees own slots up to and including `s`.
    /// `false`: it sees every visible own slot (an image prefix, a set of queries).
    pub causal: bool,
}

/// The sizes of one attention call, checked against each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub rows: usize,
    pub queries: usize,
    pub heads: usize,
    pub width: usize,
    pub groups: usize,
    /// Own slots of a row, `C`.
    pub slots: usize,
    /// Shared segments, `S`; 0 without.
    pub segments: usize,
    /// Places of a shared segment, `P`; 0 without.
    pub places: usize,
}

impl Sizes {
    /// Checks `q` `[B, T, H, Dh]`, `own` `[B, C, 2, G, Dh]`, `shared` `[S, P, 2, G, Dh]` and `sight`.
    pub(crate) fn of(op: &str, q: &Tensor, own: &Tensor, shared: Option<&Tensor>, sight: &Sight) -> Result<Self> {
        let (rows, queries, heads, width) = q.dims4()?;
        let (own_rows, slots, own_pair, groups, own_width) = own.dims5()?;
        if own_rows != rows || own_pair != 2 || own_width != width || groups == 0 || heads % groups != 0 {
            bail!(
                "{op}: expected own keys and values [{rows}, C, 2, G, {width}] with G dividing {heads} for queries {:?}, got {:?}",
                q.shape(),
                own.shape()
            )
        }
        let (segments, places) = match shared {
            None => (0, 0),
            Some(shared) => {
                let (segments, places, pair, shared_groups, shared_width) = shared.dims5()?;
                if pair != 2 || shared_groups != groups || shared_width != width {
                    bail!(
                        "{op}: expected shared keys and values [S, P, 2, {groups}, {width}], got {:?}",
                        shared.shape()
                    )
                }
                (segments, places)
            }
        };
        let sizes = Self { rows, queries, heads, width, groups, slots, segments, places };
        sight.check(op, sizes, shared.is_some())?;
        Ok(sizes)
    }

    /// `1 / sqrt(Dh)`.
    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// Query heads that read one key head.
    pub(crate) fn heads_per_group(&self) -> usize {
        self.heads / self.groups
    }
}

impl Sight {
    fn check(&self, op: &str, sizes: Sizes, shared: bool) -> Result<()> {
        let Sizes { rows, slots, segments, places, queries, .. } = sizes;
        if self.own_visible.len() != rows * slots {
            bail!("{op}: expected own_visible [{rows} * {slots}], got {} entries", self.own_visible.len())
        }
        if self.causal && self.first_slot + queries > slots {
            bail!(
                "{op}: query {} stands at slot {}, and a row has {slots} slots",
                queries.saturating_sub(1),
                (self.first_slot + queries).saturating_sub(1)
            )
        }
        if !shared {
            return Ok(());
        }
        if self.shared_visible.len() != segments * places {
            bail!("{op}: expected shared_visible [{segments} * {places}], got {} entries", self.shared_visible.len())
        }
        if self.shared_of_row.len() != rows {
            bail!("{op}: expected shared_of_row [{rows}], got {} entries", self.shared_of_row.len())
        }
        match self.shared_of_row.iter().find(|&&segment| segment as usize >= segments) {
            Some(segment) => bail!("{op}: a row reads shared segment {segment} of {segments}"),
            None => Ok(()),
        }
    }

    /// Own slots that query `query` of a row may see are all below this.
    pub(crate) fn own_end(&self, query: usize, slots: usize) -> usize {
        if self.causal { (self.first_slot + query + 1).min(slots) } else { slots }
    }

    /// 1 where a query may see a key, `[B, 1, T, P + C]`.
    fn visible(&self, sizes: Sizes, like: &Tensor) -> Result<Tensor> {
        let Sizes { rows, queries, slots, places, .. } = sizes;
        let mut seen = Vec::with_capacity(rows * queries * (places + slots));
        for row in 0..rows {
            for query in 0..queries {
                if places > 0 {
                    let start = self.shared_of_row[row] as usize * places;
                    seen.extend(self.shared_visible[start..start + places].iter().map(|&v| f32::from(v)));
                }
                let end = self.own_end(query, slots);
                let own = &self.own_visible[row * slots..][..slots];
                seen.extend(own.iter().enumerate().map(|(c, &v)| f32::from(v && c < end)));
            }
        }
        Tensor::from_vec(seen, (rows, 1, queries, places + slots), like.device())?.to_dtype(like.dtype())
    }
}

/// Softmax of `scores` over the last axis among the visible; a row that sees nothing is all zeros.
/// `visible` broadcasts to `scores` and holds 0 or 1.
pub(crate) fn masked_softmax(scores: &Tensor, visible: &Tensor) -> Result<Tensor> {
    let far = if scores.dtype() == DType::F16 { 3e4 } else { 1e30 };
    let visible = visible.broadcast_as(scores.shape())?;
    let scores = ((scores * &visible)? + visible.affine(far, -far)?)?;
    let largest = scores.max_keepdim(D::Minus1)?.detach();
    let exps = (scores.broadcast_sub(&largest)?.exp()? * visible)?;
    let sum = exps.sum_keepdim(D::Minus1)?;
    let sum = (&sum + sum.eq(0f64)?.to_dtype(sum.dtype())?)?;
    exps.broadcast_div(&sum)
}

/// Keys or values (`which` 0 or 1) of every head, `[B, H, P + C, Dh]`.
fn heads_of(own: &Tensor, shared: Option<&Tensor>, sight: &Sight, sizes: Sizes, which: usize) -> Result<Tensor> {
    let Sizes { rows, heads, width, groups, slots, places, .. } = sizes;
    let pick = |t: &Tensor| t.narrow(2, which, 1)?.squeeze(2);
    let own = pick(own)?; // [B, C, G, Dh]
    let all = match shared {
        None => own,
        Some(shared) => {
            let rows = Tensor::new(&*sight.shared_of_row, own.device())?;
            Tensor::cat(&[pick(shared)?.contiguous()?.index_select(&rows, 0)?, own], 1)? // [B, P + C, G, Dh]
        }
    };
    let length = places + slots;
    all.transpose(1, 2)? // [B, G, P + C, Dh]
        .unsqueeze(2)?
        .broadcast_as((rows, groups, heads / groups, length, width))?
        .reshape((rows, heads, length, width))
}

/// Attention probabilities, `[B, H, T, P + C]`, by ordinary operations.
pub(crate) fn composed_probabilities(
    q: &Tensor,
    own: &Tensor,
    shared: Option<&Tensor>,
    sight: &Sight,
    sizes: Sizes,
) -> Result<Tensor> {
    let keys = heads_of(own, shared, sight, sizes, 0)?.contiguous()?; // [B, H, P + C, Dh]
    let q = q.transpose(1, 2)?.contiguous()?; // [B, H, T, Dh]
    let scores = (q.matmul(&keys.t()?)? * f64::from(sizes.scale()))?; // [B, H, T, P + C]
    masked_softmax(&scores, &sight.visible(sizes, &scores)?)
}

/// Attention, `[B, T, H * Dh]`, by ordinary operations.
pub(crate) fn composed(
    q: &Tensor,
    own: &Tensor,
    shared: Option<&Tensor>,
    sight: &Sight,
    sizes: Sizes,
) -> Result<Tensor> {
    let values = heads_of(own, shared, sight, sizes, 1)?.contiguous()?; // [B, H, P + C, Dh]
    let mixed = composed_probabilities(q, own, shared, sight, sizes)?.matmul(&values)?; // [B, H, T, Dh]
    mixed.transpose(1, 2)?.reshape((sizes.rows, sizes.queries, sizes.heads * sizes.width))
}
