//! AdamW with decoupled weight decay, gradient clipping and an average of the weights, in one pass.
//!
//! candle-nn's AdamW is nine tensor operations a parameter and a new tensor for each. Here every
//! parameter is read and written once, in place; gradient scale, decay, moments, update and the
//! exponential moving average (EMA) of the weights happen while the element is in a register.

use crate::buffer::with_all;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;
use std::cell::RefCell;

/// Elements a task handles. Fixed, so that the norm is summed in the same order on any machine.
const CHUNK: usize = 1 << 14;

/// The constants of the update.
#[derive(Clone, Debug)]
pub struct AdamWOptions {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, one a parameter: each step takes `rate * weight_decay` of the weight.
    pub weight_decay: Vec<f64>,
    /// Decay of the average of the weights; `None` keeps no average.
    pub ema_decay: Option<f64>,
}

/// One parameter's part of an optimizer state, borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWState<'a> {
    /// First moment.
    pub first: &'a [f32],
    /// Second moment.
    pub second: &'a [f32],
    /// Average of the weights, where one is kept.
    pub ema: Option<&'a [f32]>,
}

/// One parameter's state, owned.
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
    /// Empty when no average is kept.
    ema: Vec<f32>,
}

/// The optimizer: its parameters, their moments and the number of steps taken.
pub struct AdamW {
    params: Vec<Var>,
    moments: Vec<Moments>,
    options: AdamWOptions,
    steps: u64,
}

impl AdamW {
    /// An optimizer at step 0 for `params`, whose averages start at the present weights.
    ///
    /// # Errors
    /// When a parameter is not contiguous f32 or the decays do not match the parameters in number.
    pub fn new(params: Vec<Var>, options: AdamWOptions) -> Result<Self> {
        if options.weight_decay.len() != params.len() {
            bail!("AdamW: expected {} weight decays, one a parameter, got {}", params.len(), options.weight_decay.len())
        }
        let mut moments = Vec::with_capacity(params.len());
        for (index, param) in params.iter().enumerate() {
            if param.dtype() != DType::F32 || !param.is_contiguous() {
                bail!("AdamW: expected parameter {index} contiguous f32, got {:?}", param.dtype())
            }
            let count = param.elem_count();
            let ema = match options.ema_decay {
                Some(_) => param.flatten_all()?.to_vec1()?,
                None => Vec::new(),
            };
            moments.push(Moments { first: vec![0.0; count], second: vec![0.0; count], ema });
        }
        Ok(Self { params, moments, options, steps: 0 })
    }

    /// One update from `grads`. Parameters without a gradient are left as they are.
    ///
    /// - `rate`: learning rate
    /// - `rate_scale`: a factor on it for each parameter
    /// - `clip_norm`: gradients are scaled so that their joint norm is at most this
    ///
    /// Returns the joint L2 norm of the gradients before clipping.
    ///
    /// # Errors
    /// When a gradient's shape differs from its parameter's or `rate_scale` has the wrong length.
    pub fn step(&mut self, grads: &GradStore, rate: f64, rate_scale: &[f64], clip_norm: f64) -> Result<f64> {
        let grads: Vec<Option<Tensor>> = self.params.iter().map(|p| grads.get(p).cloned()).collect();
        self.step_from(&grads, rate, rate_scale, clip_norm)
    }

    /// As [`Self::step`], with one gradient (or none) a parameter: for sums of several backward passes.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn step_from(
        &mut self,
        grads: &[Option<Tensor>],
        rate: f64,
        rate_scale: &[f64],
        clip_norm: f64,
    ) -> Result<f64> {
        let count = self.params.len();
        if grads.len() != count || rate_scale.len() != count {
            bail!(
                "AdamW: expected {count} gradients and rate scales, one a parameter, got {} and {}",
                grads.len(),
                rate_scale.len()
            )
        }
        let mut ready = Vec::with_capacity(count);
        for (index, (param, grad)) in self.params.iter().zip(grads).enumerate() {
            if let Some(grad) = grad {
                if grad.shape() != param.shape() {
                    bail!(
                        "AdamW: expected a gradient {:?} for parameter {index}, got {:?}",
                        param.shape(),
                        grad.shape()
                    )
                }
                ready.push((index, grad.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?));
            }
        }
        let norm = norm(&ready)?;
        // A norm that is not a number reaches every weight through this factor: nothing hides it.
        let scale = if norm > clip_norm {
            clip_norm / norm
        } else if norm.is_nan() {
            norm
        } else {
            1.0
        };
        self.steps += 1;
        for (index, grad) in &ready {
            let update = self.options.update(self.steps, *index, rate * rate_scale[*index], scale);
            apply(&self.params[*index], grad, &mut self.moments[*index], update)?;
        }
        Ok(norm)
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The parameters, in the order given to [`Self::new`].
    pub fn params(&self) -> &[Var] {
        &self.params
    }

    /// The state of each parameter, in their order, for a checkpoint.
    pub fn state(&self) -> Vec<AdamWState<'_>> {
        let averaged = self.options.ema_decay.is_some();
        self.moments
            .iter()
            .map(|moments| AdamWState {
                first: &moments.first,
                second: &moments.second,
                ema: averaged.then_some(moments.ema.as_slice()),
            })
            .collect()
    }

    /// Takes over a saved state: after this the next step is the one that would have followed.
    ///
    /// # Errors
    /// When the state is of other parameters or with or without an average where this one is not.
    pub fn restore(&mut self, steps: u64, state: &[AdamWState<'_>]) -> Result<()> {
        if state.len() != self.moments.len() {
            bail!("AdamW: expected the state of {} parameters, got {}", self.moments.len(), state.len())
        }
        for (index, (mine, saved)) in self.moments.iter().zip(state).enumerate() {
            let expected = [mine.first.len(), mine.second.len(), mine.ema.len()];
            let got = [saved.first.len(), saved.second.len(), saved.ema.map_or(0, <[f32]>::len)];
            if expected != got {
                bail!("AdamW: expected first, second, ema of lengths {expected:?} for parameter {index}, got {got:?}")
            }
        }
        for (mine, saved) in self.moments.iter_mut().zip(state) {
            mine.first.copy_from_slice(saved.first);
            mine.second.copy_from_slice(saved.second);
            mine.ema.copy_from_slice(saved.ema.unwrap_or(&[]));
        }
        self.steps = steps;
        Ok(())
    }

    /// The average of parameter `index`'s weights, when one is kept.
    pub fn ema(&self, index: usize) -> Option<&[f32]> {
        self.options.ema_decay?;
        self.moments.get(index).map(|m| m.ema.as_slice())
    }
}

/// The joint L2 norm, in f64, over chunks of fixed size in a fixed order.
fn norm(grads: &[(usize, Tensor)]) -> Result<f64> {
    let mut total = 0f64;
    for (_, grad) in grads {
        let squares: Vec<f64> = with_all("AdamW", [grad], |[grad]| {
            Ok(grad
                .par_chunks(CHUNK)
                .map(|chunk| {
                    // Exact in f64: no gradient is too large or too small to be squared.
                    let mut sums = [0f64; 8];
                    let (blocks, rest) = chunk.as_chunks::<8>();
                    for block in blocks {
                        for lane in 0..8 {
                            let x = f64::from(block[lane]);
                            sums[lane] += x * x;
                        }
                    }
                    sums.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
                })
                .collect())
        })?;
        total += squares.iter().sum::<f64>();
    }
    Ok(total.sqrt())
}

/// The numbers of one parameter's update at one step.
#[derive(Clone, Copy)]
struct Update {
    beta1: f32,
    beta2: f32,
    eps: f32,
    /// Factor on the gradient, for clipping.
    grad_scale: f32,
    /// `1 - rate * weight_decay`.
    keep: f32,
    /// `rate / (1 - beta1^steps)`.
    rate: f32,
    /// `1 / sqrt(1 - beta2^steps)`.
    second_scale: f32,
    ema_decay: f32,
}

impl AdamWOptions {
    fn update(&self, steps: u64, index: usize, rate: f64, grad_scale: f64) -> Update {
        let correction = |beta: f64| 1.0 - beta.powi(i32::try_from(steps).unwrap_or(i32::MAX));
        Update {
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            eps: self.eps as f32,
            grad_scale: grad_scale as f32,
            keep: (1.0 - rate * self.weight_decay[index]) as f32,
            rate: (rate / correction(self.beta1)) as f32,
            second_scale: (1.0 / correction(self.beta2).sqrt()) as f32,
            ema_decay: self.ema_decay.unwrap_or(0.0) as f32,
        }
    }
}

impl Update {
    /// The update of a run of elements. `ema` is empty when no average is kept.
    fn run(self, weight: &mut [f32], grad: &[f32], first: &mut [f32], second: &mut [f32], ema: &mut [f32]) {
        for (((weight, grad), first), second) in weight.iter_mut().zip(grad).zip(first).zip(second) {
            let grad = grad * self.grad_scale;
            *first = self.beta1 * *first + (1.0 - self.beta1) * grad;
            *second = self.beta2 * *second + (1.0 - self.beta2) * grad * grad;
            let root = second.sqrt() * self.second_scale + self.eps;
            *weight = *weight * self.keep - self.rate * *first / root;
        }
        for (ema, weight) in ema.iter_mut().zip(weight.iter()) {
            *ema = self.ema_decay * *ema + (1.0 - self.ema_decay) * weight;
        }
    }

    fn over(self, weight: &mut [f32], grad: &[f32], moments: &mut Moments) {
        let Moments { first, second, ema } = moments;
        let parts = weight
            .par_chunks_mut(CHUNK)
            .zip(grad.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK))
            .zip(second.par_chunks_mut(CHUNK));
        if ema.is_empty() {
            parts.for_each(|(((w, g), f), s)| self.run(w, g, f, s, &mut []));
        } else {
            parts.zip(ema.par_chunks_mut(CHUNK)).for_each(|((((w, g), f), s), e)| self.run(w, g, f, s, e));
        }
    }
}

/// The update as an operation in place on the parameter's own storage.
struct InPlace<'a> {
    grad: &'a [f32],
    moments: RefCell<&'a mut Moments>,
    update: Update,
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(weight) = storage else { bail!("AdamW: expected an f32 parameter") };
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("AdamW: expected a contiguous parameter") };
        self.update.over(&mut weight[start..end], self.grad, &mut self.moments.borrow_mut());
        Ok(())
    }
}

fn apply(param: &Var, grad: &Tensor, moments: &mut Moments, update: Update) -> Result<()> {
    with_all("AdamW", [grad], |[grad]| {
        if param.device().is_cpu() {
            return param.inplace_op1(&InPlace { grad, moments: RefCell::new(moments), update });
        }
        // Elsewhere the moments still live here: correct on any device, fast on this one.
        let mut weight = param.flatten_all()?.to_vec1::<f32>()?;
        update.over(&mut weight, grad, moments);
        param.set(&Tensor::from_vec(weight, param.shape(), param.device())?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    fn options(count: usize) -> AdamWOptions {
        let weight_decay = (0..count).map(|i| 0.1 * i as f64).collect();
        AdamWOptions { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay, ema_decay: Some(0.9) }
    }

    fn params() -> Vec<Var> {
        [random((3, 5), 20), random(40_000, 21)].iter().map(|t| Var::from_tensor(t).unwrap()).collect()
    }

    fn grads(seed: u64) -> Vec<Option<Tensor>> {
        vec![Some(random((3, 5), seed)), Some(random(40_000, seed + 100))]
    }

    #[test]
    fn adamw_equals_the_textbook_update() {
        let params = params();
        let mut optimizer = AdamW::new(params.clone(), options(2)).unwrap();
        let (rate, scales, clip) = (0.01, [1.0, 0.5], 20.0);
        let mut weights: Vec<Vec<f64>> = params.iter().map(|p| values(p)).collect();
        let mut first: Vec<Vec<f64>> = weights.iter().map(|w| vec![0.0; w.len()]).collect();
        let mut second = first.clone();
        let mut average = weights.clone();
        for step in 1..=4 {
            let grads = grads(step as u64);
            let norm = optimizer.step_from(&grads, rate, &scales, clip).unwrap();
            let grads: Vec<Vec<f64>> = grads.iter().flatten().map(values).collect();
            let expected: f64 = grads.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
            assert!((norm - expected).abs() < 1e-6 * expected && norm > clip);
            for p in 0..2 {
                for i in 0..weights[p].len() {
                    let g = grads[p][i] * clip / norm;
                    first[p][i] = 0.9 * first[p][i] + 0.1 * g;
                    second[p][i] = 0.95 * second[p][i] + 0.05 * g * g;
                    let m = first[p][i] / (1.0 - 0.9f64.powi(step));
                    let v = second[p][i] / (1.0 - 0.95f64.powi(step));
                    let rate = rate * scales[p];
                    weights[p][i] -= rate * (0.1 * p as f64) * weights[p][i] + rate * m / (v.sqrt() + 1e-8);
                    average[p][i] = 0.9 * average[p][i] + 0.1 * weights[p][i];
                }
            }
        }
        for p in 0..2 {
            let ema = optimizer.ema(p).unwrap();
            for (i, got) in values(&params[p]).iter().enumerate() {
                assert!((got - weights[p][i]).abs() < 1e-5, "weight {p}[{i}]");
                assert!((f64::from(ema[i]) - average[p][i]).abs() < 1e-5, "average {p}[{i}]");
            }
        }
    }

    #[test]
    fn a_parameter_without_a_gradient_is_untouched() {
        let params = params();
        let before = bits(&params[0]);
        let mut optimizer = AdamW::new(params.clone(), options(2)).unwrap();
        optimizer.step_from(&[None, Some(random(40_000, 1))], 0.1, &[1.0, 1.0], 1.0).unwrap();
        assert_eq!(before, bits(&params[0]));
        assert!(optimizer.state()[0].first.iter().all(|m| *m == 0.0));
    }

    #[test]
    fn a_restored_optimizer_continues_to_the_bit() {
        let (mine, other) = (params(), params());
        let mut optimizer = AdamW::new(mine.clone(), options(2)).unwrap();
        optimizer.step_from(&grads(1), 0.1, &[1.0, 1.0], 1.0).unwrap();
        let mut restored = AdamW::new(other.clone(), options(2)).unwrap();
        restored.restore(optimizer.steps(), &optimizer.state()).unwrap();
        for (mine, other) in mine.iter().zip(&other) {
            other.set(mine).unwrap();
        }
        optimizer.step_from(&grads(2), 0.1, &[1.0, 1.0], 1.0).unwrap();
        restored.step_from(&grads(2), 0.1, &[1.0, 1.0], 1.0).unwrap();
        assert_eq!(optimizer.state(), restored.state());
        assert_eq!(bits(&mine[1]), bits(&other[1]));
    }

    #[test]
    fn a_step_from_a_backward_pass_equals_a_step_from_its_gradients() {
        let (mine, other) = (params(), params());
        let loss = (mine[0].sqr().unwrap().sum_all().unwrap() + mine[1].sum_all().unwrap()).unwrap();
        let store = loss.backward().unwrap();
        let list: Vec<Option<Tensor>> = mine.iter().map(|p| store.get(p).cloned()).collect();
        let a = AdamW::new(mine.clone(), options(2)).unwrap().step(&store, 0.1, &[1.0; 2], 1.0).unwrap();
        let b = AdamW::new(other.clone(), options(2)).unwrap().step_from(&list, 0.1, &[1.0; 2], 1.0).unwrap();
        assert_eq!(a.to_bits(), b.to_bits());
        assert_eq!(bits(&mine[0]), bits(&other[0]));
    }

    #[test]
    fn a_gradient_that_is_not_a_number_reaches_every_weight() {
        let params = params();
        let mut optimizer = AdamW::new(params.clone(), options(2)).unwrap();
        let broken = (random((3, 5), 1) * f64::NAN).unwrap();
        let norm = optimizer.step_from(&[Some(broken), grads(1)[1].clone()], 0.1, &[1.0; 2], 1.0).unwrap();
        assert!(norm.is_nan() && values(&params[1]).iter().all(|w| w.is_nan()));
    }
}
