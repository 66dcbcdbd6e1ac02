//! Seeded chance that gives the same results on every machine and with every version of `rand`.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of random choices. Only integer arithmetic, so nothing depends on the platform.
pub(crate) struct Dice {
    stream: ChaCha8Rng,
}

/// Mixes words into one, so that neighbouring numbers give unrelated results (the SplitMix64 finaliser).
pub(crate) fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0x6c61_7265_u64, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

impl Dice {
    /// The stream that belongs to these words.
    pub(crate) fn new(words: &[u64]) -> Dice {
        let base = mix(words);
        let mut seed = [0_u8; 32];
        for (part, bytes) in seed.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&mix(&[base, part as u64]).to_le_bytes());
        }
        Dice { stream: ChaCha8Rng::from_seed(seed) }
    }

    /// 32 random bits.
    pub(crate) fn bits(&mut self) -> u32 {
        self.stream.next_u32()
    }

    /// One of `0..count`; 0 if `count` is 0. The bias is below `count / 2^32`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((u64::from(self.bits()) * count as u64) >> 32) as usize
    }

    /// One of `low..=high`; `low` if they are the wrong way round.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below((high + 1).saturating_sub(low))
    }

    /// One of `-most..=most`.
    pub(crate) fn around(&mut self, most: usize) -> i32 {
        self.below(2 * most + 1) as i32 - most as i32
    }

    /// True `percent` times in a hundred.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of the items, none if there are none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// Puts the items in random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// A position drawn in proportion to the weights; none if no weight is positive.
    pub(crate) fn weighted(&mut self, weights: &[f32]) -> Option<usize> {
        let total: f32 = weights.iter().filter(|weight| **weight > 0.0).sum();
        let mut left = (self.bits() >> 8) as f32 / 16_777_216.0 * total;
        let mut last = None;
        for (position, &weight) in weights.iter().enumerate() {
            if weight > 0.0 {
                last = Some(position);
                if left < weight {
                    return last;
                }
                left -= weight;
            }
        }
        last
    }
}
