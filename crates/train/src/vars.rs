//! The variables of a run: parameters by name, created from a seed, frozen or trained.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};
use lare_model::{Init, Source};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// All variables, in order of their names.
pub struct Vars {
    seed: u64,
    device: Device,
    vars: RefCell<BTreeMap<String, Var>>,
    trained: RefCell<Vec<String>>,
    asked: RefCell<BTreeSet<String>>,
}

impl Vars {
    /// No variables yet; those asked for start from `seed` and their own name alone.
    pub fn new(seed: u64, device: Device) -> Self {
        Self { seed, device, vars: RefCell::default(), trained: RefCell::default(), asked: RefCell::default() }
    }

    /// From now on parameters whose names begin with one of `prefixes` are given out with gradient, the others
    /// detached. Build the model anew after calling this.
    pub fn train(&self, prefixes: &[String]) {
        *self.trained.borrow_mut() = prefixes.to_vec();
    }

    /// Whether gradients reach this parameter.
    pub fn is_trained(&self, name: &str) -> bool {
        self.trained.borrow().iter().any(|p| name.starts_with(p.as_str()))
    }

    /// Names and variables, in order of the names.
    pub fn all(&self) -> Vec<(String, Var)> {
        self.vars.borrow().iter().map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// Names of the variables that something has been built from.
    pub fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    /// Replaces the value of a variable, creating it if need be. With a value of another shape it is another variable.
    pub fn set(&self, name: &str, value: &Tensor) -> Result<()> {
        if let Some(var) = self.vars.borrow().get(name).filter(|var| var.shape() == value.shape()) {
            var.set(value)?;
            return Ok(());
        }
        self.vars.borrow_mut().insert(name.into(), Var::from_tensor(value)?);
        Ok(())
    }
}

impl Source for Vars {
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> lare_model::Result<Tensor> {
        self.asked.borrow_mut().insert(name.into());
        let known = self.vars.borrow().get(name).cloned();
        let var = match known {
            Some(var) => var,
            None => {
                let values = start(self.seed, name, shape, init);
                let var = Var::from_tensor(&Tensor::from_vec(values, shape, &self.device)?)?;
                self.vars.borrow_mut().insert(name.into(), var.clone());
                var
            }
        };
        if var.shape().dims() != shape {
            return Err(lare_model::Error::WrongShape {
                file: "the variables of this run".into(),
                name: name.into(),
                expected: shape.to_vec(),
                got: var.shape().dims().to_vec(),
            });
        }
        Ok(if self.is_trained(name) { var.as_tensor().clone() } else { var.as_detached_tensor() })
    }
}

/// A random stream of its own for every purpose, so that adding one changes no other.
pub fn dice(seed: u64, purpose: &str, step: u64) -> ChaCha8Rng {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(purpose.as_bytes());
    hash.update(step.to_le_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// Standard normal numbers, by Box and Muller.
pub fn normals(dice: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - dice.random::<f64>()).ln()).sqrt();
        let angle = std::f64::consts::TAU * dice.random::<f64>();
        values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
    }
    values.truncate(count);
    values
}

fn start(seed: u64, name: &str, shape: &[usize], init: Init) -> Vec<f32> {
    let count = shape.iter().product();
    match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Constant(value) => vec![value as f32; count],
        Init::Normal(std) => {
            let mut dice = dice(seed, name, 0);
            normals(&mut dice, count).into_iter().map(|x| x * std as f32).collect()
        }
        Init::Identity(std) => {
            let inputs = shape.last().copied().unwrap_or(0);
            let mut values = start(seed, name, shape, Init::Normal(std));
            for (i, value) in values.iter_mut().enumerate().take(inputs * inputs) {
                *value = if i / inputs == i % inputs { 1.0 } else { 0.0 };
            }
            values
        }
    }
}

/// The tensors in safetensors bytes, refusing bytes that were cut short.
pub fn check_archive<'a>(bytes: &'a [u8], path: &std::path::Path) -> Result<safetensors::SafeTensors<'a>> {
    safetensors::SafeTensors::deserialize(bytes).map_err(|e| {
        Error::Model(lare_model::Error::Damaged { file: path.display().to_string(), reason: e.to_string() })
    })
}

/// Reads variables from safetensors bytes, f32 or f16; they are f32 here.
pub fn read_tensors(bytes: &[u8], path: &std::path::Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let archive = check_archive(bytes, path)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in archive.tensors() {
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::F16 => DType::F16,
            other => {
                return Err(Error::Mismatch {
                    path: path.to_owned(),
                    what: format!("the elements of `{name}`"),
                    expected: "f32 or f16".into(),
                    got: format!("{other:?}"),
                });
            }
        };
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), device)?;
        tensors.insert(name, tensor.to_dtype(DType::F32)?);
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_that_begins_with_the_identity_is_random_below_it() {
        let values = start(1, "read", &[4, 2], Init::Identity(0.5));
        assert_eq!(values[..4], [1.0, 0.0, 0.0, 1.0]);
        assert_eq!(values[4..], start(1, "read", &[4, 2], Init::Normal(0.5))[4..]);
    }
}
