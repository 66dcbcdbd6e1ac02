//! Vectors of pairs: one instruction adds, in each of 16 places, the products of two bf16 with two others.

use super::{BLOCK, Line, SIDE};
use std::arch::x86_64::*;

/// Rows whose sums are kept in registers at once: with two vectors a row, as many as hide the latency of a sum.
const TOGETHER: usize = 8;

/// `to = a * b` or `to += ..`, `[32, 32]`: two panels of `steps` tiles each.
///
/// # Safety
/// The instructions must be there, the panels of that length, and `to` a block with rows `stride` apart.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn kernel([a, b]: [&[Line]; 2], steps: usize, to: *mut f32, stride: usize, add: bool) {
    let panel = steps * SIDE;
    for top in (0..BLOCK).step_by(TOGETHER) {
        // SAFETY: reads `2 * steps` tiles from each, reads and writes one block.
        unsafe {
            let rows = a.as_ptr().add(top / SIDE * panel + top % SIDE);
            let to = to.add(top * stride);
            let mut sums = [[_mm512_setzero_ps(); 2]; TOGETHER];
            if add {
                for (i, sums) in sums.iter_mut().enumerate() {
                    *sums = [_mm512_loadu_ps(to.add(i * stride)), _mm512_loadu_ps(to.add(i * stride + SIDE))];
                }
            }
            for step in 0..steps {
                let words = rows.add(step * SIDE).cast::<i32>();
                let columns = b.as_ptr().add(step * SIDE);
                for pair in 0..SIDE {
                    let left = pairs(_mm512_load_si512(columns.add(pair).cast()));
                    let right = pairs(_mm512_load_si512(columns.add(panel + pair).cast()));
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let word = pairs(_mm512_set1_epi32(*words.add(i * SIDE + pair)));
                        sums[0] = _mm512_dpbf16_ps(sums[0], word, left);
                        sums[1] = _mm512_dpbf16_ps(sums[1], word, right);
                    }
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(to.add(i * stride), sums[0]);
                _mm512_storeu_ps(to.add(i * stride + SIDE), sums[1]);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs(words: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits of plain numbers.
    unsafe { std::mem::transmute(words) }
}
