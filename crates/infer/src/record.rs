//! From an answer to the record that a trace keeps of it.

use crate::draw::Drawing;
use crate::generator::Said;
use crate::places::{Places, on_cells};
use crate::{Answer, LookReport, Options, Sampling, Steps};
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
    let looks = said.looks.iter().map(|look| on_cells(std::slice::from_ref(places), look.clone()));
    let steps: Vec<StepRecord> = looks.enumerate().map(|(index, look)| step(index, &look)).collect();
    let usage = usage_of(&steps, &said.looks, said.usage, places);
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

/// The usage of an answer as its steps have it: of SmolVLM's tokens, those without a cell of their own are left out.
fn usage_of(steps: &[StepRecord], looks: &[LookReport], usage: Usage, places: &Places) -> Usage {
    let selected = steps.iter().map(|step| step.selected.len()).sum::<usize>();
    if selected == looks.iter().map(|look| look.chosen.len()).sum::<usize>() {
        return usage;
    }
    let read = selected * places.grid.fine_per_cell;
    let (refocused_visual_tokens, appended_visual_tokens) =
        if usage.appended_visual_tokens > 0 { (0, read) } else { (read, 0) };
    Usage { refocused_visual_tokens, appended_visual_tokens, ..usage }
}

/// The record of one answer of `model`. `drawings` has a picture for each look, or none at all.
#[must_use]
pub fn record(model: ModelInfo, asked: &Asked, answer: &Answer, drawings: &[Drawing]) -> Record {
    let drawn = |index: usize| {
        drawings.get(index).map(|d| SmallPicture { width: d.side as u32, height: d.side as u32, rgb: d.rgb.clone() })
    };
    let looks = answer.looks_on_cells().into_iter().enumerate();
    let steps = looks.map(|(index, look)| StepRecord { thought_picture: drawn(index), ..step(index, &look) });
    let steps: Vec<StepRecord> = steps.collect();
    Record {
        schema: SCHEMA,
        program: PROGRAM.to_owned(),
        model,
        input: input(asked),
        grid: answer.grid,
        usage: usage_of(&steps, &answer.looks, answer.usage, &answer.places),
        steps,
        answer: answer.text.clone(),
        timing_ms: answer.timing,
    }
}

/// A look at cells, without its drawing.
fn step(index: usize, look: &LookReport) -> StepRecord {
    StepRecord {
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
        thought_picture: None,
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
            let record = record(assistant.identity(), &asked, &answers[0], &drawings);
            record.validate().unwrap_or_else(|e| panic!("{width} x {height}: {e}"));
            assert!(record.steps.iter().all(|s| s.thought_picture.is_some()));
        }
    }
}
