//! `y = x W^T + b` with weights as stored, and the gradient of `x`.

use super::vector::Path;
use super::{Matrix, panel, vector};
use crate::buffer::{as_gradient, elements, require_f32, with_all};
use crate::fused::is_fused;
use crate::precision::is_rounded;
use crate::product::FEW_ROWS;
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};

/// `x W^T + b` with frozen weights: only `x` gets a gradient.
///
/// - `x`: `[.., I]`
/// - `weight`: `[O, I]`
/// - `bias`: `[O]`, frozen too
///
/// Returns `[.., O]`.
///
/// Weights count as what their format says exactly, and sums are in f32; with Q8_0 and Q4_K, `x` is first rounded to
/// whole numbers of 16 bits a block (1e-5 of the result). A row has the same bits alone and beside any number of others.
/// With [`round_products_to_bf16`](crate::round_products_to_bf16), which the way back heeds too, neither holds for more
/// than eight rows: GEMM rounds them as that says. On another device than the CPU all weights become an f32 tensor
/// there for each call: right, and slow.
///
/// # Errors
/// When the widths disagree or, on the CPU, a tensor is not f32.
pub fn linear_stored(x: &Tensor, weight: &Matrix, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = (weight.outputs, weight.inputs);
    if x.dim(D::Minus1)? != inputs {
        bail!("linear_stored: expected x [.., {inputs}] for a weight [{outputs}, {inputs}], got {:?}", x.shape())
    }
    if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
        bail!("linear_stored: expected a bias [{outputs}], got {:?}", bias.shape())
    }
    if !is_fused(x) {
        return crate::linear(x, &weight.to_tensor(x.device())?, bias.map(Tensor::detach).as_ref());
    }
    require_f32("linear_stored", &[x])?;
    let bias = match bias {
        None => None,
        Some(bias) => {
            require_f32("linear_stored", &[bias])?;
            Some(bias.detach().contiguous()?)
        }
    };
    x.contiguous()?.apply_op1(LinearStored { weight: weight.clone(), bias })
}

/// `x W^T + b`, `[R, O]`, for `x` `[R, I]`.
pub(super) fn product(x: &[f32], weight: &Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    if is_rounded() && x.len() > FEW_ROWS * weight.inputs {
        panel::forward(x, weight, bias)
    } else {
        vector::forward(Path::best(), x, weight, bias)
    }
}

struct LinearStored {
    weight: Matrix,
    bias: Option<Tensor>,
}

impl CustomOp1 for LinearStored {
    fn name(&self) -> &'static str {
        "linear_stored"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements(self.name(), x, layout)?;
        let out = match &self.bias {
            None => product(x, &self.weight, None),
            Some(bias) => with_all(self.name(), [bias], |[bias]| Ok(product(x, &self.weight, Some(bias))))?,
        };
        Ok((CpuStorage::F32(out), with_width(layout.dims(), self.weight.outputs)))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        with_all(self.name(), [&grad.contiguous()?], |[grad]| as_gradient(|| panel::grad_x(grad, &self.weight), x))
    }
}

/// The shape with another last axis.
pub(super) fn with_width(dims: &[usize], width: usize) -> Shape {
    let mut dims = dims.to_vec();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    Shape::from(dims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;
    use crate::stored::Format;
    use candle_core::{DType, Device, Var};

    /// The weights of a matrix, in the dtype of `like`.
    fn weights(weight: &Matrix, like: &Tensor) -> Tensor {
        weight.to_tensor(&Device::Cpu).unwrap().to_dtype(like.dtype()).unwrap()
    }

    fn composed(x: &Tensor, weight: &Matrix, bias: &Tensor) -> Result<Tensor> {
        let (batch, rows, inputs) = x.dims3()?;
        let y = x.reshape((batch * rows, inputs))?.matmul(&weights(weight, x).t()?)?;
        y.broadcast_add(&bias.to_dtype(x.dtype())?)?.reshape((batch, rows, weight.outputs()))
    }

    /// Weights `[O, I]` of all formats that rows of `inputs` can have, beside each other.
    fn mixed(inputs: usize) -> Matrix {
        let fit = Format::ALL.into_iter().filter(|format| inputs.is_multiple_of(format.block_length()));
        let parts: Vec<_> = fit.zip(1..).map(|(format, i)| stored(format, [7 * i, inputs], i as u64)).collect();
        Matrix::beside(&parts).unwrap()
    }

    #[test]
    fn linear_stored_equals_the_composed_form() {
        for (rows, inputs) in [(1, 1), (3, 37), (4, 256), (20, 5), (60, 1024), (300, 64)] {
            let weight = mixed(inputs);
            let bias = random(weight.outputs(), 3);
            let x = (random((2, rows, inputs), 4) / (inputs as f64)).unwrap();
            let got = linear_stored(&x, &weight, Some(&bias)).unwrap();
            let expected = composed(&x.to_dtype(DType::F64).unwrap(), &weight, &bias).unwrap();
            assert_eq!(got.dims(), expected.dims());
            close("result", &values(&got), &values(&expected), tolerance(Format::Q4K));
            let without = (linear_stored(&x, &weight, None).unwrap().broadcast_add(&bias)).unwrap();
            close("without bias", &values(&without), &values(&got), 2e-6);
        }
    }

    #[test]
    fn a_row_has_the_same_bits_beside_any_number_of_others() {
        let weight = mixed(256);
        let x = random((150, 256), 4);
        let bits = |x: &Tensor| -> Vec<u32> {
            let y = linear_stored(x, &weight, None).unwrap().flatten_all().unwrap();
            y.to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        let alone: Vec<u32> = (0..150).flat_map(|row| bits(&x.narrow(0, row, 1).unwrap())).collect();
        assert_eq!(bits(&x), alone);
    }

    #[test]
    fn panels_multiply_as_rows_do() {
        for (rows, inputs) in [(9, 5), (70, 1024)] {
            let weight = mixed(inputs);
            let x: Vec<f32> = random(rows * inputs, 4).to_vec1().unwrap();
            let bias: Vec<f32> = random(weight.outputs(), 3).to_vec1().unwrap();
            let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
            let got = wide(panel::forward(&x, &weight, Some(&bias)));
            let expected = wide(vector::forward(Path::best(), &x, &weight, Some(&bias)));
            close("panels", &got, &expected, tolerance(Format::Q4K));
        }
    }

    #[test]
    fn linear_stored_gradient_matches_finite_differences() {
        for (rows, inputs) in [(1, 37), (2, 256), (20, 64)] {
            let weight = mixed(inputs);
            let bias = random(weight.outputs(), 3);
            let fused = |t: &[Tensor]| linear_stored(&t[0], &weight, Some(&bias));
            let reference = |t: &[Tensor]| composed(&t[0], &weight, &bias);
            matches_finite_differences(&fused, &reference, &[random((2, rows, inputs), 5)]);
        }
    }

    #[test]
    fn linear_stored_has_the_same_bits_on_any_number_of_threads() {
        let weight = mixed(768);
        for rows in [1, 3, 150] {
            let fused = |t: &[Tensor]| linear_stored(&t[0], &weight, None);
            same_bits_on_any_number_of_threads(&fused, &[random((2, rows, 768), 5)]);
        }
    }

    #[test]
    fn only_x_gets_a_gradient() {
        let x = Var::from_tensor(&random((4, 6), 1)).unwrap();
        let bias = Var::from_tensor(&random(5, 2)).unwrap();
        let y = linear_stored(&x, &stored(Format::F32, [5, 6], 3), Some(&bias)).unwrap();
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_some() && grads.get(&bias).is_none());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_shape() {
        let weight = stored(Format::Bf16, [5, 6], 3);
        let refused = |x: &Tensor, bias: Option<&Tensor>| linear_stored(x, &weight, bias).unwrap_err().to_string();
        assert!(refused(&random((4, 5), 1), None).contains("[4, 5]"));
        assert!(refused(&random((4, 6), 1), Some(&random(4, 1))).contains("[4]"));
        assert!(refused(&random((4, 6), 1).to_dtype(DType::BF16).unwrap(), None).contains("BF16"));
    }

    #[test]
    fn no_rows_give_no_rows() {
        let y = linear_stored(&random((0, 6), 1), &stored(Format::F32, [5, 6], 3), None).unwrap();
        assert_eq!(y.dims(), [0, 5]);
    }
}
