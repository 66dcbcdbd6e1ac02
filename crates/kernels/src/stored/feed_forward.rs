//! A gated feed-forward layer with weights as stored, as one operation.
//!
//! Both products and the activation between them are phases of one call for helpers.

use super::activations::Activations;
use super::linear::with_width;
use super::vector::{Out, Path, Product, ROWS};
use super::{Matrix, panel};
use crate::buffer::{Shared, as_gradient, elements, filled, require_f32, with_all};
use crate::crew::in_phases;
use crate::fused::is_fused;
use crate::precision::is_rounded;
use crate::product::FEW_ROWS;
use crate::swiglu::{gated, gated_gradient, gated_row};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use std::sync::OnceLock;

/// `down(silu(gate(x)) * up(x))` with frozen weights: only `x` gets a gradient.
///
/// - `x`: `[.., D]`
/// - `gate_up`: `[2F, D]`, the gate in the first `F` rows and up in the others
/// - `down`: `[D', F]`
///
/// Returns `[.., D']`, with the bits of [`linear_stored`](crate::linear_stored), [`swiglu`](crate::swiglu) and
/// `linear_stored`; all that is said there holds here.
///
/// # Errors
/// When the widths disagree or, on the CPU, `x` is not f32.
pub fn feed_forward_stored(x: &Tensor, gate_up: &Matrix, down: &Matrix) -> Result<Tensor> {
    if x.dim(D::Minus1)? != gate_up.inputs || gate_up.outputs != 2 * down.inputs {
        bail!(
            "feed_forward_stored: expected x [.., D], gate_up [2F, D] and down [D, F], got {:?}, {gate_up:?} and {down:?}",
            x.shape()
        )
    }
    if !is_fused(x) {
        let wide = crate::linear_stored(x, gate_up, None)?; // [.., 2F]
        return crate::linear_stored(&crate::swiglu(&wide)?, down, None);
    }
    require_f32("feed_forward_stored", &[x])?;
    let kept = x.track_op().then(OnceLock::new);
    x.contiguous()?.apply_op1(FeedForwardStored { gate_up: gate_up.clone(), down: down.clone(), kept })
}

struct FeedForwardStored {
    gate_up: Matrix,
    down: Matrix,
    /// `x W1^T`, `[R, 2F]`, from the forward pass, where there will be a way back.
    kept: Option<OnceLock<Vec<f32>>>,
}

/// `x W1^T`, `[R, 2F]`, and the result, `[R, D']`, of at most [`ROWS`] rows.
fn some_rows(x: &[f32], gate_up: &Matrix, down: &Matrix) -> [Vec<f32>; 2] {
    let path = Path::best();
    let rows = x.len() / gate_up.inputs.max(1);
    let (widen, narrow) = (Product::new(gate_up), Product::new(down));
    let x = Activations::new(x, gate_up, path);
    let hidden: OnceLock<Activations> = OnceLock::new();
    let mut out = Vec::new();
    let wide = filled(rows * gate_up.outputs, |wide| {
        let wide_out = Out { to: Shared::new(wide), outputs: gate_up.outputs, bias: None };
        out = filled(rows * down.outputs, |out| {
            let out = Out { to: Shared::new(out), outputs: down.outputs, bias: None };
            let work = |phase: usize, task: usize| match (phase, hidden.get()) {
                // SAFETY: every task runs once, and phases come one after another.
                (0, _) => unsafe { widen.run(path, task, &x, wide_out) },
                (1, _) => {
                    // SAFETY: the phase before has written all of it, and none writes it again.
                    let wide = unsafe { wide_out.to.slice(0, rows * gate_up.outputs) };
                    let mut narrow = vec![0.0; rows * down.inputs]; // [R, F]
                    for (wide, out) in wide.chunks(gate_up.outputs).zip(narrow.chunks_mut(down.inputs)) {
                        gated_row(wide, out);
                    }
                    let _ = hidden.set(Activations::new(&narrow, down, path));
                }
                // SAFETY: as above.
                (_, Some(hidden)) => unsafe { narrow.run(path, task, hidden, out) },
                (_, None) => {}
            };
            in_phases([widen.tasks(), 1, narrow.tasks()], work);
        });
    });
    [wide, out]
}

impl CustomOp1 for FeedForwardStored {
    fn name(&self) -> &'static str {
        "feed_forward_stored"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements(self.name(), x, layout)?;
        let [wide, out] = if is_rounded() && x.len() > FEW_ROWS * self.gate_up.inputs {
            let wide = panel::forward(x, &self.gate_up, None);
            let out = panel::forward(&gated(&wide, self.down.inputs), &self.down, None);
            [wide, out]
        } else {
            let mut parts = x.chunks(ROWS * self.gate_up.inputs.max(1));
            let mut all = some_rows(parts.next().unwrap_or_default(), &self.gate_up, &self.down);
            for part in parts {
                let more = some_rows(part, &self.gate_up, &self.down);
                all.iter_mut().zip(more).for_each(|(all, more)| all.extend(more));
            }
            all
        };
        if let Some(kept) = &self.kept {
            let _ = kept.set(wide);
        }
        Ok((CpuStorage::F32(out), with_width(layout.dims(), self.down.outputs)))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Some(wide) = self.kept.as_ref().and_then(OnceLock::get) else {
            bail!("feed_forward_stored: backward of an input without a gradient")
        };
        with_all(self.name(), [&grad.contiguous()?], |[grad]| {
            let of_x = || {
                let grad_hidden = panel::grad_x(grad, &self.down); // [R, F]
                panel::grad_x(&gated_gradient(wide, &grad_hidden, self.down.inputs), &self.gate_up) // [R, D]
            };
            as_gradient(of_x, x)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;
    use crate::stored::Format;
    use candle_core::Device;

    /// By candle's operations alone, so that f64 can go through it.
    fn reference(x: &Tensor, gate_up: &Matrix, down: &Matrix) -> Result<Tensor> {
        let weights = |weight: &Matrix| weight.to_tensor(&Device::Cpu)?.to_dtype(x.dtype())?.t();
        let wide = x.matmul(&weights(gate_up)?)?;
        let gate = wide.narrow(1, 0, down.inputs())?.contiguous()?.silu()?;
        gate.mul(&wide.narrow(1, down.inputs(), down.inputs())?)?.matmul(&weights(down)?)
    }

    /// gate_up of two formats beside each other and down
    fn layer(format: Format, [width, hidden]: [usize; 2]) -> [Matrix; 2] {
        let [gate, up] = [(Format::F32, 1), (format, 2)].map(|(format, seed)| stored(format, [hidden, width], seed));
        [Matrix::beside(&[gate, up]).unwrap(), stored(format, [width, hidden], 3)]
    }

    #[test]
    fn feed_forward_stored_has_the_bits_of_its_three_parts() {
        for format in Format::ALL {
            let [gate_up, down] = layer(format, [256, 512]);
            for rows in [1, 3, 8, 30, 130] {
                let x = (random((rows, 256), 4) / 16.0).unwrap();
                let wide = crate::linear_stored(&x, &gate_up, None).unwrap();
                let parts = crate::linear_stored(&crate::swiglu(&wide).unwrap(), &down, None).unwrap();
                let got = feed_forward_stored(&x, &gate_up, &down).unwrap();
                assert_eq!(bits(&got), bits(&parts), "{format:?}, {rows} rows");
            }
        }
    }

    #[test]
    fn feed_forward_stored_gradient_matches_finite_differences() {
        for (rows, sizes) in [(1, [6, 5]), (3, [37, 11]), (12, [24, 64])] {
            let [gate_up, down] = layer(Format::Bf16, sizes);
            let fused = |t: &[Tensor]| feed_forward_stored(&t[0], &gate_up, &down);
            let composed = |t: &[Tensor]| reference(&t[0], &gate_up, &down);
            let x = (random((rows, sizes[0]), 5) / sizes[0] as f64).unwrap();
            matches_finite_differences(&fused, &composed, &[x]);
        }
    }

    #[test]
    fn feed_forward_stored_has_the_same_bits_on_any_number_of_threads() {
        let [gate_up, down] = layer(Format::Q4K, [256, 768]);
        for rows in [1, 8, 90] {
            let fused = |t: &[Tensor]| feed_forward_stored(&t[0], &gate_up, &down);
            same_bits_on_any_number_of_threads(&fused, &[(random((rows, 256), 5) / 16.0).unwrap()]);
        }
    }

    #[test]
    fn widths_that_do_not_fit_are_refused() {
        let [gate_up, down] = layer(Format::F32, [6, 5]);
        let refused = |x: &Tensor, down: &Matrix| feed_forward_stored(x, &gate_up, down).unwrap_err().to_string();
        assert!(refused(&random((2, 5), 1), &down).contains("[2, 5]"));
        assert!(refused(&random((2, 6), 1), &stored(Format::F32, [6, 4], 1)).contains("[6, 4]"));
    }
}
