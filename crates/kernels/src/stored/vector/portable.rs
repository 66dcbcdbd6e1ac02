//! The kernels as any processor runs them; what the others are measured against, to the bit.

use crate::stored::activations::{Aligned, FLOATS, Q4KActivations, Q8_0Activations, parted};
use crate::stored::format::{
    Format, Q4K_BYTES, Q4K_GROUP, Q4K_GROUPS, Q8_0_BYTES, bf16_to_f32, f16_to_f32, q4k_parts, q8_0_parts,
};

/// Running sums of whole numbers.
const LANES: usize = 8;

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

/// Sum `lane` takes elements `2 lane`, `2 lane + 1`, `16 + 2 lane` and `17 + 2 lane` of every other block.
fn q8_0<const G: usize>(weights: &[u8], (scales, x): Q8_0Activations<G>) -> [f32; G] {
    let mut sums = [[0f32; 2 * LANES]; G];
    for (b, (block, (scales, x))) in weights.as_chunks::<Q8_0_BYTES>().0.iter().zip(scales.iter().zip(x)).enumerate() {
        let (scale, weights) = q8_0_parts(block);
        for (sums, (x_scale, Aligned(x))) in sums.iter_mut().zip(scales.iter().zip(x)) {
            for (lane, sum) in sums[b % 2 * LANES..][..LANES].iter_mut().enumerate() {
                let places = [2 * lane, 2 * lane + 1, 2 * LANES + 2 * lane, 2 * LANES + 2 * lane + 1];
                let whole: i32 = places.map(|i| i32::from(weights[i]) * i32::from(x[i])).iter().sum();
                *sum = (whole as f32).mul_add(scale * x_scale, *sum);
            }
        }
    }
    sums.map(fold)
}

/// Sum `lane` takes elements `4 lane .. 4 lane + 4` of each 32, scaled, and the minimum of 32 number `lane`.
fn q4k<const G: usize>(weights: &[u8], (scales, x, x_sums): Q4KActivations<G>) -> [f32; G] {
    let mut sums = [[0f32; LANES]; G];
    let x = scales.iter().zip(x.iter().zip(x_sums));
    for (block, (scales, (x, x_sums))) in weights.as_chunks::<Q4K_BYTES>().0.iter().zip(x) {
        let block = q4k_parts(block);
        for (g, sums) in sums.iter_mut().enumerate() {
            let mut whole = [0i32; LANES];
            for (j, x) in x[g].0.as_chunks::<Q4K_GROUP>().0.iter().enumerate() {
                for place in 0..Q4K_GROUP {
                    let value = block.values[j / 2][parted(place)] >> (4 * (j % 2)) & 0xf;
                    let weight = i32::from(value) * i32::from(block.scales[j]);
                    whole[place / 2 % LANES] += weight * i32::from(x[place]);
                }
            }
            let (scale, minimum) = (block.scale * scales[g], -(block.minimum * scales[g]));
            for lane in 0..Q4K_GROUPS {
                let below = i32::from(block.minima[lane]) * x_sums[g].0[lane];
                sums[lane] = (below as f32).mul_add(minimum, (whole[lane] as f32).mul_add(scale, sums[lane]));
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
