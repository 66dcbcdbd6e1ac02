//! Matrix products in bf16 on CPUs with instructions for them: the matrix unit of Intel's servers (AMX, sixteen times
//! the arithmetic of f32) or the vectors of AVX-512 BF16 (twice; AMD from Zen 4 on).
//!
//! Operands are rounded to bf16, eight bits of mantissa, while they are packed; products are summed in f32. Both kinds
//! of instruction take words of two neighbours along `k`, so both operands are packed into tiles of 16 lines of 16
//! words: a line is a row of the first operand, and 16 columns of the second.

mod amx;
mod avx512;

use rayon::prelude::*;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::sync::OnceLock;

/// Rows of a tile, and words of its rows.
const SIDE: usize = 16;
/// Elements along `k` in a tile.
const DEEP: usize = 2 * SIDE;
/// Rows and columns of one kernel call: two tiles by two.
const BLOCK: usize = 2 * SIDE;
/// Elements along `k` between two additions to the result: two operands of a kernel call then take 64 KB.
const PASS: usize = 512;
/// Rows of the first operand that one task packs.
const ROWS: usize = 64;
/// Below this many multiplications a product stays on one thread.
const PARALLEL: usize = 1 << 22;

/// One operand seen along `k`, the axis that is summed over: `len` rows of the first, or columns of the second.
#[derive(Clone, Copy)]
pub(crate) struct Side {
    pub start: *const f32,
    pub len: usize,
    /// Elements from one row (or column) to the next. This or `along_k` is 1.
    pub step: usize,
    /// Elements from one place along `k` to the next.
    pub along_k: usize,
}

// SAFETY: it is only read, by tasks that end before the product does.
unsafe impl Send for Side {}
// SAFETY: as above.
unsafe impl Sync for Side {}

/// Where a product goes: rows `stride` apart, `= scale * ..` or `+= scale * ..`.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub start: *mut f32,
    pub stride: usize,
    pub scale: f32,
    pub add: bool,
}

// SAFETY: each task writes its own rows.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// The instructions that multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Amx,
    Avx512,
}

impl Unit {
    /// Those that this machine has and the system lets this process use, the fastest first; asked once.
    pub(crate) fn all() -> &'static [Self] {
        static ANSWER: OnceLock<Vec<Unit>> = OnceLock::new();
        ANSWER.get_or_init(|| {
            let vectors = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16");
            let units = [(Self::Amx, vectors && amx::available()), (Self::Avx512, vectors)];
            units.into_iter().filter(|(_, there)| *there).map(|(unit, _)| unit).collect()
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amx => "AMX",
            Self::Avx512 => "AVX-512 BF16",
        }
    }
}

#[repr(C, align(64))]
struct Scratch([f32; BLOCK * BLOCK]);

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u32; SIDE]);

thread_local! {
    static PACKED: RefCell<[Vec<Line>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Runs with a buffer of `lines`, kept by the thread for the next time. Its contents are whatever they were.
fn with_buffer<T>(which: usize, lines: usize, run: impl FnOnce(&mut [Line]) -> T) -> T {
    // Taken, not borrowed: while a task waits for others, its thread may begin another product.
    let mut buffer = PACKED.with_borrow_mut(|kept| std::mem::take(&mut kept[which]));
    if buffer.len() < lines {
        buffer = vec![Line([0; SIDE]); lines];
    }
    let answer = run(&mut buffer[..lines]);
    PACKED.with_borrow_mut(|kept| kept[which] = buffer);
    answer
}

/// `out = scale * a * b` or `out += ..`, `a` `[m, k]`, `b` `[k, n]`.
///
/// # Safety
/// The unit must be there, the sides must be readable over `k`, and `out` written by nobody else and apart from them.
pub(crate) unsafe fn multiply(unit: Unit, out: Out, [a, b]: [Side; 2], k: usize, on_all_cores: bool) {
    let b_panels = b.len.div_ceil(BLOCK) * 2;
    for first in (0..k).step_by(PASS) {
        let depth = PASS.min(k - first);
        let steps = depth.div_ceil(DEEP);
        let out = Out { add: out.add || first > 0, ..out };
        with_buffer(0, b_panels * steps * SIDE, |packed_b| {
            let packing = Packing { side: b, along: [first, depth], by_row: false, into: packed_b.as_mut_ptr() };
            // SAFETY: by the caller's promise; parts are apart, and all are done before the first is read.
            let pack = |part: usize| unsafe { packing.part(part, 0, b_panels) };
            let parts = packing.parts(b_panels);
            let tasks = a.len.div_ceil(ROWS);
            // SAFETY: by the caller's promise; tasks have different rows.
            let task = |rows: usize, packed_b: &[Line]| unsafe {
                rows_of(unit, out, [a, b], [rows * ROWS, a.len.min(rows * ROWS + ROWS)], [first, depth], packed_b);
            };
            if on_all_cores && a.len * b.len * depth >= PARALLEL {
                (0..parts).into_par_iter().for_each(pack);
                (0..tasks).into_par_iter().for_each(|rows| task(rows, packed_b));
            } else {
                (0..parts).for_each(pack);
                (0..tasks).for_each(|rows| task(rows, packed_b));
            }
        });
    }
}

/// Rows `top .. end` of the product, over `first .. first + depth` of `k`.
///
/// # Safety
/// As for [`multiply`].
unsafe fn rows_of(
    unit: Unit,
    out: Out,
    [a, b]: [Side; 2],
    [top, end]: [usize; 2],
    along: [usize; 2],
    packed_b: &[Line],
) {
    let steps = along[1].div_ceil(DEEP);
    let panels = (end - top).div_ceil(BLOCK) * 2;
    with_buffer(1, panels * steps * SIDE, |packed_a| {
        let packing = Packing { side: a, along, by_row: true, into: packed_a.as_mut_ptr() };
        for part in 0..packing.parts(panels) {
            // SAFETY: by the caller's promise.
            unsafe { packing.part(part, top, panels) };
        }
        let mut scratch = Scratch([0.0; BLOCK * BLOCK]);
        // SAFETY: panels of `steps` tiles each; the unit is there by the caller's promise, and configured below.
        let kernel = |panels: [&[Line]; 2], to: *mut f32, stride: usize, add: bool| unsafe {
            match unit {
                Unit::Amx => amx::kernel(panels, steps, to, stride, add),
                Unit::Avx512 => avx512::kernel(panels, steps, to, stride, add),
            }
        };
        if unit == Unit::Amx {
            // SAFETY: the unit is there by the caller's promise.
            unsafe { amx::begin() };
        }
        let pair = 2 * steps * SIDE;
        for (row, a_pair) in packed_a.chunks(pair).enumerate() {
            for (column, b_pair) in packed_b.chunks(pair).enumerate() {
                let (row, column) = (top + row * BLOCK, column * BLOCK);
                let (height, width) = (BLOCK.min(end - row), BLOCK.min(b.len - column));
                // SAFETY: this task's rows, in bounds.
                let to = unsafe { out.start.add(row * out.stride + column) };
                if height == BLOCK && width == BLOCK && out.scale == 1.0 {
                    kernel([a_pair, b_pair], to, out.stride, out.add);
                    continue;
                }
                kernel([a_pair, b_pair], scratch.0.as_mut_ptr(), BLOCK, false);
                for (i, values) in scratch.0.chunks_exact(BLOCK).take(height).enumerate() {
                    // SAFETY: this task's rows, in bounds.
                    let to = unsafe { std::slice::from_raw_parts_mut(to.add(i * out.stride), width) };
                    put(to, values, out.scale, out.add);
                }
            }
        }
        if unit == Unit::Amx {
            // SAFETY: as above.
            unsafe { amx::end() };
        }
    });
}

fn put(to: &mut [f32], values: &[f32], scale: f32, add: bool) {
    if add {
        to.iter_mut().zip(values).for_each(|(to, value)| *to += scale * value);
    } else {
        to.iter_mut().zip(values).for_each(|(to, value)| *to = scale * value);
    }
}

/// One side on its way into panels: `[panel][step][16]` lines.
#[derive(Clone, Copy)]
struct Packing {
    side: Side,
    along: [usize; 2], // first, depth
    by_row: bool,      // a tile's rows are those of the side; else they are pairs along k
    into: *mut Line,
}

// SAFETY: parts write apart from each other.
unsafe impl Send for Packing {}
// SAFETY: as above.
unsafe impl Sync for Packing {}

impl Packing {
    fn steps(&self) -> usize {
        self.along[1].div_ceil(DEEP)
    }

    /// What is packed at once is what lies together: a panel where rows run along `k`, else a step of all panels.
    fn parts(&self, panels: usize) -> usize {
        if self.side.along_k == 1 { panels } else { self.steps() }
    }

    /// # Safety
    /// The side must be readable and `into` have room for all panels.
    unsafe fn part(&self, part: usize, top: usize, panels: usize) {
        let steps = self.steps();
        let into = |panel: usize, step: usize| self.into.wrapping_add((panel * steps + step) * SIDE);
        // SAFETY: the vectors are there with every unit; the rest by the caller's promise.
        unsafe {
            if self.side.along_k == 1 {
                (0..steps).for_each(|step| self.rows(top + part * SIDE, step, into(part, step)));
            } else {
                (0..panels).for_each(|panel| self.columns(top + panel * SIDE, part, into(panel, part)));
            }
        }
    }

    /// A tile of a side whose rows run along `k`.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn rows(&self, place: usize, step: usize, into: *mut Line) {
        let (from, deep) = self.from(step);
        let count = self.side.len.saturating_sub(place).min(SIDE);
        let [low, high] = [0, SIDE].map(|skip| mask(deep.saturating_sub(skip)));
        let line = |i: usize| {
            let row = self.side.start.wrapping_add((place + i) * self.side.step + from);
            let inside = if i < count { u16::MAX } else { 0 };
            // SAFETY: masked to what is there.
            let parts = unsafe {
                [_mm512_maskz_loadu_ps(low & inside, row), _mm512_maskz_loadu_ps(high & inside, row.wrapping_add(SIDE))]
            };
            joined(parts[0], parts[1])
        };
        if self.by_row {
            for i in 0..SIDE {
                let line = line(i);
                // SAFETY: by the caller's promise.
                unsafe { _mm512_store_si512(into.add(i).cast(), line) };
            }
        } else {
            let mut lines = [_mm512_setzero_si512(); SIDE];
            for (i, to) in lines.iter_mut().enumerate() {
                *to = line(i);
            }
            // SAFETY: by the caller's promise.
            unsafe { store(transposed(lines), into) };
        }
    }

    /// A tile of a side whose columns run along `k`.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn columns(&self, place: usize, step: usize, into: *mut Line) {
        let (from, deep) = self.from(step);
        let width = mask(self.side.len.saturating_sub(place));
        let mix = interleave();
        let mut lines = [_mm512_setzero_si512(); SIDE];
        for (pair, to) in lines.iter_mut().enumerate() {
            let row = self.side.start.wrapping_add((from + 2 * pair) * self.side.along_k + place);
            let [first, second] = [0, 1].map(|odd| if 2 * pair + odd < deep { width } else { 0 });
            // SAFETY: masked to what is there.
            let parts = unsafe {
                let below = row.wrapping_add(self.side.along_k);
                [_mm512_maskz_loadu_ps(first, row), _mm512_maskz_loadu_ps(second, below)]
            };
            *to = _mm512_permutexvar_epi16(mix, joined(parts[0], parts[1]));
        }
        let lines = if self.by_row { transposed(lines) } else { lines };
        // SAFETY: by the caller's promise.
        unsafe { store(lines, into) };
    }

    /// Where a step begins, and how much of it there is.
    fn from(&self, step: usize) -> (usize, usize) {
        let [first, depth] = self.along;
        (first + step * DEEP, (depth - step * DEEP).min(DEEP))
    }
}

/// # Safety
/// `into` must have room for a tile.
#[target_feature(enable = "avx512f")]
unsafe fn store(lines: [__m512i; SIDE], into: *mut Line) {
    for (i, line) in lines.into_iter().enumerate() {
        // SAFETY: by the caller's promise; a line is 64 bytes and aligned to as many.
        unsafe { _mm512_store_si512(into.add(i).cast(), line) };
    }
}

fn mask(count: usize) -> u16 {
    if count >= SIDE { u16::MAX } else { (1 << count) - 1 }
}

/// 32 bf16, those of `low` first.
#[target_feature(enable = "avx512f,avx512bf16")]
fn joined(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 512 bits of plain numbers.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Puts the two halves' elements side by side in pairs.
#[target_feature(enable = "avx512f")]
fn interleave() -> __m512i {
    let places: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * SIDE) as u16);
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(places.as_ptr().cast()) }
}

/// Words: row `i`, column `j` to row `j`, column `i`.
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; SIDE]) -> [__m512i; SIDE] {
    let none = _mm512_setzero_si512();
    // Within lanes of four words: pairs of rows, then fours of rows. `fours[4 i + c]` holds, in lane `l`, column
    // `4 l + c` of rows `4 i .. 4 i + 4`.
    let (mut pairs, mut fours) = ([none; SIDE], [none; SIDE]);
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for i in 0..4 {
        for half in 0..2 {
            let (above, below) = (pairs[4 * i + half], pairs[4 * i + 2 + half]);
            fours[4 * i + 2 * half] = _mm512_unpacklo_epi64(above, below);
            fours[4 * i + 2 * half + 1] = _mm512_unpackhi_epi64(above, below);
        }
    }
    // Across lanes: even and odd lanes of the upper and the lower eight rows, then each lane by itself.
    let mut columns = [none; SIDE];
    for c in 0..4 {
        let even = [0, 8].map(|i| _mm512_shuffle_i32x4::<0x88>(fours[i + c], fours[i + 4 + c]));
        let odd = [0, 8].map(|i| _mm512_shuffle_i32x4::<0xdd>(fours[i + c], fours[i + 4 + c]));
        columns[c] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        columns[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        columns[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        columns[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{random, skipped_without_bf16};

    /// What packing makes of a number.
    fn rounded(x: f32) -> f64 {
        let bits = x.to_bits();
        f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000).into()
    }

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        random(count, seed).to_vec1().unwrap()
    }

    /// A side over `values`, whose rows (or columns) run along `k` or across it.
    fn side(values: &[f32], len: usize, k: usize, runs_along_k: bool) -> Side {
        let (step, along_k) = if runs_along_k { (k, 1) } else { (1, len) };
        Side { start: values.as_ptr(), len, step, along_k }
    }

    #[test]
    fn a_product_of_any_shape_and_layout_is_that_of_rounded_operands() {
        skipped_without_bf16();
        let shapes =
            [(1, 1, 1), (5, 7, 9), (16, 16, 32), (37, 45, 70), (100, 33, 1030), (129, 200, 513), (64, 96, 512)];
        for (unit, (m, n, k)) in Unit::all().iter().flat_map(|unit| shapes.map(|shape| (*unit, shape))) {
            let (a, b, before) = (numbers(m * k, 1), numbers(n * k, 2), numbers(m * n, 3));
            for case in 0..16 {
                let [a_along, b_along, add, halved] = [1, 2, 4, 8].map(|bit| case & bit > 0);
                let scale = if halved { 0.5 } else { 1.0 };
                let mut c = before.clone();
                let sides = [side(&a, m, k, a_along), side(&b, n, k, b_along)];
                // SAFETY: the sides cover their slices, and `c` is `[m, n]`.
                unsafe {
                    multiply(unit, Out { start: c.as_mut_ptr(), stride: n, scale, add }, sides, k, case % 3 == 0)
                };
                for (place, got) in c.iter().enumerate() {
                    let (i, j) = (place / n, place % n);
                    let a_at = |l: usize| if a_along { a[i * k + l] } else { a[l * m + i] };
                    let b_at = |l: usize| if b_along { b[j * k + l] } else { b[l * n + j] };
                    let sum: f64 = (0..k).map(|l| rounded(a_at(l)) * rounded(b_at(l))).sum();
                    let expected = f64::from(scale) * sum + if add { before[place].into() } else { 0.0 };
                    let error = (f64::from(*got) - expected).abs();
                    assert!(
                        error < 1e-6 * (k as f64 + 1.0),
                        "{unit:?}, {m} x {n} x {k}, case {case}: {got}, expected {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_product_touches_nothing_beside_its_target() {
        skipped_without_bf16();
        let (m, n, k, stride) = (40, 35, 33, 50);
        let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
        for unit in Unit::all() {
            let mut c = vec![7f32; m * stride];
            let out = Out { start: c.as_mut_ptr(), stride, scale: 1.0, add: false };
            // SAFETY: as above, with room beside each row.
            unsafe { multiply(*unit, out, [side(&a, m, k, true), side(&b, n, k, true)], k, false) };
            let mut rows = c.chunks(stride).map(|row| row.split_at(n));
            let fits = |(target, beside): (&[f32], &[f32])| {
                beside.iter().all(|x| *x == 7.0) && target.iter().all(|x| *x != 7.0)
            };
            assert!(rows.all(fits), "{unit:?}");
        }
    }

    #[test]
    fn a_product_in_bf16_has_the_same_bits_on_any_number_of_threads() {
        skipped_without_bf16();
        let (m, n, k) = (300, 130, 1100);
        let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
        for unit in Unit::all() {
            let on = |threads: bool| {
                let mut c = vec![0f32; m * n];
                let out = Out { start: c.as_mut_ptr(), stride: n, scale: 1.0, add: false };
                // SAFETY: as above.
                unsafe { multiply(*unit, out, [side(&a, m, k, true), side(&b, n, k, false)], k, threads) };
                c.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert_eq!(on(true), on(false), "{unit:?}");
        }
    }
}
