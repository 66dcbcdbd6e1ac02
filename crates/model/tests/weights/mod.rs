//! Weights without a file, for tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};
use lare_model::{Init, Source};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Weights that follow from the parameter's name and a salt for names that begin with `salted`.
pub struct Weights {
    salt: (&'static str, u64),
    shifts: RefCell<BTreeMap<String, Tensor>>,
    pub vars: RefCell<BTreeMap<String, Var>>,
}

impl Weights {
    /// All from their names, salted where they begin with `salted`.
    pub fn new(salted: &'static str, salt: u64) -> Self {
        Self { salt: (salted, salt), shifts: RefCell::default(), vars: RefCell::default() }
    }

    /// Adds to a weight that has not been asked for yet.
    pub fn shift(&self, name: &str, by: &Tensor) {
        self.shifts.borrow_mut().insert(name.into(), by.detach());
    }

    /// What was asked for so far.
    pub fn values(&self) -> BTreeMap<String, Tensor> {
        self.vars.borrow().iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect()
    }
}

/// Near to normal, the same for a seed.
pub fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    // The sum of four uniforms is near enough to a normal.
    (0..count).map(|_| ((0..4).map(|_| next()).sum::<f32>() - 2.0) * 1.7).collect()
}

impl Source for Weights {
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> lare_model::Result<Tensor> {
        let salt = if name.starts_with(self.salt.0) { self.salt.1 } else { 0 };
        let seed = name.bytes().fold(salt + 7, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let (centre, spread) = match init {
            // Branches that start at nothing would hide mistakes behind them.
            Init::Zeros => (0.0, 0.05),
            Init::Ones => (1.0, 0.1),
            Init::Constant(value) => (value as f32, 0.05),
            Init::Normal(std) | Init::Identity(std) => (0.0, std as f32),
        };
        let values: Vec<f32> = noise(seed, shape.iter().product()).iter().map(|x| centre + spread * x).collect();
        let mut value = Tensor::from_vec(values, shape, &Device::Cpu)?;
        if let Some(by) = self.shifts.borrow().get(name) {
            value = (value + by)?;
        }
        let var = Var::from_tensor(&value)?;
        self.vars.borrow_mut().insert(name.into(), var.clone());
        Ok(var.as_tensor().clone())
    }
}
