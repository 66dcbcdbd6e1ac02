//! Resampling in whole numbers, exactly as torchvision resizes 8-bit pictures on a CPU with `antialias=True`.
//!
//! Its rules are Pillow's with coarser weights: a filter as wide as the reduction, weights rounded to 16 bits, the
//! horizontal pass first, 8-bit values between the passes. One rounding done otherwise and a level differs, which is
//! more in `pixel_values` than all later errors together; so nothing here is left to another library.

use std::borrow::Cow;

use rayon::prelude::*;

use super::Size;
use crate::image::Picture;

/// Most bits behind the point of a whole weight.
const MOST_PRECISION: u32 = 22;
/// Bytes of a row that the vertical pass sums at a time: their sums stay in the first cache.
const BLOCK: usize = 1024;
/// Rows that the horizontal pass turns at a time.
const BAND: usize = 64;

/// How pixels are weighted by their distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Cubic convolution with a = -0.5, as in Pillow; torch's own, for tensors of floats, has -0.75.
    Bicubic,
    /// A sinc under a sinc window three times as wide.
    Lanczos,
}

impl Filter {
    /// Distance at which the weight has become zero, in pixels of the coarser picture.
    fn radius(self) -> f64 {
        match self {
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Filter::Bicubic => {
                let a = -0.5;
                match x {
                    x if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
                    x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * a,
                    _ => 0.0,
                }
            }
            Filter::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Filter::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// The picture in another size, neither side of which may be 0. An axis that keeps its length is not filtered.
#[must_use]
pub(super) fn resize(picture: &Picture, to: Size, filter: Filter) -> Cow<'_, Picture> {
    let mut picture = Cow::Borrowed(picture);
    if picture.width != to.width {
        let rgb = horizontal(&picture, &Axis::new(picture.width, to.width, filter));
        picture = Cow::Owned(Picture { width: to.width, height: picture.height, rgb });
    }
    if picture.height != to.height {
        let rgb = vertical(&picture, &Axis::new(picture.height, to.height, filter));
        picture = Cow::Owned(Picture { width: to.width, height: to.height, rgb });
    }
    picture
}

/// The weights of one pass: one window for each pixel along the axis.
struct Axis {
    windows: Vec<Window>,
    /// Bits behind the point of the weights.
    precision: u32,
}

/// What one new pixel is made of.
struct Window {
    /// The first pixel it sees.
    first: usize,
    /// Of this and the following pixels.
    weights: Vec<i16>,
}

impl Axis {
    fn new(from: usize, to: usize, filter: Filter) -> Axis {
        let scale = from as f64 / to as f64;
        let windows: Vec<_> = (0..to).map(|place| window(place, from, scale, filter)).collect();
        let largest = windows.iter().flat_map(|(_, weights)| weights).copied().fold(0.0, f64::max);
        let precision = precision(largest);
        let whole = |weight: &f64| {
            let scaled = weight * f64::from(1_u32 << precision);
            (scaled + 0.5_f64.copysign(scaled)) as i16 // rounds halves away from zero
        };
        let windows = windows
            .into_iter()
            .map(|(first, weights)| Window { first, weights: weights.iter().map(whole).collect() })
            .collect();
        Axis { windows, precision }
    }

    /// Where a sum starts, so that dropping the bits behind the point rounds.
    fn half(&self) -> i32 {
        (1 << self.precision) / 2
    }

    fn level(&self, sum: i32) -> u8 {
        (sum >> self.precision).clamp(0, 255) as u8
    }
}

/// The pixels that a new pixel sees, from the first, and their weights, which sum to 1.
fn window(place: usize, from: usize, scale: f64, filter: Filter) -> (usize, Vec<f64>) {
    let stretch = scale.max(1.0);
    let support = filter.radius() * stretch;
    let centre = scale * (place as f64 + 0.5);
    let first = ((centre - support + 0.5) as i64).max(0) as usize;
    let end = ((centre + support + 0.5) as usize).min(from);
    // Multiplied by the inverse and not divided, as the reference does: the last bit can decide a rounding.
    let inverse = 1.0 / stretch;
    let weight = |pixel: usize| filter.weight((pixel as f64 - centre + 0.5) * inverse);
    let mut weights: Vec<f64> = (first..end).map(weight).collect();
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
    (first, weights)
}

/// As many bits behind the point as leave the largest weight of the axis in 16 bits.
fn precision(largest: f64) -> u32 {
    let fits = |bits: u32| (0.5 + largest * f64::from(1_u32 << bits)) < f64::from(1 << 15);
    (1..=MOST_PRECISION).take_while(|&bits| fits(bits)).last().unwrap_or(0)
}

/// Adds weighted levels to sums. These stay below 2^31: weights sum to 2^22 at most, and few of them are negative.
fn add(sums: &mut [i32], weight: i16, values: &[u8]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += i32::from(weight) * i32::from(*value);
    }
}

/// Along a row, sums that stand side by side have different weights and do not become vectors; so bands of rows are
/// turned by a quarter, and turned back. Measured: two to four times as fast as along rows.
fn horizontal(picture: &Picture, axis: &Axis) -> Vec<u8> {
    let (from_bytes, to_bytes) = (picture.width * 3, axis.windows.len() * 3);
    let mut resized = vec![0; picture.height * to_bytes];
    let bands = resized.par_chunks_mut(BAND * to_bytes).zip(picture.rgb.par_chunks(BAND * from_bytes));
    bands.for_each(|(target, source)| {
        let mut columns = vec![[0; BAND * 3]; picture.width];
        for (row, pixels) in source.chunks_exact(from_bytes).enumerate() {
            for (column, pixel) in columns.iter_mut().zip(pixels.chunks_exact(3)) {
                column[row * 3..][..3].copy_from_slice(pixel);
            }
        }
        for (place, window) in axis.windows.iter().enumerate() {
            let mut sums = [axis.half(); BAND * 3];
            for (weight, column) in window.weights.iter().zip(&columns[window.first..]) {
                add(&mut sums, *weight, column);
            }
            let column = sums.map(|sum| axis.level(sum));
            for (row, pixel) in target.chunks_exact_mut(to_bytes).zip(column.chunks_exact(3)) {
                row[place * 3..][..3].copy_from_slice(pixel);
            }
        }
    });
    resized
}

fn vertical(picture: &Picture, axis: &Axis) -> Vec<u8> {
    let row_bytes = picture.width * 3;
    let mut resized = vec![0; axis.windows.len() * row_bytes];
    resized.par_chunks_exact_mut(row_bytes).zip(&axis.windows).for_each(|(target, window)| {
        let source = &picture.rgb[window.first * row_bytes..];
        let mut sums = [0; BLOCK];
        for (block, part) in target.chunks_mut(BLOCK).enumerate() {
            let sums = &mut sums[..part.len()];
            sums.fill(axis.half());
            for (weight, row) in window.weights.iter().zip(source.chunks_exact(row_bytes)) {
                add(sums, *weight, &row[block * BLOCK..]);
            }
            for (byte, sum) in part.iter_mut().zip(sums) {
                *byte = axis.level(*sum);
            }
        }
    });
    resized
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A picture of pseudo-random levels, the same for the same size.
    fn noise(size: Size) -> Picture {
        let level = |place: usize| (place.wrapping_mul(2_654_435_761) >> 7) as u8;
        Picture { width: size.width, height: size.height, rgb: (0..size.width * size.height * 3).map(level).collect() }
    }

    fn turned(picture: &Picture) -> Picture {
        let at = |row: usize, col: usize| &picture.rgb[(row * picture.width + col) * 3..][..3];
        let rgb = (0..picture.width).flat_map(|col| (0..picture.height).flat_map(move |row| at(row, col).to_vec()));
        Picture { width: picture.height, height: picture.width, rgb: rgb.collect() }
    }

    #[test]
    fn levels_are_those_of_torchvision() {
        // torchvision.transforms.v2.functional.resize, uint8, antialias=True; torch 2.15.
        let cases: [(Filter, &[u8]); 6] = [
            (Filter::Bicubic, &[112, 115, 116]),
            (Filter::Bicubic, &[35, 198, 72, 147, 111, 25, 223]),
            (Filter::Bicubic, &[0, 108, 254, 82, 38, 190, 147, 76, 124, 83, 0, 152, 255]),
            (Filter::Lanczos, &[113, 113, 116]),
            (Filter::Lanczos, &[47, 192, 68, 155, 108, 26, 218]),
            (Filter::Lanczos, &[0, 118, 255, 84, 28, 186, 157, 74, 130, 75, 0, 150, 255]),
        ];
        let row: Vec<u8> =
            [0, 255, 10, 200, 77, 130, 0, 255].iter().flat_map(|&level| [level, 255 - level, 9]).collect();
        let row = Picture { width: 8, height: 1, rgb: row };
        for (filter, expected) in cases {
            let wide = resize(&row, Size { width: expected.len(), height: 1 }, filter);
            let red: Vec<u8> = wide.rgb.iter().step_by(3).copied().collect();
            assert_eq!(red, expected, "{filter:?}");
            assert!(wide.rgb.iter().skip(2).step_by(3).all(|&blue| blue == 9), "{filter:?}");
        }
    }

    #[test]
    fn a_picture_that_keeps_its_size_is_not_copied() {
        let picture = noise(Size { width: 5, height: 4 });
        assert!(matches!(resize(&picture, Size { width: 5, height: 4 }, Filter::Lanczos), Cow::Borrowed(_)));
    }

    #[test]
    fn the_horizontal_pass_comes_first() {
        let picture = noise(Size { width: 40, height: 56 });
        let to = Size { width: 36, height: 60 };
        let across = resize(&picture, Size { width: 36, height: 56 }, Filter::Bicubic);
        let down = resize(&picture, Size { width: 40, height: 60 }, Filter::Bicubic);
        let both = resize(&picture, to, Filter::Bicubic);
        assert!(*both == *resize(&across, to, Filter::Bicubic));
        assert!(*both != *resize(&down, to, Filter::Bicubic), "this picture does not tell the orders apart");
    }

    #[test]
    fn both_passes_are_the_same_pass() {
        // More rows than a band and more columns than a block, neither a multiple.
        for (from, to) in [(150, 70), (70, 150), (3, 1), (1, 3)] {
            for filter in [Filter::Bicubic, Filter::Lanczos] {
                let picture = noise(Size { width: from, height: 500 });
                let across = resize(&picture, Size { width: to, height: 500 }, filter);
                let down = resize(&turned(&picture), Size { width: 500, height: to }, filter).into_owned();
                assert!(*across == turned(&down), "{from} to {to}, {filter:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_sum_overflows_and_no_window_leaves_the_picture(from in 1_usize..17_000, to in 1_usize..4_000) {
            for filter in [Filter::Bicubic, Filter::Lanczos] {
                let axis = Axis::new(from, to, filter);
                prop_assert_eq!(axis.windows.len(), to);
                for window in &axis.windows {
                    let weights = window.weights.iter().map(|&weight| i64::from(weight));
                    prop_assert!(!window.weights.is_empty() && window.first + window.weights.len() <= from);
                    let largest = weights.clone().map(i64::abs).sum::<i64>() * 255 + i64::from(axis.half());
                    prop_assert!(largest < i64::from(i32::MAX));
                    let error = (weights.sum::<i64>() - (1 << axis.precision)).unsigned_abs();
                    prop_assert!(error <= window.weights.len() as u64);
                }
            }
        }

        #[test]
        fn one_colour_stays_one_colour(level: u8, width in 1_usize..90, height in 1_usize..90, to in 1_usize..90) {
            let picture = Picture { width, height, rgb: vec![level; width * height * 3] };
            for filter in [Filter::Bicubic, Filter::Lanczos] {
                let resized = resize(&picture, Size { width: to, height: 91 - to }, filter);
                prop_assert!(resized.rgb.iter().all(|&one| one.abs_diff(level) <= 1));
            }
        }
    }
}
