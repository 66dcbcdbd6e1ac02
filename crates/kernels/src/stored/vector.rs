//! Products with weights as stored: each is read once for up to 64 rows, and is a number of 32 bits only in registers.
//!
//! Float formats: `sum(w x)` in f32 with weights as they are.
//!
//! Q8_0 and Q4_K: activations become whole numbers of 16 bits with one scale a block, and their products with the
//! weights' whole numbers are summed exactly within a block. ggml takes 8 bits, so that activations add as much error
//! as Q8_0's weights. 16 bits take as many instructions with Q8_0 (widening the weights, where 8 bits move their
//! signs) and leave 1e-5 of the result; with Q4_K they are two times 8 bits where the processor multiplies those. In f32 the conversion alone would take twice as many, and a core with AVX2
//! would be slower than its memory.
//!
//! A row's sums do not depend on the rows beside it, and are the same on every path: lanes are the running sums that
//! the portable code names.

/// Defines `run`, which multiplies some weight rows at once with some activations, as many as the registers hold the
/// sums of, by the kernels of the module it stands in: so many rows of floats with 1, 2, 3 and 4 activations, and so many
/// of whole numbers.
///
/// Weight rows that are taken at once lie far apart, so that each is one of a stream that the processor sees coming.
macro_rules! define_run {
    ([$f1:literal, $f2:literal, $f3:literal, $f4:literal], $whole:literal $(, $attribute:meta)?) => {
        $(#[$attribute])?
        pub(super) fn run(task: super::Task) {
            let floats = task.weights.format.block_length() == 1;
            for [first, count] in task.x.groups() {
                match (floats, count) {
                    (true, 1) => group::<$f1, 1>(task, first),
                    (true, 2) => group::<$f2, 2>(task, first),
                    (true, 3) => group::<$f3, 3>(task, first),
                    (true, _) => group::<$f4, 4>(task, first),
                    (false, 1) => group::<$whole, 1>(task, first),
                    (false, 2) => group::<$whole, 2>(task, first),
                    (false, 3) => group::<$whole, 3>(task, first),
                    (false, _) => group::<$whole, 4>(task, first),
                }
            }
        }

        $(#[$attribute])?
        fn group<const O: usize, const G: usize>(task: super::Task, first: usize) {
            let apart = task.weights.count() / O;
            for row in 0..apart {
                rows::<O, G>(task, first, std::array::from_fn(|i| row + i * apart));
            }
            for row in O * apart..task.weights.count() {
                rows::<1, G>(task, first, [row]);
            }
        }

        $(#[$attribute])?
        fn rows<const O: usize, const G: usize>(task: super::Task, first: usize, rows: [usize; O]) {
            let (weights, x) = (rows.map(|row| task.weights.row(row)), task.x);
            let sums = match task.weights.format {
                Format::F32 => f32::<O, G>(weights, x.plain(first)),
                Format::F16 => f16::<O, G>(weights, x.plain(first)),
                Format::Bf16 => bf16::<O, G>(weights, x.parted(first)),
                Format::Q8_0 => q8_0::<O, G>(weights, x.q8_0(first)),
                Format::Q4K => q4k::<O, G>(weights, x.q4k(first)),
            };
            for (row, sums) in rows.into_iter().zip(sums) {
                task.put(row, first, sums);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(target_arch = "x86_64")]
mod vnni;

use super::activations::Activations;
use super::{Matrix, Rows};
use crate::buffer::{Shared, filled};
use crate::crew::in_phases;
use std::sync::OnceLock;

/// Bytes of weights that a thread takes at once, or [`TASK_ROWS`] if those are more: enough that the processor sees
/// streams.
const TASK_BYTES: usize = 1 << 17;
/// The most weight rows that a kernel takes at once.
const TASK_ROWS: usize = 4;
/// Rows of activations that are multiplied at once, while the weights pass by; what they take stays in a core's cache
/// for the widths of usual models. GEMM, which packs what it multiplies, was measured to be half as fast at 64.
pub(super) const ROWS: usize = 64;
/// Below this many products a call stays on its thread, as elsewhere in this crate.
const PARALLEL_PRODUCTS: usize = 1 << 15;

/// The instructions that multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Path {
    /// Those that this machine has, the fastest first; asked once.
    pub(super) fn all() -> &'static [Self] {
        static ANSWER: OnceLock<Vec<Path>> = OnceLock::new();
        ANSWER.get_or_init(|| {
            let mut there = Vec::new();
            #[cfg(target_arch = "x86_64")]
            {
                let avx2 = is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c");
                let avx512 = avx2
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw");
                let vnni = avx512 && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni");
                there.extend(vnni.then_some(Self::Vnni));
                there.extend(avx512.then_some(Self::Avx512));
                there.extend(avx2.then_some(Self::Avx2));
            }
            there.push(Self::Portable);
            there
        })
    }

    /// The fastest.
    pub(super) fn best() -> Self {
        Self::all()[0]
    }

    /// Rows of activations whose sums its registers hold; at most 4.
    pub(super) fn group(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 3,
            _ => 4,
        }
    }

    /// Whether one row of activations alone is multiplied byte by byte with Q4_K.
    pub(super) fn takes_bytes(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => true,
            _ => false,
        }
    }

    fn run(self, task: Task) {
        match self {
            // SAFETY: only a path that the machine has is in `all`.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { vnni::run(task) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512::run(task) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::run(task) },
            Self::Portable => portable::run(task),
        }
    }
}

/// Where results go, `[R, O]`.
#[derive(Clone, Copy)]
pub(super) struct Out<'a> {
    pub to: Shared,
    pub outputs: usize,
    pub bias: Option<&'a [f32]>,
}

/// Some rows of weights, times all activations.
#[derive(Clone, Copy)]
struct Task<'a> {
    weights: Rows<'a>,
    x: &'a Activations,
    out: Out<'a>,
}

impl Task<'_> {
    /// Writes the sums of weight row `row` with the activations `first .. first + G`.
    #[inline(always)]
    fn put<const G: usize>(&self, row: usize, first: usize, sums: [f32; G]) {
        let output = self.weights.first + row;
        let bias = self.out.bias.map_or(0.0, |bias| bias[output]);
        for (i, sum) in sums.into_iter().enumerate() {
            // SAFETY: tasks have different weight rows, and so different columns of the result.
            unsafe { *self.out.to.at((first + i) * self.out.outputs + output, 1) = sum + bias };
        }
    }
}

/// Rows of weights in blocks of `N` bytes.
type Blocks<'a, const O: usize, const N: usize> = [&'a [[u8; N]]; O];

/// Rows of weights in blocks of `N` bytes, and one more block, filled up with zeros, where some are left.
#[inline(always)]
fn in_blocks<const O: usize, const N: usize>(rows: [&[u8]; O]) -> (Blocks<'_, O, N>, Option<[[u8; N]; O]>) {
    let rows = rows.map(|row| row.as_chunks::<N>());
    let some = rows.iter().any(|(_, rest)| !rest.is_empty());
    let rest = some.then(|| {
        rows.map(|(_, rest)| {
            let mut block = [0; N];
            block[..rest.len()].copy_from_slice(rest);
            block
        })
    });
    (rows.map(|(blocks, _)| blocks), rest)
}

/// How many blocks every row has.
#[inline(always)]
fn whole<const O: usize, const N: usize>(rows: Blocks<O, N>) -> usize {
    rows.iter().map(|blocks| blocks.len()).min().unwrap_or(0)
}

/// A product cut into tasks.
pub(super) struct Product<'a> {
    weights: Vec<Rows<'a>>,
    products: usize,
}

impl<'a> Product<'a> {
    pub(super) fn new(weight: &'a Matrix) -> Self {
        let cut =
            |rows: Rows<'a>| rows.panels((TASK_BYTES / rows.row_bytes).next_multiple_of(TASK_ROWS).max(TASK_ROWS));
        Self { weights: weight.rows().flat_map(cut).collect(), products: weight.outputs * weight.inputs }
    }

    /// How many tasks there are.
    pub(super) fn tasks(&self) -> usize {
        self.weights.len()
    }

    /// Whether so little is to do that other threads would come too late.
    pub(super) fn is_small(&self, rows: usize) -> bool {
        self.products * rows < PARALLEL_PRODUCTS
    }

    /// # Safety
    /// Each task runs once, while nothing else touches `out`, which is `[R, O]`.
    pub(super) unsafe fn run(&self, path: Path, task: usize, x: &Activations, out: Out) {
        path.run(Task { weights: self.weights[task], x, out });
    }
}

/// `x W^T + b`, `[R, O]`, for `x` `[R, I]`.
pub(super) fn forward(path: Path, x: &[f32], weight: &Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    let (inputs, outputs) = (weight.inputs.max(1), weight.outputs.max(1));
    let product = Product::new(weight);
    filled(x.len() / inputs * weight.outputs, |out| {
        for (x, out) in x.chunks(ROWS * inputs).zip(out.chunks_mut(ROWS * outputs)) {
            let rows = x.len() / inputs;
            let x = Activations::new(x, weight, path);
            let out = Out { to: Shared::new(out), outputs, bias };
            // SAFETY: every task runs once, and `out` is the whole of these rows' result.
            let run = |task| unsafe { product.run(path, task, &x, out) };
            if product.is_small(rows) {
                (0..product.tasks()).for_each(run);
            } else {
                in_phases([product.tasks()], |_, task| run(task));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;
    use crate::stored::Format;

    /// `x W^T` in f64.
    fn exact(x: &[f32], weight: &Matrix) -> Vec<f64> {
        let weights = values(&weight.to_tensor(&candle_core::Device::Cpu).unwrap());
        let dot = |x: &[f32], weights: &[f64]| x.iter().zip(weights).map(|(x, w)| f64::from(*x) * w).sum();
        let rows = x.chunks(weight.inputs).flat_map(|x| weights.chunks(weight.inputs).map(move |w| dot(x, w)));
        rows.collect()
    }

    fn cases() -> impl Iterator<Item = (Matrix, Vec<f32>)> {
        let shapes: [(usize, usize); 8] =
            [(1, 1), (3, 7), (1, 33), (5, 100), (130, 31), (2, 256), (9, 768), (300, 1536)];
        let all = Format::ALL.into_iter().flat_map(move |format| shapes.map(|shape| (format, shape)));
        let whole = all.filter(|(format, (_, inputs))| inputs.is_multiple_of(format.block_length()));
        whole.flat_map(|(format, (outputs, inputs))| {
            let weight = stored(format, [outputs, inputs], 5);
            (1..=8)
                .map(move |rows| (weight.clone(), random((rows, inputs), 6).flatten_all().unwrap().to_vec1().unwrap()))
        })
    }

    #[test]
    fn a_product_is_that_of_the_weights_as_they_are() {
        for (weight, x) in cases() {
            let got = forward(Path::Portable, &x, &weight, None);
            let got: Vec<f64> = got.into_iter().map(f64::from).collect();
            close(&format!("{weight:?}"), &got, &exact(&x, &weight), tolerance(weight.formats()[0]));
        }
    }

    #[test]
    fn every_path_has_the_bits_of_the_portable_one() {
        for path in Path::all() {
            for (weight, x) in cases() {
                let (got, expected) = (forward(*path, &x, &weight, None), forward(Path::Portable, &x, &weight, None));
                let same = got.iter().zip(&expected).all(|(got, expected)| got.to_bits() == expected.to_bits());
                assert!(same, "{path:?}, {weight:?}, {} values: {got:?}, expected {expected:?}", x.len());
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_beside_others() {
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        for (weight, x) in cases() {
            let together = bits(forward(Path::best(), &x, &weight, None));
            let rows = x.chunks(weight.inputs).flat_map(|x| bits(forward(Path::best(), x, &weight, None)));
            assert_eq!(together, rows.collect::<Vec<_>>(), "{weight:?}");
        }
    }

    #[test]
    fn what_is_not_finite_is_not_hidden_and_an_outlier_hides_little() {
        for format in Format::ALL {
            let weight = stored(format, [4, 256], 5);
            let mut x: Vec<f32> = random(256, 6).to_vec1().unwrap();
            x[100] = 1e4;
            let got: Vec<f64> = forward(Path::best(), &x, &weight, None).into_iter().map(f64::from).collect();
            // With 8 bits it would hide one part in a hundred.
            close(format.name(), &got, &exact(&x, &weight), 2e-4);
            for broken in [f32::NAN, f32::INFINITY] {
                x[100] = broken;
                assert!(forward(Path::best(), &x, &weight, None).iter().all(|y| !y.is_finite()), "{format:?}");
            }
            assert!(forward(Path::best(), &[0.0; 256], &weight, None).iter().all(|y| *y == 0.0), "{format:?}");
        }
    }
}
