//! One strict file, one run. Unknown keys are errors; the resolved config is saved beside the weights.

use crate::{Error, Result};
use lare_data::Task;
use lare_model::config::Scorer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Names the run's folder.
    pub name: String,
    /// Everything random follows from it.
    pub seed: u64,
    /// Steps between two checkpoints.
    pub checkpoint_every_steps: usize,
    /// Steps between two lines of metrics.
    pub log_every_steps: usize,
    /// Steps between two validations.
    pub validate_every_steps: usize,
    /// Pictures of the validation, per mix of the stage.
    pub validation_pictures: usize,
    /// How exact matrix products are.
    #[serde(default)]
    pub precision: Precision,
    /// The architecture.
    pub model: lare_model::Config,
    /// How weights change.
    pub optimizer: Optimizer,
    /// How batches are made.
    pub data: Data,
    /// What is trained, on what, in order.
    pub stages: Vec<Stage>,
}

/// How exact the matrix products of a run are. What lies between them, weights and sums are f32 in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// As exact as the rest.
    #[default]
    F32,
    /// Operands rounded to bf16, on CPUs with instructions for it (AMX, AVX-512 BF16): a step is about 2.5 times as fast.
    Bf16,
}

/// AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay of matrices; vectors are not decayed.
    pub weight_decay: f64,
    /// Joint gradient norm above which gradients are scaled down.
    pub clip_norm: f64,
    /// Decay of the averaged weights, which are what is validated and shipped.
    pub ema_decay: f64,
}

/// How batches are made. While the encoders are frozen, a block of pictures is drawn and encoded once and its
/// features serve several batches with fresh questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Questions on each picture of a batch.
    pub questions_per_picture: usize,
    /// Batches in a block.
    pub batches_per_block: usize,
    /// How often a block is gone through, each time with other questions.
    pub passes_per_block: usize,
}

/// What a stage optimises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The encoders alone: name letters, digits, kinds and colours at known places.
    Read,
    /// The whole loss of METHOD section 4.
    Reason,
    /// The halting head alone.
    Halt,
}

/// How the learning rate ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// It stays.
    Constant,
    /// A half cosine to a hundredth.
    Cosine,
}

/// One stage of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Shown in metrics and progress.
    pub name: String,
    /// What is optimised.
    pub objective: Objective,
    /// Optimiser steps.
    pub steps: usize,
    /// Steps in which the rate rises from nothing.
    pub warmup_steps: usize,
    /// Learning rate after the warm-up.
    pub rate: f64,
    /// How it ends.
    pub decay: Decay,
    /// Prefixes of the parameters that change; the others are frozen.
    pub train: Vec<String>,
    /// Factors on the rate by prefix of the parameter's name; the longest prefix counts.
    pub rate_scale: BTreeMap<String, f64>,
    /// Pictures of one batch.
    pub pictures_per_batch: usize,
    /// Batches whose gradients are summed before a step; they are computed side by side, one core each.
    pub accumulate: usize,
    /// Latent steps in place of the rationale: the first so many steps of each rationale, at most all.
    pub latent_steps: usize,
    /// A row takes up to so many latent steps more than that, as many as the dice say and the model has: the answer is to survive
    /// them and the halting head to stop before. Nothing else is asked of them. Validation takes none.
    #[serde(default)]
    pub spare_steps: usize,
    /// Whether the steps of the rationale that are not latent are said as text before the answer.
    pub say_rest: bool,
    /// Weights of the terms.
    pub loss: LossWeights,
    /// Kinds of batches; each batch is of one kind, so that its rows take similar numbers of steps.
    pub mix: Vec<Mix>,
}

/// One kind of batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// Share of the batches, relative to the others.
    pub share: f64,
    /// Fewest and most looks of a question.
    pub looks: [usize; 2],
    /// Tasks and how often each is wanted, relative to the others. None: pages of tags, for the objective `read`.
    pub tasks: BTreeMap<Task, f32>,
    /// Of a task listed here only these templates are asked, for a curriculum within a task: `compare = [0]` asks for
    /// the larger number alone. All templates of a task that is not listed.
    #[serde(default)]
    pub templates: BTreeMap<Task, Vec<usize>>,
    /// Questions asked of each picture in one pass, in place of `data.questions_per_picture`, with as many more pictures
    /// as keep the number of questions of a batch. A chart or a ladder has four questions and an odd one out has one:
    /// asked more often, answers are learned by heart.
    #[serde(default)]
    pub questions_per_picture: Option<usize>,
}

/// Weights of the terms of the loss; METHOD section 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossWeights {
    /// Cross-entropy of the answer, nats per token.
    pub answer: f64,
    /// Contrastive alignment of thoughts with pictures and texts.
    pub align: f64,
    /// Denoising of what a thought should hold.
    pub rec: f64,
    /// Cross-entropy of the scores against the true region.
    pub focus: f64,
    /// Cross-entropy of the halting head.
    pub halt: f64,
    /// Cross-entropy of the words that each thought should name.
    pub read: f64,
    /// Cross-entropy of the names of what stands in the picture, said by the coarse tokens.
    pub name: f64,
}

impl LossWeights {
    /// Refuses weights that are none, and a stage without a term to train on: the term, what is expected, and the weight.
    fn validate(&self, objective: Objective) -> std::result::Result<(), (&'static str, &'static str, f64)> {
        let Self { answer, align, rec, focus, halt, read, name } = *self;
        let all = [
            ("answer", answer),
            ("align", align),
            ("rec", rec),
            ("focus", focus),
            ("halt", halt),
            ("read", read),
            ("name", name),
        ];
        if let Some((term, weight)) = all.into_iter().find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0)) {
            return Err((term, "0 or more", weight));
        }
        let (term, weight) = match objective {
            Objective::Read => ("read", read),
            Objective::Halt => ("halt", halt),
            Objective::Reason => ("answer", all.iter().map(|(_, weight)| weight).sum()),
        };
        match weight > 0.0 {
            true => Ok(()),
            false => Err((term, "above 0: the stage would train nothing", weight)),
        }
    }
}

fn positive(x: f64) -> bool {
    x.is_finite() && x > 0.0
}

impl Config {
    /// Reads and checks a run config. `file` names it in errors.
    pub fn from_toml(text: &str, file: &str) -> Result<Self> {
        let syntax = |e: toml::de::Error| Error::ConfigSyntax { file: file.into(), reason: e.to_string() };
        let config: Self = toml::from_str(text).map_err(syntax)?;
        config.model.validate(file)?;
        config.validate(file)?;
        Ok(config)
    }

    /// The same config as text that [`Config::from_toml`] reads back.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::ConfigSyntax { file: "config".into(), reason: e.to_string() })
    }

    /// Pictures of one batch of this kind, and questions asked of each.
    pub fn batch_shape(&self, stage: &Stage, mix: &Mix) -> (usize, usize) {
        let usual = self.data.questions_per_picture;
        let questions = mix.questions_per_picture.unwrap_or(usual);
        (stage.pictures_per_batch * usual / questions.max(1), questions)
    }

    /// Steps of all stages.
    pub fn total_steps(&self) -> usize {
        self.stages.iter().map(|s| s.steps).sum()
    }

    fn validate(&self, file: &str) -> Result<()> {
        let fail = |field: String, expected: &str, got: String| {
            Err(Error::Config { file: file.into(), field, expected: expected.into(), got })
        };
        let counts = [
            ("checkpoint_every_steps", self.checkpoint_every_steps),
            ("log_every_steps", self.log_every_steps),
            ("validate_every_steps", self.validate_every_steps),
            ("data.questions_per_picture", self.data.questions_per_picture),
            ("data.batches_per_block", self.data.batches_per_block),
            ("data.passes_per_block", self.data.passes_per_block),
            ("stages", self.stages.len()),
        ];
        for (field, count) in counts {
            if count == 0 {
                return fail(field.into(), "at least 1", count.to_string());
            }
        }
        self.validate_numbers(file)?;
        self.stages.iter().enumerate().try_for_each(|(i, stage)| self.validate_stage(i, stage, file))
    }

    fn validate_numbers(&self, file: &str) -> Result<()> {
        let fail = |field: String, expected: &str, got: String| {
            Err(Error::Config { file: file.into(), field, expected: expected.into(), got })
        };
        let plain = |name: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !name.is_empty() && !name.starts_with('.') && name.chars().all(fits)
        };
        if !plain(&self.name) {
            return fail("name".into(), "letters, digits, `.`, `_`, `-`: it names a folder", self.name.clone());
        }
        let o = &self.optimizer;
        let decay = |x: f64| (0.0..1.0).contains(&x);
        let numbers = [
            ("beta1", o.beta1, decay(o.beta1), "0 to below 1"),
            ("beta2", o.beta2, decay(o.beta2), "0 to below 1"),
            ("ema_decay", o.ema_decay, decay(o.ema_decay), "0 to below 1"),
            ("eps", o.eps, positive(o.eps), "above 0"),
            ("clip_norm", o.clip_norm, positive(o.clip_norm), "above 0"),
            ("weight_decay", o.weight_decay, o.weight_decay.is_finite() && o.weight_decay >= 0.0, "0 or more"),
        ];
        for (name, value, fits, expected) in numbers {
            if !fits {
                return fail(format!("optimizer.{name}"), expected, value.to_string());
            }
        }
        Ok(())
    }

    fn validate_stage(&self, i: usize, stage: &Stage, file: &str) -> Result<()> {
        let fail = |field: String, expected: &str, got: String| {
            Err(Error::Config { file: file.into(), field, expected: expected.into(), got })
        };
        if !positive(stage.rate) {
            return fail(format!("stages[{i}].rate"), "above 0", stage.rate.to_string());
        }
        stage
            .loss
            .validate(stage.objective)
            .or_else(|(term, expected, got)| fail(format!("stages[{i}].loss.{term}"), expected, got.to_string()))?;
        let most = self.model.refocus.max_steps;
        let field = |name: &str| format!("stages[{i}].{name}");
        if stage.latent_steps > most {
            return fail(field("latent_steps"), "at most model.refocus.max_steps", stage.latent_steps.to_string());
        }
        if stage.say_rest && !self.model.language.says_steps {
            let expected = "false, or a model with model.language.says_steps = true: another never says a step";
            return fail(field("say_rest"), expected, "true".into());
        }
        let refocus = &self.model.refocus;
        if stage.loss.focus > 0.0 && !refocus.thinking.looks() && refocus.scorer == Scorer::DotProduct {
            let expected =
                "0: model.refocus.thinking is of a kind that does not look, and model.refocus.scorer is no attention";
            return fail(field("loss.focus"), expected, stage.loss.focus.to_string());
        }
        let counts = [
            ("steps", stage.steps),
            ("accumulate", stage.accumulate),
            ("pictures_per_batch", stage.pictures_per_batch),
        ];
        for (name, count) in counts {
            if count == 0 {
                return fail(field(name), "at least 1", "0".into());
            }
        }
        let usable = |m: &Mix| m.share > 0.0 && (!m.tasks.is_empty() || stage.objective == Objective::Read);
        if stage.mix.is_empty() || !stage.mix.iter().all(usable) {
            let expected =
                "at least one kind of batch, each with a share above 0 and tasks (none: pages, only to read)";
            return fail(field("mix"), expected, format!("{} kinds", stage.mix.len()));
        }
        let rows = stage.pictures_per_batch * self.data.questions_per_picture;
        let uneven = |questions: &usize| !rows.is_multiple_of(*questions);
        if let Some(questions) = stage.mix.iter().filter_map(|m| m.questions_per_picture).find(uneven) {
            let expected = format!("a divisor of the {rows} questions of a batch");
            return fail(field("mix.questions_per_picture"), &expected, questions.to_string());
        }
        if let Some(mix) = stage.mix.iter().find(|m| m.looks[0] < 1 || m.looks[1] < m.looks[0] || m.looks[1] > most) {
            return fail(
                field("mix.looks"),
                "1 <= fewest <= most <= model.refocus.max_steps",
                format!("{:?}", mix.looks),
            );
        }
        Ok(())
    }
}
