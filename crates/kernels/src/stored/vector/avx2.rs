//! The kernels with vectors of 256 bits, for processors with AVX2, FMA and F16C.

use crate::stored::activations::{FLOATS, Floats, Q4K_WORDS, Q4KActivations, Q8_0Activations};
use crate::stored::format::{Format, Q4K_BYTES, Q4K_GROUPS, Q4K_SCALES, Q8_0_BYTES, q4k_scales};
use std::arch::x86_64::*;

/// Lanes of f32 in a vector.
const LANES: usize = 8;
/// Vectors of a block of floats.
const VECTORS: usize = FLOATS / LANES;
/// Vectors of running sums.
const SUMS: usize = 2;
/// Blocks of Q4_K whose scales are taken apart at once.
const Q4K_HEADERS: usize = 8;

define_run!([2, 2, 2, 1], 2, target_feature(enable = "avx2,fma,f16c"));

#[target_feature(enable = "avx2,fma,f16c")]
fn f32<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
    floats(weights, x, |block: &[u8; 4 * FLOATS]| {
        let parts = block.as_chunks().0;
        std::array::from_fn(|v| _mm256_castsi256_ps(load(&parts[v])))
    })
}

#[target_feature(enable = "avx2,fma,f16c")]
fn f16<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
    floats(weights, x, |block: &[u8; 2 * FLOATS]| {
        let parts = block.as_chunks().0;
        std::array::from_fn(|v| _mm256_cvtph_ps(load_half(&parts[v])))
    })
}

/// A word of two neighbours is one of them after a shift, and the other, but for the bits below, as it is.
#[target_feature(enable = "avx2,fma,f16c")]
fn bf16<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
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
fn floats<const O: usize, const G: usize, const BYTES: usize>(
    weights: [&[u8]; O],
    x: &[[Floats; G]],
    widen: impl Fn(&[u8; BYTES]) -> [__m256; VECTORS],
) -> [[f32; G]; O] {
    let mut sums = [[[_mm256_setzero_ps(); SUMS]; G]; O];
    let mut add = |blocks: [&[u8; BYTES]; O], x: &[Floats; G]| {
        let weights = blocks.map(&widen);
        for v in 0..VECTORS {
            for g in 0..G {
                let x = load_floats(&x[g].0.as_chunks().0[v]);
                for o in 0..O {
                    sums[o][g][v % SUMS] = _mm256_fmadd_ps(weights[o][v], x, sums[o][g][v % SUMS]);
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
    sums.map(|sums| sums.map(|[a, b]| fold(_mm256_add_ps(a, b))))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0<const O: usize, const G: usize>(weights: [&[u8]; O], x: Q8_0Activations<G>) -> [[f32; G]; O] {
    let mut sums = [[[_mm256_setzero_ps(); SUMS]; G]; O];
    let (blocks, _) = super::in_blocks::<O, Q8_0_BYTES>(weights);
    for (b, (scales, x)) in x.scales.iter().zip(x.values).enumerate().take(super::whole(blocks)) {
        for o in 0..O {
            let block = &blocks[o][b];
            let scale = half(block[0], block[1]);
            let parts = block[2..].as_chunks().0;
            let weights = [0, 1].map(|v| _mm256_cvtepi8_epi16(load_half(&parts[v])));
            for g in 0..G {
                let x = x[g].0.as_chunks().0;
                let scale = _mm256_mul_ps(scale, _mm256_set1_ps(scales[g]));
                for v in 0..SUMS {
                    let whole = _mm256_madd_epi16(weights[v], load_words(&x[v]));
                    sums[o][g][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, sums[o][g][v]);
                }
            }
        }
    }
    sums.map(|sums| sums.map(|[a, b]| fold(_mm256_add_ps(a, b))))
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q4k<const O: usize, const G: usize>(weights: [&[u8]; O], x: Q4KActivations<G>) -> [[f32; G]; O] {
    weights.map(|weights| q4k_row(weights, x))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4k_row<const G: usize>(weights: &[u8], x: Q4KActivations<G>) -> [f32; G] {
    let mut sums = [[_mm256_setzero_ps(); 2]; G];
    let mut words = [[0; Q4K_GROUPS]; Q4K_HEADERS];
    for (start, blocks) in weights.as_chunks::<Q4K_BYTES>().0.chunks(Q4K_HEADERS).enumerate() {
        let x = x.some(start * Q4K_HEADERS, blocks.len());
        q4k_headers(blocks, x, &mut words, &mut sums);
        for ((block, words), (scales, x)) in blocks.iter().zip(&words).zip(x.scales.iter().zip(x.values)) {
            let mut whole = [[_mm256_setzero_si256(); 2]; G];
            for (j, values) in block[4 + Q4K_SCALES..].as_chunks().0.iter().enumerate() {
                let scales = [0, 1].map(|upper| _mm256_set1_epi32(words[2 * j + upper]));
                for (kind, weights) in four_bits(load(values), scales).into_iter().enumerate() {
                    for g in 0..G {
                        let x = load_words(&x[g].0.as_chunks().0[j / 2 * 8 + kind * 2 + j % 2]);
                        whole[g][kind / 2] = _mm256_add_epi32(whole[g][kind / 2], _mm256_madd_epi16(weights, x));
                    }
                }
            }
            let scale = half(block[0], block[1]);
            for g in 0..G {
                let scale = _mm256_mul_ps(scale, _mm256_set1_ps(scales[g]));
                let whole = _mm256_cvtepi32_ps(_mm256_hadd_epi32(whole[g][0], whole[g][1]));
                sums[g][0] = _mm256_fmadd_ps(whole, scale, sums[g][0]);
            }
        }
    }
    sums.map(|[a, b]| fold(_mm256_add_ps(a, b)))
}

/// Takes the scales of some blocks apart, twice in each word, and subtracts what the minima take from the sums. For
/// blocks one by one, what hangs together would be too long for the processor to look beyond it: half as fast.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4k_headers<const G: usize>(
    blocks: &[[u8; Q4K_BYTES]],
    x: Q4KActivations<G>,
    words: &mut [[i32; Q4K_GROUPS]],
    sums: &mut [[__m256; 2]; G],
) {
    for ((block, words), (scales, x_sums)) in blocks.iter().zip(words).zip(x.scales.iter().zip(x.sums)) {
        let [scales_of_groups, minima] = q4k_scales(std::array::from_fn(|i| block[4 + i]));
        let scales_of_groups = _mm256_cvtepu8_epi32(bytes(scales_of_groups));
        store(words, _mm256_or_si256(scales_of_groups, _mm256_slli_epi32::<16>(scales_of_groups)));
        let (minimum, minima) = (half(block[2], block[3]), _mm256_cvtepu8_epi32(bytes(minima)));
        for g in 0..G {
            let below = _mm256_cvtepi32_ps(_mm256_mullo_epi32(minima, load_whole(&x_sums[g].0)));
            sums[g][1] = _mm256_fnmadd_ps(below, _mm256_mul_ps(minimum, _mm256_set1_ps(scales[g])), sums[g][1]);
        }
    }
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

/// A half as f32 in every lane. Converted in every lane too: a load of one merges with what the register held, and then
/// every block waits for the sums of the one before.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn half(low: u8, high: u8) -> __m256 {
    _mm256_cvtph_ps(_mm_set1_epi16(i16::from_le_bytes([low, high])))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bytes(bytes: [u8; 8]) -> __m128i {
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
fn store(to: &mut [i32; LANES], words: __m256i) {
    // SAFETY: 32 bytes, at any address.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), words) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes, at any address.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_half(bytes: &[u8; 16]) -> __m128i {
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
fn load_whole(numbers: &[i32; LANES]) -> __m256i {
    // SAFETY: 32 bytes, at any address.
    unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) }
}
