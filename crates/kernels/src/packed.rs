//! Products with frozen f32 weights that are laid out for them once, by which a row has the same bits in any company.
//!
//! Weights lie in panels of [`LANES`] outputs, one input after the other: a vector holds as many outputs, and each output is
//! one running sum over the inputs in order, whatever else is computed beside it. GEMM packs the same way, but for each
//! product anew, and blocks by the number of rows; dot products over the rows of a matrix, as for weights as they are stored,
//! fold a vector for each output, which in small models costs as much as the products.

use crate::buffer::{Shared, as_gradient, elements, filled, require_f32, with_all};
use crate::layer::Layer;
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::sync::Arc;

/// Outputs of a panel: two vectors of 512 bits.
const LANES: usize = 32;
/// Rows of activations that are multiplied at once: their sums fill the registers.
const ROWS: usize = 6;
/// Rows that one task takes.
const TASK_ROWS: usize = 8 * ROWS;
/// Below this many products a call stays on its thread: twenty microseconds' work, about what waking another takes.
const PARALLEL_PRODUCTS: usize = 1 << 18;

/// One input's weights in a panel, at a cache line's alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Lanes([f32; LANES]);

/// Frozen weights `[O, I]` in panels, beside the tensor they came from. A clone shares both.
#[derive(Clone, Debug)]
pub struct Packed {
    panels: Arc<[Lanes]>,
    weight: Tensor,
    outputs: usize,
    inputs: usize,
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Packed {
    /// Lays out a matrix `[O, I]`.
    ///
    /// # Errors
    /// When the tensor is no matrix of f32 on the CPU.
    pub fn new(weight: &Tensor) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        require_f32("packed weights", &[weight])?;
        let weight = weight.detach().contiguous()?;
        let panels = with_all("packed weights", [&weight], |[all]| {
            let place = |panel: usize, input: usize| {
                let of = |lane: usize| all.get((panel * LANES + lane) * inputs + input).copied().unwrap_or(0.0);
                Lanes(std::array::from_fn(of))
            };
            let panels = (0..outputs.div_ceil(LANES)).flat_map(|panel| (0..inputs).map(move |input| (panel, input)));
            Ok(panels.map(|(panel, input)| place(panel, input)).collect())
        })?;
        Ok(Self { panels, weight, outputs, inputs })
    }

    /// The weights, `[O, I]`.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    fn panel(&self, panel: usize) -> &[Lanes] {
        &self.panels[panel * self.inputs..][..self.inputs]
    }
}

/// `x W^T + b`, where only `x` gets a gradient.
///
/// - `x`: `[.., I]`
/// - `bias`: `[O]`, frozen too
///
/// Returns `[.., O]`. A row has the same bits alone and beside any number of others.
///
/// # Errors
/// When the widths disagree or a tensor is not f32 on the CPU.
pub fn linear_packed(x: &Tensor, weight: &Packed, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = (weight.outputs, weight.inputs);
    if x.dim(D::Minus1)? != inputs {
        bail!("linear_packed: expected x [.., {inputs}] for a weight [{outputs}, {inputs}], got {:?}", x.shape())
    }
    if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
        bail!("linear_packed: expected a bias [{outputs}], got {:?}", bias.shape())
    }
    require_f32("linear_packed", &[x])?;
    let bias = bias.map(|bias| bias.detach().contiguous()).transpose()?;
    x.contiguous()?.apply_op1(LinearPacked { weight: weight.clone(), bias })
}

struct LinearPacked {
    weight: Packed,
    bias: Option<Tensor>,
}

/// The sums of some rows with one panel.
#[inline]
fn sums<const R: usize>(x: [&[f32]; R], panel: &[Lanes]) -> [[f32; LANES]; R] {
    let mut sums = [[0f32; LANES]; R];
    for (input, Lanes(weights)) in panel.iter().enumerate() {
        for row in 0..R {
            let x = x[row][input];
            for lane in 0..LANES {
                sums[row][lane] = weights[lane].mul_add(x, sums[row][lane]);
            }
        }
    }
    sums
}

/// The product, `[R, O]`, of `x` `[R, I]`.
fn product(x: &[f32], weight: &Packed, bias: Option<&[f32]>) -> Vec<f32> {
    let Packed { outputs, inputs, .. } = *weight;
    let rows = x.len() / inputs.max(1);
    let (panels, tasks) = (outputs.div_ceil(LANES), rows.div_ceil(TASK_ROWS));
    filled(rows * outputs, |out| {
        let out = Shared::new(out);
        let run = |unit: usize| {
            // A task's rows pass by one panel, which stays in the first-level cache.
            let (panel, top) = (unit % panels, unit / panels * TASK_ROWS);
            let (weights, first) = (weight.panel(panel), panel * LANES);
            let bias = bias.map(|bias| &bias[first..outputs.min(first + LANES)]);
            let row_of = |row: usize| &x[row * inputs..][..inputs];
            let put = |row: usize, sums: &[f32; LANES]| {
                // SAFETY: a unit's rows and columns are its own.
                let to = unsafe { out.slice(row * outputs + first, LANES.min(outputs - first)) };
                match bias {
                    None => to.copy_from_slice(&sums[..to.len()]),
                    Some(bias) => to.iter_mut().zip(sums).zip(bias).for_each(|((to, sum), bias)| *to = sum + bias),
                }
            };
            let end = rows.min(top + TASK_ROWS);
            let mut row = top;
            while row + ROWS <= end {
                let x: [&[f32]; ROWS] = std::array::from_fn(|i| row_of(row + i));
                sums(x, weights).iter().enumerate().for_each(|(i, sums)| put(row + i, sums));
                row += ROWS;
            }
            while row + 2 <= end {
                sums([row_of(row), row_of(row + 1)], weights).iter().enumerate().for_each(|(i, s)| put(row + i, s));
                row += 2;
            }
            if row < end {
                put(row, &sums([row_of(row)], weights)[0]);
            }
        };
        if rows * outputs * inputs < PARALLEL_PRODUCTS {
            (0..panels * tasks).for_each(run);
        } else {
            (0..panels * tasks).into_par_iter().for_each(run);
        }
    })
}

impl CustomOp1 for LinearPacked {
    fn name(&self) -> &'static str {
        "linear_packed"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements(self.name(), x, layout)?;
        let out = match &self.bias {
            None => product(x, &self.weight, None),
            Some(bias) => with_all(self.name(), [bias], |[bias]| Ok(product(x, &self.weight, Some(bias))))?,
        };
        let mut dims = layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.weight.outputs;
        }
        Ok((CpuStorage::F32(out), Shape::from(dims)))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Packed { outputs, inputs, .. } = self.weight;
        let layer = Layer { rows: x.elem_count() / inputs.max(1), inputs, outputs };
        with_all(self.name(), [&grad.contiguous()?, &self.weight.weight], |[grad, weight]| {
            as_gradient(|| layer.grad_x(grad, weight), x)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    /// Rows, inputs, outputs.
    const CASES: [[usize; 3]; 6] = [[1, 1, 1], [3, 7, 5], [14, 33, 32], [61, 192, 100], [2, 300, 33], [200, 64, 70]];

    fn inputs([rows, inputs, outputs]: [usize; 3]) -> [Tensor; 3] {
        [(random((rows, inputs), 1) / (inputs as f64)).unwrap(), random((outputs, inputs), 2), random(outputs, 3)]
    }

    #[test]
    fn linear_packed_is_linear() {
        for case in CASES {
            let [x, weight, bias] = inputs(case);
            let packed = Packed::new(&weight).unwrap();
            for bias in [None, Some(&bias)] {
                let got = linear_packed(&x, &packed, bias).unwrap();
                let expected = crate::linear(&x, &weight, bias).unwrap();
                assert_eq!(got.dims(), expected.dims());
                close("product", &values(&got), &values(&expected), 2e-6);
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_beside_others() {
        for case in CASES {
            let [x, weight, bias] = inputs(case);
            let packed = Packed::new(&weight).unwrap();
            let together = bits(&linear_packed(&x, &packed, Some(&bias)).unwrap());
            let alone = (0..case[0])
                .flat_map(|row| bits(&linear_packed(&x.narrow(0, row, 1).unwrap(), &packed, Some(&bias)).unwrap()));
            assert_eq!(together, alone.collect::<Vec<_>>(), "{case:?}");
        }
    }

    #[test]
    fn linear_packed_has_the_same_bits_on_any_number_of_threads() {
        let [x, weight, _] = inputs([200, 300, 90]);
        let packed = Packed::new(&weight).unwrap();
        same_bits_on_any_number_of_threads(&|t| linear_packed(&t[0], &packed, None), &[x]);
    }

    #[test]
    fn only_x_gets_a_gradient_and_it_is_that_of_linear() {
        let [x, weight, _] = inputs([5, 40, 50]);
        let (x, packed) = (candle_core::Var::from_tensor(&x).unwrap(), Packed::new(&weight).unwrap());
        let of = |y: Tensor| y.sqr().unwrap().sum_all().unwrap().backward().unwrap().get(&x).unwrap().clone();
        let got = of(linear_packed(&x, &packed, None).unwrap());
        let expected = of(crate::linear(&x, &weight, None).unwrap());
        close("gradient", &values(&got), &values(&expected), 1e-5);
    }
}
