//! Root-mean-square norm over the last axis: `y = x / rms(x) * weight`.
//!
//! One pass over each row forward and one back, against nine candle operations.
//! Shapes: `x` `[.., D]`, `weight` `[D]`, result `[.., D]`.

use crate::buffer::{as_gradient, elements, filled, for_rows, require_f32, with_all};
use crate::fused::is_fused;
use crate::lanes::dot;
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Rows whose weight gradients are summed by one task. Fixed, so the sum's order is too.
const ROWS_PER_PARTIAL: usize = 128;

/// Scales each row of `x` to root mean square 1, then by `weight`.
///
/// - `x`: `[.., D]`
/// - `weight`: `[D]`
/// - `eps`: added to the mean square
///
/// Returns `[.., D]`.
///
/// # Errors
/// When the widths differ or, on the CPU, a tensor is not f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let width = weight.dims1()?;
    if x.dim(D::Minus1)? != width {
        bail!("rms_norm: expected x [.., {width}] to match the weight, got {:?}", x.shape())
    }
    if !is_fused(x) {
        return composed(x, weight, eps);
    }
    require_f32("rms_norm", &[x, weight])?;
    x.contiguous()?.apply_op2(&weight.contiguous()?, RmsNorm { eps })
}

fn composed(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?; // [.., 1]
    x.broadcast_div(&(mean_square + eps)?.sqrt()?)?.broadcast_mul(weight)
}

struct RmsNorm {
    eps: f64,
}

impl RmsNorm {
    fn inverse(&self, row: &[f32]) -> f32 {
        1.0 / (dot(row, row) / row.len() as f32 + self.eps as f32).sqrt()
    }

    /// `dx = inverse * (g * w) - x * inverse^3 / D * sum(g * w * x)`, row by row.
    fn grad_x(&self, x: &[f32], weight: &[f32], grad: &[f32]) -> Vec<f32> {
        let width = weight.len();
        filled(x.len(), |out| {
            for_rows(out, width, |row, out| {
                let x = &x[row * width..][..width];
                let grad = &grad[row * width..][..width];
                let inverse = self.inverse(x);
                for ((out, grad), weight) in out.iter_mut().zip(grad).zip(weight) {
                    *out = grad * weight;
                }
                let along = dot(out, x) * inverse * inverse * inverse / width as f32;
                for (out, x) in out.iter_mut().zip(x) {
                    *out = *out * inverse - x * along;
                }
            });
        })
    }

    /// `dw = sum over rows of g * x * inverse`: partial sums over fixed blocks of rows, then in order.
    fn grad_weight(&self, x: &[f32], width: usize, grad: &[f32]) -> Vec<f32> {
        let block = ROWS_PER_PARTIAL * width;
        let partials: Vec<Vec<f32>> = x
            .par_chunks(block)
            .zip(grad.par_chunks(block))
            .map(|(x, grad)| {
                let mut sum = vec![0f32; width];
                for (x, grad) in x.chunks_exact(width).zip(grad.chunks_exact(width)) {
                    let inverse = self.inverse(x);
                    for ((sum, x), grad) in sum.iter_mut().zip(x).zip(grad) {
                        *sum += grad * (x * inverse);
                    }
                }
                sum
            })
            .collect();
        let mut total = vec![0f32; width];
        for partial in &partials {
            for (total, part) in total.iter_mut().zip(partial) {
                *total += part;
            }
        }
        total
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = elements("rms_norm", x, x_layout)?;
        let weight = elements("rms_norm", weight, weight_layout)?;
        let width = weight.len();
        let out = filled(x.len(), |out| {
            for_rows(out, width, |row, out| {
                let x = &x[row * width..][..width];
                let inverse = self.inverse(x);
                for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                    *out = x * inverse * weight;
                }
            });
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _normed: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let name = self.name();
        let grad = grad.contiguous()?;
        with_all(name, [x, weight, &grad], |[x_elements, weight_elements, grad]| {
            let grad_x = || self.grad_x(x_elements, weight_elements, grad);
            let grad_weight = || self.grad_weight(x_elements, weight_elements.len(), grad);
            Ok((as_gradient(grad_x, x)?, as_gradient(grad_weight, weight)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    fn inputs(rows: usize, width: usize) -> [Tensor; 2] {
        [random((rows, width), 1), random(width, 2)]
    }

    fn fused(t: &[Tensor]) -> Result<Tensor> {
        rms_norm(&t[0], &t[1], 1e-5)
    }

    fn reference(t: &[Tensor]) -> Result<Tensor> {
        composed(&t[0], &t[1], 1e-5)
    }

    #[test]
    fn rms_norm_equals_the_composed_form() {
        for (rows, width) in [(1, 1), (3, 5), (300, 37), (700, 64)] {
            equals_composed(&fused, &reference, &inputs(rows, width));
        }
    }

    #[test]
    fn rms_norm_gradient_matches_finite_differences() {
        matches_finite_differences(&fused, &reference, &inputs(4, 19));
    }

    #[test]
    fn rms_norm_has_the_same_bits_on_any_number_of_threads() {
        same_bits_on_any_number_of_threads(&fused, &inputs(700, 64));
    }

    #[test]
    fn a_row_in_a_batch_equals_the_row_alone() {
        let [x, weight] = inputs(700, 64);
        let all = rms_norm(&x, &weight, 1e-5).unwrap().narrow(0, 431, 1).unwrap();
        let alone = rms_norm(&x.narrow(0, 431, 1).unwrap(), &weight, 1e-5).unwrap();
        assert_eq!(bits(&all), bits(&alone));
    }

    #[test]
    fn another_dtype_is_refused_with_the_way_out() {
        let x = random((2, 4), 1).to_dtype(candle_core::DType::F64).unwrap();
        let error = rms_norm(&x, &random(4, 2), 1e-5).unwrap_err().to_string();
        assert!(error.contains("rms_norm") && error.contains("to_dtype"), "{error}");
    }
}
