//! Activations in the form that the kernels take them: in blocks, padded, and whole numbers for formats
//! that are.

use super::Matrix;
use super::format::{Format, Q4K_GROUP, Q4K_GROUPS, Q4K_LENGTH, Q8_0_LENGTH};
use super::vector::Path;

/// Elements of a block of floats.
pub(super) const FLOATS: usize = 32;
/// Words of the 32 bytes that hold two groups of Q4_K.
pub(super) const Q4K_WORDS: usize = 16;
/// The largest whole number an activation becomes: of those whose upper and lower byte both have a sign.
const MOST: f32 = (i8::MAX as i16 * 256 + i8::MAX as i16) as f32;
/// Blocks whose largest activation is smaller count as zeros: the inverse of their scale would be infinite.
const LEAST: f32 = 1e-30;
/// Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits; a cast would not vectorise.
const ROUND: f32 = 12_582_912.0;

/// A cache line's alignment, so that no vector lies across two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Aligned<T>(pub T);

/// A block of floats.
pub(super) type Floats = Aligned<[f32; FLOATS]>;

/// Whole numbers, `x = scale * value`.
#[derive(Default)]
struct Whole<const N: usize> {
    values: Vec<Aligned<[i16; N]>>,
    scales: Vec<f32>,
}

/// Rows of activations in groups, each laid out `[block][row of the group]`, in every form that a matrix needs.
#[derive(Default)]
pub(super) struct Activations {
    rows: usize,
    inputs: usize,
    group: usize,
    plain: Vec<Floats>,
    parted: Vec<Floats>,
    q8_0: Whole<Q8_0_LENGTH>,
    q4k: Whole<Q4K_LENGTH>,
    q4k_sums: Vec<Aligned<[i32; Q4K_GROUPS]>>,
}

/// The element at place `place` of a block in which elements 0, 2, 4, .. come first and then 1, 3, 5, ..
#[inline(always)]
pub(super) const fn parted(place: usize) -> usize {
    2 * place % FLOATS + 2 * place / FLOATS
}

impl Activations {
    /// Of `x` `[R, I]`, in groups as the registers of `path` want them, for the formats of `weight` `[O, I]`.
    pub(super) fn new(x: &[f32], weight: &Matrix, path: Path) -> Self {
        let inputs = weight.inputs;
        let mut new = Self { rows: x.len() / inputs.max(1), inputs, group: path.group(), ..Self::default() };
        let needs = |formats: &[Format]| weight.parts.iter().any(|part| formats.contains(&part.format));
        // Elements of a block, zeros behind the row's end.
        let block = |row: usize, start: usize| -> [f32; FLOATS] {
            let rest = &x[row * inputs + start..(row + 1) * inputs];
            match rest.first_chunk() {
                Some(block) => *block,
                None => std::array::from_fn(|i| rest.get(i).copied().unwrap_or(0.0)),
            }
        };
        if needs(&[Format::F32, Format::F16]) {
            new.plain = new.order(FLOATS).map(|[row, start]| Aligned(block(row, start))).collect();
        }
        if needs(&[Format::Bf16]) {
            let in_parts = |block: [f32; FLOATS]| Aligned(std::array::from_fn(|place| block[parted(place)]));
            new.parted = new.order(FLOATS).map(|[row, start]| in_parts(block(row, start))).collect();
        }
        if needs(&[Format::Q8_0]) {
            let whole = |[row, start]: [usize; 2]| in_whole_numbers(&block(row, start));
            (new.q8_0.scales, new.q8_0.values) = new.order(Q8_0_LENGTH).map(whole).unzip();
        }
        if needs(&[Format::Q4K]) {
            let whole = |[row, start]: [usize; 2]| {
                let (blocks, _) = x[row * inputs + start..][..Q4K_LENGTH].as_chunks::<Q4K_LENGTH>();
                in_whole_numbers(&blocks[0])
            };
            (new.q4k.scales, new.q4k.values) = new.order(Q4K_LENGTH).map(whole).unzip();
            new.q4k_sums = new.q4k.values.iter().map(|Aligned(values)| Aligned(sums(values))).collect();
            let alone = |row: usize| path.takes_bytes() && new.rows - row / new.group * new.group == 1;
            let in_order = |(Aligned(values), [row, _]): (&Aligned<_>, [usize; 2])| {
                Aligned(if alone(row) { q4k_bytes(values) } else { q4k_order(values) })
            };
            new.q4k.values = new.q4k.values.iter().zip(new.order(Q4K_LENGTH)).map(in_order).collect();
        }
        new
    }

    /// The first row and the number of rows of each group.
    pub(super) fn groups(&self) -> impl Iterator<Item = [usize; 2]> + use<> {
        let (rows, group) = (self.rows, self.group);
        (0..rows).step_by(group.max(1)).map(move |first| [first, group.min(rows - first)])
    }

    /// For f32 and f16: blocks of the group of `G` rows that begins with row `first`.
    pub(super) fn plain<const G: usize>(&self, first: usize) -> &[[Floats; G]] {
        self.of_group(&self.plain, first, FLOATS)
    }

    /// For bf16, [`parted`], as two neighbours come out of one word.
    pub(super) fn parted<const G: usize>(&self, first: usize) -> &[[Floats; G]] {
        self.of_group(&self.parted, first, FLOATS)
    }

    /// For Q8_0.
    pub(super) fn q8_0<const G: usize>(&self, first: usize) -> Q8_0Activations<'_, G> {
        let scales = self.of_group(&self.q8_0.scales, first, Q8_0_LENGTH);
        Q8_0Activations { scales, values: self.of_group(&self.q8_0.values, first, Q8_0_LENGTH) }
    }

    /// For Q4_K.
    pub(super) fn q4k<const G: usize>(&self, first: usize) -> Q4KActivations<'_, G> {
        let scales = self.of_group(&self.q4k.scales, first, Q4K_LENGTH);
        let sums = self.of_group(&self.q4k_sums, first, Q4K_LENGTH);
        Q4KActivations { scales, values: self.of_group(&self.q4k.values, first, Q4K_LENGTH), sums }
    }

    /// Rows and the elements that blocks of `length` begin with, in the order they are laid out.
    fn order(&self, length: usize) -> impl Iterator<Item = [usize; 2]> + use<> {
        let inputs = self.inputs;
        self.groups().flat_map(move |[first, count]| {
            let starts = (0..inputs).step_by(length);
            starts.flat_map(move |start| (first..first + count).map(move |row| [row, start]))
        })
    }

    fn of_group<'a, T, const G: usize>(&self, all: &'a [T], first: usize, length: usize) -> &'a [[T; G]] {
        let blocks = self.inputs.div_ceil(length);
        all[first * blocks..(first + G) * blocks].as_chunks().0
    }
}

/// Whole numbers of a group for Q8_0, `[block][row]`.
#[derive(Clone, Copy)]
pub(super) struct Q8_0Activations<'a, const G: usize> {
    pub scales: &'a [[f32; G]],
    pub values: &'a [[Aligned<[i16; Q8_0_LENGTH]>; G]],
}

/// Whole numbers of a group for Q4_K, `[block][row]`.
#[derive(Clone, Copy)]
pub(super) struct Q4KActivations<'a, const G: usize> {
    pub scales: &'a [[f32; G]],
    /// In the [`q4k_order`], or, of a row alone where the path takes bytes, [`q4k_bytes`].
    pub values: &'a [[Aligned<[i16; Q4K_LENGTH]>; G]],
    /// Of each 32 values.
    pub sums: &'a [[Aligned<[i32; Q4K_GROUPS]>; G]],
}

impl<'a, const G: usize> Q4KActivations<'a, G> {
    /// A group of one row as such.
    #[inline(always)]
    pub(super) fn alone(&self) -> Option<Q4KActivations<'a, 1>> {
        let Self { scales, values, sums } = self;
        (G == 1).then(|| Q4KActivations { scales: ones(scales), values: ones(values), sums: ones(sums) })
    }

    /// `count` blocks from `start` on.
    #[inline(always)]
    pub(super) fn some(&self, start: usize, count: usize) -> Self {
        let some = start..start + count;
        Self { scales: &self.scales[some.clone()], values: &self.values[some.clone()], sums: &self.sums[some] }
    }
}

/// Groups one by one.
fn ones<T, const G: usize>(groups: &[[T; G]]) -> &[[T; 1]] {
    groups.as_flattened().as_chunks().0
}

/// The scale, and the nearest whole numbers.
fn in_whole_numbers<const N: usize>(x: &[f32; N]) -> (f32, Aligned<[i16; N]>) {
    let largest = crate::lanes::max(&x.map(f32::abs));
    let (scale, inverse) = if largest < LEAST { (0.0, 0.0) } else { (largest / MOST, MOST / largest) };
    // Zero, but what is not finite makes the scale and so the result not a number.
    let broken = crate::lanes::sum(&x.map(|x| x * 0.0));
    let values = x.map(|x| x.mul_add(inverse, ROUND).to_bits() as i16);
    (scale + broken, Aligned(values))
}

/// Values in the order in which weights come out of words of four, 64 bytes at a time: for each half of the block, the
/// even elements of groups 0 and 2, their odd ones, and the same of groups 1 and 3.
fn q4k_order(values: &[i16; Q4K_LENGTH]) -> [i16; Q4K_LENGTH] {
    let mut ordered = [0; Q4K_LENGTH];
    for (number, to) in ordered.as_chunks_mut::<Q4K_WORDS>().0.iter_mut().enumerate() {
        let (half, upper, odd, second) = (number / 8, number / 4 % 2, number / 2 % 2, number % 2);
        let from = &values[(4 * half + 2 * second + upper) * Q4K_GROUP + odd..];
        *to = std::array::from_fn(|word| from[2 * word]);
    }
    ordered
}

/// Values as an upper and a lower byte, both signed: for each half of the block, the 64 upper bytes of groups 0 and 2,
/// their lower ones, and the same of groups 1 and 3. Two bytes lie in each number.
fn q4k_bytes(values: &[i16; Q4K_LENGTH]) -> [i16; Q4K_LENGTH] {
    std::array::from_fn(|place| {
        let (half, odd, lower, second) = (place / 128, place / 64 % 2, place / 32 % 2, place / 16 % 2);
        let from = (4 * half + 2 * second + odd) * Q4K_GROUP + place % 16 * 2;
        let byte = |value: i16| if lower == 1 { value as u8 } else { ((value - i16::from(value as i8)) >> 8) as u8 };
        i16::from_le_bytes([byte(values[from]), byte(values[from + 1])])
    })
}

/// The sum of each 32 values.
fn sums(values: &[i16; Q4K_LENGTH]) -> [i32; Q4K_GROUPS] {
    let groups = values.as_chunks::<Q4K_GROUP>().0;
    std::array::from_fn(|j| groups[j].iter().map(|value| i32::from(*value)).sum())
}
