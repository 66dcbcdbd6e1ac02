//! The kernels with vectors of 256 bits, for processors with AVX2, FMA and F16C.

use crate::stored::activations::{Aligned, FLOATS, Q4K_WORDS, Q4KActivations, Q8_0Activations};
use crate::stored::format::{Format, Q4K_BYTES, Q4K_GROUP, Q4K_SCALES, Q8_0_BYTES, q4k_scales};
use std::arch::x86_64::*;

/// Lanes of f32 in a vector.
const LANES: usize = 8;
/// Vectors of a block of floats.
const VECTORS: usize = FLOATS / LANES;

define_run!(target_feature(enable = "avx2,fma,f16c"));

#[target_feature(enable = "avx2,fma,f16c")]
fn f32<const G: usize>(weights: &[u8], x: &[[Aligned<[f32; FLOATS]>; G]]) -> [f32; G] {
    floats(weights, x, |block: &[u8; 4 * FLOATS]| {
        let parts = block.as_chunks().0;
        std::array::from_fn(|v| _mm256_castsi256_ps(load(&parts[v])))
    })
}

#[target_feature(enable = "avx2,fma,f16c")]
fn f16<const G: usize>(weights: &[u8], x: &[[Aligned<[f32; FLOATS]>; G]]) -> [f32; G] {
    floats(weights, x, |block: &[u8; 2 * FLOATS]| {
        let parts = block.as_chunks().0;
        std::array::from_fn(|v| _mm256_cvtph_ps(load_half(&parts[v])))
    })
}

/// A word of two neighbours is one of them after a shift, and the other, but for the bits below, as it is.
#[target_feature(enable = "avx2,fma,f16c")]
fn bf16<const G: usize>(weights: &[u8], x: &[[Aligned<[f32; FLOATS]>; G]]) -> [f32; G] {
    let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    floats(weights, x, |block: &[u8; 2 * FLOATS]| {
        let parts = block.as_chunks().0;
        let words = [load(&parts[0]), load(&parts[1])];
        let even = words.map(|words| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words)));
        let odd = words.map(|words| _mm256_castsi256_ps(_mm256_and_si256(words, upper)));
        [even[0], even[1], odd[0], odd[1]]
    })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn floats<const G: usize, const BYTES: usize>(
    weights: &[u8],
    x: &[[Aligned<[f32; FLOATS]>; G]],
    widen: impl Fn(&[u8; BYTES]) -> [__m256; VECTORS],
) -> [f32; G] {
    let mut sums = [[_mm256_setzero_ps(); VECTORS]; G];
    let mut add = |block: &[u8; BYTES], x: &[Aligned<[f32; FLOATS]>; G]| {
        let weights = widen(block);
        for g in 0..G {
            let x = x[g].0.as_chunks().0;
            for v in 0..VECTORS {
                sums[g][v] = _mm256_fmadd_ps(weights[v], load_floats(&x[v]), sums[g][v]);
            }
        }
    };
    let (blocks, rest) = weights.as_chunks::<BYTES>();
    for (block, x) in blocks.iter().zip(x) {
        add(block, x);
    }
    if let (false, Some(x)) = (rest.is_empty(), x.last()) {
        let mut block = [0; BYTES];
        block[..rest.len()].copy_from_slice(rest);
        add(&block, x);
    }
    sums.map(|[a, b, c, d]| fold(_mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d))))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0<const G: usize>(weights: &[u8], (scales, x): Q8_0Activations<G>) -> [f32; G] {
    let mut sums = [[_mm256_setzero_ps(); 2]; G];
    for (block, (scales, x)) in weights.as_chunks::<Q8_0_BYTES>().0.iter().zip(scales.iter().zip(x)) {
        let scale = half(block[0], block[1]);
        let parts = block[2..].as_chunks().0;
        let weights = [0, 1].map(|v| _mm256_cvtepi8_epi16(load_half(&parts[v])));
        for g in 0..G {
            let x = x[g].0.as_chunks().0;
            let scale = _mm256_set1_ps(scale * scales[g]);
            for v in 0..2 {
                let whole = _mm256_madd_epi16(weights[v], load_words(&x[v]));
                sums[g][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, sums[g][v]);
            }
        }
    }
    sums.map(|[a, b]| fold(_mm256_add_ps(a, b)))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q4k<const G: usize>(weights: &[u8], (scales, x, x_sums): Q4KActivations<G>) -> [f32; G] {
    let mut sums = [_mm256_setzero_ps(); G];
    let x = scales.iter().zip(x.iter().zip(x_sums));
    for (block, (scales, (x, x_sums))) in weights.as_chunks::<Q4K_BYTES>().0.iter().zip(x) {
        let mut whole = [_mm256_setzero_si256(); G];
        let [each_scale, minima] = q4k_scales(std::array::from_fn(|i| block[4 + i]));
        let each_scale = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(bytes(each_scale)));
        let minima = _mm256_cvtepu8_epi32(bytes(minima));
        for (j, words) in block[4 + Q4K_SCALES..].as_chunks::<Q4K_GROUP>().0.iter().enumerate() {
            let weights = four_bits(load(words), [0, 1].map(|upper| of_group(each_scale, 2 * j + upper)));
            for g in 0..G {
                let x = x[g].0.as_chunks().0;
                for (kind, weights) in weights.into_iter().enumerate() {
                    let products = _mm256_madd_epi16(weights, load_words(&x[j / 2 * 8 + kind * 2 + j % 2]));
                    whole[g] = _mm256_add_epi32(whole[g], products);
                }
            }
        }
        let (scale, minimum) = (half(block[0], block[1]), half(block[2], block[3]));
        for g in 0..G {
            let below = _mm256_mullo_epi32(minima, load_whole(&x_sums[g].0));
            let (scale, minimum) = (_mm256_set1_ps(scale * scales[g]), _mm256_set1_ps(-(minimum * scales[g])));
            sums[g] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole[g]), scale, sums[g]);
            sums[g] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(below), minimum, sums[g]);
        }
    }
    sums.map(|sums| fold(sums))
}

/// Weights of two groups, scaled, out of words of four: elements 0, 2, 4, .. of the lower group and then 1, 3, 5, ..,
/// and the same of the upper.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn four_bits(words: __m256i, [lower, upper]: [__m256i; 2]) -> [__m256i; 4] {
    let least = _mm256_set1_epi16(0xf);
    [
        _mm256_mullo_epi16(_mm256_and_si256(words, least), lower),
        _mm256_mullo_epi16(_mm256_and_si256(_mm256_srli_epi16::<8>(words), least), lower),
        _mm256_mullo_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(words), least), upper),
        _mm256_mullo_epi16(_mm256_srli_epi16::<12>(words), upper),
    ]
}

/// Word `group` of eight in each place.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn of_group(words: __m256i, group: usize) -> __m256i {
    _mm256_shuffle_epi8(words, _mm256_set1_epi16((0x0100 + 0x0202 * group as u16) as i16))
}

/// A half as f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn half(low: u8, high: u8) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(u16::from_le_bytes([low, high])))))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn bytes(bytes: [u8; 8]) -> __m128i {
    _mm_cvtsi64_si128(i64::from_le_bytes(bytes))
}

/// Adds the upper half to the lower until one is left.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn fold(sums: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes, at any address.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_half(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes, at any address.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_floats(floats: &[f32; LANES]) -> __m256 {
    // SAFETY: 32 bytes, at any address.
    unsafe { _mm256_loadu_ps(floats.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_words(words: &[i16; Q4K_WORDS]) -> __m256i {
    // SAFETY: 32 bytes, at any address.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_whole(numbers: &[i32; LANES]) -> __m256i {
    // SAFETY: 32 bytes, at any address.
    unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) }
}
