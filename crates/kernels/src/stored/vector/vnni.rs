//! Q4_K with one row of activations, for processors whose vectors multiply bytes (AVX-512 VNNI): decoding. All else is
//! as on the paths before it, which this one does not beat: for several rows scaled weights of 16 bits cost less, as
//! they are made once.

use super::avx2::{fold, q4k as q4k_in_words};
use super::avx512::{bf16, f16, f32, load, load_words, q8_0};
use crate::stored::activations::Q4KActivations;
use crate::stored::format::{Format, Q4K_BYTES, Q4K_GROUPS, Q4K_SCALES};
use std::arch::x86_64::*;

/// Bytes of a block before its values.
const HEADER: usize = 4 + Q4K_SCALES;

define_run!([2, 2, 2, 4], 2, target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni"));

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni")]
fn q4k<const O: usize, const G: usize>(weights: [&[u8]; O], x: Q4KActivations<G>) -> [[f32; G]; O] {
    match x.alone() {
        Some(x) => weights.map(|weights| [q4k_row(weights, x); G]),
        None => q4k_in_words(weights, x),
    }
}

/// Each activation is `256 upper + lower`, two signed bytes, and multiplied with the four bits as they are: the scale
/// of a group comes after its products, for both bytes, and `256` at the end.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni")]
fn q4k_row(weights: &[u8], x: Q4KActivations<1>) -> f32 {
    let least = _mm512_set1_epi8(0xf);
    let scales_of = SPREAD.each_ref().map(|spread| load(spread));
    let mut sums = [_mm256_setzero_ps(); 2];
    let blocks = weights.as_chunks::<Q4K_BYTES>().0.iter();
    for ((block, ([scale], [x_sums])), [x]) in blocks.zip(x.scales.iter().zip(x.sums)).zip(x.values) {
        let (header, values) = block.split_at(HEADER);
        let header = header.as_chunks().0[0];
        let parts = six_bits(load_header(&header));
        let scales = _mm512_broadcast_i32x4(parts);
        let mut whole = [_mm512_setzero_si512(); 2];
        let x = x.0.as_chunks().0;
        for (half, values) in values.as_chunks().0.iter().enumerate() {
            let values = load(values);
            let lower = _mm512_and_si512(values, least);
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(values), least);
            let scales = _mm512_shuffle_epi8(scales, scales_of[half]);
            for (byte, whole) in whole.iter_mut().enumerate() {
                let [lower, upper] = [(lower, 0), (upper, 2)].map(|(weights, kind)| {
                    _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, load_words(&x[4 * half + kind + byte]))
                });
                *whole = _mm512_dpwssd_epi32(*whole, _mm512_packs_epi32(lower, upper), scales);
            }
        }
        let whole = _mm512_add_epi32(_mm512_slli_epi32::<8>(whole[0]), whole[1]);
        let whole = _mm256_add_epi32(_mm512_castsi512_si256(whole), _mm512_extracti64x4_epi64::<1>(whole));
        let minima = _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(parts, parts));
        let below = _mm256_mullo_epi32(minima, load_whole(&x_sums.0));
        let both = _mm_mul_ps(_mm_cvtph_ps(load_header(&header)), _mm_set1_ps(*scale));
        let [scale, minimum] = [both, _mm_movehdup_ps(both)].map(|x| _mm256_broadcastss_ps(x));
        sums[0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, sums[0]);
        sums[1] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(below), minimum, sums[1]);
    }
    fold(_mm256_add_ps(sums[0], sums[1]))
}

/// For each half of a block, where [`_mm512_packs_epi32`] puts sums of which group, as numbers of a scale's byte and of
/// a byte of zero.
const SPREAD: [[u8; 64]; 2] = {
    let mut spread = [[0x80; 64]; 2];
    let mut at = 0;
    while at < 64 {
        let group = at / 32 * 2 + at / 8 % 2;
        spread[0][at] = group as u8;
        spread[1][at] = (Q4K_GROUPS / 2 + group) as u8;
        at += 2;
    }
    spread
};

/// The eight scales and then the eight minima of a block, from its first 16 bytes; see
/// [`q4k_scales`](crate::stored::format::q4k_scales).
#[inline]
#[target_feature(enable = "avx2")]
fn six_bits(header: __m128i) -> __m128i {
    const NONE: i8 = -1;
    let low = _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
    let high = _mm_setr_epi8(NONE, NONE, NONE, NONE, 4, 5, 6, 7, NONE, NONE, NONE, NONE, 8, 9, 10, 11);
    let low = _mm_srlv_epi32(_mm_shuffle_epi8(header, low), _mm_setr_epi32(0, 0, 0, 4));
    let low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f));
    let high = _mm_and_si128(_mm_srli_epi32::<2>(_mm_shuffle_epi8(header, high)), _mm_set1_epi8(0x30));
    _mm_or_si128(low, high)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_header(bytes: &[u8; HEADER]) -> __m128i {
    // SAFETY: 16 bytes, at any address.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_whole(numbers: &[i32; Q4K_GROUPS]) -> __m256i {
    // SAFETY: 32 bytes, at any address.
    unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) }
}
