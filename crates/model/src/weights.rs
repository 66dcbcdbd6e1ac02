//! Named tensors: where parameters come from, and what happens when they do not fit.
//!
//! A model is built by asking a [`Source`] for each parameter by its module path. The same construction code
//! therefore lists the parameters ([`specifications`]), loads them ([`Loaded`]) and creates the variables of a
//! training run (in the `train` crate): names and shapes are written once.

use crate::nn::{Part, Weight};
use crate::{Config, Error, Reasoner, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// How a parameter starts when nothing is loaded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// One value.
    Constant(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Of a matrix `[O, I]` with `I` at most `O`: the identity in its first `I` rows, normal with this standard deviation below.
    Identity(f64),
}

/// One parameter: its module path, shape and start.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// For example `language.blocks.2.qkv.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
}

/// Gives parameters by name.
pub trait Source {
    /// The parameter `name` of exactly this shape, f32.
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor>;

    /// The matrix `name`, its parts' rows one after another, each of `inputs` numbers; one part is the whole.
    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, init: Init) -> Result<Weight> {
        let rows = parts.iter().map(|part| part.rows).sum();
        Ok(Weight::Tensor(self.tensor(name, &[rows, inputs], init)?))
    }
}

/// A place in the tree of modules; its text is the prefix of the parameters' names.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    source: &'a dyn Source,
    prefix: &'a str,
}

impl<'a> Path<'a> {
    /// The root of the tree.
    pub fn root(source: &'a dyn Source) -> Self {
        Self { source, prefix: "" }
    }

    /// Calls `build` at the child `name`.
    pub fn at<T>(&self, name: impl Display, build: impl FnOnce(Path) -> Result<T>) -> Result<T> {
        let prefix = self.name(name);
        build(Path { source: self.source, prefix: &prefix })
    }

    /// The parameter `name` at this place.
    pub fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.source.tensor(&self.name(name), shape, init)
    }

    /// The matrix `name` at this place, `[O, I]`.
    pub fn weight(&self, name: &str, [outputs, inputs]: [usize; 2], init: Init) -> Result<Weight> {
        self.parts(name, &[Part::new("", outputs)], inputs, init)
    }

    /// The matrix `name` at this place, whose rows may be stored in parts.
    pub fn parts(&self, name: &str, parts: &[Part], inputs: usize, init: Init) -> Result<Weight> {
        self.source.matrix(&self.name(name), parts, inputs, init)
    }

    fn name(&self, child: impl Display) -> String {
        if self.prefix.is_empty() { child.to_string() } else { format!("{}.{child}", self.prefix) }
    }
}

struct Recorder {
    seen: RefCell<Vec<ParameterSpec>>,
}

impl Source for Recorder {
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.seen.borrow_mut().push(ParameterSpec { name: name.into(), shape: shape.to_vec(), init });
        Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
    }
}

/// Every parameter of the architecture, in the order of construction.
pub fn specifications(config: &Config) -> Result<Vec<ParameterSpec>> {
    let recorder = Recorder { seen: RefCell::new(Vec::new()) };
    Reasoner::new(config, Path::root(&recorder))?;
    Ok(recorder.seen.into_inner())
}

/// Parameters read from safetensors bytes; remembers what was used.
pub struct Loaded {
    file: String,
    tensors: BTreeMap<String, Tensor>,
    used: RefCell<BTreeSet<String>>,
    hash: String,
}

impl Loaded {
    /// Reads safetensors bytes; `file` names them in errors. f16 and bf16 become f32.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the header or its lengths do not hold, [`Error::NumberType`] for integers.
    pub fn from_bytes(bytes: &[u8], file: &str, device: &Device) -> Result<Self> {
        let damaged = |reason: String| Error::Damaged { file: file.into(), reason };
        let archive = SafeTensors::deserialize(bytes).map_err(|e| damaged(e.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in archive.tensors() {
            let dtype = match view.dtype() {
                safetensors::Dtype::F32 => DType::F32,
                safetensors::Dtype::F16 => DType::F16,
                safetensors::Dtype::BF16 => DType::BF16,
                other => {
                    return Err(Error::NumberType { file: file.into(), name, got: format!("{other:?}") });
                }
            };
            let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), device)?;
            tensors.insert(name, tensor.to_dtype(DType::F32)?);
        }
        let hash = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { file: file.into(), tensors, used: RefCell::new(BTreeSet::new()), hash })
    }

    /// SHA-256 of the bytes, in hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Names and shapes in the file.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape().dims()))
    }

    /// Takes one tensor out by name, if it is there.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Fails when a tensor in the file was asked for by nothing.
    pub fn refuse_extra(&self) -> Result<()> {
        let used = self.used.borrow();
        let mut extra = self.tensors.iter().filter(|(name, _)| !used.contains(*name));
        match extra.next() {
            None => Ok(()),
            Some((name, tensor)) => Err(Error::Extra {
                file: self.file.clone(),
                name: name.clone(),
                got: tensor.shape().dims().to_vec(),
                count: 1 + extra.count(),
            }),
        }
    }
}

impl Source for Loaded {
    fn tensor(&self, name: &str, shape: &[usize], _: Init) -> Result<Tensor> {
        let tensor = self.tensors.get(name).ok_or_else(|| Error::Missing {
            file: self.file.clone(),
            name: name.into(),
            expected: shape.to_vec(),
            nearest: nearest(name, self.tensors.keys()),
        })?;
        if tensor.shape().dims() != shape {
            return Err(Error::WrongShape {
                file: self.file.clone(),
                name: name.into(),
                expected: shape.to_vec(),
                got: tensor.shape().dims().to_vec(),
            });
        }
        self.used.borrow_mut().insert(name.into());
        Ok(tensor.clone())
    }

    /// Frozen on a CPU: products with it give a row the same bits in any company.
    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, init: Init) -> Result<Weight> {
        let rows = parts.iter().map(|part| part.rows).sum();
        let tensor = self.tensor(name, &[rows, inputs], init)?;
        if tensor.device().is_cpu() { Weight::frozen(&tensor) } else { Ok(Weight::Tensor(tensor)) }
    }
}

/// Another source's parameters on another device than the CPU, where they came from.
pub(crate) struct Moved<'a> {
    pub source: &'a dyn Source,
    pub device: &'a Device,
}

impl Source for Moved<'_> {
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        Ok(self.source.tensor(name, shape, init)?.to_device(self.device)?)
    }

    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, init: Init) -> Result<Weight> {
        self.source.matrix(name, parts, inputs, init)?.placed(self.device)
    }
}

/// The name with the longest common beginning and end: enough to show a renamed layer.
pub(crate) fn nearest<'a>(name: &str, all: impl Iterator<Item = &'a String>) -> String {
    let common = |other: &str| {
        let head = name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let tail = name.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count();
        head + tail
    };
    all.max_by_key(|other| common(other)).map_or_else(|| "the file is empty".into(), |n| format!("`{n}`"))
}
