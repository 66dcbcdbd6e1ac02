//! What a thought looks like: a small picture, sampled from the denoiser that was trained to need the thought.

use crate::sampler::normals;
use crate::{Assistant, Result};
use candle_core::Tensor;
use lare_model::semantic::{amplitudes, from_drawing, to_drawing};

/// Denoising steps: more change nothing that can be seen at this size.
const STEPS: usize = 20;

/// A small square RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// Side in pixels.
    pub side: usize,
    /// `[side, side, 3]`.
    pub rgb: Vec<u8>,
}

/// Draws thoughts by deterministic denoising (DDIM) from noise that follows from `seed` alone.
///
/// - `thoughts`: `n` of `[D]`, mean square 1
///
/// Returns `n` drawings. The same noise starts each, so what differs between them comes from the thoughts.
pub fn thoughts(assistant: &Assistant, thoughts: &[&[f32]], seed: u64) -> Result<Vec<Drawing>> {
    let Some(width) = thoughts.first().map(|t| t.len()) else {
        return Ok(Vec::new());
    };
    let denoiser = &assistant.reasoner.semantic.denoiser;
    let (n, values, device) = (thoughts.len(), denoiser.values(), assistant.device());
    let given = Tensor::from_vec(thoughts.concat(), (n, width), device)?;
    let start = normals(seed, values);
    let mut noisy: Vec<f32> = start.iter().copied().cycle().take(n * values).collect();
    let mut clean = vec![0.0; n * values];
    for step in 0..STEPS {
        let time = |step: usize| 1.0 - step as f32 / STEPS as f32;
        let (signal, noise) = amplitudes(time(step));
        let (next_signal, next_noise) = amplitudes(time(step + 1));
        let input = Tensor::from_slice(&noisy, (n, values), device)?;
        let guess: Vec<f32> = denoiser.noise(&input, &vec![time(step); n], &given)?.flatten_all()?.to_vec1()?;
        for ((noisy, clean), guess) in noisy.iter_mut().zip(&mut clean).zip(guess) {
            // No pixel is darker than black or lighter than white; the noise is what that leaves.
            *clean = ((*noisy - noise * guess) / signal).clamp(to_drawing(0.0), to_drawing(1.0));
            let rest = (*noisy - signal * *clean) / noise;
            *noisy = next_signal * *clean + next_noise * rest;
        }
    }
    let byte = |value: &f32| (from_drawing(*value).clamp(0.0, 1.0) * 255.0).round() as u8;
    Ok(clean.chunks(values).map(|c| Drawing { side: denoiser.side(), rgb: c.iter().map(byte).collect() }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_picture() {
        let assistant = crate::tiny::assistant();
        let thought = normals(3, assistant.config().language.width);
        let draw = |seed| thoughts(&assistant, &[&thought, &thought], seed).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let [first, second] = &draw(1)[..] else { panic!("two thoughts, two drawings") };
        assert_eq!((first, first.rgb.len()), (second, first.side * first.side * 3));
    }
}
