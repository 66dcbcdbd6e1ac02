//! From an answer to the record that a trace keeps of it.

use crate::draw::Drawing;
use crate::generator::{Said, Thought};
use crate::places::Places;
use crate::{Answer, Assistant, Options, Sampling, Steps};
use lare_data::Picture;
use lare_trace::{InputInfo, ModelInfo, OptionsInfo, Record, SCHEMA, SmallPicture, StepRecord, Usage};

/// What answered, with its version.
const PROGRAM: &str = concat!("lare ", env!("CARGO_PKG_VERSION"));

/// What was asked, as far as the answer itself does not know it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The original picture, upright.
    pub picture: &'a Picture,
    /// SHA-256 of its file, in hex; see [`crate::load::sha256`].
    pub picture_hash: &'a str,
    /// The question, word for word.
    pub question: &'a str,
    /// How it was to be answered.
    pub options: Options,
}

/// The record of an answer of a pretrained model about one picture. `model` says which, `places` how its image tokens lie on
/// the picture.
#[must_use]
pub fn of_pretrained(model: ModelInfo, asked: &Asked, said: &Said, places: &Places) -> Record {
    let step = |(index, thought): (usize, &Thought)| StepRecord {
        index,
        weights: places.weights(&thought.scores),
        selected: places.selected(&thought.chosen),
        named_words: Vec::new(),
        nearest_words: thought.nearest.clone(),
        gate_mean: thought.gate_mean,
        halt_probability: thought.halt_probability,
        latent_norm: thought.latent_norm,
        time_ms: thought.time_ms,
        region: None,
        thought_picture: None,
    };
    let steps: Vec<StepRecord> = said.thoughts.iter().enumerate().map(step).collect();
    let read: usize = steps.iter().map(|step| step.selected.len()).sum();
    let appended = said.appended_tokens > 0;
    let usage = Usage {
        text_tokens: said.tokens.len(),
        latent_steps: steps.len(),
        refocused_visual_tokens: if appended { 0 } else { read * places.grid.fine_per_cell },
        appended_visual_tokens: if appended { read } else { 0 },
        // The last token is said and not read again.
        processed_positions: said.prompt_tokens
            + steps.len()
            + said.appended_tokens
            + said.tokens.len().saturating_sub(1),
    };
    Record {
        schema: SCHEMA,
        program: PROGRAM.to_owned(),
        model,
        input: input(asked),
        grid: places.grid,
        steps,
        answer: said.text.clone(),
        usage,
        timing_ms: said.timing,
    }
}

/// The record of one answer. `drawings` has a picture for each look, or none at all.
#[must_use]
pub fn record(assistant: &Assistant, asked: &Asked, answer: &Answer, drawings: &[Drawing]) -> Record {
    let steps = answer.looks.iter().enumerate().map(|(index, look)| StepRecord {
        index,
        weights: look.scores.clone(),
        selected: look.chosen.clone(),
        named_words: look.named.clone(),
        nearest_words: look.nearest.clone(),
        gate_mean: look.gate_mean,
        halt_probability: look.halt_probability,
        latent_norm: look.latent_norm,
        time_ms: look.time_ms,
        region: None,
        thought_picture: drawings.get(index).map(|d| SmallPicture {
            width: d.side as u32,
            height: d.side as u32,
            rgb: d.rgb.clone(),
        }),
    });
    Record {
        schema: SCHEMA,
        program: PROGRAM.to_owned(),
        model: ModelInfo {
            name: assistant.name().to_owned(),
            config_hash: assistant.config_hash.clone(),
            weights_hash: assistant.weights_hash.clone(),
        },
        input: input(asked),
        grid: answer.grid,
        steps: steps.collect(),
        answer: answer.text.clone(),
        usage: answer.usage,
        timing_ms: answer.timing,
    }
}

fn input(asked: &Asked) -> InputInfo {
    InputInfo {
        picture_hash: asked.picture_hash.to_owned(),
        width: asked.picture.width as u32,
        height: asked.picture.height as u32,
        question: asked.question.to_owned(),
        seed: asked.options.sampling.seed,
        options: options(&asked.options),
    }
}

fn options(options: &Options) -> OptionsInfo {
    let (steps, halt_threshold) = match options.steps {
        Steps::Fixed(steps) => (Some(steps), None),
        Steps::Auto { threshold } => (None, Some(threshold)),
    };
    let Sampling { temperature, top_p, seed: _ } = options.sampling;
    OptionsInfo { steps, halt_threshold, temperature, top_p, max_tokens: options.max_tokens }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Question, draw, session, tiny};

    #[test]
    fn the_record_of_an_answer_is_valid_for_every_shape_of_picture() {
        let options = Options { steps: Steps::Fixed(3), ..Options::default() };
        let shapes = [(192, 192), (256, 130), (1, 1), (2000, 40), (333, 777)];
        let (assistant, spliced) = (tiny::assistant(), tiny::spliced());
        let cases = shapes.map(|shape| (&assistant, shape)).into_iter().chain([(&spliced, (256, 130))]);
        for (assistant, (width, height)) in cases {
            let picture = tiny::picture(width, height, 1);
            let batch = Batch { pictures: &[&picture], questions: &[Question::new(0, "cat", options)] };
            let answers = session::answer(assistant, &batch, &mut |_| ()).unwrap();
            let thoughts: Vec<&[f32]> = answers[0].looks.iter().map(|l| &l.thought[..]).collect();
            let drawings = draw::thoughts(assistant, &thoughts, 0).unwrap();
            let asked = Asked { picture: &picture, picture_hash: "00", question: "cat", options };
            let record = record(assistant, &asked, &answers[0], &drawings);
            record.validate().unwrap_or_else(|e| panic!("{width} x {height}: {e}"));
            assert!(record.steps.iter().all(|s| s.thought_picture.is_some()));
        }
    }
}
