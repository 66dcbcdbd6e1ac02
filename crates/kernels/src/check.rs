//! What the tests of every operation share: seeded tensors and agreement with a reference.

use crate::{Format, Matrix};
use candle_core::{DType, Device, Result, Tensor, Var};

/// Seeded values in about (-1.2, 1.2), f32.
pub(crate) fn random(shape: impl Into<candle_core::Shape>, seed: u64) -> Tensor {
    let shape = shape.into();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491_4F6C_DD1D;
    let values: Vec<f32> = (0..shape.elem_count())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 2.4
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Says so where a test of products in bf16 has nothing to test.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn skipped_without_bf16() {
    if crate::bf16_unit().is_none() {
        eprintln!("skipped: this machine has no instructions for bf16 (AMX or AVX-512 BF16)");
    }
}

/// Seeded weights `[outputs, inputs]` in a format, at an odd address.
pub(crate) fn stored(format: Format, [outputs, inputs]: [usize; 2], seed: u64) -> Matrix {
    let weights = Matrix::from_tensor(&random((outputs, inputs), seed)).unwrap().to_format(format).unwrap();
    let bytes = weights.rows().flat_map(|rows| rows.bytes.to_vec());
    let all: Vec<u8> = [0; 3].into_iter().chain(bytes).collect();
    let range = 3..all.len();
    Matrix::stored(std::sync::Arc::new(all), range, format, outputs, inputs).unwrap()
}

/// Of the result's largest element, what a product in a format may be off.
pub(crate) fn tolerance(format: Format) -> f64 {
    if format.block_length() == 1 { 2e-6 } else { 4e-5 }
}

/// An operation over a list of tensors.
pub(crate) type Op<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// The gradients of `sum(op(inputs) * fixed random)` with respect to each input, in f64.
fn gradients(op: Op, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let out = op(&tensors).unwrap();
    let grads = weighted(&out).backward().unwrap();
    vars.iter()
        .map(|v| match grads.get(v) {
            Some(grad) => values(grad),
            None => vec![0.0; v.elem_count()],
        })
        .collect()
}

fn weighted(out: &Tensor) -> Tensor {
    let weight = random(out.shape().clone(), 77).to_dtype(out.dtype()).unwrap();
    out.mul(&weight).unwrap().sum_all().unwrap()
}

/// The elements in f64.
pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The bits of an f32 tensor.
pub(crate) fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
}

#[track_caller]
pub(crate) fn close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let size = expected.iter().fold(1f64, |size, x| size.max(x.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        assert!(error <= tolerance * size, "{what}[{i}]: got {got}, expected {expected}");
    }
}

/// The fused operation in f32 gives what the composed one gives in f64, forward and backward.
#[track_caller]
pub(crate) fn equals_composed(fused: Op, composed: Op, inputs: &[Tensor]) {
    let exact: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F64).unwrap()).collect();
    close("result", &values(&fused(inputs).unwrap()), &values(&composed(&exact).unwrap()), 2e-6);
    let (got, expected) = (gradients(fused, inputs), gradients(composed, &exact));
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        close(&format!("gradient of input {i}"), got, expected, 4e-6);
    }
}

/// The fused gradient is the slope of the composed operation in f64, by central differences.
#[track_caller]
pub(crate) fn matches_finite_differences(fused: Op, composed: Op, inputs: &[Tensor]) {
    const STEP: f64 = 1e-5;
    let got = gradients(fused, inputs);
    let mut exact: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F64).unwrap()).collect();
    for input in 0..inputs.len() {
        let original = exact[input].clone();
        let elements = values(&original);
        let stride = elements.len().div_ceil(60);
        for i in (0..elements.len()).step_by(stride) {
            let mut loss_at = |shift: f64| {
                let mut moved = elements.clone();
                moved[i] += shift;
                exact[input] = Tensor::from_vec(moved, original.shape(), &Device::Cpu).unwrap();
                weighted(&composed(&exact).unwrap()).to_scalar::<f64>().unwrap()
            };
            let slope = (loss_at(STEP) - loss_at(-STEP)) / (2.0 * STEP);
            let error = (got[input][i] - slope).abs();
            assert!(error < 2e-5 * slope.abs().max(1.0), "input {input}[{i}]: {} against {slope}", got[input][i]);
        }
        exact[input] = original;
    }
}

/// The result and every gradient have the same bits on one thread and on four.
#[track_caller]
pub(crate) fn same_bits_on_any_number_of_threads(op: Op<'_>, inputs: &[Tensor]) {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        // The operation is not Sync, and the pool asks for it: the calling thread does all the calls.
        let out = on_pool(&pool, || op(inputs).unwrap());
        (bits(&out), on_pool(&pool, || gradients(op, inputs)))
    };
    assert_eq!(run(1), run(4));
}

/// Runs `body` inside `pool` although it borrows what is not `Sync`.
fn on_pool<R>(pool: &rayon::ThreadPool, body: impl FnOnce() -> R) -> R {
    struct Carry<T>(T);
    // SAFETY: exactly one thread runs the body while this one waits.
    unsafe impl<T> Send for Carry<T> {}
    impl<T> Carry<T> {
        fn take(self) -> T {
            self.0
        }
    }
    let body = Carry(body);
    pool.install(move || Carry((body.take())())).take()
}
