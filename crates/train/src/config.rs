//! One strict file, one run. Unknown keys are errors; the resolved config is saved beside the weights.

use crate::{Error, Result};
use lare_data::Task;
use lare_data::examples::{Format, Reading, Unit};
use lare_model::Lora;
use lare_model::config::{Heads, Refocus};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the names of the halting head's parameters begin with.
pub(crate) const HALTING_HEAD: &str = "refocus.halt.";

/// A training run: of the nano model, with `model`, or of what is added to a pretrained one, with `base`, `refocus` and, where
/// wanted, `lora` and `semantic`.
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
    /// The architecture of the nano model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<lare_model::Config>,
    /// The pretrained model that a latent step is added to; it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// The latent step of a pretrained model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refocus: Option<Refocus>,
    /// Low-rank changes to matrices of a pretrained model; none of them changes where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// What gives the thoughts of a pretrained model a meaning; without it there are no terms `align`, `rec` and `read`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semantic: Option<Heads>,
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

/// A pretrained model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The path of its Hugging Face folder, or `owner/name` in the cache.
    pub model: String,
    /// Number type of its matrices while they are trained on. An adapter is for the matrices as they are stored; another type
    /// costs the exactness that it costs, and takes the memory that it takes.
    #[serde(default)]
    pub dtype: Dtype,
}

/// Number types of frozen matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// As the files have them, mapped.
    #[default]
    Stored,
    /// 4 bytes a number.
    F32,
    /// 2 bytes.
    F16,
    /// 2 bytes, with the range of f32.
    Bf16,
    /// About 1.06 bytes.
    Q8_0,
    /// About 0.56 bytes.
    Q4K,
}

impl Dtype {
    /// What matrices are converted to; `None`: they stay as they are.
    #[must_use]
    pub fn format(self) -> Option<lare_model::Format> {
        use lare_model::Format;
        match self {
            Self::Stored => None,
            Self::F32 => Some(Format::F32),
            Self::F16 => Some(Format::F16),
            Self::Bf16 => Some(Format::Bf16),
            Self::Q8_0 => Some(Format::Q8_0),
            Self::Q4K => Some(Format::Q4K),
        }
    }
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

/// How batches are made: of the suite, which is drawn while it is trained on, or of `files`. While the encoders are frozen, a
/// block of pictures is drawn and encoded once and its features serve several batches with fresh questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Questions on each picture of a batch; 1 for files.
    pub questions_per_picture: usize,
    /// Batches in a block; 1 for files.
    pub batches_per_block: usize,
    /// How often a block is gone through, each time with other questions; 1 for files.
    pub passes_per_block: usize,
    /// Samples of files, for a pretrained model; none: the suite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Files>,
    /// Most tokens of a prompt with its latent steps and its answer, for a pretrained model; a longer sample of a file is left
    /// out and reported. By default what the model was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// Memory for what a pretrained model's vision tower saw in pictures, in MiB; by default 1024. What does not fit is
    /// computed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features_mib: Option<usize>,
}

/// Samples in files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// How they are laid out; by default as their content says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FileFormat>,
    /// A file, a folder of parquet files or of tar archives, or several files as `train-{000..015}.tar`.
    pub file: PathBuf,
    /// The folder that names of pictures in it start from; by default the one that a file lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<PathBuf>,
    /// What the numbers of regions count where a sample does not say it. By default numbers above 1 are pixels, and numbers up to
    /// 1, some of them between 0 and 1, shares of the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bbox_format: Option<BoxFormat>,
    /// What is asked where a sample has an answer and no question, as captions have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// Whether the samples are for validation and never trained on.
    #[serde(default)]
    pub validation: bool,
}

impl Files {
    /// The same as the files' reader takes it.
    #[must_use]
    pub fn reading(&self) -> Reading {
        Reading {
            format: self.format.map(FileFormat::format),
            pictures: self.pictures.clone(),
            boxes: self.bbox_format.map(BoxFormat::unit),
            question: self.question.clone(),
        }
    }
}

/// Layouts of files with samples; docs/data.md has an example of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// LLaVA's JSON: `image`, `conversations` and, optionally, `bboxes` and `rationale`.
    Llava,
    /// ShareGPT's JSON, which is the same: `conversations` of `from` and `value`.
    Sharegpt,
    /// JSON with `messages` of `role` and `content`, whose parts are text and pictures.
    Messages,
    /// JSON with `question`, `answer` and, optionally, `choices` and `steps`, as `lare make-data --format folder` writes it.
    Questions,
    /// Hugging Face's parquet files, with the keys of any of these as columns and pictures inside.
    Parquet,
    /// WebDataset's tar archives of `KEY.json`, `KEY.txt`, `KEY.jpg`.
    Webdataset,
}

impl FileFormat {
    fn format(self) -> Format {
        match self {
            Self::Llava => Format::Llava,
            Self::Sharegpt => Format::Sharegpt,
            Self::Messages => Format::Messages,
            Self::Questions => Format::Questions,
            Self::Parquet => Format::Parquet,
            Self::Webdataset => Format::Webdataset,
        }
    }
}

/// What the numbers of regions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxFormat {
    /// Pixels of the first picture.
    Pixels,
    /// Shares of its width and height, 0 to 1.
    Normalised,
    /// Thousandths of its width and height, 0 to 1000.
    Thousandths,
}

impl BoxFormat {
    fn unit(self) -> Unit {
        match self {
            Self::Pixels => Unit::Pixels,
            Self::Normalised => Unit::Normalised,
            Self::Thousandths => Unit::Thousandths,
        }
    }
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
    /// Prefixes of the parameters that change; the others are frozen. Those of a pretrained model never change, what is added to
    /// it does: `refocus.`, `semantic.` and, with `lora`, `language.`.
    pub train: Vec<String>,
    /// Factors on the rate by prefix of the parameter's name; the longest prefix counts.
    pub rate_scale: BTreeMap<String, f64>,
    /// Pictures of one batch; of files, samples.
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
    /// Kinds of batches; each batch is of one kind, so that its rows take similar numbers of steps. None where the data is files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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

impl Config {
    /// Reads and checks a run config. `file` names it in errors.
    pub fn from_toml(text: &str, file: &str) -> Result<Self> {
        let syntax = |e: toml::de::Error| Error::ConfigSyntax { file: file.into(), reason: e.to_string() };
        let config: Self = toml::from_str(text).map_err(syntax)?;
        config.check(file)?;
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

    /// Whether a stage teaches the model when to stop thinking. One that has learned to think and not to stop would stop before
    /// the first step where nobody says how many.
    #[must_use]
    pub fn teaches_halting(&self) -> bool {
        self.stages.iter().any(|stage| {
            let changes = stage
                .train
                .iter()
                .any(|prefix| HALTING_HEAD.starts_with(prefix.as_str()) || prefix.starts_with(HALTING_HEAD));
            changes && stage.loss.halt > 0.0 && stage.objective != Objective::Read
        })
    }

    /// The latent steps of the last stage that has some.
    #[must_use]
    pub fn last_latent_steps(&self) -> usize {
        self.stages.iter().rev().map(|stage| stage.latent_steps).find(|steps| *steps > 0).unwrap_or(0)
    }

    /// The architecture of the nano model.
    ///
    /// # Errors
    /// [`Error::Config`] where the run is of a pretrained model.
    pub fn nano(&self) -> Result<&lare_model::Config> {
        self.model.as_ref().ok_or_else(|| self.without("model"))
    }

    /// The latent step, of either kind of model.
    ///
    /// # Errors
    /// [`Error::Config`] where there is none.
    pub fn latent_step(&self) -> Result<&Refocus> {
        let of_nano = self.model.as_ref().map(|model| &model.refocus);
        of_nano.or(self.refocus.as_ref()).ok_or_else(|| self.without("refocus"))
    }

    /// Refuses a field that is not there and is needed.
    pub(crate) fn without(&self, field: &str) -> Error {
        let (file, expected) = (self.name.clone(), "`[model]`, or `[base]` with `[refocus]`".into());
        Error::Config { file, field: field.into(), expected, got: "none".into() }
    }
}
