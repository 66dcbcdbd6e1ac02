//! The backward pass of attention, one block of queries at a time.

use crate::buffer::Shared;
use crate::lanes::dot;
use crate::product::{Matrix, Target};
use crate::segments::{Block, Half, Inputs, Span, again};
use crate::sight::{Sight, Sizes};

/// Rows grouped by the shared segment they read, each group in row order.
pub(crate) fn families(sight: &Sight, sizes: Sizes) -> Vec<Vec<usize>> {
    if sizes.places == 0 {
        return (0..sizes.rows).map(|row| vec![row]).collect();
    }
    let mut families = vec![Vec::new(); sizes.segments];
    for row in 0..sizes.rows {
        families[sight.shared_of_row[row] as usize].push(row);
    }
    families
}

/// Where the gradients go.
#[derive(Clone, Copy)]
pub(crate) struct Into {
    pub q: Shared,
    pub own: Option<Shared>,
    pub shared: Option<Shared>,
}

/// One block's probabilities and the gradients of its scores, both `[count, keys]`.
#[derive(Default)]
pub(crate) struct Scratch {
    pub probabilities: Vec<f32>,
    pub gradients: Vec<f32>,
}

impl Scratch {
    pub(crate) fn probabilities(&mut self, inputs: &Inputs, block: Block, penalty: &[f32], sums: &[f32]) {
        let keys = inputs.keys_of(block);
        self.probabilities.resize(block.count * keys, 0.0);
        self.gradients.resize(block.count * keys, 0.0);
        inputs.scores(block, penalty, &mut self.probabilities);
        for (t, sum) in sums.iter().enumerate() {
            again(&mut self.probabilities[t * keys..][..keys], *sum);
        }
    }

    /// `dS = P * (dO V^T - rowsum(dO * O))`.
    pub(crate) fn score_gradients(&mut self, inputs: &Inputs, block: Block, out: &[f32], grad: &[f32]) {
        let keys = inputs.keys_of(block);
        let (out, grad) = (inputs.like_queries(out, block), inputs.like_queries(grad, block));
        for (values, at) in inputs.segments(block, Half::Values) {
            Target::new(&mut self.gradients[at..], block.count, values.rows, keys).a_bt(grad, values, 1.0, false);
        }
        for t in 0..block.count {
            let mean = dot(grad.row(t), out.row(t));
            let gradients = &mut self.gradients[t * keys..][..keys];
            for (gradient, p) in gradients.iter_mut().zip(&self.probabilities[t * keys..]) {
                *gradient = p * (*gradient - mean);
            }
        }
    }

    /// `dQ = dS K / sqrt(Dh)`, `dK += dS^T Q / sqrt(Dh)`, `dV += P^T dO`; without `grad`, the gradient
    /// of the mixed values, no `dV`.
    ///
    /// # Safety
    /// The calling task alone touches the block's row and key/value head in `into`.
    pub(crate) unsafe fn spread(&self, inputs: &Inputs, block: Block, grad: Option<&[f32]>, into: Into) {
        let Sizes { width, places, .. } = inputs.sizes;
        let keys = inputs.keys_of(block);
        let scale = inputs.sizes.scale();
        let (start, stride) = inputs.query_place(block);
        // SAFETY: by the caller's promise.
        let mut grad_q = unsafe { Target::within(into.q, start, [block.count, width, stride]) };
        let mut add = false;
        for (segment, at) in inputs.segments(block, Half::Keys) {
            let weights = Matrix::new(&self.gradients[at..], block.count, segment.rows, keys);
            grad_q.a_b(weights, segment, scale, add);
            add = true;
        }
        if !add {
            grad_q.clear();
        }
        let group = block.head / inputs.sizes.heads_per_group();
        for half in [Half::Keys, Half::Values] {
            let (weights, against, scale) = match (half, grad) {
                (Half::Keys, _) => (&self.gradients, inputs.q, scale),
                (Half::Values, Some(grad)) => (&self.probabilities, grad, 1.0),
                (Half::Values, None) => continue,
            };
            let against = inputs.like_queries(against, block);
            let accumulate = |buffer: Option<Shared>, span: Span, at: usize| {
                let Some(buffer) = buffer.filter(|_| span.places > 0) else {
                    return;
                };
                let weights = Matrix::new(&weights[at..], block.count, span.places, keys);
                // SAFETY: by the caller's promise.
                unsafe { Target::within(buffer, span.start, [span.places, width, span.stride]) }
                    .at_b(weights, against, scale, true);
            };
            accumulate(into.own, inputs.own_span(block.row, group, half, block.own_end), places);
            if places > 0 {
                let segment = inputs.sight.shared_of_row[block.row] as usize;
                accumulate(into.shared, inputs.shared_span(segment, group, half), 0);
            }
        }
    }
}
