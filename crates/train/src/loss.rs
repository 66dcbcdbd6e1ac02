//! The loss: one forward pass, every term of METHOD section 4, and the only place where terms meet their weights.
//!
//! answer, align and rec are the paper's objectives; the forms of align and rec, and the terms focus, halt and
//! read, are [ours].

use crate::Result;
use crate::batch::{Batch, Pictures, Row};
use crate::config::LossWeights;
use crate::halting;
use crate::order;
use crate::reading::{Readers, cell_at};
use crate::vars::normals;
use candle_core::{Device, Tensor};
use lare_data::tokenizer::END;
use lare_kernels as kernels;
use lare_model::reasoning::Scene;
use lare_model::semantic::{amplitudes, to_drawing};
use lare_model::{Reasoner, Reasoning, Thread, Views};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// Every term of the training loss, unweighted; `None` where its weight is 0 or nothing in the batch supervises it
/// (the answer is always there: monitors want it).
#[derive(Clone, Debug, Default)]
pub struct LossTerms {
    /// Cross-entropy of the answer, nats per supervised token.
    pub answer: Option<Tensor>,
    /// Symmetric InfoNCE of thoughts against pictures and texts, nats.
    pub align: Option<Tensor>,
    /// Mean square error of the predicted noise; 1 is the error of predicting none. What a thought adds is the difference to
    /// [`Outcome::rec_of_another`].
    pub rec: Option<Tensor>,
    /// Cross-entropy between the scores and the true region, nats per step, or per word that says or answers without it.
    pub focus: Option<Tensor>,
    /// Binary cross-entropy of the halting head, nats per decision.
    pub halt: Option<Tensor>,
    /// Cross-entropy of the words that a thought should name, nats per word.
    pub read: Option<Tensor>,
    /// Cross-entropy of the names of the objects in the picture, nats per object.
    pub name: Option<Tensor>,
}

impl LossTerms {
    /// Terms by name, with their weights.
    pub fn named(&self, weights: &LossWeights) -> [(&'static str, &Option<Tensor>, f64); 7] {
        [
            ("answer", &self.answer, weights.answer),
            ("align", &self.align, weights.align),
            ("rec", &self.rec, weights.rec),
            ("focus", &self.focus, weights.focus),
            ("halt", &self.halt, weights.halt),
            ("read", &self.read, weights.read),
            ("name", &self.name, weights.name),
        ]
    }

    /// The only place where terms meet their weights.
    pub fn total(&self, weights: &LossWeights) -> Result<Tensor> {
        let mut total = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu)?;
        for (_, term, weight) in self.named(weights) {
            if let Some(term) = term {
                total = (total.to_device(term.device())? + (term * weight)?)?;
            }
        }
        Ok(total)
    }
}

/// What a forward pass leaves for monitors.
pub struct Outcome {
    /// The terms.
    pub terms: LossTerms,
    /// The conversations after their last step.
    pub thread: Thread,
    /// The batch, with steps that may come in any order as the model took them.
    pub batch: Batch,
    /// Whether every token of a row's answer was the most likely one, `[B]`.
    pub right: Vec<bool>,
    /// What [`LossTerms::rec`] would be with thoughts about other pictures; `None` with one picture.
    pub rec_of_another: Option<f64>,
}

/// One forward pass over a batch of questions. Terms without weight are left out, but for the answer.
pub fn reason(model: &Reasoner, batch: &Batch, weights: &LossWeights, dice: &mut ChaCha8Rng) -> Result<Outcome> {
    let views = views_of(model, batch)?;
    let scene = model.look(&views)?;
    let mut thread = model.prompt(&scene, &batch.prompts)?;
    let halt_logits = halting::think(model, &scene, &mut thread, &batch.taken())?;
    let after_steps = thread.clone();
    let gazes = weights.focus > 0.0 && model.attends() && batch.rows.iter().any(|row| !row.gaze.is_empty());
    let (logits, gaze) = if gazes {
        let (logits, attended) = model.say_attending(&scene, &mut thread, &fed(batch))?;
        (logits, Some(gaze(&attended, batch)?))
    } else {
        (model.say(&mut thread, &fed(batch))?, None)
    };
    let (nats, right) = nats_of(&logits, batch)?;
    let answer = per_token(&nats, batch)?;
    let batch = order::as_taken(batch, &after_steps)?;
    let thoughts = Thoughts::gather(&after_steps, &batch)?;
    let mut terms = LossTerms { answer: Some(answer), focus: gaze, ..LossTerms::default() };
    if weights.halt > 0.0 {
        terms.halt = Some(halting::loss(&halt_logits, &batch.steps, &batch.taken())?);
    }
    if weights.name > 0.0 {
        terms.name = name(model, &scene, &batch)?;
    }
    let mut rec_of_another = None;
    if let Some(thoughts) = &thoughts {
        if weights.focus > 0.0 {
            let looks = focus(&after_steps, &batch)?;
            terms.focus = Some(match terms.focus {
                Some(words) => ((looks + words)? * 0.5)?,
                None => looks,
            });
        }
        if weights.read > 0.0 {
            terms.read = read(model, thoughts, &batch)?;
        }
        if weights.align > 0.0 {
            terms.align = Some(align(model, &after_steps, &views, &batch)?);
        }
        if weights.rec > 0.0 {
            let (rec, another) = reconstruct(model, thoughts, &batch, dice)?;
            terms.rec = Some(rec);
            rec_of_another = another;
        }
    }
    Ok(Outcome { terms, thread: after_steps, batch, right, rec_of_another })
}

/// The encoders alone: what stands where.
pub fn read_pictures(
    model: &Reasoner,
    readers: &Readers,
    batch: &Batch,
) -> Result<(LossTerms, Vec<(&'static str, f64)>)> {
    let views = views_of(model, batch)?;
    let (loss, right) = readers.loss(&views, &batch.groups)?;
    Ok((LossTerms { read: Some(loss), ..LossTerms::default() }, right))
}

/// The halting head alone.
pub fn halt(model: &Reasoner, batch: &Batch) -> Result<LossTerms> {
    let views = views_of(model, batch)?;
    let scene = model.look(&views)?;
    let mut thread = model.prompt(&scene, &batch.prompts)?;
    let logits = halting::think(model, &scene, &mut thread, &batch.taken())?;
    Ok(LossTerms { halt: Some(halting::loss(&logits, &batch.steps, &batch.taken())?), ..LossTerms::default() })
}

/// What the encoders see, now or, while they are frozen, once.
fn views_of(model: &Reasoner, batch: &Batch) -> Result<Views> {
    Ok(match &batch.pictures {
        Pictures::Pixels(pixels) => model.encode(pixels)?,
        Pictures::Views(views) => views.clone(),
    })
}

/// The mean over supervised tokens.
fn per_token(nats: &Tensor, batch: &Batch) -> Result<Tensor> {
    let supervised: usize = batch.rows.iter().map(|r| r.answer.len() - 1).sum();
    Ok((nats.sum_all()? / supervised.max(1) as f64)?)
}

/// What is fed to say each answer, `[B]`: all but its `<end>`.
fn fed(batch: &Batch) -> Vec<Vec<u32>> {
    batch.rows.iter().map(|r| r.answer[..r.answer.len() - 1].to_vec()).collect()
}

/// From logits `[B, T, V]` the nats of each answer token, `[B, T]` with zeros behind shorter answers, and which rows have every
/// token right.
fn nats_of(logits: &Tensor, batch: &Batch) -> Result<(Tensor, Vec<bool>)> {
    let (b, t, v) = logits.dims3()?;
    let targets: Vec<Option<u32>> = batch.rows.iter().flat_map(|r| (1..=t).map(|i| r.answer.get(i).copied())).collect();
    let logits = logits.reshape((b * t, v))?;
    let best: Vec<u32> = logits.detach().argmax(1)?.to_vec1()?;
    // Steps that are said count too: where every token is the most likely one after the true ones before it, the model says
    // this text by itself.
    let right = |(want, got): (&[Option<u32>], &[u32])| {
        want.iter().zip(got).all(|(want, got)| want.is_none_or(|want| want == *got))
    };
    let right = targets.chunks(t).zip(best.chunks(t)).map(right).collect();
    Ok((kernels::cross_entropy(&logits, &targets)?.reshape((b, t))?, right))
}

/// The thoughts of all steps that were really taken.
struct Thoughts {
    values: Tensor,              // [n, D]
    origin: Vec<(usize, usize)>, // row, step
}

impl Thoughts {
    fn gather(thread: &Thread, batch: &Batch) -> Result<Option<Self>> {
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

/// Cross-entropy between where each step looked and where it should have.
fn focus(thread: &Thread, batch: &Batch) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    let mut count = 0;
    for (k, step) in thread.steps.iter().enumerate() {
        let (b, p) = step.log_scores.dims2()?;
        let mut wanted = vec![0f32; b * p];
        for (row, out) in wanted.chunks_mut(p).enumerate() {
            if batch.steps[row] > k {
                out.copy_from_slice(&batch.rows[row].targets[k].coverage);
                count += 1;
            }
        }
        let wanted = Tensor::from_vec(wanted, (b, p), step.log_scores.device())?;
        let nats = (wanted * &step.log_scores)?.sum_all()?.neg()?;
        sum = Some(match sum {
            None => nats,
            Some(sum) => (sum + nats)?,
        });
    }
    let sum = sum.map_or_else(|| Tensor::zeros((), candle_core::DType::F32, &Device::Cpu), Ok)?;
    Ok((sum / f64::from(count.max(1)))?)
}

/// Cross-entropy between where words attended, `[B, T, P]` logarithms, and the regions of the steps they are about.
fn gaze(attended: &Tensor, batch: &Batch) -> Result<Tensor> {
    let (_, t, p) = attended.dims3()?;
    let mut wanted = vec![0f32; attended.elem_count()];
    for (row, out) in batch.rows.iter().zip(wanted.chunks_mut(t * p)) {
        for (place, step) in &row.gaze {
            out[place * p..][..p].copy_from_slice(&row.targets[*step].coverage);
        }
    }
    let count: usize = batch.rows.iter().map(|row| row.gaze.len()).sum();
    let wanted = Tensor::from_vec(wanted, attended.shape(), attended.device())?;
    Ok(((wanted * attended)?.sum_all()?.neg()? / count.max(1) as f64)?)
}

/// Cross-entropy of the words that each step of the rationale reads, named by its thought.
fn read(model: &Reasoner, thoughts: &Thoughts, batch: &Batch) -> Result<Option<Tensor>> {
    let slots = model.config().semantic.read_slots;
    let words_of = |(row, k): &(usize, usize)| &batch.rows[*row].targets[*k].words;
    let targets: Vec<Option<u32>> =
        thoughts.origin.iter().flat_map(|o| (0..slots).map(move |slot| words_of(o).get(slot).copied())).collect();
    let count = targets.iter().flatten().count();
    if count == 0 {
        return Ok(None);
    }
    let logits = model.semantic.words(&thoughts.values, model.backbone.language.embedding())?;
    let (n, s, v) = logits.dims3()?;
    let nats = kernels::cross_entropy(&logits.reshape((n * s, v))?, &targets)?;
    Ok(Some((nats.sum_all()? / count as f64)?))
}

/// Cross-entropy of each object's name, said by the last hidden state of the coarse token at its centre as if it were the
/// next word; `None` in pictures without objects.
fn name(model: &Reasoner, scene: &Scene, batch: &Batch) -> Result<Option<Tensor>> {
    let (_, all, d) = scene.prefix.hidden.dims3()?;
    let cell = model.config().vision.cell_px;
    let (mut places, mut names) = (Vec::new(), Vec::new());
    for (picture, (group, grid)) in batch.groups.iter().zip(scene.look.grids.iter().flatten()).enumerate() {
        for (object, name) in group.objects.iter().zip(&batch.names[picture]) {
            places.push((picture * all + cell_at(&object.body, (grid.rows, grid.cols), cell)) as u32);
            names.push(*name);
        }
    }
    let count = names.iter().flatten().count();
    if count == 0 {
        return Ok(None);
    }
    let hidden = scene.prefix.hidden.reshape(((), d))?;
    let index = Tensor::from_vec(places, names.len(), hidden.device())?;
    let logits = model.backbone.language.logits(&hidden.index_select(&index, 0)?)?;
    Ok(Some((kernels::cross_entropy(&logits, &names)?.sum_all()? / count as f64)?))
}

/// For each step of each row, whether the thought names all that its step of the rationale reads.
pub fn named(model: &Reasoner, thread: &Thread, batch: &Batch) -> Result<Vec<Vec<bool>>> {
    let mut named = vec![Vec::new(); batch.rows.len()];
    let Some(thoughts) = Thoughts::gather(thread, batch)? else {
        return Ok(named);
    };
    let logits = model.semantic.words(&thoughts.values, model.backbone.language.embedding())?; // [n, slots, V]
    let best: Vec<Vec<u32>> = logits.detach().argmax(2)?.to_vec2()?;
    for ((row, k), best) in thoughts.origin.iter().zip(&best) {
        let words = &batch.rows[*row].targets[*k].words;
        named[*row].push(words.iter().zip(best).all(|(word, best)| word == best));
    }
    Ok(named)
}

/// Symmetric InfoNCE between each row's pooled thoughts and (a) the fine features where it should have looked,
/// (b) the words of its rationale. In (a) rows that look at the same cells of the same picture are no negatives of one
/// another, in (b) rows of the same words: telling pictures apart needs no look, telling their regions apart does.
fn align(model: &Reasoner, thread: &Thread, views: &Views, batch: &Batch) -> Result<Tensor> {
    let (b, semantic) = (batch.rows.len(), &model.semantic);
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

    let (looked_at, seen) = looked_at(views, batch)?;
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

/// The share of each cell in the regions that each row's steps should look at, `[B]` lists of `P`; and the mean fine
/// feature over them, `[B, Dv]`, without gradient.
fn looked_at(views: &Views, batch: &Batch) -> Result<(Vec<Vec<f32>>, Tensor)> {
    let (s, p, _) = views.coarse.dims3()?;
    let (_, f, dv) = views.fine.dims3()?;
    let cells = views.fine.detach().reshape((s, p, f / p, dv))?.mean(2)?; // [S, P, Dv]
    let share_of_row = |(row, taken): (&Row, &usize)| {
        let mut share = vec![0f32; p];
        let targets = &row.targets[..(*taken).min(row.targets.len())];
        for target in targets {
            share.iter_mut().zip(&target.coverage).for_each(|(o, c)| *o += c / targets.len() as f32);
        }
        share
    };
    let shares: Vec<Vec<f32>> = batch.rows.iter().zip(&batch.steps).map(share_of_row).collect();
    let of_row = Tensor::from_slice(&batch.prompts.picture_of_row, shares.len(), cells.device())?;
    let weights = Tensor::from_vec(shares.concat(), (shares.len(), 1, p), cells.device())?;
    let seen = weights.matmul(&cells.index_select(&of_row, 0)?)?.squeeze(1)?;
    Ok((shares, seen))
}

/// The words of each row's rationale and answer, sorted, and their mean embedding `[B, D]`.
fn bags_of_words(model: &Reasoner, batch: &Batch, device: &Device) -> Result<(Vec<Vec<u32>>, Tensor)> {
    let mut bags = Vec::with_capacity(batch.rows.len());
    for (row, taken) in batch.rows.iter().zip(&batch.steps) {
        let answer = row.answer.iter().filter(|id| **id > END);
        let read = row.targets.iter().take(*taken).flat_map(|t| &t.words);
        let mut bag: Vec<u32> = read.chain(answer).copied().collect();
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
    let embeddings = model.backbone.language.embedding().gather(&Tensor::new(words, device)?)?;
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

/// Mean square error of the noise predicted in the small picture around each thought's region, given the thought;
/// and the same given a thought about another picture.
fn reconstruct(
    model: &Reasoner,
    thoughts: &Thoughts,
    batch: &Batch,
    dice: &mut ChaCha8Rng,
) -> Result<(Tensor, Option<f64>)> {
    let denoiser = &model.semantic.denoiser;
    let n = DRAWINGS.min(thoughts.origin.len());
    let picked: Vec<u32> = (0..n).map(|_| dice.random_range(0..thoughts.origin.len() as u32)).collect();
    let values = denoiser.values();
    let (mut clean, mut noisy, mut times) = (Vec::new(), Vec::with_capacity(n * values), Vec::with_capacity(n));
    for index in &picked {
        let (row, k) = thoughts.origin[*index as usize];
        clean.extend(drawing(model, batch, row, k));
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

/// The small picture around the region of a step, `[side * side * 3]`, about unit variance.
fn drawing(model: &Reasoner, batch: &Batch, row: usize, k: usize) -> Vec<f32> {
    let side = model.config().semantic.drawing_px;
    let small = &batch.small[batch.prompts.picture_of_row[row] as usize];
    let shrink = batch.shrink as f32;
    let (x, y) = batch.rows[row].targets[k].centre;
    let corner = |centre: f32| (centre / shrink).round() as isize - side as isize / 2;
    let (left, top) = (corner(x), corner(y));
    // Past the edge the edge's own pixel stands again.
    let place = |at: isize, size: usize| at.clamp(0, size as isize - 1) as usize;
    let mut values = Vec::with_capacity(side * side * 3);
    for dy in 0..side as isize {
        for dx in 0..side as isize {
            let at = (place(top + dy, small.height) * small.width + place(left + dx, small.width)) * 3;
            values.extend(small.values[at..at + 3].iter().map(|v| to_drawing(*v)));
        }
    }
    values
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
