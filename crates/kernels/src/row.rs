//! Where one query looks: its attention probabilities over the shared segment, with a gradient.
//!
//! The probabilities are the true ones, a softmax over everything the query may see, shared and own;
//! only the shared part is returned, so a row sums to at most 1.
//!
//! Shapes: `q` `[B, H, Dh]`, `own` `[B, C, 2, G, Dh]`, `shared` `[S, P, 2, G, Dh]`, result `[B, H, P]`.

use crate::buffer::{Shared, as_gradient, elements, filled, for_units, require_f32, with_all};
use crate::fused::is_fused;
use crate::gradients::{Into, Scratch, families};
use crate::segments::{Inputs, softmax};
use crate::sight::{Sight, Sizes, composed_probabilities};
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use std::sync::OnceLock;

/// The true attention probabilities of one query a row over the shared segment.
///
/// - `q`: `[B, H, Dh]`, standing at own slot `sight.first_slot`
/// - `own`: `[B, C, 2, G, Dh]` and `shared`: `[S, P, 2, G, Dh]`, as for [`crate::attention`]
///
/// Returns `[B, H, P]`; what is missing to 1 went to own slots. A query that sees nothing gives zeros.
///
/// # Errors
/// When shapes or `sight` disagree or, on the CPU, a tensor is not f32.
pub fn attention_row(q: &Tensor, own: &Tensor, shared: &Tensor, sight: &Sight) -> Result<Tensor> {
    let (_, _, _) = q.dims3()?;
    let with_time = q.unsqueeze(1)?; // [B, 1, H, Dh]
    let sizes = Sizes::of("attention_row", &with_time, own, Some(shared), sight)?;
    if !is_fused(q) {
        return composed(&with_time, own, shared, sight, sizes);
    }
    require_f32("attention_row", &[q, own, shared])?;
    let op = Row { sizes, sight: sight.clone(), log_sums: OnceLock::new() };
    q.contiguous()?.apply_op3(&own.contiguous()?, &shared.contiguous()?, op)
}

fn composed(q: &Tensor, own: &Tensor, shared: &Tensor, sight: &Sight, sizes: Sizes) -> Result<Tensor> {
    composed_probabilities(q, own, Some(shared), sight, sizes)? // [B, H, 1, P + C]
        .squeeze(2)?
        .narrow(D::Minus1, 0, sizes.places) // [B, H, P]
}

struct Row {
    sizes: Sizes,
    sight: Sight,
    /// `[B, H]`, from the forward pass.
    log_sums: OnceLock<Vec<f32>>,
}

impl Row {
    fn inputs<'a>(&'a self, q: &'a [f32], own: &'a [f32], shared: &'a [f32]) -> Inputs<'a> {
        Inputs { q, own, shared, sizes: self.sizes, sight: &self.sight }
    }

    fn operations(&self) -> usize {
        let Sizes { rows, heads, width, places, slots, .. } = self.sizes;
        rows * heads * width * (places + slots)
    }

    fn forward(&self, inputs: &Inputs) -> Vec<f32> {
        let Sizes { rows, heads, places, .. } = self.sizes;
        let mut log_sums = vec![0f32; rows * heads];
        let sums = Shared::new(&mut log_sums);
        let out = filled(rows * heads * places, |out| {
            let out = Shared::new(out);
            for_units(rows, self.operations(), |row| {
                let penalty = inputs.penalty(row);
                let mut scores = vec![0f32; penalty.len()];
                // SAFETY: the sums and results of a row belong to its unit alone.
                let (sums, out) =
                    unsafe { (sums.slice(row * heads, heads), out.slice(row * heads * places, heads * places)) };
                for (head, sum) in sums.iter_mut().enumerate() {
                    for block in inputs.blocks(row, head, 1) {
                        let scores = &mut scores[..inputs.keys_of(block)];
                        inputs.scores(block, &penalty, scores);
                        *sum = softmax(scores);
                        out[head * places..][..places].copy_from_slice(&scores[..places]);
                    }
                }
            });
        });
        let _ = self.log_sums.set(log_sums);
        out
    }

    /// Gradients of q, own and shared. A probability's share of the loss reaches every key, since all
    /// of them are under one softmax: `dS = P * (g - sum(g * P))` with `g` zero on own slots.
    fn backward(&self, inputs: &Inputs, grad: &[f32]) -> Result<[Vec<f32>; 3]> {
        let Sizes { heads, places, groups, .. } = self.sizes;
        let Some(log_sums) = self.log_sums.get() else { bail!("attention_row: backward before forward") };
        let mut own = vec![0f32; inputs.own.len()];
        let mut shared = vec![0f32; inputs.shared.len()];
        let families = families(&self.sight, self.sizes);
        let q = filled(inputs.q.len(), |q| {
            let into =
                Into { q: Shared::new(q), own: Some(Shared::new(&mut own)), shared: Some(Shared::new(&mut shared)) };
            for_units(families.len() * groups, self.operations(), |unit| {
                let (family, group) = (&families[unit / groups], unit % groups);
                let per_group = self.sizes.heads_per_group();
                let mut scratch = Scratch::default();
                for &row in family {
                    let penalty = inputs.penalty(row);
                    for head in group * per_group..(group + 1) * per_group {
                        let place = row * heads + head;
                        for block in inputs.blocks(row, head, 1) {
                            scratch.probabilities(inputs, block, &penalty, &log_sums[place..=place]);
                            row_gradients(&mut scratch, &grad[place * places..][..places]);
                            // SAFETY: this task alone writes this group of these rows and of
                            // the segment they share.
                            unsafe { scratch.spread(inputs, block, None, into) };
                        }
                    }
                }
            });
        });
        Ok([q, own, shared])
    }
}

fn row_gradients(scratch: &mut Scratch, grad: &[f32]) {
    let mean = crate::lanes::dot(grad, &scratch.probabilities[..grad.len()]);
    let own = std::iter::repeat(&0f32);
    let all = scratch.gradients.iter_mut().zip(&scratch.probabilities);
    for ((gradient, p), grad) in all.zip(grad.iter().chain(own)) {
        *gradient = p * (grad - mean);
    }
}

impl CustomOp3 for Row {
    fn name(&self) -> &'static str {
        "attention_row"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        own: &CpuStorage,
        own_layout: &Layout,
        shared: &CpuStorage,
        shared_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let q = elements(self.name(), q, q_layout)?;
        let own = elements(self.name(), own, own_layout)?;
        let shared = elements(self.name(), shared, shared_layout)?;
        let out = self.forward(&self.inputs(q, own, shared));
        let Sizes { rows, heads, places, .. } = self.sizes;
        Ok((CpuStorage::F32(out), Shape::from((rows, heads, places))))
    }

    fn bwd(
        &self,
        q: &Tensor,
        own: &Tensor,
        shared: &Tensor,
        _row: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let tensors = [q, own, shared, &grad.contiguous()?];
        let [grad_q, grad_own, grad_shared] =
            with_all(self.name(), tensors, |[q, own, shared, grad]| self.backward(&self.inputs(q, own, shared), grad))?;
        Ok((as_gradient(|| grad_q, q)?, as_gradient(|| grad_own, own)?, as_gradient(|| grad_shared, shared)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    /// B, H, Dh, G, C, S, P
    type Case = [usize; 7];

    fn sight([rows, _, _, _, slots, segments, places]: Case, causal: bool, blind: bool) -> Sight {
        Sight {
            shared_of_row: (0..rows).map(|row| ((row + 1) % segments) as u32).collect(),
            shared_visible: (0..segments * places)
                .map(|i| i % 5 != 3 && !(blind && i / places == 1 % segments))
                .collect(),
            own_visible: (0..rows * slots).map(|i| i % 4 != 2 && !(blind && i < slots)).collect(),
            first_slot: slots / 2,
            causal,
        }
    }

    fn inputs([rows, heads, width, groups, slots, segments, places]: Case) -> Vec<Tensor> {
        vec![
            random((rows, heads, width), 40),
            random((rows, slots, 2, groups, width), 41),
            random((segments, places, 2, groups, width), 42),
        ]
    }

    fn agree(check: fn(Op, Op, &[Tensor]), case: Case, causal: bool, blind: bool) {
        let sight = sight(case, causal, blind);
        let fused = |t: &[Tensor]| attention_row(&t[0], &t[1], &t[2], &sight);
        let reference = |t: &[Tensor]| {
            let q = t[0].unsqueeze(1)?;
            let sizes = Sizes::of("test", &q, &t[1], Some(&t[2]), &sight)?;
            composed(&q, &t[1], &t[2], &sight, sizes)
        };
        check(&fused, &reference, &inputs(case));
    }

    #[test]
    fn attention_row_equals_the_composed_form() {
        for case in [[1, 1, 4, 1, 1, 1, 1], [3, 6, 8, 2, 5, 2, 7], [16, 6, 32, 6, 20, 4, 49]] {
            for (causal, blind) in [(true, false), (false, false), (true, true)] {
                agree(equals_composed, case, causal, blind);
            }
        }
    }

    #[test]
    fn attention_row_gradient_matches_finite_differences() {
        agree(matches_finite_differences, [3, 4, 8, 2, 5, 2, 7], true, false);
        agree(matches_finite_differences, [3, 4, 8, 2, 5, 2, 7], false, true);
    }

    #[test]
    fn attention_row_has_the_same_bits_on_any_number_of_threads() {
        let case = [16, 6, 32, 6, 20, 4, 49];
        let sight = sight(case, true, false);
        let op = |t: &[Tensor]| attention_row(&t[0], &t[1], &t[2], &sight);
        same_bits_on_any_number_of_threads(&op, &inputs(case));
    }

    #[test]
    fn attention_row_is_what_attention_mixes_with() {
        // With one-hot shared values and own values zero, attention returns its own probabilities.
        let case = [2, 2, 8, 2, 3, 1, 8];
        let (sight, t) = (sight(case, true, false), inputs(case));
        let eye = Tensor::eye(8, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let eye = eye.reshape((1, 8, 1, 1, 8)).unwrap().broadcast_as((1, 8, 1, 2, 8)).unwrap();
        let shared = Tensor::cat(&[t[2].narrow(2, 0, 1).unwrap(), eye.contiguous().unwrap()], 2).unwrap();
        let own_keys = t[1].narrow(2, 0, 1).unwrap();
        let own = Tensor::cat(&[&own_keys, &own_keys.zeros_like().unwrap()], 2).unwrap();
        let mixed = crate::attention(&t[0].unsqueeze(1).unwrap(), &own, Some(&shared), &sight).unwrap();
        let row = attention_row(&t[0], &own, &shared, &sight).unwrap();
        for (mixed, row) in values(&mixed).iter().zip(values(&row)) {
            assert!((mixed - row).abs() < 1e-6);
        }
    }
}
