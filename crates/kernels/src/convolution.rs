//! Convolution, norm over channels and ReLU as one operation, channels last.
//!
//! A convolution is a product of windows (im2col) with the filters. Written as four candle operations its windows,
//! up to nine times the image, are a node of the graph: stored, and their gradient zeroed and added to. Here bands of
//! windows are cut out, multiplied and forgotten while they are in the cache, forward and again backward; only the
//! products before the norm are kept for the way back.
//! Shapes: `[B, H, W, C]` to `[B, Ho, Wo, O]`.

use crate::buffer::{Shared, as_gradient, elements, filled, require_f32, with_all};
use crate::fused::is_fused;
use crate::lanes::dot;
use crate::product::{Matrix, Target};
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::sync::OnceLock;

/// Elements of windows that are cut out at once: a band stays in a core's second-level cache (1 MB).
const BAND: usize = 1 << 18;
/// The filters' gradient is summed in this many parts, then in order. Fixed, so that the sum's order is too.
const PARTS: usize = 16;

/// How windows lie in an image.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Rows and columns of a window, pixels.
    pub side: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Pixels of zeros around the image.
    pub pad: usize,
}

impl Windows {
    /// Windows along `length` pixels: `(length + 2 pad - side) / stride + 1`.
    pub fn along(&self, length: usize) -> usize {
        (length + 2 * self.pad - self.side) / self.stride + 1
    }
}

/// `relu(rms_norm(windows(x) W^T + b) * scale)`.
///
/// - `x`: `[B, H, W, C]`
/// - `filters`: `[O, side * side * C]`, columns over window rows, window columns, channels
/// - `bias`, `scale`: `[O]`
/// - `eps`: added to the mean square over channels
///
/// Returns `[B, Ho, Wo, O]` where `Ho = (H + 2 pad - side) / stride + 1`, `Wo` alike.
///
/// # Errors
/// When the window does not fit, widths disagree, `side` or `stride` is 0 or, on the CPU, a tensor is not f32.
pub fn convolution(
    x: &Tensor,
    filters: &Tensor,
    [bias, scale]: [&Tensor; 2],
    windows: Windows,
    eps: f64,
) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let (outputs, inputs) = filters.dims2()?;
    let Windows { side, stride, pad } = windows;
    if side == 0 || stride == 0 || height + 2 * pad < side || width + 2 * pad < side {
        bail!("convolution: expected a window within the padded image, got {windows:?} for {:?}", x.shape())
    }
    if inputs != side * side * channels || bias.dims() != [outputs] || scale.dims() != [outputs] {
        bail!(
            "convolution: expected filters [O, {}], bias [O] and scale [O], got {:?}, {:?} and {:?}",
            side * side * channels,
            filters.shape(),
            bias.shape(),
            scale.shape()
        )
    }
    if !is_fused(x) {
        return composed(x, filters, [bias, scale], windows, eps);
    }
    require_f32("convolution", &[x, filters, bias, scale])?;
    let affine = Tensor::cat(&[bias, scale], 0)?; // [2 * O]
    let grid = Grid { images, height, width, channels, outputs, windows };
    let kept = (x.track_op() || filters.track_op() || affine.track_op()).then(OnceLock::new);
    x.contiguous()?.apply_op3(&filters.contiguous()?, &affine, Convolution { grid, eps: eps as f32, kept })
}

fn composed(x: &Tensor, filters: &Tensor, [bias, scale]: [&Tensor; 2], windows: Windows, eps: f64) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let Windows { side, stride, pad } = windows;
    let (down, across) = (windows.along(height), windows.along(width));
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
    let rows = Tensor::cat(&columns, 3)?.reshape((images * down * across, side * side * channels))?;
    let y = rows.matmul(&filters.t()?)?.broadcast_add(bias)?;
    let mean_square = y.sqr()?.mean_keepdim(D::Minus1)?; // [B * Ho * Wo, 1]
    let normed = y.broadcast_div(&(mean_square + eps)?.sqrt()?)?.broadcast_mul(scale)?;
    normed.relu()?.reshape((images, down, across, ()))
}

#[derive(Clone, Copy)]
struct Grid {
    images: usize,
    height: usize,
    width: usize,
    channels: usize,
    outputs: usize,
    windows: Windows,
}

impl Grid {
    fn down(&self) -> usize {
        self.windows.along(self.height)
    }

    fn across(&self) -> usize {
        self.windows.along(self.width)
    }

    /// Elements of one window.
    fn window(&self) -> usize {
        self.windows.side * self.windows.side * self.channels
    }

    /// Elements of one image.
    fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Results of one image.
    fn result(&self) -> usize {
        self.down() * self.across() * self.outputs
    }

    /// Rows of windows in one band.
    fn band(&self) -> usize {
        (BAND / (self.across() * self.window())).clamp(1, self.down())
    }

    /// Calls `body(window place, image place, length)` for each run of elements that lie side by side in both, for
    /// the windows of the rows `first..end`; the image place is `None` where the run is padding.
    fn runs(&self, [first, end]: [usize; 2], mut body: impl FnMut(usize, Option<usize>, usize)) {
        let Windows { side, stride, pad } = self.windows;
        let mut place = 0;
        for window in first * self.across()..end * self.across() {
            let top = window / self.across() * stride;
            let left = window % self.across() * stride;
            let start = left.max(pad);
            let stop = (left + side).min(pad + self.width);
            for row in top..top + side {
                let inside = (pad..pad + self.height).contains(&row) && start < stop;
                let (start, stop) = if inside { (start, stop) } else { (left, left) };
                let before = (start - left) * self.channels;
                let run = (stop - start) * self.channels;
                let after = side * self.channels - before - run;
                body(place, None, before);
                if run > 0 {
                    let at = ((row - pad) * self.width + start - pad) * self.channels;
                    body(place + before, Some(at), run);
                }
                body(place + before + run, None, after);
                place += side * self.channels;
            }
        }
    }

    /// Cuts the windows of some rows out of an image.
    fn cut(&self, rows: [usize; 2], image: &[f32], out: &mut [f32]) {
        self.runs(rows, |place, from, length| match from {
            Some(from) => out[place..place + length].copy_from_slice(&image[from..from + length]),
            None => out[place..place + length].fill(0.0),
        });
    }

    /// Adds windows back to where they came from.
    fn add_back(&self, rows: [usize; 2], from: &[f32], image: &mut [f32]) {
        self.runs(rows, |place, to, length| {
            if let Some(to) = to {
                for (out, value) in image[to..to + length].iter_mut().zip(&from[place..]) {
                    *out += value;
                }
            }
        });
    }
}

struct Convolution {
    grid: Grid,
    eps: f32,
    /// The products with bias, before the norm, `[B, Ho, Wo, O]`: set when a gradient may be asked for.
    kept: Option<OnceLock<Vec<f32>>>,
}

/// What one part of the images gives to the gradients of the weights.
struct Part {
    filters: Vec<f32>,
    bias: Vec<f32>,
    scale: Vec<f32>,
}

impl Convolution {
    fn inverse(&self, row: &[f32]) -> f32 {
        1.0 / (dot(row, row) / row.len() as f32 + self.eps).sqrt()
    }

    /// `windows W^T + b` for the rows `rows` of one image's windows.
    fn products(&self, rows: [usize; 2], image: &[f32], [filters, bias]: [&[f32]; 2], out: &mut [f32]) {
        let grid = self.grid;
        let (count, window) = ((rows[1] - rows[0]) * grid.across(), grid.window());
        out.chunks_exact_mut(grid.outputs).for_each(|row| row.copy_from_slice(bias));
        let cut = filled(count * window, |cut| grid.cut(rows, image, cut));
        let cut = Matrix::new(&cut, count, window, window);
        let filters = Matrix::new(filters, grid.outputs, window, window);
        Target::new(out, count, grid.outputs, grid.outputs).a_bt(cut, filters, 1.0, true);
    }

    fn forward(&self, x: &[f32], filters: &[f32], affine: &[f32]) -> Vec<f32> {
        let grid = self.grid;
        let (bias, scale) = affine.split_at(grid.outputs);
        let products = filled(grid.images * grid.result(), |out| {
            let bands = grid.down().div_ceil(grid.band());
            let out = Shared::new(out);
            (0..grid.images * bands).into_par_iter().for_each(|unit| {
                let (image, first) = (unit / bands, unit % bands * grid.band());
                let rows = [first, (first + grid.band()).min(grid.down())];
                let row = grid.across() * grid.outputs;
                // SAFETY: each unit writes the rows of its own band of its own image.
                let out = unsafe { out.slice(image * grid.result() + rows[0] * row, (rows[1] - rows[0]) * row) };
                self.products(rows, &x[image * grid.image()..][..grid.image()], [filters, bias], out);
                if self.kept.is_none() {
                    out.chunks_exact_mut(grid.outputs).for_each(|row| {
                        let inverse = self.inverse(row);
                        row.iter_mut().zip(scale).for_each(|(y, scale)| *y = (*y * inverse * scale).max(0.0));
                    });
                }
            });
        });
        let Some(kept) = &self.kept else { return products };
        let products = kept.get_or_init(|| products);
        filled(products.len(), |out| {
            crate::buffer::for_rows(out, grid.outputs, |row, out| {
                let products = &products[row * grid.outputs..][..grid.outputs];
                let inverse = self.inverse(products);
                for ((out, y), scale) in out.iter_mut().zip(products).zip(scale) {
                    *out = (y * inverse * scale).max(0.0);
                }
            });
        })
    }

    /// Turns gradients of results into gradients of products, adding up those of scale and bias on the way:
    /// `dy = inverse * (g * scale) - y * inverse^3 / O * sum(g * scale * y)` where `g` is 0 under the ReLU.
    fn before_norm(&self, products: &[f32], grad: &[f32], scale: &[f32], out: &mut [f32], part: &mut Part) {
        let width = scale.len();
        let rows = products.chunks_exact(width).zip(grad.chunks_exact(width));
        for ((y, grad), out) in rows.zip(out.chunks_exact_mut(width)) {
            let inverse = self.inverse(y);
            for i in 0..width {
                let passed = if y[i] * scale[i] > 0.0 { grad[i] } else { 0.0 };
                part.scale[i] += passed * (y[i] * inverse);
                out[i] = passed * scale[i];
            }
            let along = dot(out, y) * inverse * inverse * inverse / width as f32;
            for i in 0..width {
                out[i] = out[i] * inverse - y[i] * along;
                part.bias[i] += out[i];
            }
        }
    }

    /// Gradients of `x` (where wanted), of the filters, and of bias and scale `[2 * O]`.
    fn backward(&self, x: &[f32], filters: &[f32], scale: &[f32], grad: &[f32], wants_x: bool) -> [Vec<f32>; 3] {
        let grid = self.grid;
        let (window, outputs) = (grid.window(), grid.outputs);
        let products = self.kept.as_ref().and_then(OnceLock::get).map_or(&[][..], Vec::as_slice);
        let mut grad_x = vec![0f32; if wants_x { x.len() } else { 0 }];
        let to_x = Shared::new(&mut grad_x);
        let images = grid.images.div_ceil(PARTS);
        let parts: Vec<Part> = (0..grid.images.div_ceil(images.max(1)))
            .into_par_iter()
            .map(|part| {
                let mut sums =
                    Part { filters: vec![0.0; filters.len()], bias: vec![0.0; outputs], scale: vec![0.0; outputs] };
                let mut cut = vec![0f32; grid.band() * grid.across() * window];
                let mut before = vec![0f32; grid.band() * grid.across() * outputs];
                for image in part * images..((part + 1) * images).min(grid.images) {
                    for first in (0..grid.down()).step_by(grid.band()) {
                        let rows = [first, (first + grid.band()).min(grid.down())];
                        let count = (rows[1] - rows[0]) * grid.across();
                        let at = image * grid.result() + first * grid.across() * outputs;
                        let (cut, before) = (&mut cut[..count * window], &mut before[..count * outputs]);
                        let (products, grad) = (&products[at..][..before.len()], &grad[at..][..before.len()]);
                        self.before_norm(products, grad, scale, before, &mut sums);
                        grid.cut(rows, &x[image * grid.image()..][..grid.image()], cut);
                        let before = Matrix::new(before, count, outputs, outputs);
                        let windows = Matrix::new(cut, count, window, window);
                        Target::new(&mut sums.filters, outputs, window, window).at_b(before, windows, 1.0, true);
                        if wants_x {
                            let filters = Matrix::new(filters, outputs, window, window);
                            Target::new(cut, count, window, window).a_b(before, filters, 1.0, false);
                            // SAFETY: each image belongs to one part.
                            let out = unsafe { to_x.slice(image * grid.image(), grid.image()) };
                            grid.add_back(rows, cut, out);
                        }
                    }
                }
                sums
            })
            .collect();
        let mut grad_filters = vec![0f32; filters.len()];
        let mut grad_affine = vec![0f32; 2 * outputs];
        for part in &parts {
            grad_filters.iter_mut().zip(&part.filters).for_each(|(sum, part)| *sum += part);
            let affine = part.bias.iter().chain(&part.scale);
            grad_affine.iter_mut().zip(affine).for_each(|(sum, part)| *sum += part);
        }
        [grad_x, grad_filters, grad_affine]
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        filters: &CpuStorage,
        filters_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = elements(self.name(), x, x_layout)?;
        let filters = elements(self.name(), filters, filters_layout)?;
        let affine = elements(self.name(), affine, affine_layout)?;
        let grid = self.grid;
        let shape = (grid.images, grid.down(), grid.across(), grid.outputs);
        Ok((CpuStorage::F32(self.forward(x, filters, affine)), Shape::from(shape)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        filters: &Tensor,
        affine: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [grad_x, grad_filters, grad_affine] =
            with_all(self.name(), [x, filters, affine, &grad], |[x_elements, filters, affine, grad]| {
                Ok(self.backward(x_elements, filters, &affine[self.grid.outputs..], grad, x.track_op()))
            })?;
        Ok((as_gradient(|| grad_x, x)?, as_gradient(|| grad_filters, filters)?, as_gradient(|| grad_affine, affine)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    const CASES: [(usize, usize, usize); 6] = [(1, 1, 0), (3, 1, 1), (3, 2, 1), (2, 2, 0), (4, 4, 0), (2, 1, 3)];

    fn inputs([images, height, width, channels]: [usize; 4], side: usize, outputs: usize) -> [Tensor; 4] {
        [
            random((images, height, width, channels), 14),
            random((outputs, side * side * channels), 15),
            random(outputs, 16),
            random(outputs, 17),
        ]
    }

    fn agree(check: fn(Op, Op, &[Tensor]), shape: [usize; 4], outputs: usize) {
        for (side, stride, pad) in CASES {
            let windows = Windows { side, stride, pad };
            let fused = |t: &[Tensor]| convolution(&t[0], &t[1], [&t[2], &t[3]], windows, 1e-3);
            let reference = |t: &[Tensor]| composed(&t[0], &t[1], [&t[2], &t[3]], windows, 1e-3);
            check(&fused, &reference, &inputs(shape, side, outputs));
        }
    }

    #[test]
    fn convolution_equals_the_composed_form() {
        agree(equals_composed, [2, 8, 6, 3], 5);
        agree(equals_composed, [1, 4, 5, 1], 7);
        agree(equals_composed, [19, 4, 4, 2], 3);
    }

    #[test]
    fn convolution_gradient_matches_finite_differences() {
        agree(matches_finite_differences, [2, 5, 6, 2], 3);
    }

    #[test]
    fn convolution_in_several_bands_equals_the_composed_form() {
        let inputs = inputs([2, 40, 300, 8], 3, 4);
        let windows = Windows { side: 3, stride: 1, pad: 1 };
        let grid = Grid { images: 2, height: 40, width: 300, channels: 8, outputs: 4, windows };
        assert!(grid.band() < grid.down());
        let fused = |t: &[Tensor]| convolution(&t[0], &t[1], [&t[2], &t[3]], windows, 1e-3);
        let reference = |t: &[Tensor]| composed(&t[0], &t[1], [&t[2], &t[3]], windows, 1e-3);
        equals_composed(&fused, &reference, &inputs);
    }

    #[test]
    fn convolution_has_the_same_bits_on_any_number_of_threads() {
        let windows = Windows { side: 3, stride: 2, pad: 1 };
        let op = |t: &[Tensor]| convolution(&t[0], &t[1], [&t[2], &t[3]], windows, 1e-3);
        same_bits_on_any_number_of_threads(&op, &inputs([18, 32, 32, 8], 3, 16));
    }

    #[test]
    fn an_image_in_a_batch_equals_the_image_alone() {
        let [x, filters, bias, scale] = inputs([3, 32, 32, 8], 3, 16);
        let windows = Windows { side: 3, stride: 2, pad: 1 };
        let run = |x: &Tensor| convolution(x, &filters, [&bias, &scale], windows, 1e-3).unwrap();
        assert_eq!(bits(&run(&x).narrow(0, 2, 1).unwrap()), bits(&run(&x.narrow(0, 2, 1).unwrap())));
    }

    #[test]
    fn convolution_without_gradient_has_the_bits_of_the_one_with() {
        let [x, filters, bias, scale] = inputs([2, 16, 16, 8], 3, 16);
        let windows = Windows { side: 3, stride: 1, pad: 1 };
        let plain = convolution(&x, &filters, [&bias, &scale], windows, 1e-3).unwrap();
        let variable = candle_core::Var::from_tensor(&filters).unwrap();
        let tracked = convolution(&x, variable.as_tensor(), [&bias, &scale], windows, 1e-3).unwrap();
        assert_eq!(bits(&plain), bits(&tracked));
    }

    #[test]
    fn convolution_agrees_with_candle_conv2d() {
        let x = random((2, 3, 9, 8), 18); // [B, C, H, W]
        let filter = random((5, 3, 3, 3), 19); // [O, C, 3, 3]
        let plain = x.conv2d(&filter, 1, 2, 1, 1).unwrap().permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let (bias, scale) = (Tensor::zeros(5, x.dtype(), x.device()).unwrap(), random(5, 20));
        let expected = crate::rms_norm(&plain, &scale, 1e-3).unwrap().relu().unwrap();
        let filters = filter.permute((0, 2, 3, 1)).unwrap().reshape((5, 27)).unwrap();
        let windows = Windows { side: 3, stride: 2, pad: 1 };
        let x = x.permute((0, 2, 3, 1)).unwrap();
        let got = convolution(&x, &filters, [&bias, &scale], windows, 1e-3).unwrap();
        assert_eq!(got.dims(), expected.dims());
        for (got, expected) in values(&got).iter().zip(values(&expected)) {
            assert!((got - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn a_window_larger_than_the_padded_image_is_refused() {
        let [x, filters, bias, scale] = inputs([1, 2, 2, 1], 5, 2);
        let windows = Windows { side: 5, stride: 1, pad: 1 };
        let error = convolution(&x, &filters, [&bias, &scale], windows, 1e-3).unwrap_err().to_string();
        assert!(error.contains("window"), "{error}");
    }
}
