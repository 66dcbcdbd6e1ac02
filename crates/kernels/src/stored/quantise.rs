//! From f32 to a format.
//!
//! Q8_0 is ggml's reference to the bit. Q4_K finds the scale and the minimum of 32 values as ggml does now
//! (`make_qkx2_quants`): least squares for each of several ways to round them, the best kept. ggml weighs large values
//! more; here all weigh the same, which makes the mean square error the smallest.

use super::format::{Format, Q4K_BYTES, Q4K_GROUP, Q4K_GROUPS, Q4K_LENGTH, Q4K_SCALES, Q8_0_BYTES, Q8_0_LENGTH};
use half::{bf16, f16};

/// The largest value of four bits.
const MOST: f32 = 15.0;
/// The largest scale or minimum, of six bits.
const MOST_SCALE: f32 = 63.0;
/// Ways to round 32 values that are tried, and by how much their range differs, in steps of a value.
const TRIALS: usize = 21;
const TRIAL: f32 = 0.1;

impl Format {
    /// `values`, a whole number of blocks, as the format stores them in `bytes`.
    pub(super) fn narrow(self, values: &[f32], bytes: &mut [u8]) {
        assert!(bytes.len() == self.bytes_of_values(values.len()));
        match self {
            Self::F32 => each(values, bytes, |[x]: [f32; 1]| x.to_le_bytes()),
            Self::F16 => each(values, bytes, |[x]: [f32; 1]| f16::from_f32(x).to_le_bytes()),
            Self::Bf16 => each(values, bytes, |[x]: [f32; 1]| bf16::from_f32(x).to_le_bytes()),
            Self::Q8_0 => each(values, bytes, narrow_q8_0),
            Self::Q4K => each(values, bytes, narrow_q4k),
        }
    }
}

fn each<const L: usize, const N: usize>(values: &[f32], bytes: &mut [u8], narrow: impl Fn([f32; L]) -> [u8; N]) {
    for (bytes, values) in bytes.as_chunks_mut().0.iter_mut().zip(values.as_chunks().0) {
        *bytes = narrow(*values);
    }
}

fn narrow_q8_0(values: [f32; Q8_0_LENGTH]) -> [u8; Q8_0_BYTES] {
    let largest = values.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut block = [0; Q8_0_BYTES];
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (byte, x) in block[2..].iter_mut().zip(values) {
        *byte = (x * inverse).round() as i8 as u8;
    }
    block
}

fn narrow_q4k(values: [f32; Q4K_LENGTH]) -> [u8; Q4K_BYTES] {
    let groups = values.as_chunks::<Q4K_GROUP>().0;
    let (mut scales, mut minima) = ([0f32; Q4K_GROUPS], [0f32; Q4K_GROUPS]);
    for (j, group) in groups.iter().enumerate() {
        [scales[j], minima[j]] = fitted(group);
    }
    let (scale, scales) = in_six_bits(scales);
    let (minimum, minima) = in_six_bits(minima);
    let mut block = [0; Q4K_BYTES];
    block[..2].copy_from_slice(&scale.to_le_bytes());
    block[2..4].copy_from_slice(&minimum.to_le_bytes());
    block[4..4 + Q4K_SCALES].copy_from_slice(&q4k_packed(scales, minima));
    for (j, group) in groups.iter().enumerate() {
        let scale = scale.to_f32() * f32::from(scales[j]);
        let minimum = minimum.to_f32() * f32::from(minima[j]);
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let bytes = &mut block[4 + Q4K_SCALES + j / 2 * Q4K_GROUP..][..Q4K_GROUP];
        for (byte, x) in bytes.iter_mut().zip(group) {
            *byte |= (whole((x + minimum) * inverse) as u8) << (4 * (j % 2));
        }
    }
    block
}

/// Values as multiples of a step: the step, and 0..=63 for each.
fn in_six_bits(values: [f32; Q4K_GROUPS]) -> (f16, [u8; Q4K_GROUPS]) {
    let largest = values.iter().fold(0f32, |largest, x| largest.max(*x));
    let inverse = if largest > 0.0 { MOST_SCALE / largest } else { 0.0 };
    let steps = values.map(|x| (x * inverse).round_ties_even().clamp(0.0, MOST_SCALE) as u8);
    (f16::from_f32(largest / MOST_SCALE), steps)
}

/// The inverse of [`q4k_scales`](super::format::q4k_scales).
fn q4k_packed(scales: [u8; Q4K_GROUPS], minima: [u8; Q4K_GROUPS]) -> [u8; Q4K_SCALES] {
    let mut packed = [0; Q4K_SCALES];
    for j in 0..4 {
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6;
        packed[j + 4] = minima[j] | minima[j + 4] >> 4 << 6;
        packed[j + 8] = scales[j + 4] & 0xf | (minima[j + 4] & 0xf) << 4;
    }
    packed
}

/// The nearest of 0, 1, .. 15.
#[inline(always)]
fn whole(x: f32) -> f32 {
    x.round_ties_even().clamp(0.0, MOST)
}

/// `[scale, minimum]`, both at least 0, with which `scale q - minimum` is closest to the values for some `q` in
/// 0..=15: the mean square error is the least among [`TRIALS`] ways to choose the `q`.
fn fitted(values: &[f32; Q4K_GROUP]) -> [f32; 2] {
    let low = values.iter().fold(0f32, |low, x| low.min(*x));
    let high = values.iter().fold(f32::NEG_INFINITY, |high, x| high.max(*x));
    if high <= low {
        return [0.0, -low];
    }
    let sum: f32 = values.iter().sum();
    let count = Q4K_GROUP as f32;
    let whole_by = |inverse: f32| values.map(|x| whole(inverse * (x - low)));
    let error = |wholes: &[f32; Q4K_GROUP], [scale, minimum]: [f32; 2]| -> f32 {
        values.iter().zip(wholes).map(|(x, q)| (scale * q - minimum - x).powi(2)).sum()
    };
    let mut best = [(high - low) / MOST, -low];
    let mut least = error(&whole_by(MOST / (high - low)), best);
    for trial in 0..TRIALS {
        let wholes = whole_by((MOST - 1.0 + TRIAL * trial as f32) / (high - low));
        let sum_q: f32 = wholes.iter().sum();
        let sum_qq: f32 = wholes.iter().map(|q| q * q).sum();
        let sum_qx: f32 = wholes.iter().zip(values).map(|(q, x)| q * x).sum();
        let determinant = count * sum_qq - sum_q * sum_q;
        if determinant <= 0.0 {
            continue;
        }
        let scale = (count * sum_qx - sum * sum_q) / determinant;
        let offset = (sum_qq * sum - sum_q * sum_qx) / determinant;
        // Minima are subtracted and have no sign.
        let fit = if offset > 0.0 { [sum_qx / sum_qq, 0.0] } else { [scale, -offset] };
        let off = error(&wholes, fit);
        if off < least {
            (best, least) = (fit, off);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Matrix;
    use crate::check::{random, values};
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};

    /// Rows of different sizes and offsets.
    fn weights() -> Tensor {
        let normal = (0..4).map(|seed| random((24, 512), seed)).reduce(|sum, x| (sum + x).unwrap()).unwrap();
        let row = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((24, 1)).unwrap();
        let scale = row.affine(1.0 / 7.0, 0.1).unwrap().sin().unwrap();
        let offset = (&row * 0.9).unwrap().cos().unwrap().affine(0.5, 0.0).unwrap();
        normal.broadcast_mul(&scale).unwrap().broadcast_add(&offset).unwrap()
    }

    fn bytes(weights: &Matrix) -> Vec<u8> {
        weights.rows().flat_map(|rows| rows.bytes.to_vec()).collect()
    }

    #[test]
    fn q8_0_has_the_bytes_of_the_reference() {
        let ours = Matrix::from_tensor(&weights()).unwrap().to_format(Format::Q8_0).unwrap();
        let reference = QTensor::quantize(&weights(), GgmlDType::Q8_0).unwrap();
        assert_eq!(bytes(&ours), *reference.data().unwrap());
    }

    #[test]
    fn q4k_is_no_further_from_the_weights_than_the_reference() {
        let exact = values(&weights());
        let error = |tensor: &Tensor| -> f64 {
            values(tensor).iter().zip(&exact).map(|(got, exact)| (got - exact).powi(2)).sum()
        };
        let ours = Matrix::from_tensor(&weights()).unwrap().to_format(Format::Q4K).unwrap();
        let ours = error(&ours.to_tensor(&Device::Cpu).unwrap());
        let reference = QTensor::quantize(&weights(), GgmlDType::Q4K).unwrap().dequantize(&Device::Cpu).unwrap();
        let reference = error(&reference);
        assert!(ours <= reference, "squared error {ours}, the reference {reference}");
        assert!(ours > 0.5 * reference, "squared error {ours}, the reference {reference}: too good to be true");
    }

    #[test]
    fn constants_stay_constants() {
        for constant in [0f32, 0.75, -0.75, 1e-20, -3e4] {
            let weights = Tensor::full(constant, (1, 512), &Device::Cpu).unwrap();
            for format in [Format::Q8_0, Format::Q4K] {
                let coded = Matrix::from_tensor(&weights).unwrap().to_format(format).unwrap();
                for value in values(&coded.to_tensor(&Device::Cpu).unwrap()) {
                    let off = (value - f64::from(constant)).abs();
                    assert!(off <= 1e-3 * f64::from(constant).abs() + 1e-7, "{format:?}: {value}, expected {constant}");
                }
            }
        }
    }

    #[test]
    fn scales_are_packed_as_they_are_taken_apart() {
        let scales = [0, 1, 62, 63, 17, 33, 48, 15];
        let minima = [63, 5, 32, 16, 0, 61, 31, 2];
        assert_eq!(super::super::format::q4k_scales(q4k_packed(scales, minima)), [scales, minima]);
    }
}
