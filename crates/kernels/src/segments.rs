//! Queries, keys and values of one attention call as matrices, and the scores of one block of queries.

use crate::lanes::{exp, max, sum};
use crate::product::{Matrix, Target};
use crate::sight::{Sight, Sizes};

/// Which half of a packed key/value tensor.
#[derive(Clone, Copy)]
pub(crate) enum Half {
    Keys = 0,
    Values = 1,
}

/// Where one segment of keys and values starts in its tensor, and how many places it has.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub start: usize,
    pub places: usize,
    /// From one place to the next.
    pub stride: usize,
}

/// The inputs of one call.
pub(crate) struct Inputs<'a> {
    pub q: &'a [f32],
    pub own: &'a [f32],
    /// Empty without shared segments.
    pub shared: &'a [f32],
    pub sizes: Sizes,
    pub sight: &'a Sight,
}

/// Consecutive queries of one head of one row.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub row: usize,
    pub head: usize,
    pub start: usize,
    pub count: usize,
    /// Own slots the last of them may see; the others see no further.
    pub own_end: usize,
}

impl Inputs<'_> {
    /// The blocks of at most `length` queries of one head.
    pub(crate) fn blocks(&self, row: usize, head: usize, length: usize) -> impl Iterator<Item = Block> {
        let Sizes { queries, slots, .. } = self.sizes;
        (0..queries).step_by(length).map(move |start| {
            let count = length.min(queries - start);
            let own_end = self.sight.own_end(start + count - 1, slots);
            Block { row, head, start, count, own_end }
        })
    }

    /// Keys a block of queries looks at: shared places, then own slots.
    pub(crate) fn keys_of(&self, block: Block) -> usize {
        self.sizes.places + block.own_end
    }

    /// Where a block's queries (or results, laid out alike) start, and from one to the next.
    pub(crate) fn query_place(&self, block: Block) -> (usize, usize) {
        let Sizes { queries, heads, width, .. } = self.sizes;
        (((block.row * queries + block.start) * heads + block.head) * width, heads * width)
    }

    /// A block of a tensor laid out like the queries, `[count, Dh]`.
    pub(crate) fn like_queries<'b>(&self, elements: &'b [f32], block: Block) -> Matrix<'b> {
        let (start, stride) = self.query_place(block);
        Matrix::new(&elements[start..], block.count, self.sizes.width, stride)
    }

    /// The shared segment as one key/value head sees it.
    pub(crate) fn shared_span(&self, segment: usize, group: usize, half: Half) -> Span {
        let Sizes { places, groups, width, .. } = self.sizes;
        let start = ((segment * places * 2 + half as usize) * groups + group) * width;
        Span { start, places, stride: 2 * groups * width }
    }

    /// The first `end` own slots as one key/value head sees them.
    pub(crate) fn own_span(&self, row: usize, group: usize, half: Half, end: usize) -> Span {
        let Sizes { slots, groups, width, .. } = self.sizes;
        let start = ((row * slots * 2 + half as usize) * groups + group) * width;
        Span { start, places: end, stride: 2 * groups * width }
    }

    /// The segments a block looks at, those that hold anything: matrix and place among the scores.
    pub(crate) fn segments(&self, block: Block, half: Half) -> impl Iterator<Item = (Matrix<'_>, usize)> {
        let Sizes { places, width, .. } = self.sizes;
        let group = block.head / self.sizes.heads_per_group();
        let shared = (places > 0).then(|| {
            let span = self.shared_span(self.sight.shared_of_row[block.row] as usize, group, half);
            (Matrix::new(&self.shared[span.start..], span.places, width, span.stride), 0)
        });
        let own = (block.own_end > 0).then(|| {
            let span = self.own_span(block.row, group, half, block.own_end);
            (Matrix::new(&self.own[span.start..], span.places, width, span.stride), places)
        });
        shared.into_iter().chain(own)
    }

    /// 0 where a row may look and minus infinity where it may not, `[P + C]`.
    pub(crate) fn penalty(&self, row: usize) -> Vec<f32> {
        let Sizes { places, slots, .. } = self.sizes;
        let shared = match places {
            0 => &[][..],
            _ => &self.sight.shared_visible[self.sight.shared_of_row[row] as usize * places..][..places],
        };
        let own = &self.sight.own_visible[row * slots..][..slots];
        let penalty = |&visible: &bool| if visible { 0.0 } else { f32::NEG_INFINITY };
        shared.iter().chain(own).map(penalty).collect()
    }

    /// `q k^T / sqrt(Dh)` of a block against everything it looks at, into `scores` `[count, keys]`,
    /// minus infinity where it may not look.
    pub(crate) fn scores(&self, block: Block, penalty: &[f32], scores: &mut [f32]) {
        let keys = self.keys_of(block);
        let queries = self.like_queries(self.q, block);
        for (segment, at) in self.segments(block, Half::Keys) {
            Target::new(&mut scores[at..], block.count, segment.rows, keys).a_bt(
                queries,
                segment,
                self.sizes.scale(),
                false,
            );
        }
        if keys == 0 {
            return;
        }
        for (t, scores) in scores.chunks_exact_mut(keys).enumerate() {
            for (score, penalty) in scores.iter_mut().zip(penalty) {
                *score += penalty;
            }
            let end = self.sight.own_end(block.start + t, self.sizes.slots);
            scores[self.sizes.places + end..].fill(f32::NEG_INFINITY);
        }
    }
}

/// Turns scores into probabilities; returns their log-sum-exp, plus infinity when nothing is visible
/// (so that `e^(score - log_sum)` is 0, as it should be), NaN when a score is.
pub(crate) fn softmax(scores: &mut [f32]) -> f32 {
    let largest = max(scores);
    if largest == f32::NEG_INFINITY {
        // No comparison holds for NaN: scores that all are look like scores of which none is visible.
        let broken = scores.iter().any(|score| score.is_nan());
        scores.fill(if broken { f32::NAN } else { 0.0 });
        return if broken { f32::NAN } else { f32::INFINITY };
    }
    for score in scores.iter_mut() {
        *score = exp(*score - largest);
    }
    let total = sum(scores);
    let inverse = 1.0 / total;
    for score in scores.iter_mut() {
        *score *= inverse;
    }
    largest + total.ln()
}

/// The probabilities again, from scores and the log-sum-exp that [`softmax`] gave.
pub(crate) fn again(scores: &mut [f32], log_sum: f32) {
    for score in scores {
        *score = exp(*score - log_sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_not_taken_for_nothing() {
        for scores in [vec![f32::NAN; 20], vec![f32::NAN, f32::NEG_INFINITY], vec![1.0, f32::NAN, 2.0]] {
            let mut probabilities = scores.clone();
            assert!(softmax(&mut probabilities).is_nan(), "{scores:?}");
            assert!(probabilities.iter().any(|p| p.is_nan()), "{scores:?}");
        }
        let mut nothing = vec![f32::NEG_INFINITY; 3];
        assert_eq!(softmax(&mut nothing), f32::INFINITY);
        assert_eq!(nothing, [0.0; 3]);
    }
}
