//! What an architecture needs, from its config alone: no weight is read, and none is made.

use super::{Architecture, Pretrained};
use crate::Result;
use crate::nn::{Part, Weight};
use crate::weights::{Init, Path, Source};
use candle_core::{DType, Device, Tensor};
use lare_kernels::Format;
use std::cell::RefCell;

/// The numbers that a model is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// Matrices, `[O, I]`, those of the decoder first.
    matrices: Vec<(bool, [usize; 2])>,
    /// Their names and parts.
    names: Vec<(String, Vec<Part>)>,
    /// Norms, biases and what else stays in f32, of the decoder and of the vision tower.
    others: [usize; 2],
}

impl Needs {
    /// Numbers of the decoder and of the vision tower.
    pub fn parameters(&self) -> [usize; 2] {
        [true, false].map(|language| {
            let own = self.matrices.iter().filter(|(of, _)| *of == language);
            own.map(|(_, [outputs, inputs])| outputs * inputs).sum::<usize>() + self.others[usize::from(!language)]
        })
    }

    /// Bytes of memory with matrices in `format`; those whose rows are no whole number of its blocks stay `stored`.
    ///
    /// # Errors
    /// When a size overflows.
    pub fn bytes(&self, format: Format, stored: Format) -> Result<usize> {
        let mut bytes = self.others.iter().sum::<usize>() * size_of::<f32>();
        for (_, [outputs, inputs]) in &self.matrices {
            let fits = inputs.is_multiple_of(format.block_length());
            bytes += if fits { format } else { stored }.bytes_of(*outputs, *inputs)?;
        }
        Ok(bytes)
    }
}

/// Writes down what is asked for and gives tensors that take no memory.
struct Recorder(RefCell<Needs>);

fn nothing(shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::zeros((), DType::F32, &Device::Cpu)?.broadcast_as(shape)?)
}

fn of_language(name: &str) -> bool {
    name.starts_with("language.")
}

impl Source for Recorder {
    fn tensor(&self, name: &str, shape: &[usize], _: Init) -> Result<Tensor> {
        self.0.borrow_mut().others[usize::from(!of_language(name))] += shape.iter().product::<usize>();
        nothing(shape)
    }

    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, _: Init) -> Result<Weight> {
        let shape = [parts.iter().map(|part| part.rows).sum(), inputs];
        let mut needs = self.0.borrow_mut();
        needs.matrices.push((of_language(name), shape));
        needs.names.push((name.into(), parts.to_vec()));
        Ok(Weight::Tensor(nothing(&shape)?))
    }
}

impl Architecture {
    /// What it needs.
    ///
    /// # Errors
    /// When the architecture cannot be built.
    pub fn needs(&self) -> Result<Needs> {
        let recorder = Recorder(RefCell::default());
        Pretrained::new(self.clone(), Path::root(&recorder))?;
        Ok(recorder.0.into_inner())
    }

    /// Every matrix that it asks for, with its parts.
    pub(crate) fn matrices(&self) -> Result<Vec<(String, Vec<Part>)>> {
        Ok(self.needs()?.names)
    }
}
