//! The gated activation of a feed-forward layer: `silu(gate) * up` from one packed product.
//!
//! Packed so that gate and up come out of one GEMM. Nothing is kept for the backward pass: the
//! sigmoid is computed again from the gate, which is cheaper than storing and reading it.
//! Shapes: `[.., 2F]` (gate first, then up) to `[.., F]`.

use crate::buffer::{as_gradient, elements, filled, for_rows, require_f32, with_all};
use crate::fused::is_fused;
use crate::lanes::sigmoid;
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};

/// `silu(gate) * up`.
///
/// - `gate_up`: `[.., 2F]`, the gate in the first half of the last axis, up in the second
///
/// Returns `[.., F]`.
///
/// # Errors
/// When the last axis is odd or, on the CPU, the tensor is not f32.
pub fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    let width = gate_up.dim(D::Minus1)?;
    if width % 2 != 0 {
        bail!("swiglu: expected gate and up side by side in an even last axis, got {:?}", gate_up.shape())
    }
    if !is_fused(gate_up) {
        return composed(gate_up);
    }
    require_f32("swiglu", &[gate_up])?;
    gate_up.contiguous()?.apply_op1(Swiglu)
}

fn composed(gate_up: &Tensor) -> Result<Tensor> {
    let half = gate_up.dim(D::Minus1)? / 2;
    let gate = gate_up.narrow(D::Minus1, 0, half)?; // [.., F]
    let up = gate_up.narrow(D::Minus1, half, half)?; // [.., F]
    gate.contiguous()?.silu()?.mul(&up)
}

/// `silu(gate) * up` of `gate_up` `[R, 2 half]`, `[R, half]`.
pub(crate) fn gated(gate_up: &[f32], half: usize) -> Vec<f32> {
    filled(gate_up.len() / 2, |out| {
        for_rows(out, half, |row, out| gated_row(&gate_up[row * 2 * half..][..2 * half], out));
    })
}

/// One row of [`gated`], on the calling thread.
pub(crate) fn gated_row(gate_up: &[f32], out: &mut [f32]) {
    let (gate, up) = gate_up.split_at(out.len());
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate * sigmoid(*gate) * up;
    }
}

/// The gradient of `gate_up` `[R, 2 half]` from that of the result, `[R, half]`.
pub(crate) fn gated_gradient(gate_up: &[f32], grad: &[f32], half: usize) -> Vec<f32> {
    filled(gate_up.len(), |out| {
        for_rows(out, 2 * half, |row, out| {
            let (gate, up) = gate_up[row * 2 * half..][..2 * half].split_at(half);
            let (out_gate, out_up) = out.split_at_mut(half);
            let grad = &grad[row * half..][..half];
            for i in 0..half {
                let s = sigmoid(gate[i]);
                out_gate[i] = grad[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s));
                out_up[i] = grad[i] * gate[i] * s;
            }
        });
    })
}

struct Swiglu;

impl CustomOp1 for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, gate_up: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let gate_up = elements(self.name(), gate_up, layout)?;
        let mut dims = layout.dims().to_vec();
        let Some(width) = dims.last_mut() else { bail!("swiglu: expected an axis, got a scalar") };
        *width /= 2;
        let half = *width;
        let out = gated(gate_up, half);
        Ok((CpuStorage::F32(out), Shape::from(dims)))
    }

    fn bwd(&self, gate_up: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let half = gate_up.dim(D::Minus1)? / 2;
        let grad = grad.contiguous()?;
        with_all(self.name(), [gate_up, &grad], |[values, grad]| {
            as_gradient(|| gated_gradient(values, grad, half), gate_up)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    fn fused(t: &[Tensor]) -> Result<Tensor> {
        swiglu(&t[0])
    }

    fn reference(t: &[Tensor]) -> Result<Tensor> {
        composed(&t[0])
    }

    #[test]
    fn swiglu_equals_the_composed_form() {
        for shape in [(1, 2), (3, 34), (500, 128)] {
            equals_composed(&fused, &reference, &[(random(shape, 3) * 4.0).unwrap()]);
        }
    }

    #[test]
    fn swiglu_gradient_matches_finite_differences() {
        matches_finite_differences(&fused, &reference, &[random((3, 20), 4)]);
    }

    #[test]
    fn swiglu_has_the_same_bits_on_any_number_of_threads() {
        same_bits_on_any_number_of_threads(&fused, &[random((500, 128), 5)]);
    }

    #[test]
    fn an_odd_width_is_refused() {
        assert!(swiglu(&random((2, 3), 1)).is_err());
    }
}
