//! What the halting head learns from: the number of looks that the rationale takes. [ours]
//!
//! Before each look the head should go on, after the last it should stop. Only numbers of steps that the other terms
//! train are visited: the gain of a further step, measured on the answer's loss, was tried first and is mostly noise where
//! an answer is not known yet, and after the last look the model has never learned what to think (EXPERIMENTS.md).

use crate::Result;
use candle_core::Tensor;
use lare_model::nn::softplus;
use lare_model::reasoning::Scene;
use lare_model::{Reasoning, Thread};

/// Takes the batch's latent steps; gives the head's logits before each and after the last, `[K + 1, B]`.
pub fn think(model: &impl Reasoning, scene: &Scene, thread: &mut Thread, steps: &[usize]) -> Result<Tensor> {
    let most = steps.iter().copied().max().unwrap_or(0);
    let mut logits = Vec::with_capacity(most + 1);
    for k in 0..=most {
        logits.push(model.halt_logits(thread)?);
        if k < most {
            let further: Vec<usize> = steps.iter().map(|looks| usize::from(k < *looks)).collect();
            model.think(scene, thread, &further)?;
        }
    }
    Ok(Tensor::stack(&logits, 0)?)
}

/// Mean binary cross-entropy in nats over the states before each row's looks, after the last, and after each spare step.
///
/// - `logits`: `[K + 1, B]`, as [`think`] gives them for the steps in `taken`
/// - `looks`, `taken`: `[B]`; at the first the head should stop, at the second it is asked for the last time
pub fn loss(logits: &Tensor, looks: &[usize], taken: &[usize]) -> Result<Tensor> {
    let (states, _) = logits.dims2()?;
    let (stop, counted) = targets(looks, taken, states - 1);
    let count: f32 = counted.iter().sum();
    let stop = Tensor::from_vec(stop, logits.shape(), logits.device())?;
    let counted = Tensor::from_vec(counted, logits.shape(), logits.device())?;
    // -log sigmoid(x) where stopping is right, -log(1 - sigmoid(x)) elsewhere.
    let nats = (softplus(logits)? - (stop * logits)?)?;
    Ok(((nats * counted)?.sum_all()? / f64::from(count.max(1.0)))?)
}

/// `[K + 1, B]` each: 1 where stopping is right, and 1 where a row still thinks or has just stopped.
fn targets(looks: &[usize], taken: &[usize], most: usize) -> (Vec<f32>, Vec<f32>) {
    let at_each = |times: &[usize], holds: fn(usize, usize) -> bool| {
        let one_if = |yes: bool| if yes { 1.0 } else { 0.0 };
        (0..=most).flat_map(|k| times.iter().map(move |time| one_if(holds(k, *time)))).collect()
    };
    (at_each(looks, |k, looks| k >= looks), at_each(taken, |k, taken| k <= taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_on_until_its_looks_are_done_and_does_not_count_afterwards() {
        let (stop, counted) = targets(&[2, 0, 1], &[2, 0, 1], 2);
        let asked = |stop: &[f32]| stop.iter().zip(&counted).map(|(s, c)| s * c).collect::<Vec<_>>();
        assert_eq!(asked(&stop), [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(counted, [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn after_each_spare_step_it_is_asked_to_stop_again() {
        let (stop, counted) = targets(&[1, 0], &[2, 2], 2);
        assert_eq!(stop, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(counted, [1.0; 6]);
    }
}
