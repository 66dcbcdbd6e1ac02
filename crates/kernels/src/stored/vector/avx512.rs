//! The kernels with vectors of 512 bits, for processors with AVX-512 (F, DQ, BW). Several rows of Q4_K take those of
//! 256: with wider ones and the instructions of VNNI they were no faster on Zen 4, and slower on a Xeon.

use super::avx2::{fold, q4k};
use crate::stored::activations::{FLOATS, Floats, Q8_0Activations};
use crate::stored::format::{Format, Q8_0_BYTES};
use std::arch::x86_64::*;

/// Lanes of f32 in a vector, and running sums.
const LANES: usize = 16;
/// Vectors of a block of floats.
const VECTORS: usize = FLOATS / LANES;

define_run!([2, 2, 2, 4], 2, target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw"));

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw")]
pub(super) fn f32<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
    floats(weights, x, |block: &[u8; 4 * FLOATS]| {
        let parts = block.as_chunks().0;
        [0, 1].map(|v| _mm512_castsi512_ps(load(&parts[v])))
    })
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw")]
pub(super) fn f16<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
    floats(weights, x, |block: &[u8; 2 * FLOATS]| {
        let parts = block.as_chunks().0;
        [0, 1].map(|v| _mm512_cvtph_ps(load_half(&parts[v])))
    })
}

/// A word of two neighbours is one of them after a shift, and the other, but for the bits below, as it is.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw")]
pub(super) fn bf16<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    floats(weights, x, |block: &[u8; 2 * FLOATS]| {
        let words = load(block);
        [_mm512_slli_epi32::<16>(words), _mm512_and_si512(words, upper)].map(|bits| _mm512_castsi512_ps(bits))
    })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw")]
fn floats<const O: usize, const G: usize, const BYTES: usize>(
    weights: [&[u8]; O],
    x: &[[Floats; G]],
    widen: impl Fn(&[u8; BYTES]) -> [__m512; VECTORS],
) -> [[f32; G]; O] {
    let mut sums = [[_mm512_setzero_ps(); G]; O];
    let mut add = |blocks: [&[u8; BYTES]; O], x: &[Floats; G]| {
        let weights = blocks.map(&widen);
        for v in 0..VECTORS {
            for g in 0..G {
                let x = load_floats(&x[g].0.as_chunks().0[v]);
                for (sums, weights) in sums.iter_mut().zip(&weights) {
                    sums[g] = _mm512_fmadd_ps(weights[v], x, sums[g]);
                }
            }
        }
    };
    let (blocks, rest) = super::in_blocks(weights);
    for (b, x) in x.iter().enumerate().take(super::whole(blocks)) {
        add(blocks.map(|blocks| &blocks[b]), x);
    }
    if let (Some(rest), Some(x)) = (&rest, x.last()) {
        add(rest.each_ref(), x);
    }
    sums.map(|sums| sums.map(|sums| fold_wide(sums)))
}

/// A block is one vector of words, and its sums are the running ones.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw")]
pub(super) fn q8_0<const O: usize, const G: usize>(weights: [&[u8]; O], x: Q8_0Activations<G>) -> [[f32; G]; O] {
    let mut sums = [[_mm512_setzero_ps(); G]; O];
    let (blocks, _) = super::in_blocks::<O, Q8_0_BYTES>(weights);
    for (b, (scales, x)) in x.scales.iter().zip(x.values).enumerate().take(super::whole(blocks)) {
        for (blocks, sums) in blocks.iter().zip(&mut sums) {
            let (scale, values) = blocks[b].split_at(2);
            let scale = half(scale[0], scale[1]);
            let weights = _mm512_cvtepi8_epi16(load_half(&values.as_chunks().0[0]));
            for g in 0..G {
                let whole = _mm512_madd_epi16(weights, load_words(&x[g].0));
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(scales[g]));
                sums[g] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, sums[g]);
            }
        }
    }
    sums.map(|sums| sums.map(|sums| fold_wide(sums)))
}

/// A half as f32 in every lane; see `half` of the path before.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw")]
fn half(low: u8, high: u8) -> __m512 {
    _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes([low, high])))
}

/// Adds the upper half to the lower until one is left.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw")]
fn fold_wide(sums: __m512) -> f32 {
    fold(_mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps::<1>(sums)))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes, at any address.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_half(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes, at any address.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_floats(floats: &[f32; LANES]) -> __m512 {
    // SAFETY: 64 bytes, at any address.
    unsafe { _mm512_loadu_ps(floats.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_words(words: &[i16; 32]) -> __m512i {
    // SAFETY: 64 bytes, at any address.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}
