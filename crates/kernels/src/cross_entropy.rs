//! Cross-entropy of one target per row, in nats.
//!
//! The log-softmax is never stored: the forward pass keeps one log-sum-exp per row, and the backward
//! pass writes `(softmax - one_hot) * grad` in a single pass over the logits.
//! Shapes: `logits` `[N, V]`, one target per row, result `[N]`.

use crate::buffer::{Shared, as_gradient, elements, filled, for_rows, for_units, require_f32, with_all};
use crate::fused::is_fused;
use crate::lanes::{exp, max, sum};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, OnceLock};

/// Marks a row without a target.
const UNSUPERVISED: u32 = u32::MAX;

/// `-ln softmax(logits)[target]` of each row, in nats.
///
/// - `logits`: `[N, V]`
/// - `targets`: one a row; `None` is not supervised: loss 0 and no gradient
///
/// Returns `[N]`.
///
/// # Errors
/// When the number of targets differs from `N`, a target is not below `V` or, on the CPU, the logits
/// are not f32.
pub fn cross_entropy(logits: &Tensor, targets: &[Option<u32>]) -> Result<Tensor> {
    let (rows, vocabulary) = logits.dims2()?;
    if targets.len() != rows {
        bail!("cross_entropy: expected {rows} targets for logits {:?}, got {}", logits.shape(), targets.len())
    }
    if let Some(row) = targets.iter().position(|t| t.is_some_and(|t| t as usize >= vocabulary)) {
        bail!("cross_entropy: expected targets below {vocabulary}, got {:?} in row {row}", targets[row])
    }
    if !is_fused(logits) {
        return composed(logits, targets);
    }
    require_f32("cross_entropy", &[logits])?;
    let targets = targets.iter().map(|t| t.unwrap_or(UNSUPERVISED)).collect();
    logits.contiguous()?.apply_op1(CrossEntropy { targets, log_sums: OnceLock::new() })
}

fn composed(logits: &Tensor, targets: &[Option<u32>]) -> Result<Tensor> {
    let rows = targets.len();
    let ids: Vec<u32> = targets.iter().map(|t| t.unwrap_or(0)).collect();
    let supervised: Vec<f32> = targets.iter().map(|t| t.map_or(0.0, |_| 1.0)).collect();
    let ids = Tensor::from_vec(ids, (rows, 1), logits.device())?; // [N, 1]
    let supervised = Tensor::from_vec(supervised, rows, logits.device())?; // [N]
    let log_sum = logits.log_sum_exp(D::Minus1)?; // [N]
    let at_target = logits.gather(&ids, 1)?.squeeze(1)?; // [N]
    (log_sum - at_target)?.mul(&supervised.to_dtype(logits.dtype())?)
}

struct CrossEntropy {
    targets: Arc<[u32]>,
    /// `[N]`, kept for the backward pass.
    log_sums: OnceLock<Vec<f32>>,
}

/// `ln sum e^x`, summed in sixteen lanes.
fn log_sum_exp(row: &[f32]) -> f32 {
    let largest = max(row);
    let mut sums = [0f32; 16];
    let (blocks, rest) = row.as_chunks::<16>();
    for block in blocks {
        for lane in 0..16 {
            sums[lane] += exp(block[lane] - largest);
        }
    }
    let rest: f32 = rest.iter().map(|x| exp(x - largest)).sum();
    largest + (sum(&sums) + rest).ln()
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, vocabulary) = layout.shape().dims2()?;
        let logits = elements(self.name(), logits, layout)?;
        let row = |row: usize| &logits[row * vocabulary..][..vocabulary];
        let mut log_sums = vec![0f32; rows];
        let sums = Shared::new(&mut log_sums);
        for_units(rows, logits.len(), |n| {
            if self.targets[n] != UNSUPERVISED {
                // SAFETY: unit n alone touches element n.
                let sum = unsafe { sums.slice(n, 1) };
                sum[0] = log_sum_exp(row(n));
            }
        });
        let losses = (0..rows)
            .map(|n| match self.targets[n] {
                UNSUPERVISED => 0.0,
                target => log_sums[n] - row(n)[target as usize],
            })
            .collect();
        let _ = self.log_sums.set(log_sums);
        Ok((CpuStorage::F32(losses), Shape::from(rows)))
    }

    fn bwd(&self, logits: &Tensor, _losses: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, vocabulary) = logits.dims2()?;
        let grad = grad.contiguous()?;
        let Some(log_sums) = self.log_sums.get() else { bail!("cross_entropy: backward before forward") };
        with_all(self.name(), [logits, &grad], |[values, grad]| {
            let compute = || {
                filled(values.len(), |out| {
                    for_rows(out, vocabulary, |row, out| {
                        let target = self.targets[row];
                        if target == UNSUPERVISED {
                            return out.fill(0.0);
                        }
                        let values = &values[row * vocabulary..][..vocabulary];
                        for (out, x) in out.iter_mut().zip(values) {
                            *out = exp(x - log_sums[row]) * grad[row];
                        }
                        out[target as usize] -= grad[row];
                    });
                })
            };
            as_gradient(compute, logits)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    fn targets(rows: usize, vocabulary: usize) -> Vec<Option<u32>> {
        (0..rows).map(|n| (n % 3 != 1).then_some((n * 7 % vocabulary) as u32)).collect()
    }

    fn agree(check: fn(Op, Op, &[Tensor]), rows: usize, vocabulary: usize) {
        let targets = targets(rows, vocabulary);
        let fused = |t: &[Tensor]| cross_entropy(&t[0], &targets);
        let reference = |t: &[Tensor]| composed(&t[0], &targets);
        check(&fused, &reference, &[(random((rows, vocabulary), 10) * 3.0).unwrap()]);
    }

    #[test]
    fn cross_entropy_equals_the_composed_form() {
        for (rows, vocabulary) in [(1, 1), (4, 9), (200, 300)] {
            agree(equals_composed, rows, vocabulary);
        }
    }

    #[test]
    fn cross_entropy_gradient_matches_finite_differences() {
        agree(matches_finite_differences, 5, 11);
    }

    #[test]
    fn cross_entropy_has_the_same_bits_on_any_number_of_threads() {
        let targets = targets(200, 300);
        let op = |t: &[Tensor]| cross_entropy(&t[0], &targets);
        same_bits_on_any_number_of_threads(&op, &[random((200, 300), 11)]);
    }

    #[test]
    fn a_row_without_a_target_has_no_loss_and_no_gradient() {
        let logits = candle_core::Var::from_tensor(&random((2, 5), 12)).unwrap();
        let loss = cross_entropy(&logits, &[None, Some(3)]).unwrap();
        assert_eq!(values(&loss)[0], 0.0);
        let grads = loss.sum_all().unwrap().backward().unwrap();
        assert!(values(grads.get(&logits).unwrap())[..5].iter().all(|g| *g == 0.0));
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let logits = (random((3, 20), 13) * 1e4).unwrap();
        let loss = cross_entropy(&logits, &[Some(0), Some(1), Some(2)]).unwrap();
        assert!(values(&loss).iter().all(|x| x.is_finite()));
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_refused() {
        assert!(cross_entropy(&random((1, 4), 1), &[Some(4)]).is_err());
    }
}
