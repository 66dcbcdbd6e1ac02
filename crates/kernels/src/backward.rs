//! Backpropagation in which gradients that come in many parts are summed where they are computed.
//!
//! candle hands every gradient over as a tensor of its own and adds it to a sum, which it allocates anew. A chain of
//! latent steps uses each weight and each picture once a step: the sums were a tenth of a training step, and more than
//! that where each picture is asked about twice only. Here [`crate::linear`] and [`crate::feed_forward`] add their
//! products for a variable to one buffer, and [`crate::chosen_attention`] adds to one for a memory.

use crate::buffer::{as_gradient, filled, require_f32};
use crate::fused::is_fused;
use crate::linear;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, TensorId, bail};
use std::cell::RefCell;
use std::collections::HashMap;

/// Gradients so far, by the tensor they belong to.
type Sums = HashMap<TensorId, (Tensor, Vec<f32>)>;

thread_local! {
    /// Of the backward pass that this thread is in: candle's backward functions are called without a place of ours.
    static SUMS: RefCell<Option<Sums>> = const { RefCell::new(None) };
}

/// A backward pass on this thread, from its start to its end, be it an error or a panic.
///
/// While it waits for its products a thread may take over another task, which may be a backward pass too: it finds the
/// sums of its own and leaves the outer ones as they were.
struct Pass {
    outer: Option<Sums>,
}

impl Pass {
    fn begin() -> Self {
        Self { outer: SUMS.replace(Some(Sums::new())) }
    }

    fn end(self) -> Sums {
        SUMS.take().unwrap_or_default()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        SUMS.set(self.outer.take());
    }
}

/// The gradients of `loss`, `[]`, as [`Tensor::backward`] gives them.
///
/// A thread pool must not run [`Tensor::backward`] itself among tasks that call this: it would leave its sums here.
///
/// # Errors
/// What candle's backward pass reports.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let pass = Pass::begin();
    let mut gradients = loss.backward()?;
    for (variable, sum) in pass.end().into_values() {
        let sum = Tensor::from_vec(sum, variable.shape(), variable.device())?;
        let all = match gradients.get(&variable) {
            Some(elsewhere) => (elsewhere + sum)?,
            None => sum,
        };
        gradients.insert(&variable, all);
    }
    Ok(gradients)
}

/// The gradient of `weight` for candle to add up; none where nothing wants it, or it was added here.
///
/// `compute` overwrites its argument, which may be unwritten, or adds to it if told to.
pub(crate) fn weight_gradient(weight: &Tensor, compute: impl FnOnce(&mut [f32], bool)) -> Result<Option<Tensor>> {
    if !weight.is_variable() || SUMS.with_borrow(Option::is_none) {
        return as_gradient(|| filled(weight.elem_count(), |out| compute(out, false)), weight);
    }
    let sum = match take(weight) {
        Some(mut sum) => {
            compute(&mut sum, true);
            sum
        }
        None => filled(weight.elem_count(), |out| compute(out, false)),
    };
    put(weight, sum);
    Ok(None)
}

/// Takes a sum out, so that nothing is borrowed while it grows.
fn take(tensor: &Tensor) -> Option<Vec<f32>> {
    SUMS.with_borrow_mut(|sums| sums.as_mut()?.remove(&tensor.id()).map(|(_, sum)| sum))
}

fn put(tensor: &Tensor, sum: Vec<f32>) {
    SUMS.with_borrow_mut(|sums| sums.as_mut().map(|sums| sums.insert(tensor.id(), (tensor.clone(), sum))));
}

/// A product that many operations read: in [`backward`] their gradients are summed in one buffer.
#[derive(Clone, Debug)]
pub struct Collected(Tensor);

impl Collected {
    /// `x W^T`, in a shape of its own.
    ///
    /// - `x`: `[.., I]`
    /// - `weight`: `[O, I]`
    ///
    /// # Errors
    /// When the widths or the number of elements disagree or, on the CPU, a tensor is not f32.
    pub fn linear(x: &Tensor, weight: &Tensor, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if !is_fused(x) {
            return crate::linear(x, weight, None)?.reshape(shape).map(Self);
        }
        require_f32("collected linear", &[x, weight])?;
        x.contiguous()?.apply_op2(&weight.contiguous()?, CollectedLinear { shape }).map(Self)
    }

    /// What was computed elsewhere, without a gradient.
    #[must_use]
    pub fn frozen(product: &Tensor) -> Self {
        Self(product.detach())
    }

    /// Entries `chosen` of each memory, `[1, M, ..]`, one memory behind the other: `[B, J, ..]`, without a gradient.
    ///
    /// # Errors
    /// When the memories' shapes differ, or an entry is not in its memory.
    pub fn gathered(memories: &[&Self], chosen: &[Tensor]) -> Result<Self> {
        let rows = memories.iter().zip(chosen).map(|(memory, chosen)| memory.0.index_select(chosen, 1));
        Ok(Self::frozen(&Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?))
    }

    /// Bytes of its numbers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.elem_count() * self.0.dtype().size_in_bytes()
    }

    /// The product; its readers in this crate take care of its gradient.
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.0
    }
}

/// The gradient of a [`Collected`] product for candle to add up, where it was not added here.
///
/// `compute` adds to its argument; without one it has other gradients to compute and this one is not wanted.
pub(crate) fn collected_gradient(tensor: &Tensor, compute: impl FnOnce(Option<&mut [f32]>)) -> Result<Option<Tensor>> {
    if !tensor.track_op() {
        compute(None);
        return Ok(None);
    }
    let earlier = take(tensor);
    let first = earlier.is_none();
    let mut sum = earlier.unwrap_or_else(|| vec![0.0; tensor.elem_count()]);
    compute(Some(&mut sum));
    if SUMS.with_borrow(Option::is_none) {
        return as_gradient(|| sum, tensor);
    }
    put(tensor, sum);
    // candle visits a tensor only if it has been given a gradient of it: one of nothing.
    let nothing = || Tensor::zeros((), tensor.dtype(), tensor.device())?.broadcast_as(tensor.shape());
    first.then(nothing).transpose()
}

struct CollectedLinear {
    shape: Shape,
}

impl CustomOp2 for CollectedLinear {
    fn name(&self) -> &'static str {
        "collected linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (product, shape) = linear::forward((x, x_layout), (weight, weight_layout), None)?;
        if shape.elem_count() != self.shape.elem_count() {
            bail!("collected linear: {shape:?} does not fill {:?}", self.shape)
        }
        Ok((product, self.shape.clone()))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        match take(y) {
            Some(sum) => linear::backward(x, weight, &Tensor::from_vec(sum, y.shape(), y.device())?),
            None => linear::backward(x, weight, &grad.contiguous()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;
    use crate::{chosen_attention, feed_forward, linear};
    use candle_core::Var;

    /// A chain that uses each weight three times, a part of it after a transposition: [x, square, bias, gate_up, down].
    fn chain(t: &[Tensor]) -> Result<Tensor> {
        let mut x = t[0].clone();
        for _ in 0..3 {
            x = (linear(&x, &t[1], Some(&t[2]))? + linear(&x, &t[1].t()?, None)?)?;
            x = (x.clone() + feed_forward(&x, &t[3], &t[4])?)?;
        }
        x.sqr()?.sum_all()
    }

    fn inputs(rows: usize) -> Vec<Var> {
        let shapes: [&[usize]; 5] = [&[rows, 6], &[6, 6], &[6], &[10, 6], &[6, 5]];
        let scaled = |(seed, shape): (usize, &&[usize])| (random(*shape, seed as u64) * 0.3).unwrap();
        shapes.iter().enumerate().map(|place| Var::from_tensor(&scaled(place)).unwrap()).collect()
    }

    #[test]
    fn summed_gradients_are_those_of_candle() {
        for rows in [1, 3, 40] {
            let inputs = inputs(rows);
            let tensors: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
            let loss = chain(&tensors).unwrap();
            let (ours, theirs) = (backward(&loss).unwrap(), loss.backward().unwrap());
            for var in &inputs {
                let (ours, theirs) = (ours.get(var).unwrap(), theirs.get(var).unwrap());
                let most = theirs.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let apart = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(most > 0.0 && apart <= 1e-5 * most, "{:?}: {apart} of {most}", var.shape());
            }
        }
    }

    #[test]
    fn a_backward_pass_leaves_nothing_for_the_next() {
        let inputs = inputs(3);
        let tensors: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
        let of = |gradients: GradStore| bits(gradients.get(&inputs[1]).unwrap());
        let loss = chain(&tensors).unwrap();
        let first = of(backward(&loss).unwrap());
        assert!(backward(&Tensor::zeros((), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap()).is_ok());
        assert_eq!(first, of(backward(&loss).unwrap()));
    }

    #[test]
    fn a_pass_within_a_pass_has_its_own_sums_even_if_it_panics() {
        let inputs = inputs(3);
        let tensors: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
        let pass = || backward(&chain(&tensors).unwrap()).unwrap();
        let of = |gradients: &GradStore| bits(gradients.get(&inputs[1]).unwrap());
        let alone = of(&pass());
        let outer = Pass::begin();
        put(&tensors[1], vec![1.0; 36]);
        assert_eq!(of(&pass()), alone);
        let panics = std::panic::catch_unwind(|| {
            let _inner = Pass::begin();
            panic!("on purpose");
        });
        assert!(panics.is_err());
        let sums = outer.end();
        assert_eq!(sums[&tensors[1].id()].1, [1.0; 36]);
        assert!(SUMS.with_borrow(Option::is_none));
    }

    #[test]
    fn a_collected_product_gets_the_gradient_of_all_its_readers() {
        // [q, bias, x, weight]: the product is read three times, twice with entries that others read too.
        let shapes: [&[usize]; 4] = [&[2, 2, 2, 4], &[2, 3], &[10, 3], &[16, 3]];
        let vars: Vec<Var> = (0..4).map(|i| Var::from_tensor(&random(shapes[i], i as u64)).unwrap()).collect();
        let chosen = [[0, 1, 2, 0, 1, 2], [2, 3, 4, 4, 3, 0], [1, 1, 1, 2, 2, 2]];
        let memory = || Collected::linear(&vars[2], &vars[3], (2, 5, 2, 2, 4)).unwrap();
        let loss = |read: &dyn Fn() -> Collected| {
            let seen = chosen.map(|chosen| {
                let seen = chosen_attention(&vars[0], &read(), &vars[1], &chosen.into(), &[0, 1].into()).unwrap();
                seen.sqr().unwrap().sum_all().unwrap()
            });
            seen.into_iter().reduce(|sum, more| (sum + more).unwrap()).unwrap()
        };
        let shared = memory();
        let once = || shared.clone();
        let ours = backward(&loss(&once)).unwrap();
        // Each reader with a product of its own, and candle's own sums.
        for plain in [loss(&memory).backward().unwrap(), loss(&once).backward().unwrap()] {
            for var in &vars {
                let apart = (ours.get(var).unwrap() - plain.get(var).unwrap()).unwrap();
                let apart = apart.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(apart < 1e-5, "{:?}: {apart}", var.shape());
            }
        }
        assert!(Collected::linear(&vars[2], &vars[3], (2, 5, 2, 2, 5)).is_err());
    }

    #[test]
    fn a_frozen_weight_gets_no_sum() {
        let inputs = inputs(3);
        let mut tensors: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
        tensors[1] = tensors[1].detach();
        let gradients = backward(&chain(&tensors).unwrap()).unwrap();
        assert!(gradients.get(&tensors[1]).is_none() && gradients.get(&inputs[3]).is_some());
    }
}
