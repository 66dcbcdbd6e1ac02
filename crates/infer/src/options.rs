//! How a question is answered: steps, sampling, length. What cannot be is refused before anything is computed.

use crate::model::Speaking;
use crate::sampler::Sampling;
use crate::{Error, Result};

/// When a row stops thinking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Steps {
    /// After so many latent steps; 0 is the plain model.
    Fixed(usize),
    /// As soon as the halting head's probability reaches the threshold, or at `refocus.max_steps`.
    Auto {
        /// 0 never looks again; 1 takes all steps unless the head is certain.
        threshold: f32,
    },
}

/// How one question is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// When it stops thinking.
    pub steps: Steps,
    /// How its tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens of the answer's words, steps that are said before them and their `</think>` included; clamped to the
    /// context that is left.
    pub max_tokens: usize,
    /// Vocabulary entries to report near each thought.
    pub nearest_words: usize,
}

impl Default for Options {
    /// Stops when the model thinks it is done, says the most likely words, reports five words a thought.
    fn default() -> Self {
        Self { steps: Steps::Auto { threshold: 0.5 }, sampling: Sampling::default(), max_tokens: 64, nearest_words: 5 }
    }
}

impl Options {
    /// Refuses what cannot be.
    pub(crate) fn check(&self, model: &dyn Speaking) -> Result<()> {
        let (most, s) = (most_steps(model), &self.sampling);
        let fail = |field, expected: String, got: String, hint| Err(Error::Option { field, expected, got, hint });
        match self.steps {
            Steps::Fixed(steps) if steps > 0 && model.refocus().is_none() => {
                let expected = "0: a model as it was published answers without latent steps".into();
                return fail("steps", expected, steps.to_string(), "leave it out, or give the model an adapter");
            }
            Steps::Fixed(steps) if steps > most => {
                let hint = "more steps than were trained mean nothing";
                let expected = format!("0 to {most}, the {}'s refocus.max_steps", model.taught());
                return fail("steps", expected, steps.to_string(), hint);
            }
            Steps::Auto { threshold } if !(0.0..=1.0).contains(&threshold) => {
                return fail("halt-threshold", "0 to 1".into(), threshold.to_string(), "0.5 is the usual threshold");
            }
            _ => {}
        }
        if !(s.temperature.is_finite() && s.temperature >= 0.0) {
            return fail("temperature", "0 or more".into(), s.temperature.to_string(), "0 takes the most likely words");
        }
        if !(s.top_p > 0.0 && s.top_p <= 1.0) {
            return fail("top-p", "above 0, at most 1".into(), s.top_p.to_string(), "1 draws among all tokens");
        }
        if self.max_tokens == 0 {
            return fail("max-tokens", "at least 1".into(), "0".into(), "an answer takes a token or two");
        }
        Ok(())
    }

    /// Most latent steps under these options.
    pub(crate) fn most_steps(&self, model: &dyn Speaking) -> usize {
        match self.steps {
            Steps::Fixed(steps) => steps,
            Steps::Auto { .. } => most_steps(model),
        }
    }
}

/// Most latent steps that a model was taught to take.
pub(crate) fn most_steps(model: &dyn Speaking) -> usize {
    model.refocus().map_or(0, |refocus| refocus.settings().max_steps)
}
