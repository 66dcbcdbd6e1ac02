//! `lare ask` with a Hugging Face folder: the model as it was published, which answers in text without latent steps, or with an
//! adapter, which thinks before.

use super::{Outcome, counted};
use crate::args::{Ask, StepCount};
use crate::failure::Failure;
use crate::files::{self, Source};
use crate::messages::{Messages, Report};
use crate::questions::Questions;
use lare_infer::generator::{Generation, Generator, Said, Thought, question};
use lare_infer::{Adapter, Sampling, Steps};
use serde_json::{Value, json};
use std::path::Path;

/// Whether the folder is one of Hugging Face's and not one of ours.
pub fn is_for(folder: &Path) -> bool {
    folder.join("config.json").is_file() && !folder.join("config.toml").is_file()
}

/// Answers.
pub fn run(ask: &Ask, folder: &Path, messages: &Messages) -> Result<Outcome, Failure> {
    refuse_what_needs_latents(ask)?;
    let questions = Questions::of(ask)?;
    let source = files::picture(&ask.picture)?;
    for note in &source.opened.notes {
        messages.warning(&format!("{}: {note}", source.name));
    }
    let format = ask.dtype.map(Into::into);
    let generator = match &ask.adapter {
        None => Generator::from_folder(folder, format)?,
        Some(adapter) => Generator::adapted(folder, format, &Adapter::open(adapter).map_err(lare_infer::Error::from)?)?,
    };
    let unused = &generator.base().unused;
    if !unused.is_empty() {
        let count = counted(unused.len(), "tensor");
        messages.warning(&format!("{count} of the folder are used by nothing, the first is {}", unused[0]));
    }
    let sampling = Sampling { temperature: ask.temperature, top_p: ask.top_p, seed: ask.seed };
    let steps = match ask.steps {
        StepCount::Fixed(steps) => Steps::Fixed(steps),
        StepCount::Auto => Steps::Auto { threshold: ask.halt_threshold },
    };
    let generation = Generation { steps, sampling, max_tokens: ask.max_tokens };
    for text in questions.texts() {
        let said = generator.answer(&[question(1, text)], &[&source.opened.picture], &generation, &mut |_| ())?;
        let family = &generator.base().architecture.family;
        let told = Told { family, source: &source, question: text, said: &said };
        if messages.wants_json() {
            messages.report(&told)?;
        } else {
            messages.result(&said.text)?;
            if questions.len() == 1 {
                messages.note(&cost(&said));
            }
        }
        if !said.ended {
            messages.warning("the answer was cut off: allow more tokens with --max-tokens");
        }
    }
    Ok(Outcome::Done)
}

/// A model as published takes no latent step, so there is nothing to count; looks of pretrained models are not drawn.
fn refuse_what_needs_latents(ask: &Ask) -> Result<(), Failure> {
    if matches!(ask.steps, StepCount::Fixed(steps) if steps > 0) && ask.adapter.is_none() {
        return Err(Failure::new("`--steps` needs a model that thinks in latent steps")
            .part("expected", "a model trained by `lare train`, or `--adapter DIR`")
            .part("got", "a Hugging Face folder, whose model answers at once")
            .hint("leave --steps out"));
    }
    match [(ask.looks.is_some(), "--looks"), (ask.trace.is_some(), "--trace")].into_iter().find(|(asked, _)| *asked) {
        None => Ok(()),
        Some((_, flag)) => Err(Failure::new(format!("`{flag}` draws the looks of models of `lare train` alone"))
            .part("expected", "a model folder of `lare train`")
            .part("got", "a Hugging Face folder")
            .hint(format!("leave {flag} out; `--json` has where each step looked"))),
    }
}

fn cost(said: &Said) -> String {
    let rate = said.tokens.len().saturating_sub(1) as f64 / said.rest.as_secs_f64().max(1e-9);
    format!(
        "{}, {} of them of the picture, {}, {}, first after {:.0} ms, then {rate:.1} tokens/s",
        counted(said.prompt_tokens, "prompt token"),
        said.image_tokens,
        counted(said.thoughts.len(), "latent step"),
        counted(said.tokens.len(), "text token"),
        said.first_token.as_secs_f64() * 1e3,
    )
}

fn thought(thought: &Thought) -> Value {
    json!({
        "scores": thought.scores,
        "chosen": thought.chosen,
        "gate_mean": thought.gate_mean,
        "halt_probability": thought.halt_probability,
    })
}

struct Told<'a> {
    family: &'a str,
    source: &'a Source,
    question: &'a str,
    said: &'a Said,
}

impl Report for Told<'_> {
    fn text(&self) -> String {
        self.said.text.clone()
    }

    fn json(&self) -> Value {
        let (said, picture) = (self.said, &self.source.opened.picture);
        json!({
            "question": self.question,
            "answer": said.text,
            "finish": if said.ended { "end" } else { "length" },
            "usage": {
                "prompt_tokens": said.prompt_tokens,
                "image_tokens": said.image_tokens,
                "text_tokens": said.tokens.len(),
                "latent_steps": said.thoughts.len(),
            },
            "steps": said.thoughts.iter().map(thought).collect::<Vec<_>>(),
            "timing_ms": {
                "first_token": said.first_token.as_secs_f64() * 1e3,
                "rest": said.rest.as_secs_f64() * 1e3,
            },
            "model": { "family": self.family },
            "picture": {
                "name": self.source.name,
                "width": picture.width,
                "height": picture.height,
                "hash": self.source.hash,
            },
        })
    }
}
