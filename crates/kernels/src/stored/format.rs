//! How weights are stored: numbers of 32 or 16 bits, or blocks of small integers as in GGUF files.
//!
//! - `Q8_0`, 32 values in 34 bytes: a scale `d` (f16), then 32 signed bytes; `w = d q`.
//! - `Q4_K`, 256 values in 144 bytes: `d` and `dmin` (f16), eight 6-bit scales `s` and eight 6-bit minima `m` in 12
//!   bytes, one of each for 32 values, then 128 bytes of 4-bit values; `w = d s q - dmin m`.

use candle_core::{Result, bail};

/// Values in a block of Q8_0.
pub(super) const Q8_0_LENGTH: usize = 32;
/// Bytes of a block of Q8_0.
pub(super) const Q8_0_BYTES: usize = 2 + Q8_0_LENGTH;
/// Values in a block of Q4_K.
pub(super) const Q4K_LENGTH: usize = 256;
/// Bytes of a block of Q4_K.
pub(super) const Q4K_BYTES: usize = 2 + 2 + Q4K_SCALES + Q4K_LENGTH / 2;
/// Values of Q4_K that share a scale and a minimum.
pub(super) const Q4K_GROUP: usize = 32;
/// Scales, or minima, in a block of Q4_K.
pub(super) const Q4K_GROUPS: usize = Q4K_LENGTH / Q4K_GROUP;
/// Bytes of the scales and minima of a block of Q4_K.
pub(super) const Q4K_SCALES: usize = 12;

/// How the weights of a matrix are stored, row after row, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// GGUF's blocks of 32 signed bytes with a scale.
    Q8_0,
    /// GGUF's blocks of 256 four-bit values with scales and minima for every 32.
    Q4K,
}

impl Format {
    /// Every format, the widest first.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4K];

    /// The name that model files use: `F32`, `F16`, `BF16`, `Q8_0`, `Q4_K`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
        }
    }

    /// Values that are coded together; a row is a whole number of blocks.
    pub fn block_length(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 => Q8_0_LENGTH,
            Self::Q4K => Q4K_LENGTH,
        }
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => Q8_0_BYTES,
            Self::Q4K => Q4K_BYTES,
        }
    }

    /// Bytes of `rows` rows of `inputs` weights.
    ///
    /// # Errors
    /// When a row is not a whole number of blocks, or the size is more than an address can hold.
    pub fn bytes_of(self, rows: usize, inputs: usize) -> Result<usize> {
        let length = self.block_length();
        if !inputs.is_multiple_of(length) {
            bail!(
                "{}: expected rows of a multiple of {length} weights, got {inputs}; keep this matrix in BF16",
                self.name()
            )
        }
        match (inputs / length * self.block_bytes()).checked_mul(rows) {
            Some(bytes) => Ok(bytes),
            None => bail!("{}: {rows} rows of {inputs} weights are more than memory can address", self.name()),
        }
    }

    /// Bytes of `values` weights, a whole number of blocks.
    pub(super) fn bytes_of_values(self, values: usize) -> usize {
        values / self.block_length() * self.block_bytes()
    }

    /// Weights as f32, exactly for the float formats and to the bit as ggml does it for the others.
    ///
    /// `bytes` must be those of `out.len()` values.
    #[inline(always)]
    pub(super) fn widen(self, bytes: &[u8], out: &mut [f32]) {
        assert!(bytes.len() == self.bytes_of_values(out.len()));
        match self {
            Self::F32 => each(bytes, out, f32::from_le_bytes),
            Self::F16 => each(bytes, out, |bytes| f16_to_f32(u16::from_le_bytes(bytes))),
            Self::Bf16 => each(bytes, out, |bytes| bf16_to_f32(u16::from_le_bytes(bytes))),
            Self::Q8_0 => each(bytes, out.as_chunks_mut().0, widen_q8_0),
            Self::Q4K => each(bytes, out.as_chunks_mut().0, widen_q4k),
        }
    }
}

#[inline(always)]
fn each<const N: usize, T>(bytes: &[u8], out: &mut [T], widen: impl Fn([u8; N]) -> T) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = widen(*bytes);
    }
}

#[inline(always)]
pub(super) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Without branches or tables, so that a loop over it becomes vector instructions.
#[inline(always)]
pub(super) fn f16_to_f32(bits: u16) -> f32 {
    // The exponent's bias is 15 there and 127 here: 2^112, which also makes subnormal numbers normal.
    const BIAS: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = u32::from(bits & 0x7fff);
    let scaled = (f32::from_bits(magnitude << 13) * BIAS).to_bits();
    let infinite = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled | infinite | u32::from(bits & 0x8000) << 16)
}

/// A block of Q8_0: its scale and its values.
#[inline(always)]
pub(super) fn q8_0_parts(block: &[u8; Q8_0_BYTES]) -> (f32, [i8; Q8_0_LENGTH]) {
    let scale = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
    (scale, std::array::from_fn(|i| block[2 + i] as i8))
}

#[inline(always)]
fn widen_q8_0(block: [u8; Q8_0_BYTES]) -> [f32; Q8_0_LENGTH] {
    let (scale, values) = q8_0_parts(&block);
    values.map(|value| f32::from(value) * scale)
}

/// A block of Q4_K, taken apart.
pub(super) struct Q4K {
    /// What the scales and the minima are multiples of.
    pub scale: f32,
    pub minimum: f32,
    pub scales: [u8; Q4K_GROUPS],
    pub minima: [u8; Q4K_GROUPS],
    /// 32 bytes for two groups: the first in the lower halves, the second in the upper.
    pub values: [[u8; Q4K_GROUP]; Q4K_GROUPS / 2],
}

/// Eight scales and eight minima of 6 bits from 12 bytes: four of each as they are, and the upper two bits of those
/// bytes are the upper two bits of the other four, whose lower four bits share a byte.
#[inline(always)]
pub(super) fn q4k_scales(packed: [u8; Q4K_SCALES]) -> [[u8; Q4K_GROUPS]; 2] {
    let [a, b, c] =
        [0, 4, 8].map(|at| u32::from_le_bytes([packed[at], packed[at + 1], packed[at + 2], packed[at + 3]]));
    let both = |low: u32, high: u32| (u64::from(low) | u64::from(high) << 32).to_le_bytes();
    let scales = both(a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4);
    let minima = both(b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | (b >> 6 & 0x0303_0303) << 4);
    [scales, minima]
}

#[inline(always)]
pub(super) fn q4k_parts(block: &[u8; Q4K_BYTES]) -> Q4K {
    let half = |at: usize| f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]));
    let [scales, minima] = q4k_scales(std::array::from_fn(|i| block[4 + i]));
    let values = std::array::from_fn(|j| std::array::from_fn(|i| block[4 + Q4K_SCALES + j * Q4K_GROUP + i]));
    Q4K { scale: half(0), minimum: half(2), scales, minima, values }
}

#[inline(always)]
fn widen_q4k(block: [u8; Q4K_BYTES]) -> [f32; Q4K_LENGTH] {
    let mut out = [0.0; Q4K_LENGTH];
    let block = q4k_parts(&block);
    let groups = out.as_chunks_mut::<Q4K_GROUP>().0;
    for (j, (pair, values)) in groups.as_chunks_mut::<2>().0.iter_mut().zip(block.values).enumerate() {
        for (half, out) in pair.iter_mut().enumerate() {
            let scale = block.scale * f32::from(block.scales[2 * j + half]);
            let minimum = block.minimum * f32::from(block.minima[2 * j + half]);
            for (out, value) in out.iter_mut().zip(values) {
                *out = scale * f32::from(value >> (4 * half) & 0xf) - minimum;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{bits, random, stored};
    use candle_core::quantized::{GgmlDType, QStorage, QTensor};
    use candle_core::{Device, Tensor};
    use std::borrow::Cow;

    #[test]
    fn every_half_is_its_single() {
        for half in 0..=u16::MAX {
            let (got, expected) = (f16_to_f32(half), half::f16::from_bits(half).to_f32());
            assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{half:#x}: {got}");
        }
    }

    #[test]
    fn blocks_mean_what_ggml_makes_of_them() {
        for (format, dtype) in [(Format::Q8_0, GgmlDType::Q8_0), (Format::Q4K, GgmlDType::Q4K)] {
            let weights = stored(format, [5, 512], 4);
            let bytes: Vec<u8> = weights.rows().flat_map(|rows| rows.bytes.to_vec()).collect();
            let storage = QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, dtype).unwrap();
            let expected = QTensor::new(storage, (5, 512)).unwrap().dequantize(&Device::Cpu).unwrap();
            assert_eq!(bits(&weights.to_tensor(&Device::Cpu).unwrap()), bits(&expected));
        }
    }

    #[test]
    fn blocks_of_any_bytes_mean_what_ggml_makes_of_them() {
        let noise: Vec<f32> = random(Q4K_BYTES * 40, 9).to_vec1().unwrap();
        let bytes: Vec<u8> = noise.iter().map(|x| (x.abs() * 1e5) as u32 as u8).collect();
        let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, GgmlDType::Q4K).unwrap();
        let expected = QTensor::new(storage, Q4K_LENGTH * 40).unwrap().dequantize(&Device::Cpu).unwrap();
        let mut got = vec![0.0; Q4K_LENGTH * 40];
        Format::Q4K.widen(&bytes, &mut got);
        let got = bits(&Tensor::new(got, &Device::Cpu).unwrap());
        let same = |(got, expected): (&u32, &u32)| {
            got == expected || f32::from_bits(*got).is_nan() && f32::from_bits(*expected).is_nan()
        };
        assert!(got.iter().zip(&bits(&expected)).all(same));
    }
}
