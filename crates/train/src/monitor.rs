//! Health of the thoughts, logged beside the losses: norm, collapse, focus.

use crate::Result;
use crate::batch::Batch;
use candle_core::Tensor;
use lare_model::{Reasoning, Thread};

/// What a healthy run keeps away from its limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// Root mean square of the latents as the decoder sees them, over that of the token embeddings; 1 is right.
    pub latent_norm_ratio: f64,
    /// Mean cosine between thoughts of different rows at the same step; near 1 is collapse.
    pub collapse_cosine: Vec<f64>,
    /// Mean entropy of the scores in nats, per step; `ln P` is looking everywhere.
    pub focus_entropy: Vec<f64>,
    /// Mean share of the scores on cells that the true region touches, per step.
    pub region_mass: Vec<f64>,
    /// Share of steps whose chosen patches include the cell that holds most of the true region; empty for a model that
    /// does not look.
    pub region_hit: Vec<f64>,
    /// Mean of the gate, per step; 0 is all hidden state, 1 all LQ-Former.
    pub gate: Vec<f64>,
}

/// Measures the steps that were really taken.
pub fn health<P>(model: &impl Reasoning, thread: &Thread, batch: &Batch<P>) -> Result<Health> {
    let mut health = Health::default();
    let mut square = 0.0;
    for (k, step) in thread.steps.iter().enumerate() {
        let rows: Vec<usize> = (0..batch.rows.len()).filter(|row| batch.steps[*row] > k).collect();
        if rows.is_empty() {
            break;
        }
        let index = Tensor::from_vec(rows.iter().map(|r| *r as u32).collect(), rows.len(), step.thought.device())?;
        let thoughts = step.thought.detach().index_select(&index, 0)?;
        health.collapse_cosine.push(mean_cosine(&thoughts)?);
        let latents = thread.latents[k].detach().index_select(&index, 0)?;
        square += f64::from(latents.sqr()?.mean_all()?.to_scalar::<f32>()?);
        let scores = step.log_scores.detach().index_select(&index, 0)?.to_vec2::<f32>()?;
        let gates = step.gate_mean.detach().index_select(&index, 0)?;
        health.gate.push(f64::from(gates.mean_all()?.to_scalar::<f32>()?));
        let (mut entropy, mut mass, mut hits, mut known) = (0.0, 0.0, 0.0, 0.0);
        for (row, scores) in rows.iter().zip(&scores) {
            entropy -= scores.iter().map(|s| f64::from(s.exp() * s)).sum::<f64>();
            let coverage = batch.rows[*row].targets.get(k).map_or(&[][..], |target| &target.coverage[..]);
            if coverage.is_empty() {
                continue;
            }
            known += 1.0;
            mass +=
                scores.iter().zip(coverage).filter(|(_, c)| **c > 0.0).map(|(s, _)| f64::from(s.exp())).sum::<f64>();
            let best = (0..coverage.len()).max_by(|a, b| coverage[*a].total_cmp(&coverage[*b])).unwrap_or(0);
            hits += f64::from(u8::from(step.chosen[*row].contains(&(best as u32))));
        }
        health.focus_entropy.push(entropy / rows.len() as f64);
        if known == 0.0 {
            continue;
        }
        health.region_mass.push(mass / known);
        if step.chosen.iter().any(|chosen| !chosen.is_empty()) {
            health.region_hit.push(hits / known);
        }
    }
    let rms = model.language().embedding_rms()?;
    let steps = health.gate.len().max(1) as f64;
    health.latent_norm_ratio = (square / steps).sqrt() / rms.max(1e-12);
    Ok(health)
}

/// Mean cosine over all pairs of different rows of `[n, D]`.
fn mean_cosine(x: &Tensor) -> Result<f64> {
    let (n, _) = x.dims2()?;
    if n < 2 {
        return Ok(0.0);
    }
    let unit = x.broadcast_div(&(x.sqr()?.sum_keepdim(1)?.sqrt()? + 1e-12)?)?;
    // The sum of all pairs is the squared length of the sum; the n pairs of a row with itself are 1 each.
    let all = f64::from(unit.sum(0)?.sqr()?.sum_all()?.to_scalar::<f32>()?);
    Ok((all - n as f64) / (n * (n - 1)) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn equal_thoughts_have_cosine_one_and_orthogonal_ones_zero() {
        let same = Tensor::new(&[[1f32, 2.0], [2.0, 4.0], [0.5, 1.0]], &Device::Cpu).unwrap();
        assert!((mean_cosine(&same).unwrap() - 1.0).abs() < 1e-5);
        let apart = Tensor::new(&[[1f32, 0.0], [0.0, 3.0]], &Device::Cpu).unwrap();
        assert!(mean_cosine(&apart).unwrap().abs() < 1e-6);
    }
}
