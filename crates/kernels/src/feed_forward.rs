//! A whole gated feed-forward layer as one operation: `swiglu(x W1^T) W2^T`.
//!
//! The same arithmetic as [`crate::linear`], [`crate::swiglu`], [`crate::linear`], and the same bits.
//! What it saves is candle's bookkeeping for the two wide tensors in between: each would get a zeroed
//! gradient and an addition, four passes over `[R, 2F]` and over `[R, F]`. The activation is computed
//! again in the backward pass, so only `x W1^T` is kept.
//!
//! Shapes: `x` `[.., I]`, `gate_up` `[2F, I]`, `down` `[O, F]`, result `[.., O]`.

use crate::backward::weight_gradient;
use crate::buffer::{as_gradient, elements, require_f32, with_all};
use crate::fused::is_fused;
use crate::layer::Layer;
use crate::swiglu::{gated, gated_gradient};
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use std::sync::OnceLock;

/// `silu(x Wg^T) * (x Wu^T)`, then `W2`.
///
/// - `x`: `[.., I]`
/// - `gate_up`: `[2F, I]`, `Wg` in the first `F` rows and `Wu` in the others
/// - `down`: `[O, F]`, `W2`
///
/// Returns `[.., O]`.
///
/// # Errors
/// When the widths disagree or, on the CPU, a tensor is not f32.
pub fn feed_forward(x: &Tensor, gate_up: &Tensor, down: &Tensor) -> Result<Tensor> {
    let (wide, inputs) = gate_up.dims2()?;
    let (_, hidden) = down.dims2()?;
    if x.dim(D::Minus1)? != inputs || wide != 2 * hidden {
        bail!(
            "feed_forward: expected x [.., I], gate_up [2F, I] and down [O, F], got {:?}, {:?} and {:?}",
            x.shape(),
            gate_up.shape(),
            down.shape()
        )
    }
    if !is_fused(x) {
        return composed(x, gate_up, down);
    }
    require_f32("feed_forward", &[x, gate_up, down])?;
    let op = FeedForward { wide: OnceLock::new() };
    x.contiguous()?.apply_op3(&gate_up.contiguous()?, &down.contiguous()?, op)
}

fn composed(x: &Tensor, gate_up: &Tensor, down: &Tensor) -> Result<Tensor> {
    crate::linear(&crate::swiglu(&crate::linear(x, gate_up, None)?)?, down, None)
}

struct FeedForward {
    /// `x W1^T`, `[R, 2F]`, from the forward pass.
    wide: OnceLock<Vec<f32>>,
}

/// The layer that widens and the one that narrows.
fn layers(x: &Shape, gate_up: &Shape, down: &Shape) -> Result<[Layer; 2]> {
    let (wide, inputs) = gate_up.dims2()?;
    let (outputs, hidden) = down.dims2()?;
    let rows = x.elem_count() / inputs.max(1);
    let widen = Layer { rows, inputs, outputs: wide };
    let narrow = Layer { rows, inputs: hidden, outputs };
    Ok([widen, narrow])
}

impl CustomOp3 for FeedForward {
    fn name(&self) -> &'static str {
        "feed_forward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gate_up: &CpuStorage,
        gate_up_layout: &Layout,
        down: &CpuStorage,
        down_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [widen, narrow] = layers(x_layout.shape(), gate_up_layout.shape(), down_layout.shape())?;
        let x = elements(self.name(), x, x_layout)?;
        let gate_up = elements(self.name(), gate_up, gate_up_layout)?;
        let down = elements(self.name(), down, down_layout)?;
        let wide = widen.forward(x, gate_up, None); // [R, 2F]
        let out = narrow.forward(&gated(&wide, narrow.inputs), down, None); // [R, O]
        let _ = self.wide.set(wide);
        let mut dims = x_layout.dims().to_vec();
        if let Some(width) = dims.last_mut() {
            *width = narrow.outputs;
        }
        Ok((CpuStorage::F32(out), Shape::from(dims)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gate_up: &Tensor,
        down: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [widen, narrow] = layers(x.shape(), gate_up.shape(), down.shape())?;
        let Some(wide) = self.wide.get() else { bail!("feed_forward: backward before forward") };
        let tensors = [x, gate_up, down, &grad.contiguous()?];
        with_all(self.name(), tensors, |[x_all, gate_up_all, down_all, grad]| {
            let hidden = narrow.inputs;
            let of_down = |out: &mut [f32], add| narrow.grad_weight(grad, &gated(wide, hidden), out, add);
            let grad_down = weight_gradient(down, of_down)?;
            if !x.track_op() && !gate_up.track_op() {
                return Ok((None, None, grad_down));
            }
            let grad_hidden = narrow.grad_x(grad, down_all); // [R, F]
            let grad_wide = gated_gradient(wide, &grad_hidden, hidden); // [R, 2F]
            drop(grad_hidden);
            Ok((
                as_gradient(|| widen.grad_x(&grad_wide, gate_up_all), x)?,
                weight_gradient(gate_up, |out, add| widen.grad_weight(&grad_wide, x_all, out, add))?,
                grad_down,
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    /// x [2, R, I], gate_up [2F, I], down [O, F]
    fn inputs(rows: usize, inputs: usize, hidden: usize, outputs: usize) -> [Tensor; 3] {
        [
            (random((2, rows, inputs), 60) / inputs as f64).unwrap(),
            random((2 * hidden, inputs), 61),
            (random((outputs, hidden), 62) / hidden as f64).unwrap(),
        ]
    }

    fn fused(t: &[Tensor]) -> Result<Tensor> {
        feed_forward(&t[0], &t[1], &t[2])
    }

    /// By candle's operations alone, so that f64 can go through it.
    fn reference(t: &[Tensor]) -> Result<Tensor> {
        let (_, rows, inputs) = t[0].dims3()?;
        let (outputs, hidden) = t[2].dims2()?;
        let wide = t[0].reshape((2 * rows, inputs))?.matmul(&t[1].t()?)?;
        let gate = wide.narrow(1, 0, hidden)?.contiguous()?.silu()?;
        let narrow = gate.mul(&wide.narrow(1, hidden, hidden)?)?.matmul(&t[2].t()?)?;
        narrow.reshape((2, rows, outputs))
    }

    #[test]
    fn feed_forward_equals_the_composed_form() {
        for (rows, from, hidden, to) in [(1, 1, 1, 1), (3, 5, 7, 4), (90, 16, 40, 16)] {
            equals_composed(&fused, &reference, &inputs(rows, from, hidden, to));
        }
    }

    #[test]
    fn feed_forward_gradient_matches_finite_differences() {
        matches_finite_differences(&fused, &reference, &inputs(3, 6, 5, 4));
    }

    #[test]
    fn feed_forward_has_the_same_bits_on_any_number_of_threads() {
        same_bits_on_any_number_of_threads(&fused, &inputs(90, 64, 128, 64));
    }

    #[test]
    fn feed_forward_has_the_bits_of_its_three_parts() {
        let t = inputs(20, 16, 24, 8);
        let parts = composed(&t[0], &t[1], &t[2]).unwrap();
        assert_eq!(bits(&fused(&t).unwrap()), bits(&parts));
    }
}
