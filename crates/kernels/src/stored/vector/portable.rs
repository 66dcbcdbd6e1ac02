//! The kernels as any processor runs them; what the others are measured against, to the bit.

use crate::stored::activations::{Aligned, FLOATS, Q4K_WORDS, Q4KActivations, Q8_0Activations, parted};
use crate::stored::format::{Format, Q4K_GROUPS, Q8_0_LENGTH, bf16_to_f32, f16_to_f32, q4k_parts, q8_0_parts};

define_run!();

fn f32<const G: usize>(weights: &[u8], x: &[[Aligned<[f32; FLOATS]>; G]]) -> [f32; G] {
    floats(weights, x, |block: &[[u8; 4]; FLOATS]| block.map(f32::from_le_bytes))
}

fn f16<const G: usize>(weights: &[u8], x: &[[Aligned<[f32; FLOATS]>; G]]) -> [f32; G] {
    floats(weights, x, |block: &[[u8; 2]; FLOATS]| block.map(|bytes| f16_to_f32(u16::from_le_bytes(bytes))))
}

fn bf16<const G: usize>(weights: &[u8], x: &[[Aligned<[f32; FLOATS]>; G]]) -> [f32; G] {
    floats(weights, x, |block: &[[u8; 2]; FLOATS]| {
        std::array::from_fn(|place| bf16_to_f32(u16::from_le_bytes(block[parted(place)])))
    })
}

/// Place `i` of every block goes to running sum `i`.
fn floats<const G: usize, const N: usize>(
    weights: &[u8],
    x: &[[Aligned<[f32; FLOATS]>; G]],
    widen: impl Fn(&[[u8; N]; FLOATS]) -> [f32; FLOATS],
) -> [f32; G] {
    let mut sums = [[0f32; FLOATS]; G];
    let mut add = |block: &[[u8; N]; FLOATS], x: &[Aligned<[f32; FLOATS]>; G]| {
        let weights = widen(block);
        for (sums, Aligned(x)) in sums.iter_mut().zip(x) {
            for lane in 0..FLOATS {
                sums[lane] = weights[lane].mul_add(x[lane], sums[lane]);
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

/// Sum `lane` takes elements `2 lane` and `2 lane + 1` of each block.
fn q8_0<const G: usize>(weights: &[u8], (scales, x): Q8_0Activations<G>) -> [f32; G] {
    let mut sums = [[0f32; Q8_0_LENGTH / 2]; G];
    for (block, (scales, x)) in weights.as_chunks().0.iter().zip(scales.iter().zip(x)) {
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

/// Sum `lane` takes elements `4 lane .. 4 lane + 4` of each group, scaled, and the minimum of group `lane`.
fn q4k<const G: usize>(weights: &[u8], (scales, x, x_sums): Q4KActivations<G>) -> [f32; G] {
    let mut sums = [[0f32; Q4K_GROUPS]; G];
    for (b, block) in weights.as_chunks().0.iter().enumerate() {
        let block = q4k_parts(block);
        for (g, sums) in sums.iter_mut().enumerate() {
            let mut whole = [0i32; Q4K_GROUPS];
            for (number, x) in x[b][g].0.as_chunks::<Q4K_WORDS>().0.iter().enumerate() {
                let (half, upper, odd, second) = (number / 8, number / 4 % 2, number / 2 % 2, number % 2);
                let scale = i32::from(block.scales[4 * half + 2 * second + upper]);
                for (word, x) in x.iter().enumerate() {
                    let value = block.values[2 * half + second][2 * word + odd] >> (4 * upper) & 0xf;
                    whole[word / 2] += i32::from(value) * scale * i32::from(*x);
                }
            }
            let (scale, minimum) = (block.scale * scales[b][g], -(block.minimum * scales[b][g]));
            for (lane, sum) in sums.iter_mut().enumerate() {
                let below = i32::from(block.minima[lane]) * x_sums[b][g].0[lane];
                *sum = (below as f32).mul_add(minimum, (whole[lane] as f32).mul_add(scale, *sum));
            }
        }
    }
    sums.map(fold)
}

/// Adds the upper half to the lower until one is left.
fn fold<const N: usize>(mut sums: [f32; N]) -> f32 {
    let mut width = N / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}
