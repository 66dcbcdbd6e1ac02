//! What training adds to a pretrained model, as a folder beside it: it leaves the base as it was published.
//!
//! | file | |
//! |---|---|
//! | `lare_config.json` | [`Settings`]: the base, the latent step, the low-rank changes |
//! | `lare.safetensors` | `refocus.*`, `semantic.*` where its settings are there, and `NAME.lora_a` and `NAME.lora_b` of every changed matrix |
//!
//! An adapter fits the base that it was trained on and no other: another model of the same shapes would take it without
//! a complaint and answer nonsense. So the base is known by a fingerprint of its weights.

use crate::config::{Heads, Refocus};
use crate::nn::{Part, Weight};
use crate::pretrained::{Architecture, Holding, Pretrained};
use crate::weights::{Init, Loaded, Path as Module, Source};
use crate::{Error, Format, Lora, Refocused, Result};
use candle_core::{DType, Device, Tensor};
use lare_kernels::Matrix;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The settings' file in an adapter folder.
pub const SETTINGS: &str = "lare_config.json";
/// The weights' file in an adapter folder.
pub const WEIGHTS: &str = "lare.safetensors";
/// The form of these files.
const VERSION: u32 = 3;
/// The form that first had `semantic`.
const WITH_HEADS: u32 = 2;
/// Forms that are read: the first had no `semantic`, the second no `auto_steps`.
const READ: [u32; 3] = [1, WITH_HEADS, VERSION];

/// `lare_config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Of the form of the folder.
    pub version: u32,
    /// What it was trained on.
    pub base: Base,
    /// The latent step.
    pub refocus: Refocus,
    /// Which of the base's matrices are changed; none where only the latent step was trained.
    pub lora: Option<Lora>,
    /// What gave its thoughts a meaning in training, for training to go on from; answers need none of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semantic: Option<Heads>,
    /// The latent steps to take where nobody says how many, as many as it was trained with: its halting head was not trained. Left
    /// out: the head decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_steps: Option<usize>,
}

impl Settings {
    /// Of a latent step on this base; `version` is the lowest that says it all, so that what needs no more is read by older
    /// programs.
    #[must_use]
    pub fn new(base: Base, refocus: Refocus, lora: Option<Lora>, semantic: Option<Heads>) -> Self {
        let version = if semantic.is_some() { WITH_HEADS } else { 1 };
        Self { version, base, refocus, lora, semantic, auto_steps: None }
    }

    /// The same with so many latent steps where nobody says how many; `None`: the halting head decides.
    #[must_use]
    pub fn with_auto_steps(self, auto_steps: Option<usize>) -> Self {
        let version = if auto_steps.is_some() { VERSION } else { self.version };
        Self { version, auto_steps, ..self }
    }
}

/// A base, so that it is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The name of its folder, or `owner/name`; for people.
    pub name: String,
    /// `model_type`.
    pub family: String,
    /// [`crate::pretrained::checkpoint::Checkpoint::fingerprint`] of its weights.
    pub fingerprint: String,
}

impl Base {
    /// What a folder holds. `name` is what people know it by.
    ///
    /// # Errors
    /// For a folder that cannot be loaded.
    pub fn of(folder: &Path, name: &str) -> Result<Self> {
        let family = Architecture::from_folder(folder)?.family;
        Ok(Self { name: name.into(), family, fingerprint: Pretrained::fingerprint(folder)? })
    }
}

/// An adapter, read.
pub struct Adapter {
    /// What it is.
    pub settings: Settings,
    pub(crate) folder: PathBuf,
    pub(crate) weights: Loaded,
}

impl Adapter {
    /// Reads a folder.
    ///
    /// # Errors
    /// Names the file, and the field or tensor that does not fit.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(SETTINGS);
        let text = fs::read_to_string(&path).map_err(|e| unreadable(&path, &e))?;
        let settings = settings(&text, &path.display().to_string())?;
        let path = folder.join(WEIGHTS);
        let bytes = fs::read(&path).map_err(|e| unreadable(&path, &e))?;
        let weights = Loaded::from_bytes(&bytes, &path.display().to_string(), &Device::Cpu)?;
        Ok(Self { settings, folder: folder.into(), weights })
    }

    /// SHA-256 of its weights, in hex.
    #[must_use]
    pub fn hash(&self) -> &str {
        self.weights.hash()
    }

    /// Refuses a base that it was not trained on.
    pub(crate) fn refuse_other_base(&self, folder: &Path) -> Result<()> {
        let expected = &self.settings.base;
        let got = Base::of(folder, &folder.display().to_string())?;
        if (&got.family, &got.fingerprint) == (&expected.family, &expected.fingerprint) {
            return Ok(());
        }
        Err(Error::OtherBase { adapter: self.folder.clone(), expected: Box::new(expected.clone()), got: Box::new(got) })
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let hint = format!("an adapter folder holds {SETTINGS} and {WEIGHTS}, as `lare train` writes them");
    Error::Read { path: path.into(), reason: error.to_string(), hint }
}

fn settings(text: &str, file: &str) -> Result<Settings> {
    let syntax = |e: serde_json::Error| Error::ConfigSyntax { file: file.into(), reason: e.to_string() };
    let fault = |field: String, expected: String, got: String| {
        let hint = "take the file as it was written, or a newer lare".into();
        Error::Config { file: file.into(), field, expected, got, hint }
    };
    let value: serde_json::Value = serde_json::from_str(text).map_err(syntax)?;
    let version = value.get("version").map_or_else(|| "none".into(), ToString::to_string);
    if !READ.iter().any(|read| version == read.to_string()) {
        return Err(fault("version".into(), format!("one of {READ:?}"), version));
    }
    let settings: Settings = serde_json::from_value(value).map_err(syntax)?;
    if let Some(steps) = settings.auto_steps.filter(|steps| *steps > settings.refocus.max_steps) {
        let expected = format!("at most {}, its refocus.max_steps", settings.refocus.max_steps);
        return Err(fault("auto_steps".into(), expected, steps.to_string()));
    }
    let of_heads = || settings.semantic.as_ref().and_then(Heads::fault);
    match settings.refocus.fault().or_else(of_heads) {
        None => Ok(settings),
        Some((field, expected, got)) => Err(fault(field.into(), expected.into(), got)),
    }
}

/// Writes an adapter folder, which is made if need be; each file is whole or not there. Tensors are named as the model
/// asks for them.
///
/// # Errors
/// [`Error::Write`] with the file.
pub fn write(folder: &Path, settings: &Settings, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let failed = |path: &Path, reason: String| Error::Write { path: path.into(), reason };
    fs::create_dir_all(folder).map_err(|e| failed(folder, e.to_string()))?;
    let file = folder.join(SETTINGS);
    let text = serde_json::to_string_pretty(settings).map_err(|e| failed(&file, e.to_string()))?;
    let whole = |path: &Path, put: &dyn Fn(&Path) -> std::result::Result<(), String>| {
        let partial = path.with_extension("partial");
        let done = put(&partial).and_then(|()| fs::rename(&partial, path).map_err(|e| e.to_string()));
        done.map_err(|reason| {
            drop(fs::remove_file(&partial)); // there may be none
            failed(path, reason)
        })
    };
    // The settings last: a folder without them is no adapter yet.
    whole(&folder.join(WEIGHTS), &|path| {
        safetensors::serialize_to_file(tensors, None, path).map_err(|e| e.to_string())
    })?;
    whole(&file, &|path| fs::write(path, &text).map_err(|e| e.to_string()))
}

/// The latent step's parameters beside a quantised base: matrices in bf16. A latent step reads them all, and beside Q4_K an LQ-Former in
/// f32 is a quarter of the time.
struct Narrow<'a>(&'a Loaded);

impl Source for Narrow<'_> {
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.0.tensor(name, shape, init)
    }

    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, init: Init) -> Result<Weight> {
        let rows = parts.iter().map(|part| part.rows).sum();
        let tensor = self.tensor(name, &[rows, inputs], init)?;
        Ok(Matrix::from_tensor(&tensor.to_dtype(DType::BF16)?)?.into())
    }
}

impl Refocused {
    /// Loads a base with an adapter; `holding` as for [`Pretrained::from_folder`]. The adapter stays in f32, but for the matrices of the
    /// latent step beside a base that is quantised, which are rounded to bf16.
    ///
    /// # Errors
    /// [`Error::OtherBase`] for a base that the adapter was not trained on; names the file, and the field or tensor that
    /// does not fit.
    pub fn from_folder(base: &Path, holding: impl Into<Holding>, adapter: &Adapter) -> Result<Self> {
        adapter.refuse_other_base(base)?;
        let (holding, weights) = (holding.into(), &adapter.weights);
        let pretrained = match &adapter.settings.lora {
            Some(lora) => Pretrained::adapted(base, holding.clone(), lora, weights)?,
            None => Pretrained::from_folder(base, holding.clone())?,
        };
        let quantised = matches!(holding.format, Some(Format::Q8_0 | Format::Q4K));
        let step: &dyn Source = if quantised { &Narrow(weights) } else { weights };
        let settings = &adapter.settings.refocus;
        let mut refocused = holding.placing(step, |step| Self::new(pretrained, settings, Module::root(step)))?;
        if let Some(heads) = &adapter.settings.semantic {
            refocused = holding.placing(weights, |weights| refocused.with_heads(heads, Module::root(weights)))?;
        }
        weights.refuse_extra()?;
        Ok(refocused)
    }
}
