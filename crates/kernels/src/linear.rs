//! `y = x W^T + b` as one GEMM, with both gradients as one GEMM each.
//!
//! candle's `Linear` broadcasts the weight over a batched input and transposes the weight gradient in
//! a pass of its own. Here every operand is a two-dimensional row-major matrix, the transpose is a
//! stride, and `dW` comes out as `[O, I]`.

use crate::backward::weight_gradient;
use crate::buffer::{as_gradient, elements, require_f32, with_all};
use crate::fused::is_fused;
use crate::layer::Layer;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor, bail};

/// `x W^T + b`.
///
/// - `x`: `[.., I]`
/// - `weight`: `[O, I]`
/// - `bias`: `[O]`
///
/// Returns `[.., O]`.
///
/// # Errors
/// When the widths disagree or, on the CPU, a tensor is not f32.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    if x.dim(D::Minus1)? != inputs {
        bail!("linear: expected x [.., {inputs}] for a weight {:?}, got {:?}", weight.shape(), x.shape())
    }
    if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
        bail!("linear: expected a bias [{outputs}], got {:?}", bias.shape())
    }
    if !is_fused(x) {
        return composed(x, weight, bias);
    }
    require_f32("linear", &[x, weight])?;
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        None => x.apply_op2(&weight, Linear),
        Some(bias) => {
            require_f32("linear", &[bias])?;
            x.apply_op3(&weight, &bias.contiguous()?, Linear)
        }
    }
}

fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    if let Some(width) = dims.last_mut() {
        *width = outputs;
    }
    let y = x.reshape(((), inputs))?.matmul(&weight.t()?)?; // [R, O]
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    y.reshape(dims)
}

struct Linear;

pub(crate) fn forward(
    x: (&CpuStorage, &Layout),
    weight: (&CpuStorage, &Layout),
    bias: Option<(&CpuStorage, &Layout)>,
) -> Result<(CpuStorage, Shape)> {
    let (outputs, inputs) = weight.1.shape().dims2()?;
    let x_elements = elements("linear", x.0, x.1)?;
    let weight = elements("linear", weight.0, weight.1)?;
    let bias = bias.map(|(storage, layout)| elements("linear", storage, layout)).transpose()?;
    let rows = x.1.shape().elem_count() / inputs.max(1);
    let out = Layer { rows, inputs, outputs }.forward(x_elements, weight, bias);
    let mut dims = x.1.dims().to_vec();
    if let Some(width) = dims.last_mut() {
        *width = outputs;
    }
    Ok((CpuStorage::F32(out), Shape::from(dims)))
}

/// The gradients of `x` and `weight`, each only where something upstream wants it.
pub(crate) fn backward(x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let (outputs, inputs) = weight.dims2()?;
    let rows = x.elem_count() / inputs.max(1);
    with_all("linear", [x, weight, grad], |[x_elements, weight_elements, grad]| {
        let sizes = Layer { rows, inputs, outputs };
        let grad_weight = |out: &mut [f32], add| sizes.grad_weight(grad, x_elements, out, add);
        Ok((as_gradient(|| sizes.grad_x(grad, weight_elements), x)?, weight_gradient(weight, grad_weight)?))
    })
}

/// `db`: the columns of `grad` summed in row order, into `out` or added to it.
fn sum_of_rows(grad: &[f32], out: &mut [f32], add: bool) {
    if !add {
        out.fill(0.0);
    }
    for row in grad.chunks_exact(out.len().max(1)) {
        for (out, grad) in out.iter_mut().zip(row) {
            *out += grad;
        }
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        forward((x, x_layout), (weight, weight_layout), None)
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        backward(x, weight, &grad.contiguous()?)
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        forward((x, x_layout), (weight, weight_layout), Some((bias, bias_layout)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (grad_x, grad_weight) = backward(x, weight, &grad)?;
        let grad_bias =
            with_all("linear", [&grad], |[grad]| weight_gradient(bias, |out, add| sum_of_rows(grad, out, add)))?;
        Ok((grad_x, grad_weight, grad_bias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    /// x [B, R, I], weight [O, I], bias [O]
    fn inputs(rows: usize, inputs: usize, outputs: usize) -> [Tensor; 3] {
        [random((2, rows, inputs), 7), random((outputs, inputs), 8), random(outputs, 9)]
    }

    fn fused(t: &[Tensor]) -> Result<Tensor> {
        linear(&t[0], &t[1], t.get(2))
    }

    fn reference(t: &[Tensor]) -> Result<Tensor> {
        composed(&t[0], &t[1], t.get(2))
    }

    #[test]
    fn linear_equals_the_composed_form() {
        for (rows, from, to) in [(1, 1, 1), (3, 5, 7), (1, 300, 40), (150, 130, 90)] {
            let all = inputs(rows, from, to);
            // Sums of `from` or `rows` terms: compare per unit of length.
            let scaled = [(&all[0] / (from.max(rows) as f64)).unwrap(), all[1].clone(), all[2].clone()];
            equals_composed(&fused, &reference, &scaled);
            equals_composed(&fused, &reference, &scaled[..2]);
        }
    }

    #[test]
    fn linear_gradient_matches_finite_differences() {
        matches_finite_differences(&fused, &reference, &inputs(3, 6, 5));
        matches_finite_differences(&fused, &reference, &inputs(3, 6, 5)[..2]);
    }

    #[test]
    fn linear_has_the_same_bits_on_any_number_of_threads() {
        same_bits_on_any_number_of_threads(&fused, &inputs(150, 600, 90));
    }

    #[test]
    fn a_transposed_input_gives_what_its_copy_gives() {
        let x = random((6, 4, 5), 1).transpose(0, 1).unwrap(); // [4, 6, 5]
        let weight = random((3, 5), 2);
        let copy = x.contiguous().unwrap();
        assert_eq!(bits(&linear(&x, &weight, None).unwrap()), bits(&linear(&copy, &weight, None).unwrap()));
    }

    #[test]
    fn a_frozen_weight_gets_no_gradient_and_costs_none() {
        let x = candle_core::Var::from_tensor(&random((4, 5), 1)).unwrap();
        let weight = random((3, 5), 2);
        let grads = linear(&x, &weight, None).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_some() && grads.get(&weight).is_none());
    }
}
