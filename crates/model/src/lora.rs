//! Low-rank adaptation (LoRA, Hu et al., arXiv 2106.09685): a frozen matrix `W` acts as `W + alpha / r * B A`.
//!
//! Matrices that this crate keeps as one and checkpoints store in parts (query, key and value; gate and up) are adapted
//! part by part, so that an adapter means the same wherever its base is loaded. `B` starts at zero: a new adapter changes
//! nothing, to the bit. The frozen matrix stays as it is stored, in bf16 or quantised; `A` and `B` are f32.

pub use crate::config::Lora;
use crate::nn::{Part, Weight};
use crate::weights::{Init, Source};
use crate::{Error, Result};
use candle_core::{D, Device, Tensor};
use globset::{Glob, GlobMatcher};
use lare_kernels as kernels;
use std::cell::RefCell;
use std::ops::Range;

impl Lora {
    pub(crate) fn scale(&self) -> f64 {
        self.alpha / self.rank.max(1) as f64
    }
}

/// A change to some rows of a matrix.
#[derive(Clone, Debug)]
struct LowRank {
    rows: Range<usize>,
    down: Tensor, // A, [r, I]
    up: Tensor,   // B, [rows, r]
}

/// A frozen matrix with low-rank changes.
#[derive(Clone, Debug)]
pub struct Adapted {
    base: Box<Weight>,
    /// In order of their rows, which do not overlap.
    changes: Vec<LowRank>,
    scale: f64,
}

impl Adapted {
    /// `x (W + s B A)^T + b`, `[.., I]` to `[.., O]`.
    pub fn product(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let plain = self.base.product(x, bias)?;
        let (outputs, _) = self.dims()?;
        let nothing = |rows: usize| -> Result<Tensor> {
            let mut shape = x.dims().to_vec();
            shape.pop();
            shape.push(rows);
            Ok(Tensor::zeros(shape, x.dtype(), x.device())?)
        };
        let (mut parts, mut at) = (Vec::new(), 0);
        for change in &self.changes {
            if change.rows.start > at {
                parts.push(nothing(change.rows.start - at)?);
            }
            let low = kernels::linear(x, &change.down, None)?; // [.., r]
            parts.push(kernels::linear(&low, &change.up, None)?);
            at = change.rows.end;
        }
        if at < outputs {
            parts.push(nothing(outputs - at)?);
        }
        Ok((plain + (Tensor::cat(&parts, D::Minus1)? * self.scale)?)?)
    }

    /// `W + s B A`, in f32.
    pub fn folded(&self, device: &Device) -> Result<Tensor> {
        let (outputs, _) = self.dims()?;
        let mut all = self.base.to_tensor(self.device())?;
        for change in &self.changes {
            let by = (change.up.matmul(&change.down)? * self.scale)?;
            all = (all + by.pad_with_zeros(0, change.rows.start, outputs - change.rows.end)?)?;
        }
        Ok(all.to_device(device)?)
    }

    /// `O` and `I`.
    pub fn dims(&self) -> Result<(usize, usize)> {
        self.base.dims()
    }

    /// Where its changes lie.
    pub fn device(&self) -> &Device {
        self.changes.first().map_or(&Device::Cpu, |change| change.up.device())
    }
}

/// A source whose matrices are changed where patterns say so.
pub struct Changed<'a> {
    base: &'a dyn Source,
    adapters: &'a dyn Source,
    lora: &'a Lora,
    /// Each pattern, and whether a matrix fitted it.
    targets: RefCell<Vec<(GlobMatcher, bool)>>,
}

fn refused(field: &str, expected: &str, got: String) -> Error {
    let hint = "name matrices as in `language.blocks.*.qkv.query`; `language.*` is all of the decoder".into();
    Error::Config { file: "lora".into(), field: field.into(), expected: expected.into(), got, hint }
}

impl<'a> Changed<'a> {
    /// `base`'s parameters; `A` and `B` are asked of `adapters`, as `NAME.lora_a` and `NAME.lora_b`.
    ///
    /// # Errors
    /// [`Error::Config`] for a rank of 0, no pattern, or one that cannot be read.
    pub fn new(base: &'a dyn Source, lora: &'a Lora, adapters: &'a dyn Source) -> Result<Self> {
        if lora.rank == 0 {
            return Err(refused("rank", "at least 1", "0".into()));
        }
        if lora.targets.is_empty() {
            return Err(refused("targets", "at least one pattern", "none".into()));
        }
        let matcher = |target: &String| match Glob::new(target) {
            Ok(glob) => Ok((glob.compile_matcher(), false)),
            Err(error) => Err(refused("targets", "a pattern", error.to_string())),
        };
        let targets = lora.targets.iter().map(matcher).collect::<Result<_>>()?;
        Ok(Self { base, adapters, lora, targets: RefCell::new(targets) })
    }

    /// Refuses patterns that no matrix fitted, once the model is built: most likely they were meant to.
    ///
    /// # Errors
    /// [`Error::Config`] with the pattern.
    pub fn refuse_idle(&self) -> Result<()> {
        match self.targets.borrow().iter().find(|(_, used)| !used) {
            None => Ok(()),
            Some((idle, _)) => {
                Err(refused("targets", "patterns that each fit a matrix", idle.glob().glob().to_owned()))
            }
        }
    }

    fn is_target(&self, name: &str) -> bool {
        let mut any = false;
        for (pattern, used) in self.targets.borrow_mut().iter_mut() {
            let fits = pattern.is_match(name);
            *used |= fits;
            any |= fits;
        }
        any
    }
}

impl Source for Changed<'_> {
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.base.tensor(name, shape, init)
    }

    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, init: Init) -> Result<Weight> {
        let base = self.base.matrix(name, parts, inputs, init)?;
        let whole = name.strip_suffix(".weight").unwrap_or(name);
        let (mut changes, mut first) = (Vec::new(), 0);
        for part in parts {
            let rows = first..first + part.rows;
            first = rows.end;
            let name = if part.name.is_empty() { whole.to_owned() } else { format!("{whole}.{}", part.name) };
            if !self.is_target(&name) {
                continue;
            }
            let start = Init::Normal((1.0 / inputs.max(1) as f64).sqrt());
            let down = self.adapters.tensor(&format!("{name}.lora_a"), &[self.lora.rank, inputs], start)?;
            let up = self.adapters.tensor(&format!("{name}.lora_b"), &[part.rows, self.lora.rank], Init::Zeros)?;
            changes.push(LowRank { rows, down, up });
        }
        Ok(if changes.is_empty() {
            base
        } else {
            Weight::Adapted(Adapted { base: Box::new(base), changes, scale: self.lora.scale() })
        })
    }
}
