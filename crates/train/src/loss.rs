//! The loss: one forward pass, every term of METHOD section 4, and the only place where terms meet their weights.
//!
//! answer, align and rec are the paper's objectives; the forms of align and rec, and the terms focus, halt and
//! read, are [ours].

use crate::batch::{Batch, Row};
use crate::config::LossWeights;
use crate::meaning::{self, Thoughts};
use crate::subject::Learner;
use crate::{Result, halting, order};
use candle_core::{Device, Tensor};
use lare_kernels as kernels;
use lare_model::Thread;
use lare_model::semantic::Semantic;
use rand_chacha::ChaCha8Rng;

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
pub struct Outcome<P> {
    /// The terms.
    pub terms: LossTerms,
    /// The conversations after their last step.
    pub thread: Thread,
    /// The batch, with steps that may come in any order as the model took them.
    pub batch: Batch<P>,
    /// Whether every token of a row's answer was the most likely one, `[B]`.
    pub right: Vec<bool>,
    /// What [`LossTerms::rec`] would be with thoughts about other pictures; `None` with one picture.
    pub rec_of_another: Option<f64>,
}

/// One forward pass over a batch of questions. Terms without weight are left out, but for the answer.
pub fn reason<M: Learner>(
    model: &M,
    batch: &Batch<M::Pictures>,
    weights: &LossWeights,
    dice: &mut ChaCha8Rng,
) -> Result<Outcome<M::Pictures>> {
    let (scene, seen) = model.look_at(batch)?;
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
    let logits = match M::MARKED {
        true => logits,
        // What is said first is said by the state after the last thought.
        false => Tensor::cat(&[model.language().logits(&after_steps.hidden)?.unsqueeze(1)?, logits], 1)?,
    };
    let (nats, right) = nats_of(&logits, batch, usize::from(M::MARKED))?;
    let answer = per_token(&nats, batch, usize::from(M::MARKED))?;
    let batch = order::as_taken(batch, &after_steps)?;
    let mut terms = LossTerms { answer: Some(answer), focus: gaze, ..LossTerms::default() };
    if weights.halt > 0.0 {
        terms.halt = Some(halting::loss(&halt_logits, &batch.steps, &batch.taken())?);
    }
    if weights.name > 0.0 {
        terms.name = model.names(&scene, &batch)?;
    }
    let mut rec_of_another = None;
    if let Some(thoughts) = Thoughts::gather(&after_steps, &batch)? {
        if weights.focus > 0.0 {
            terms.focus = both(focus(&after_steps, &batch)?, terms.focus)?;
        }
        if let Some(semantic) = model.semantic() {
            let work = Work { model, semantic, thoughts: &thoughts, thread: &after_steps, batch: &batch };
            rec_of_another = work.meaning(&mut terms, weights, (&seen, &scene.look.visible), dice)?;
        }
    }
    Ok(Outcome { terms, thread: after_steps, batch, right, rec_of_another })
}

/// The mean of both where there are two.
fn both(one: Option<Tensor>, other: Option<Tensor>) -> Result<Option<Tensor>> {
    Ok(match (one, other) {
        (Some(one), Some(other)) => Some(((one + other)? * 0.5)?),
        (one, other) => one.or(other),
    })
}

/// What the terms that give thoughts a meaning are made of.
struct Work<'a, M: Learner> {
    model: &'a M,
    semantic: &'a Semantic,
    thoughts: &'a Thoughts,
    thread: &'a Thread,
    batch: &'a Batch<M::Pictures>,
}

impl<M: Learner> Work<'_, M> {
    /// Adds those that have a weight; gives the control of `rec`.
    fn meaning(
        &self,
        terms: &mut LossTerms,
        weights: &LossWeights,
        (seen, visible): (&M::Seen, &[bool]),
        dice: &mut ChaCha8Rng,
    ) -> Result<Option<f64>> {
        let Self { model, semantic, thoughts, thread, batch } = *self;
        if weights.read > 0.0 {
            terms.read = read(model, semantic, thoughts, batch)?;
        }
        if weights.align == 0.0 && weights.rec == 0.0 {
            return Ok(None);
        }
        let fine = model.fine(seen)?;
        if weights.align > 0.0 {
            terms.align = Some(meaning::align((model, semantic), thread, &fine, visible, batch)?);
        }
        if weights.rec == 0.0 {
            return Ok(None);
        }
        let denoised = (model, &semantic.denoiser);
        let (rec, another) = meaning::reconstruct(denoised, thoughts, (thread, &fine), batch, dice)?;
        terms.rec = Some(rec);
        Ok(another)
    }
}

/// The halting head alone.
pub fn halt<M: Learner>(model: &M, batch: &Batch<M::Pictures>) -> Result<LossTerms> {
    let (scene, _) = model.look_at(batch)?;
    let mut thread = model.prompt(&scene, &batch.prompts)?;
    let logits = halting::think(model, &scene, &mut thread, &batch.taken())?;
    Ok(LossTerms { halt: Some(halting::loss(&logits, &batch.steps, &batch.taken())?), ..LossTerms::default() })
}

/// The mean over supervised tokens: all but the first `marks` of each answer.
fn per_token<P>(nats: &Tensor, batch: &Batch<P>, marks: usize) -> Result<Tensor> {
    let supervised: usize = batch.rows.iter().map(|r| r.answer.len() - marks).sum();
    Ok((nats.sum_all()? / supervised.max(1) as f64)?)
}

/// What is fed to say each answer, `[B]`: all but its last token, which ends it.
fn fed<P>(batch: &Batch<P>) -> Vec<Vec<u32>> {
    batch.rows.iter().map(|r| r.answer[..r.answer.len() - 1].to_vec()).collect()
}

/// From logits `[B, T, V]` the nats of each answer token, `[B, T]` with zeros behind shorter answers, and which rows have every
/// token right.
fn nats_of<P>(logits: &Tensor, batch: &Batch<P>, marks: usize) -> Result<(Tensor, Vec<bool>)> {
    let (b, t, v) = logits.dims3()?;
    let of_row = |row: &Row| (marks..marks + t).map(|i| row.answer.get(i).copied()).collect::<Vec<_>>();
    let targets: Vec<Option<u32>> = batch.rows.iter().flat_map(of_row).collect();
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

/// Cross-entropy between where each step looked and where it should have; `None` where no region is known.
fn focus<P>(thread: &Thread, batch: &Batch<P>) -> Result<Option<Tensor>> {
    let mut sum: Option<Tensor> = None;
    let mut count = 0;
    for (k, step) in thread.steps.iter().enumerate() {
        let (b, p) = step.log_scores.dims2()?;
        let mut wanted = vec![0f32; b * p];
        for (row, out) in wanted.chunks_mut(p).enumerate() {
            let coverage = &batch.rows[row].targets.get(k).map_or(&[][..], |target| &target.coverage[..]);
            if batch.steps[row] > k && !coverage.is_empty() {
                // Behind the cells of a smaller picture is padding.
                out[..coverage.len()].copy_from_slice(coverage);
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
    match sum.filter(|_| count > 0) {
        None => Ok(None),
        Some(sum) => Ok(Some((sum / f64::from(count))?)),
    }
}

/// Cross-entropy between where words attended, `[B, T, P]` logarithms, and the regions of the steps they are about.
fn gaze<P>(attended: &Tensor, batch: &Batch<P>) -> Result<Tensor> {
    let (_, t, p) = attended.dims3()?;
    let mut wanted = vec![0f32; attended.elem_count()];
    for (row, out) in batch.rows.iter().zip(wanted.chunks_mut(t * p)) {
        for (place, step) in &row.gaze {
            let coverage = &row.targets[*step].coverage;
            out[place * p..][..coverage.len()].copy_from_slice(coverage);
        }
    }
    let count: usize = batch.rows.iter().map(|row| row.gaze.len()).sum();
    let wanted = Tensor::from_vec(wanted, attended.shape(), attended.device())?;
    Ok(((wanted * attended)?.sum_all()?.neg()? / count.max(1) as f64)?)
}

/// Cross-entropy of the words that each step of the rationale reads, named by its thought.
fn read<M: Learner>(
    model: &M,
    semantic: &Semantic,
    thoughts: &Thoughts,
    batch: &Batch<M::Pictures>,
) -> Result<Option<Tensor>> {
    let slots = semantic.read_slots();
    let words_of = |(row, k): &(usize, usize)| &batch.rows[*row].targets[*k].words;
    let targets: Vec<Option<u32>> =
        thoughts.origin.iter().flat_map(|o| (0..slots).map(move |slot| words_of(o).get(slot).copied())).collect();
    let count = targets.iter().flatten().count();
    if count == 0 {
        return Ok(None);
    }
    let logits = semantic.words(&thoughts.values, model.language().embedding())?;
    let (n, s, v) = logits.dims3()?;
    let nats = kernels::cross_entropy(&logits.reshape((n * s, v))?, &targets)?;
    Ok(Some((nats.sum_all()? / count as f64)?))
}

/// For each step of each row, whether the thought names all that its step of the rationale reads.
pub fn named<M: Learner>(model: &M, thread: &Thread, batch: &Batch<M::Pictures>) -> Result<Vec<Vec<bool>>> {
    let mut named = vec![Vec::new(); batch.rows.len()];
    let (Some(thoughts), Some(semantic)) = (Thoughts::gather(thread, batch)?, model.semantic()) else {
        return Ok(named);
    };
    let logits = semantic.words(&thoughts.values, model.language().embedding())?; // [n, slots, V]
    let best: Vec<Vec<u32>> = logits.detach().argmax(2)?.to_vec2()?;
    for ((row, k), best) in thoughts.origin.iter().zip(&best) {
        let words = &batch.rows[*row].targets[*k].words;
        named[*row].push(words.iter().zip(best).all(|(word, best)| word == best));
    }
    Ok(named)
}
