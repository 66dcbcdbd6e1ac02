//! Which token comes next: the most likely one, or a draw among the likely ones.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token; above, logits are divided by it before the draw.
    pub temperature: f32,
    /// Draws among the most likely tokens that together have this probability; 1 draws among all.
    pub top_p: f32,
    /// Where the draws start: the same seed gives the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, seed: 0 }
    }
}

/// Chooses the tokens of one answer.
pub struct Sampler {
    sampling: Sampling,
    dice: ChaCha8Rng,
}

impl Sampler {
    /// Starts at the seed.
    #[must_use]
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, dice: ChaCha8Rng::seed_from_u64(sampling.seed) }
    }

    /// The next token from logits `[V]`; minus infinity rules one out. Ties go to the earlier token.
    pub fn pick(&mut self, logits: &[f32]) -> u32 {
        let Sampling { temperature, top_p, .. } = self.sampling;
        if temperature <= 0.0 {
            let better = |best: usize, i: usize| if logits[i].total_cmp(&logits[best]).is_gt() { i } else { best };
            return (0..logits.len()).fold(0, better) as u32;
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let best = order.first().copied().unwrap_or(0);
        let highest = logits.get(best).copied().unwrap_or(0.0);
        let weight = |i: &usize| f64::from((logits[*i] - highest) / temperature).exp();
        let total: f64 = order.iter().map(weight).sum();
        let mut mass = 0.0;
        let kept = order.iter().take_while(|i| {
            let before = mass;
            mass += weight(i) / total;
            before < f64::from(top_p)
        });
        let kept: Vec<usize> = kept.copied().collect();
        let mut left = self.dice.random::<f64>() * kept.iter().map(weight).sum::<f64>();
        for i in &kept {
            left -= weight(i);
            if left < 0.0 {
                return *i as u32;
            }
        }
        best as u32 // only when nothing was kept: top_p 0
    }
}

/// Makes the tokens in `seen` less likely among logits `[V]`: divides those above 0 by `penalty`, multiplies the others.
/// Folders ask for it in `generation_config.json`, and the reference follows them when it does not draw, too.
pub fn penalize(logits: &mut [f32], seen: &BTreeSet<u32>, penalty: f32) {
    for token in seen {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

/// Standard normal numbers from a seed, by Box and Muller.
#[must_use]
pub fn normals(seed: u64, count: usize) -> Vec<f32> {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - dice.random::<f64>()).ln()).sqrt();
        let angle = std::f64::consts::TAU * dice.random::<f64>();
        values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [0.0, 3.0, f32::NEG_INFINITY, 2.9, -1.0];

    fn draws(temperature: f32, top_p: f32, seed: u64) -> Vec<u32> {
        let mut sampler = Sampler::new(Sampling { temperature, top_p, seed });
        (0..400).map(|_| sampler.pick(&LOGITS)).collect()
    }

    #[test]
    fn a_penalty_lowers_what_was_seen_on_both_sides_of_zero() {
        let mut logits = [3.0, -1.0, 2.0];
        penalize(&mut logits, &BTreeSet::from([0, 1, 7]), 2.0);
        assert_eq!(logits, [1.5, -2.0, 2.0]);
    }

    #[test]
    fn temperature_zero_takes_the_most_likely_token() {
        assert!(draws(0.0, 1.0, 5).iter().all(|t| *t == 1));
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        assert_eq!(draws(1.0, 0.9, 7), draws(1.0, 0.9, 7));
        assert_ne!(draws(1.0, 0.9, 7), draws(1.0, 0.9, 8));
    }

    #[test]
    fn a_token_that_is_ruled_out_never_comes() {
        assert!(draws(50.0, 1.0, 1).iter().all(|t| *t != 2));
    }

    #[test]
    fn top_p_keeps_the_likely_tokens_alone() {
        let seen = draws(1.0, 0.6, 3);
        assert!(seen.contains(&1) && seen.contains(&3));
        assert!(seen.iter().all(|t| [1, 3].contains(t)));
        assert!(draws(1.0, 0.0, 3).iter().all(|t| *t == 1));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let ones = draws(1.0, 1.0, 11).iter().filter(|t| **t == 1).count();
        assert!((170..=230).contains(&ones), "{ones} of 400, expected about 198");
    }
}
