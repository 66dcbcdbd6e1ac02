//! The kernels with vectors of 512 bits, for processors with AVX-512 and its VNNI.

use super::avx2::{bytes, fold, half, load_whole};
use crate::stored::activations::{Aligned, FLOATS, Q4KActivations, Q8_0Activations};
use crate::stored::format::{Format, Q4K_BYTES, Q4K_SCALES, Q8_0_BYTES, Q8_0_LENGTH, q4k_scales};
use std::arch::x86_64::*;

/// Lanes of f32 in a vector.
const LANES: usize = 16;
/// Vectors of a block of floats.
const VECTORS: usize = FLOATS / LANES;

define_run!(target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"));

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn f32<const G: usize>(weights: &[u8], x: &[[Aligned<[f32; FLOATS]>; G]]) -> [f32; G] {
    floats(weights, x, |block: &[u8; 4 * FLOATS]| {
        let parts = block.as_chunks().0;
        [0, 1].map(|v| _mm512_castsi512_ps(load(&parts[v])))
    })
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn f16<const G: usize>(weights: &[u8], x: &[[Aligned<[f32; FLOATS]>; G]]) -> [f32; G] {
    floats(weights, x, |block: &[u8; 2 * FLOATS]| {
        let parts = block.as_chunks().0;
        [0, 1].map(|v| _mm512_cvtph_ps(load_half(&parts[v])))
    })
}

/// A word of two neighbours is one of them after a shift, and the other, but for the bits below, as it is.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn bf16<const G: usize>(weights: &[u8], x: &[[Aligned<[f32; FLOATS]>; G]]) -> [f32; G] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    floats(weights, x, |block: &[u8; 2 * FLOATS]| {
        let words = load(block);
        [_mm512_slli_epi32::<16>(words), _mm512_and_si512(words, upper)].map(|bits| _mm512_castsi512_ps(bits))
    })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn floats<const G: usize, const BYTES: usize>(
    weights: &[u8],
    x: &[[Aligned<[f32; FLOATS]>; G]],
    widen: impl Fn(&[u8; BYTES]) -> [__m512; VECTORS],
) -> [f32; G] {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; G];
    let mut add = |block: &[u8; BYTES], x: &[Aligned<[f32; FLOATS]>; G]| {
        let weights = widen(block);
        for g in 0..G {
            let x = x[g].0.as_chunks().0;
            for v in 0..VECTORS {
                sums[g][v] = _mm512_fmadd_ps(weights[v], load_floats(&x[v]), sums[g][v]);
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
    sums.map(|[a, b]| fold_wide(_mm512_add_ps(a, b)))
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn q8_0<const G: usize>(weights: &[u8], (scales, x): Q8_0Activations<G>) -> [f32; G] {
    let mut sums = [_mm512_setzero_ps(); G];
    for (block, (scales, x)) in weights.as_chunks::<Q8_0_BYTES>().0.iter().zip(scales.iter().zip(x)) {
        let scale = half(block[0], block[1]);
        let weights = _mm512_cvtepi8_epi16(load_half(&block[2..].as_chunks().0[0]));
        for g in 0..G {
            let whole = _mm512_madd_epi16(weights, load_words(&x[g].0));
            sums[g] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(scale * scales[g]), sums[g]);
        }
    }
    sums.map(|sums| fold_wide(sums))
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn q4k<const G: usize>(weights: &[u8], (scales, x, x_sums): Q4KActivations<G>) -> [f32; G] {
    let mut sums = [_mm256_setzero_ps(); G];
    let x = scales.iter().zip(x.iter().zip(x_sums));
    for (block, (scales, (x, x_sums))) in weights.as_chunks::<Q4K_BYTES>().0.iter().zip(x) {
        let mut whole = [_mm512_setzero_si512(); G];
        let [each_scale, minima] = q4k_scales(std::array::from_fn(|i| block[4 + i]));
        let each_scale = _mm512_broadcast_i32x4(_mm_cvtepu8_epi16(bytes(each_scale)));
        let minima = _mm256_cvtepu8_epi32(bytes(minima));
        for (part, words) in block[4 + Q4K_SCALES..].as_chunks().0.iter().enumerate() {
            let weights = four_bits(load(words), [0, 1].map(|upper| of_groups(each_scale, 4 * part + upper)));
            for g in 0..G {
                let x = x[g].0.as_chunks().0;
                for (kind, weights) in weights.into_iter().enumerate() {
                    whole[g] = _mm512_dpwssd_epi32(whole[g], weights, load_words(&x[4 * part + kind]));
                }
            }
        }
        let (scale, minimum) = (half(block[0], block[1]), half(block[2], block[3]));
        for g in 0..G {
            let below = _mm256_mullo_epi32(minima, load_whole(&x_sums[g].0));
            let (low, high) = (_mm512_castsi512_si256(whole[g]), _mm512_extracti64x4_epi64::<1>(whole[g]));
            let whole = _mm256_cvtepi32_ps(_mm256_add_epi32(low, high));
            sums[g] = _mm256_fmadd_ps(whole, _mm256_set1_ps(scale * scales[g]), sums[g]);
            sums[g] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(below), _mm256_set1_ps(-(minimum * scales[g])), sums[g]);
        }
    }
    sums.map(|sums| fold(sums))
}

/// Weights of four groups, scaled, out of words of four: elements 0, 2, 4, .. of groups 0 and 2 and then 1, 3, 5, ..,
/// and the same of groups 1 and 3.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn four_bits(words: __m512i, [lower, upper]: [__m512i; 2]) -> [__m512i; 4] {
    let least = _mm512_set1_epi16(0xf);
    [
        _mm512_mullo_epi16(_mm512_and_si512(words, least), lower),
        _mm512_mullo_epi16(_mm512_and_si512(_mm512_srli_epi16::<8>(words), least), lower),
        _mm512_mullo_epi16(_mm512_and_si512(_mm512_srli_epi16::<4>(words), least), upper),
        _mm512_mullo_epi16(_mm512_srli_epi16::<12>(words), upper),
    ]
}

/// Word `group` of eight in each place of the lower half, word `group + 2` in the upper.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn of_groups(words: __m512i, group: usize) -> __m512i {
    let place = |group: usize| _mm256_set1_epi16((0x0100 + 0x0202 * group as u16) as i16);
    let places = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(place(group)), place(group + 2));
    _mm512_shuffle_epi8(words, places)
}

/// Adds the upper half to the lower until one is left.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn fold_wide(sums: __m512) -> f32 {
    fold(_mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps::<1>(sums)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
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
fn load_words(words: &[i16; Q8_0_LENGTH]) -> __m512i {
    // SAFETY: 64 bytes, at any address.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}
