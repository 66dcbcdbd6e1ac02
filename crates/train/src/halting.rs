//! What the halting head learns from: the marginal gain of a further step on the answer's loss. [ours]
//!
//! After each number of steps the answer is scored. Stopping after `k` steps is right when no larger number of
//! steps lowers the loss by more than those steps cost.

use crate::Result;
use crate::batch::Batch;
use crate::loss::answer_nats;
use candle_core::{DType, Tensor};
use lare_model::nn::softplus;
use lare_model::{Reasoner, Views};

/// Nats of the whole answer that a step must gain to be worth taking.
pub const STEP_COST_NATS: f32 = 0.05;

/// Binary cross-entropy of the halting head over all rows and all numbers of steps below the most.
pub fn loss(model: &Reasoner, views: &Views, batch: &Batch) -> Result<Tensor> {
    let most = model.config().refocus.max_steps;
    let scene = model.look(views)?;
    let mut thread = model.prompt(&scene, &batch.prompts)?;
    let (mut logits, mut nats) = (Vec::with_capacity(most), Vec::with_capacity(most + 1));
    for k in 0..=most {
        let (scored, _) = answer_nats(model, &mut thread.clone(), batch)?;
        nats.push(scored.detach().sum(1)?.to_vec1::<f32>()?);
        if k < most {
            logits.push(model.halt_logits(&thread)?);
            model.think(&scene, &mut thread, &vec![1; batch.rows.len()])?;
        }
    }
    let logits = Tensor::stack(&logits, 0)?; // [K, B]
    let stop = Tensor::from_vec(should_stop(&nats).concat(), logits.shape(), logits.device())?.to_dtype(DType::F32)?;
    // -log sigmoid(x) where stopping is right, -log(1 - sigmoid(x)) elsewhere.
    Ok((softplus(&logits)? - (stop * &logits)?)?.mean_all()?)
}

/// `[K][B]`: 1 where stopping is right. `nats`: `[K + 1][B]`, the answer's loss after each number of steps.
fn should_stop(nats: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let later_pays = |k: usize, row: usize| {
        (k + 1..nats.len()).any(|j| nats[k][row] - nats[j][row] > STEP_COST_NATS * (j - k) as f32)
    };
    (0..nats.len() - 1)
        .map(|k| (0..nats[k].len()).map(|row| if later_pays(k, row) { 0.0 } else { 1.0 }).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_gains_less_than_it_costs_is_not_taken() {
        let nats = vec![vec![2.0, 1.00], vec![0.1, 0.98], vec![0.09, 0.97]];
        assert_eq!(should_stop(&nats), [[0.0, 1.0], [1.0, 1.0]]);
    }

    #[test]
    fn a_gain_that_comes_two_steps_later_is_waited_for() {
        let nats = vec![vec![2.0], vec![2.0], vec![0.1]];
        assert_eq!(should_stop(&nats), [[0.0], [0.0]]);
    }
}
