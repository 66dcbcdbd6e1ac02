//! The kernels as any processor runs them; what the others are measured against, to the bit.

use crate::lanes::fold;
use crate::stored::activations::{Aligned, FLOATS, Floats, Q4K_WORDS, Q4KActivations, Q8_0Activations, parted};
use crate::stored::format::{Format, Q4K_GROUPS, bf16_to_f32, f16_to_f32, q4k_parts, q8_0_parts};

/// Running sums.
const LANES: usize = 16;

define_run!([1, 1, 1, 1], 1);

fn f32<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
    weights.map(|weights| floats(weights, x, |block: &[[u8; 4]; FLOATS]| block.map(f32::from_le_bytes)))
}

fn f16<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
    let widen = |block: &[[u8; 2]; FLOATS]| block.map(|bytes| f16_to_f32(u16::from_le_bytes(bytes)));
    weights.map(|weights| floats(weights, x, widen))
}

fn bf16<const O: usize, const G: usize>(weights: [&[u8]; O], x: &[[Floats; G]]) -> [[f32; G]; O] {
    let widen =
        |block: &[[u8; 2]; FLOATS]| std::array::from_fn(|place| bf16_to_f32(u16::from_le_bytes(block[parted(place)])));
    weights.map(|weights| floats(weights, x, widen))
}

/// Sum `lane` takes places `lane` and then `16 + lane` of each block.
fn floats<const G: usize, const N: usize>(
    weights: &[u8],
    x: &[[Floats; G]],
    widen: impl Fn(&[[u8; N]; FLOATS]) -> [f32; FLOATS],
) -> [f32; G] {
    let mut sums = [[0f32; LANES]; G];
    let mut add = |block: &[[u8; N]; FLOATS], x: &[Floats; G]| {
        let weights = widen(block);
        for (sums, Aligned(x)) in sums.iter_mut().zip(x) {
            for place in 0..FLOATS {
                let sum = &mut sums[place % LANES];
                *sum = weights[place].mul_add(x[place], *sum);
            }
        }
    };
    let (blocks, rest) = weights.as_chunks::<N>().0.as_chunks::<FLOATS>();
    blocks.iter().zip(x).for_each(|(block, x)| add(block, x));
    if let (false, Some(x)) = (rest.is_empty(), x.last()) {
        let mut block = [[0; N]; FLOATS];
        block[..rest.len()].copy_from_slice(rest);
        add(&block, x);
    }
    sums.map(fold)
}

fn q8_0<const O: usize, const G: usize>(weights: [&[u8]; O], x: Q8_0Activations<G>) -> [[f32; G]; O] {
    weights.map(|weights| q8_0_row(weights, x))
}

/// Sum `lane` takes elements `2 lane` and `2 lane + 1` of each block.
fn q8_0_row<const G: usize>(weights: &[u8], x: Q8_0Activations<G>) -> [f32; G] {
    let mut sums = [[0f32; LANES]; G];
    for (block, (scales, x)) in weights.as_chunks().0.iter().zip(x.scales.iter().zip(x.values)) {
        let (scale, weights) = q8_0_parts(block);
        for (g, sums) in sums.iter_mut().enumerate() {
            let pairs = weights.as_chunks::<2>().0.iter().zip(x[g].0.as_chunks::<2>().0);
            for (sum, (weights, x)) in sums.iter_mut().zip(pairs) {
                let whole: i32 = [0, 1].map(|i| i32::from(weights[i]) * i32::from(x[i])).iter().sum();
                *sum = (whole as f32).mul_add(scale * scales[g], *sum);
            }
        }
    }
    sums.map(fold)
}

fn q4k<const O: usize, const G: usize>(weights: [&[u8]; O], x: Q4KActivations<G>) -> [[f32; G]; O] {
    weights.map(|weights| q4k_row(weights, x))
}

/// Sum `4 half + 2 odd + quarter` takes, scaled, elements `16 half + 8 quarter ..` of each group that is odd or is not,
/// eight of them; sum `8 + lane` the minimum of group `lane`.
fn q4k_row<const G: usize>(weights: &[u8], x: Q4KActivations<G>) -> [f32; G] {
    let mut sums = [[0f32; 2 * Q4K_GROUPS]; G];
    for (b, block) in weights.as_chunks().0.iter().enumerate() {
        let block = q4k_parts(block);
        for (g, sums) in sums.iter_mut().enumerate() {
            let mut whole = [0i32; Q4K_GROUPS];
            for (number, x) in x.values[b][g].0.as_chunks::<Q4K_WORDS>().0.iter().enumerate() {
                let (half, upper, odd, second) = (number / 8, number / 4 % 2, number / 2 % 2, number % 2);
                let scale = i32::from(block.scales[4 * half + 2 * second + upper]);
                for (word, x) in x.iter().enumerate() {
                    let value = block.values[2 * half + second][2 * word + odd] >> (4 * upper) & 0xf;
                    whole[word / 8 * 4 + upper * 2 + word / 4 % 2] += i32::from(value) * scale * i32::from(*x);
                }
            }
            let (scale, minimum) = (block.scale * x.scales[b][g], -(block.minimum * x.scales[b][g]));
            for lane in 0..Q4K_GROUPS {
                let below = i32::from(block.minima[lane]) * x.sums[b][g].0[lane];
                sums[lane] = (whole[lane] as f32).mul_add(scale, sums[lane]);
                sums[Q4K_GROUPS + lane] = (below as f32).mul_add(minimum, sums[Q4K_GROUPS + lane]);
            }
        }
    }
    sums.map(fold)
}
