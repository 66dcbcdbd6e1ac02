//! The kernels with vectors of 512 bits, for processors with AVX-512. Whole numbers take those of 256: with wider ones,
//! and the instructions of VNNI, they were measured to be no faster (Zen 4).

use super::avx2::{fold, q4k, q8_0};
use crate::stored::activations::{FLOATS, Floats};
use crate::stored::format::Format;
use std::arch::x86_64::*;

/// Lanes of f32 in a vector, and running sums.
const LANES: usize = 16;
/// Vectors of a block of floats.
const VECTORS: usize = FLOATS / LANES;

define_run!([2, 2, 2, 4], 2, target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq"));

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
pub(super) fn f32<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
    floats(weights, x, |block: &[u8; 4 * FLOATS]| {
        let parts = block.as_chunks().0;
        [0, 1].map(|v| _mm512_castsi512_ps(load(&parts[v])))
    })
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
pub(super) fn f16<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
    floats(weights, x, |block: &[u8; 2 * FLOATS]| {
        let parts = block.as_chunks().0;
        [0, 1].map(|v| _mm512_cvtph_ps(load_half(&parts[v])))
    })
}

/// A word of two neighbours is one of them after a shift, and the other, but for the bits below, as it is.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
pub(super) fn bf16<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    floats(weights, x, |block: &[u8; 2 * FLOATS]| {
        let words = load(block);
        [_mm512_slli_epi32::<16>(words), _mm512_and_si512(words, upper)].map(|bits| _mm512_castsi512_ps(bits))
    })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
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

/// Adds the upper half to the lower until one is left.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
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
