//! Square windows of an image as rows of a matrix (im2col), channels last.
//!
//! A convolution is then one GEMM through [`crate::linear`] with a weight `[O, side * side * C]`. The
//! backward pass adds every window back to where it came from (col2im), image by image.
//! Shapes: `[B, H, W, C]` to `[B * Ho * Wo, side * side * C]`.

use crate::buffer::{as_gradient, elements, filled, for_rows, require_f32, with_all};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

/// Cuts `x` into windows, `stride` apart, with `pad` zeros around the image.
///
/// - `x`: `[B, H, W, C]`
/// - `side`, `stride`, `pad`: pixels
///
/// Returns `[B * Ho * Wo, side * side * C]` where `Ho = (H + 2 pad - side) / stride + 1`, `Wo` alike;
/// rows run over images, then down, then across; columns over window rows, window columns, channels.
///
/// # Errors
/// When the window does not fit, `side` or `stride` is 0 or, on the CPU, the tensor is not f32.
pub fn windows(x: &Tensor, side: usize, stride: usize, pad: usize) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    if side == 0 || stride == 0 || height + 2 * pad < side || width + 2 * pad < side {
        bail!(
            "windows: expected a window within the padded image, got side {side}, stride {stride}, pad {pad} for {:?}",
            x.shape()
        )
    }
    let grid = Grid { images, height, width, channels, side, stride, pad };
    if !x.device().is_cpu() {
        return composed(x, grid);
    }
    require_f32("windows", &[x])?;
    x.contiguous()?.apply_op1(Windows(grid))
}

fn composed(x: &Tensor, grid: Grid) -> Result<Tensor> {
    let Grid { images, channels, side, stride, pad, .. } = grid;
    let (down, across) = (grid.down(), grid.across());
    let padded = x.pad_with_zeros(1, pad, pad)?.pad_with_zeros(2, pad, pad)?;
    let pick = |start: usize, count: usize| -> Result<Tensor> {
        let places: Vec<u32> = (0..count).map(|i| (start + i * stride) as u32).collect();
        Tensor::from_vec(places, count, x.device())
    };
    let mut columns = Vec::with_capacity(side * side);
    for row in 0..side {
        let rows = padded.index_select(&pick(row, down)?, 1)?; // [B, Ho, W + 2 pad, C]
        for column in 0..side {
            columns.push(rows.index_select(&pick(column, across)?, 2)?); // [B, Ho, Wo, C]
        }
    }
    Tensor::cat(&columns, 3)?.reshape((images * down * across, side * side * channels))
}

#[derive(Clone, Copy)]
struct Grid {
    images: usize,
    height: usize,
    width: usize,
    channels: usize,
    side: usize,
    stride: usize,
    pad: usize,
}

impl Grid {
    fn down(&self) -> usize {
        (self.height + 2 * self.pad - self.side) / self.stride + 1
    }

    fn across(&self) -> usize {
        (self.width + 2 * self.pad - self.side) / self.stride + 1
    }

    fn window(&self) -> usize {
        self.side * self.side * self.channels
    }

    /// Elements in the windows of one image.
    fn unfolded(&self) -> usize {
        self.down() * self.across() * self.window()
    }

    /// Elements of one image.
    fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Calls `body(window place, image place, length)` for each run of elements that lie side by side
    /// in both, in window order; the image place is `None` where the run is padding.
    fn runs(&self, mut body: impl FnMut(usize, Option<usize>, usize)) {
        let mut place = 0;
        for window in 0..self.down() * self.across() {
            let top = window / self.across() * self.stride;
            let left = window % self.across() * self.stride;
            for row in top..top + self.side {
                let inside = (self.pad..self.pad + self.height).contains(&row);
                let start = left.max(self.pad);
                let end = (left + self.side).min(self.pad + self.width);
                let (start, end) = if inside && start < end { (start, end) } else { (left, left) };
                let before = (start - left) * self.channels;
                let run = (end - start) * self.channels;
                let after = self.side * self.channels - before - run;
                body(place, None, before);
                if run > 0 {
                    let at = ((row - self.pad) * self.width + start - self.pad) * self.channels;
                    body(place + before, Some(at), run);
                }
                body(place + before + run, None, after);
                place += self.side * self.channels;
            }
        }
    }
}

struct Windows(Grid);

impl CustomOp1 for Windows {
    fn name(&self) -> &'static str {
        "windows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let grid = self.0;
        let x = elements(self.name(), x, layout)?;
        let out = filled(grid.images * grid.unfolded(), |out| {
            for_rows(out, grid.unfolded(), |image, out| {
                let x = &x[image * grid.image()..][..grid.image()];
                grid.runs(|place, from, length| match from {
                    Some(from) => out[place..place + length].copy_from_slice(&x[from..from + length]),
                    None => out[place..place + length].fill(0.0),
                });
            });
        });
        let shape = (grid.images * grid.down() * grid.across(), grid.window());
        Ok((CpuStorage::F32(out), Shape::from(shape)))
    }

    fn bwd(&self, x: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grid = self.0;
        let grad = grad.contiguous()?;
        with_all(self.name(), [&grad], |[grad]| {
            let compute = || {
                let mut out = vec![0f32; grid.images * grid.image()];
                for_rows(&mut out, grid.image(), |image, out| {
                    let grad = &grad[image * grid.unfolded()..][..grid.unfolded()];
                    grid.runs(|place, to, length| {
                        if let Some(to) = to {
                            for (out, grad) in out[to..to + length].iter_mut().zip(&grad[place..]) {
                                *out += grad;
                            }
                        }
                    });
                });
                out
            };
            as_gradient(compute, x)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    const CASES: [(usize, usize, usize); 6] = [(1, 1, 0), (3, 1, 1), (3, 2, 1), (2, 2, 0), (4, 4, 0), (2, 1, 3)];

    fn agree(check: fn(Op, Op, &[Tensor]), x: &Tensor) {
        for (side, stride, pad) in CASES {
            let (images, height, width, channels) = x.dims4().unwrap();
            let grid = Grid { images, height, width, channels, side, stride, pad };
            let fused = |t: &[Tensor]| windows(&t[0], side, stride, pad);
            let reference = |t: &[Tensor]| composed(&t[0], grid);
            check(&fused, &reference, std::slice::from_ref(x));
        }
    }

    #[test]
    fn windows_equal_the_composed_form() {
        agree(equals_composed, &random((2, 8, 6, 3), 14));
        agree(equals_composed, &random((1, 4, 5, 1), 15));
    }

    #[test]
    fn windows_gradient_matches_finite_differences() {
        agree(matches_finite_differences, &random((2, 5, 6, 2), 16));
    }

    #[test]
    fn windows_have_the_same_bits_on_any_number_of_threads() {
        let op = |t: &[Tensor]| windows(&t[0], 3, 2, 1);
        same_bits_on_any_number_of_threads(&op, &[random((12, 32, 32, 8), 17)]);
    }

    #[test]
    fn windows_times_a_filter_is_a_convolution() {
        let x = random((2, 3, 9, 8), 18); // [B, C, H, W]
        let filter = random((5, 3, 3, 3), 19); // [O, C, 3, 3]
        let expected = x.conv2d(&filter, 1, 2, 1, 1).unwrap().permute((0, 2, 3, 1)).unwrap();
        let rows = windows(&x.permute((0, 2, 3, 1)).unwrap(), 3, 2, 1).unwrap();
        let weight = filter.permute((0, 2, 3, 1)).unwrap().reshape((5, 27)).unwrap();
        let got = crate::linear(&rows, &weight, None).unwrap();
        for (got, expected) in values(&got).iter().zip(values(&expected)) {
            assert!((got - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn a_window_larger_than_the_padded_image_is_refused() {
        assert!(windows(&random((1, 2, 2, 1), 1), 5, 1, 1).is_err());
    }
}
