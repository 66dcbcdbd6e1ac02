//! What one latent step saw and thought, read out of the tensors.

use crate::{Assistant, Error, Result};
use lare_data::tokenizer::END;
use lare_model::reasoning::Scene;
use lare_model::{Reasoning, Thread};
use lare_trace::Word;

/// One latent step of one question.
#[derive(Clone, Debug, PartialEq)]
pub struct LookReport {
    /// Where it looked, `[rows * cols]` of the picture's own grid; sums to 1.
    pub scores: Vec<f32>,
    /// The patches that it read again, best first.
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

/// The halting head of every row, now.
pub(crate) fn halt_probabilities(assistant: &Assistant, thread: &Thread) -> Result<Vec<f32>> {
    let logits: Vec<f32> = assistant.reasoner.halt_logits(thread)?.to_vec1()?;
    logits.iter().map(|x| finite("a halting probability", 1.0 / (1.0 + (-x).exp()))).collect()
}

/// One latent step of all rows, as numbers.
pub(crate) struct Step<'a> {
    scores: Vec<Vec<f32>>,
    chosen: &'a [Vec<u32>],
    cells: Vec<usize>,
    gate_mean: Vec<f32>,
    halt: &'a [f32],
    thoughts: Vec<Vec<f32>>,
    nearest: Vec<Vec<f32>>,
    named: Vec<Vec<Vec<f32>>>,
    embedding_rms: f64,
    time_ms: f64,
}

impl<'a> Step<'a> {
    /// Reads the newest step of a thread.
    pub(crate) fn read(
        assistant: &Assistant,
        scene: &Scene,
        thread: &'a Thread,
        halt: &'a [f32],
        time_ms: f64,
    ) -> Result<Self> {
        let reasoner = &assistant.reasoner;
        let Some(focus) = thread.steps.last() else {
            let (expected, got) = ("a step".into(), "none".into());
            return Err(lare_model::Error::Arguments { what: "steps taken", expected, got }.into());
        };
        let language = &reasoner.backbone.language;
        let pictures = thread.cache.slots.shared_of_row();
        Ok(Self {
            scores: focus.log_scores.exp()?.to_vec2()?,
            chosen: &focus.chosen,
            cells: pictures
                .iter()
                .map(|p| scene.look.grids[*p as usize].iter().map(|grid| grid.cells()).sum())
                .collect(),
            gate_mean: focus.gate_mean.to_vec1()?,
            halt,
            thoughts: focus.thought.to_vec2()?,
            nearest: reasoner.nearest_words(focus.holds())?.to_vec2()?,
            named: reasoner.semantic.words(focus.holds(), language.embedding())?.to_vec3()?,
            embedding_rms: language.embedding_rms()?,
            time_ms,
        })
    }

    /// What it was for one row.
    pub(crate) fn report(&self, assistant: &Assistant, row: usize, words: usize) -> Result<LookReport> {
        let thought = self.thoughts[row].clone();
        let norm = thought.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() * self.embedding_rms;
        let mut scores = self.scores[row].clone();
        scores.truncate(self.cells[row]); // the rest is padding to the batch's largest picture
        let named = self.named[row].iter().flat_map(|logits| best_words(assistant, &softmax(logits), 1));
        Ok(LookReport {
            scores,
            chosen: self.chosen[row].iter().map(|p| *p as usize).collect(),
            nearest: best_words(assistant, &self.nearest[row], words),
            named: named.collect(),
            gate_mean: finite("a gate", self.gate_mean[row])?,
            halt_probability: self.halt[row],
            latent_norm: finite("a thought", norm as f32)?,
            thought,
            time_ms: self.time_ms,
        })
    }
}

/// The entries with the highest scores, markers left out.
fn best_words(assistant: &Assistant, scores: &[f32], count: usize) -> Vec<Word> {
    let mut order: Vec<usize> = (END as usize + 1..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let text = |id: usize| assistant.tokenizer.word(id as u32).unwrap_or_default().to_owned();
    order.into_iter().take(count).map(|id| Word { text: text(id), score: scores[id] }).collect()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = logits.iter().map(|x| (x - highest).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// Refuses NaN and infinity.
pub(crate) fn finite(what: &'static str, got: f32) -> Result<f32> {
    if got.is_finite() { Ok(got) } else { Err(Error::NotFinite { what, got }) }
}
