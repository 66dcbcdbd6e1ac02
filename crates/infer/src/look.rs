//! What one latent step saw and thought, read out of the tensors.

use crate::model::Speaking;
use crate::{Error, Result};
use candle_core::Tensor;
use lare_model::Focus;
use lare_model::refocus::Refocus;
use lare_trace::Word;

/// One latent step of one question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LookReport {
    /// Where it looked: a weight for each cell of all pictures, one picture behind the other; sums to 1. Of a pretrained
    /// model asked on its own, cells are its image tokens, as [`crate::places::Places`] places them.
    pub scores: Vec<f32>,
    /// The cells that it read again, best first.
    pub chosen: Vec<usize>,
    /// The vocabulary entries nearest to the thought, by cosine similarity.
    pub nearest: Vec<Word>,
    /// The words that the thought names through the reading head, one a slot, with their probability.
    pub named: Vec<Word>,
    /// Mean of the gate: 0 keeps the decoder's hidden state, 1 takes the LQ-Former's output.
    pub gate_mean: f32,
    /// The halting head after the step.
    pub halt_probability: f32,
    /// Euclidean norm of the latent that was fed back.
    pub latent_norm: f32,
    /// The thought itself, `[D]`, mean square 1.
    pub thought: Vec<f32>,
    /// Time of the step in milliseconds, for all rows of the batch together.
    pub time_ms: f64,
}

/// The halting head at hidden states `[B, D]`.
pub(crate) fn halt_probabilities(refocus: &Refocus, hidden: &Tensor) -> Result<Vec<f32>> {
    let logits: Vec<f32> = refocus.halt_logits(hidden)?.to_vec1()?;
    logits.iter().map(|x| finite("a halting probability", 1.0 / (1.0 + (-x).exp()))).collect()
}

/// A step that a question took.
pub(crate) struct Step<'a> {
    /// What it saw and thought, of one row.
    pub focus: &'a Focus,
    /// The halting head after it.
    pub halt: f32,
    /// Vocabulary entries to report.
    pub words: usize,
}

/// Steps as numbers; `time_ms` is what all of them took together.
pub(crate) fn reports(model: &dyn Speaking, steps: &[Step], time_ms: f64) -> Result<Vec<LookReport>> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let holds: Vec<&Tensor> = steps.iter().map(|step| step.focus.holds()).collect();
    let named = model.named(&Tensor::cat(&holds, 0)?)?;
    let rms = model.decoder().embedding_rms()?;
    let report = |((step, nearest), named): ((&Step, Vec<Word>), Vec<Word>)| {
        let thought: Vec<f32> = step.focus.thought.flatten_all()?.to_vec1()?;
        let norm = thought.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() * rms;
        let gate = step.focus.gate_mean.to_vec1::<f32>()?;
        Ok(LookReport {
            scores: step.focus.log_scores.exp()?.flatten_all()?.to_vec1()?,
            chosen: step.focus.chosen.iter().flatten().map(|p| *p as usize).collect(),
            nearest,
            named,
            gate_mean: finite("a gate", gate.first().copied().unwrap_or(0.0))?,
            halt_probability: step.halt,
            latent_norm: finite("a thought", norm as f32)?,
            thought,
            time_ms,
        })
    };
    steps.iter().zip(nearest(model, steps)?).zip(named).map(report).collect()
}

/// The words nearest to each thought. Where none are asked for, the vocabulary is left alone: it can be large.
fn nearest(model: &dyn Speaking, steps: &[Step]) -> Result<Vec<Vec<Word>>> {
    let asked = steps.iter().filter(|step| step.words > 0).map(|step| step.focus.holds());
    let asked: Vec<&Tensor> = asked.collect();
    if asked.is_empty() {
        return Ok(vec![Vec::new(); steps.len()]);
    }
    let scores: Vec<Vec<f32>> = model.decoder().nearest_words(&Tensor::cat(&asked, 0)?)?.to_vec2()?;
    let mut scores = scores.into_iter();
    let of_step = |step: &Step| match step.words {
        0 => Vec::new(),
        words => best(model, &scores.next().unwrap_or_default(), words),
    };
    Ok(steps.iter().map(of_step).collect())
}

/// The words with the highest scores `[V]`, best first.
pub(crate) fn best(model: &dyn Speaking, scores: &[f32], count: usize) -> Vec<Word> {
    let mut order: Vec<usize> = (model.manner().first_word as usize..scores.len()).collect();
    let better = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    // The few best, without sorting the whole vocabulary.
    if count > 0 && count < order.len() {
        order.select_nth_unstable_by(count - 1, better);
    }
    order.truncate(count);
    order.sort_unstable_by(better);
    order.into_iter().map(|id| Word { text: model.word(id as u32), score: scores[id] }).collect()
}

pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = logits.iter().map(|x| (x - highest).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// Refuses NaN and infinity.
pub(crate) fn finite(what: &'static str, got: f32) -> Result<f32> {
    if got.is_finite() { Ok(got) } else { Err(Error::NotFinite { what, got }) }
}
