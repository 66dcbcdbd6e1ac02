//! A folder's parameters, for models that are built from it again and again: with other low-rank changes nothing is loaded,
//! converted or held twice.

use super::{Holding, Pretrained};
use crate::lora::{Changed, Lora};
use crate::nn::{Part, Weight};
use crate::weights::{Init, Path as Module, Source};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

/// All parameters of a folder.
pub struct Parts {
    /// The model as it was published.
    pub published: Pretrained,
    tensors: BTreeMap<String, Tensor>,
    matrices: BTreeMap<String, Weight>,
}

/// Keeps what another source gives.
struct Keeping<'a> {
    source: &'a dyn Source,
    tensors: &'a RefCell<BTreeMap<String, Tensor>>,
    matrices: &'a RefCell<BTreeMap<String, Weight>>,
}

impl Source for Keeping<'_> {
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        let tensor = self.source.tensor(name, shape, init)?;
        self.tensors.borrow_mut().insert(name.into(), tensor.clone());
        Ok(tensor)
    }

    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, init: Init) -> Result<Weight> {
        let weight = self.source.matrix(name, parts, inputs, init)?;
        self.matrices.borrow_mut().insert(name.into(), weight.clone());
        Ok(weight)
    }
}

impl Parts {
    /// Loads a folder as [`Pretrained::from_folder`] does.
    ///
    /// # Errors
    /// Names the file, and the field or tensor that does not fit.
    pub fn of_folder(folder: &Path, holding: impl Into<Holding>) -> Result<Self> {
        let (tensors, matrices) = (RefCell::default(), RefCell::default());
        let published = Pretrained::load(folder, &holding.into(), |checkpoint, architecture| {
            let keeping = Keeping { source: checkpoint, tensors: &tensors, matrices: &matrices };
            Pretrained::new(architecture, Module::root(&keeping))
        })?;
        Ok(Self { published, tensors: tensors.into_inner(), matrices: matrices.into_inner() })
    }

    /// The decoder's parameters in f32, by the names that the nano model's decoder has for them.
    ///
    /// # Errors
    /// When a matrix cannot be widened.
    pub fn language(&self) -> Result<BTreeMap<String, Tensor>> {
        let ours = |name: &str| name.starts_with("language.");
        let mut all = BTreeMap::new();
        for (name, weight) in self.matrices.iter().filter(|(name, _)| ours(name)) {
            all.insert(name.clone(), weight.to_tensor(&Device::Cpu)?);
        }
        for (name, tensor) in self.tensors.iter().filter(|(name, _)| ours(name)) {
            all.insert(name.clone(), tensor.clone());
        }
        Ok(all)
    }

    /// The model with low-rank changes whose parameters come from `adapters`.
    ///
    /// # Errors
    /// [`Error::Config`] for a pattern that fits no matrix of the model.
    pub fn adapted(&self, lora: &Lora, adapters: &dyn Source) -> Result<Pretrained> {
        let changed = Changed::new(self, lora, adapters)?;
        let model = Pretrained::new(self.published.architecture.clone(), Module::root(&changed))?;
        changed.refuse_idle()?;
        Ok(model)
    }
}

impl Source for Parts {
    fn tensor(&self, name: &str, shape: &[usize], _: Init) -> Result<Tensor> {
        self.tensors.get(name).cloned().ok_or_else(|| not_there(name, shape))
    }

    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, _: Init) -> Result<Weight> {
        let rows = parts.iter().map(|part| part.rows).sum();
        self.matrices.get(name).cloned().ok_or_else(|| not_there(name, &[rows, inputs]))
    }
}

fn not_there(name: &str, expected: &[usize]) -> Error {
    Error::Missing {
        file: "the parameters of a folder that was loaded".into(),
        name: name.into(),
        expected: expected.to_vec(),
        nearest: "none".into(),
    }
}
