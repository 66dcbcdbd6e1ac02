//! The terms that give thoughts a meaning: alignment with pictures and texts, and reconstruction of what was read. The
//! objectives are the paper's (semantic augmentation), their forms [ours].

use crate::Result;
use crate::batch::{Batch, Row, Target};
use crate::subject::Learner;
use crate::vars::normals;
use candle_core::{Device, Tensor};
use lare_kernels as kernels;
use lare_model::Thread;
use lare_model::semantic::{Denoiser, Semantic, amplitudes};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// The thoughts of all steps that were really taken.
pub struct Thoughts {
    /// `[n, D]`.
    pub values: Tensor,
    /// Row and step of each.
    pub origin: Vec<(usize, usize)>,
}

impl Thoughts {
    /// `None` where no step was taken.
    pub fn gather<P>(thread: &Thread, batch: &Batch<P>) -> Result<Option<Self>> {
        let b = batch.rows.len();
        let mut origin = Vec::new();
        for k in 0..thread.steps.len() {
            origin.extend((0..b).filter(|row| batch.steps[*row] > k).map(|row| (row, k)));
        }
        if origin.is_empty() {
            return Ok(None);
        }
        let all: Vec<&Tensor> = thread.steps.iter().map(|s| s.holds()).collect();
        let index: Vec<u32> = origin.iter().map(|(row, k)| (k * b + row) as u32).collect();
        let all = Tensor::cat(&all, 0)?; // [K * B, D]
        let values = all.index_select(&Tensor::from_vec(index, origin.len(), all.device())?, 0)?;
        Ok(Some(Self { values, origin }))
    }
}

/// Symmetric InfoNCE between each row's pooled thoughts and (a) the fine features where it should have looked,
/// (b) the words of its rationale. In (a) rows that look at the same cells of the same picture are no negatives of one
/// another, in (b) rows of the same words: telling pictures apart needs no look, telling their regions apart does.
pub fn align<M: Learner>(
    (model, semantic): (&M, &Semantic),
    thread: &Thread,
    fine: &Tensor,
    visible: &[bool],
    batch: &Batch<M::Pictures>,
) -> Result<Tensor> {
    let b = batch.rows.len();
    let device = thread.hidden.device();
    let mut pooled: Option<Tensor> = None;
    for (k, step) in thread.steps.iter().enumerate() {
        let share = |row: usize| {
            if batch.steps[row] > k { 1.0 / batch.steps[row] as f32 } else { 0.0 }
        };
        let shares = Tensor::from_vec((0..b).map(share).collect::<Vec<f32>>(), (b, 1), device)?;
        let part = step.holds().broadcast_mul(&shares)?;
        pooled = Some(match pooled {
            None => part,
            Some(sum) => (sum + part)?,
        });
    }
    let pooled = pooled.map_or_else(|| thread.hidden.zeros_like(), Ok)?;
    let thoughts = semantic.thought_point(&pooled)?;
    let temperature = semantic.temperature()?;

    let (looked_at, seen) = looked_at(fine, visible, batch)?;
    let pictures = semantic.picture_point(&seen)?;
    let same_cells = |i: usize, j: usize| {
        batch.prompts.picture_of_row[i] == batch.prompts.picture_of_row[j] && looked_at[i] == looked_at[j]
    };
    let to_pictures = contrast(&thoughts, &pictures, &temperature, same_cells)?;

    let (bags, words) = bags_of_words(model, batch, seen.device())?;
    let texts = semantic.text_point(&words)?;
    let to_texts = contrast(&thoughts, &texts, &temperature, |i, j| bags[i] == bags[j])?;
    Ok(((to_pictures + to_texts)? * 0.5)?)
}

/// The share of each cell in the regions that each row's steps should look at, `[B]` lists of `P`, even where no region is
/// known; and the mean fine feature over them, `[B, Dv]`.
fn looked_at<P>(fine: &Tensor, visible: &[bool], batch: &Batch<P>) -> Result<(Vec<Vec<f32>>, Tensor)> {
    let (_, p, _, _) = fine.dims4()?;
    let cells = fine.mean(2)?; // [S, P, Dv]
    let share_of_row = |(number, (row, taken)): (usize, (&Row, &usize))| {
        let mut share = vec![0f32; p];
        let targets = row.targets.iter().take(*taken).filter(|target| !target.coverage.is_empty());
        let targets: Vec<&Target> = targets.collect();
        for target in &targets {
            share.iter_mut().zip(&target.coverage).for_each(|(o, c)| *o += c / targets.len() as f32);
        }
        if targets.is_empty() {
            let real = &visible[batch.prompts.picture_of_row[number] as usize * p..][..p];
            let count = real.iter().filter(|real| **real).count().max(1);
            share.iter_mut().zip(real).filter(|(_, real)| **real).for_each(|(share, _)| *share = 1.0 / count as f32);
        }
        share
    };
    let shares: Vec<Vec<f32>> = batch.rows.iter().zip(&batch.steps).enumerate().map(share_of_row).collect();
    let of_row = Tensor::from_slice(&batch.prompts.picture_of_row, shares.len(), cells.device())?;
    let weights = Tensor::from_vec(shares.concat(), (shares.len(), 1, p), cells.device())?;
    let seen = weights.matmul(&cells.index_select(&of_row, 0)?)?.squeeze(1)?;
    Ok((shares, seen))
}

/// The words of each row's rationale and answer, sorted, and their mean embedding `[B, D]`.
fn bags_of_words<M: Learner>(
    model: &M,
    batch: &Batch<M::Pictures>,
    device: &Device,
) -> Result<(Vec<Vec<u32>>, Tensor)> {
    let mut bags = Vec::with_capacity(batch.rows.len());
    for (row, taken) in batch.rows.iter().zip(&batch.steps) {
        let read = row.targets.iter().take(*taken).flat_map(|t| &t.words);
        let mut bag: Vec<u32> = read.chain(&row.words).copied().collect();
        bag.sort_unstable();
        bags.push(bag);
    }
    let words: Vec<u32> = bags.iter().flatten().copied().collect::<BTreeSet<u32>>().into_iter().collect();
    let mut shares = vec![0f32; bags.len() * words.len()];
    for (bag, shares) in bags.iter().zip(shares.chunks_mut(words.len().max(1))) {
        for id in bag {
            // Found: `words` has the words of every bag, in order.
            let place = words.partition_point(|word| word < id);
            shares[place] += 1.0 / bag.len() as f32;
        }
    }
    let shares = Tensor::from_vec(shares, (bags.len(), words.len()), device)?;
    let embeddings = model.language().embedding().gather(&Tensor::new(words, device)?)?;
    Ok((bags, shares.matmul(&embeddings)?))
}

/// InfoNCE in both directions between unit vectors `[B, A]`; pairs for which `same` holds are no negatives.
fn contrast(a: &Tensor, b: &Tensor, temperature: &Tensor, same: impl Fn(usize, usize) -> bool) -> Result<Tensor> {
    let (n, _) = a.dims2()?;
    let mut mask = vec![0f32; n * n];
    for i in 0..n {
        for j in (0..n).filter(|j| *j != i && same(i, *j)) {
            mask[i * n + j] = -1e4;
        }
    }
    let mask = Tensor::from_vec(mask, (n, n), a.device())?;
    let similar = (a.matmul(&b.t()?)?.broadcast_div(temperature)? + mask)?;
    let own: Vec<Option<u32>> = (0..n as u32).map(Some).collect();
    let forward = kernels::cross_entropy(&similar, &own)?.mean_all()?;
    let backward = kernels::cross_entropy(&similar.t()?.contiguous()?, &own)?.mean_all()?;
    Ok(((forward + backward)? * 0.5)?)
}

/// Thoughts that are drawn in one batch, at most: the denoiser is the largest part of a step's work.
const DRAWINGS: usize = 32;

/// Mean square error of the noise predicted in what each thought should hold, given the thought; and the same given a thought
/// about another picture.
pub fn reconstruct<M: Learner>(
    (model, denoiser): (&M, &Denoiser),
    thoughts: &Thoughts,
    (thread, fine): (&Thread, &Tensor),
    batch: &Batch<M::Pictures>,
    dice: &mut ChaCha8Rng,
) -> Result<(Tensor, Option<f64>)> {
    let n = DRAWINGS.min(thoughts.origin.len());
    let picked: Vec<u32> = (0..n).map(|_| dice.random_range(0..thoughts.origin.len() as u32)).collect();
    let values = denoiser.values();
    let (mut clean, mut noisy, mut times) = (Vec::new(), Vec::with_capacity(n * values), Vec::with_capacity(n));
    for index in &picked {
        clean.extend(model.clean(fine, batch, thread, thoughts.origin[*index as usize])?);
    }
    let noise = normals(dice, n * values);
    for (clean, noise) in clean.chunks(values).zip(noise.chunks(values)) {
        let time: f32 = dice.random();
        let (signal, rest) = amplitudes(time);
        noisy.extend(clean.iter().zip(noise).map(|(c, e)| signal * c + rest * e));
        times.push(time);
    }
    let device = thoughts.values.device();
    let noisy = Tensor::from_vec(noisy, (n, values), device)?;
    let noise = Tensor::from_vec(noise, (n, values), device)?;
    let error = |picked: &[u32]| -> Result<Tensor> {
        let given = thoughts.values.index_select(&Tensor::from_slice(picked, n, device)?, 0)?;
        Ok((denoiser.noise(&noisy, &times, &given)? - &noise)?.sqr()?.mean_all()?)
    };
    let picture_of: Vec<u32> = thoughts.origin.iter().map(|(row, _)| batch.prompts.picture_of_row[*row]).collect();
    let another = match of_other_pictures(&picture_of, &picked) {
        Some(others) => Some(f64::from(error(&others)?.detach().to_scalar::<f32>()?)),
        None => None,
    };
    Ok((error(&picked)?, another))
}

/// For each of the picked thoughts the next one, round the list, that is about another picture; `picture_of` has the
/// picture of every thought.
fn of_other_pictures(picture_of: &[u32], picked: &[u32]) -> Option<Vec<u32>> {
    let picture = |index: u32| picture_of[index as usize];
    let count = picture_of.len() as u32;
    let other = |index: &u32| (1..count).map(|d| (index + d) % count).find(|other| picture(*other) != picture(*index));
    picked.iter().map(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_takes_thoughts_about_other_pictures() {
        let picture_of = [0, 0, 1, 2, 0, 1];
        let picked: Vec<u32> = (0..6).collect();
        let others = of_other_pictures(&picture_of, &picked).unwrap();
        assert_eq!(others, [2, 2, 3, 4, 5, 0]);
        for (own, other) in picked.iter().zip(&others) {
            assert_ne!(picture_of[*own as usize], picture_of[*other as usize]);
        }
        assert_eq!(of_other_pictures(&[3, 3], &[0, 1]), None, "there is no other picture");
    }
}
