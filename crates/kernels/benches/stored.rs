//! Decoding and prefill with weights as stored, in the shape of Qwen2.5-1.5B, against this machine's memory.
//!
//! `cargo bench -p lare-kernels --bench stored`, a format's name after `--` for that one alone. Only the matrices are
//! multiplied: no attention, norms or sampling. On a machine that others keep busy only ratios mean anything, so
//! reading memory, candle and ours take turns, and medians are printed.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::expect_used)]

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Result, Tensor};
use lare_kernels::{Bytes, Format, Matrix, feed_forward, feed_forward_stored, linear, linear_stored};
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WIDTH: usize = 1536;
const KEYS: usize = 2 * 128;
const HIDDEN: usize = 8960;
const VOCABULARY: usize = 151_936;
const LAYERS: usize = 28;
/// Layers of their own memory: more than any cache holds, in every format. A step goes through them again and again.
const DISTINCT: usize = 4;

const PREFILL: usize = 64;
const ROUNDS: usize = 7;

/// `[O, I]` of a layer's matrices: q, k and v; o; gate and up; down.
const SHAPES: [[usize; 2]; 4] = [[WIDTH + 2 * KEYS, WIDTH], [WIDTH, WIDTH], [2 * HIDDEN, WIDTH], [WIDTH, HIDDEN]];

/// A matrix and its bytes.
struct Weights {
    bytes: Arc<Vec<u8>>,
    matrix: Matrix,
    candle: Candle,
}

/// The same matrix as candle multiplies with it.
enum Candle {
    Quantised(QMatMul),
    Float(Tensor),
}

/// Something like weights: some rows, again and again.
fn weights(format: Format, [outputs, inputs]: [usize; 2]) -> Result<Weights> {
    const SAMPLE: usize = 256;
    let sample = (activations(SAMPLE, inputs)? * 0.02)?; // [256, I]
    let quantised = |dtype| -> Result<Vec<u8>> { Ok(QTensor::quantize(&sample, dtype)?.data()?.into_owned()) };
    let rounded = |dtype| sample.to_dtype(dtype)?.flatten_all();
    let rows: Vec<u8> = match format {
        Format::F32 => rounded(DType::F32)?.to_vec1::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Format::F16 => rounded(DType::F16)?.to_vec1::<half::f16>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Format::Bf16 => rounded(DType::BF16)?.to_vec1::<half::bf16>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Format::Q8_0 => quantised(GgmlDType::Q8_0)?,
        Format::Q4K => quantised(GgmlDType::Q4K)?,
    };
    let length = format.bytes_of(outputs, inputs)?;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        bytes.extend(&rows[..rows.len().min(length - bytes.len())]);
    }
    let candle = match format {
        Format::F32 => Candle::Float(Tensor::from_raw_buffer(&bytes, DType::F32, &[outputs, inputs], &Device::Cpu)?),
        Format::F16 => Candle::Float(Tensor::from_raw_buffer(&bytes, DType::F16, &[outputs, inputs], &Device::Cpu)?),
        Format::Bf16 => Candle::Float(Tensor::from_raw_buffer(&bytes, DType::BF16, &[outputs, inputs], &Device::Cpu)?),
        Format::Q8_0 => Candle::Quantised(quantised_matmul(&bytes, GgmlDType::Q8_0, [outputs, inputs])?),
        Format::Q4K => Candle::Quantised(quantised_matmul(&bytes, GgmlDType::Q4K, [outputs, inputs])?),
    };
    let bytes = Arc::new(bytes);
    let shared: Bytes = bytes.clone();
    Ok(Weights { bytes, matrix: Matrix::stored(shared, 0..length, format, outputs, inputs)?, candle })
}

fn quantised_matmul(bytes: &[u8], dtype: GgmlDType, [outputs, inputs]: [usize; 2]) -> Result<QMatMul> {
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype)?;
    QMatMul::from_qtensor(QTensor::new(storage, (outputs, inputs))?)
}

impl Candle {
    fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Quantised(weight) => weight.forward(x),
            Self::Float(weight) => x.to_dtype(weight.dtype())?.matmul(&weight.t()?)?.to_dtype(DType::F32),
        }
    }
}

/// `[rows, width]`, every row its own.
fn activations(rows: usize, width: usize) -> Result<Tensor> {
    let numbers = Tensor::arange(0, (rows * width) as u32, &Device::Cpu)?.to_dtype(DType::F32)?;
    numbers.affine(0.37, 0.1)?.sin()?.reshape((rows, width))
}

struct Model {
    layers: Vec<[Weights; 4]>,
    head: Weights,
}

impl Model {
    fn new(format: Format) -> Result<Self> {
        let layer = |_| -> Result<[Weights; 4]> {
            let [a, b, c, d] = SHAPES.map(|shape| weights(format, shape));
            Ok([a?, b?, c?, d?])
        };
        let layers = (0..DISTINCT).map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, head: weights(format, [VOCABULARY, WIDTH])? })
    }

    /// Bytes of all matrices of a step.
    fn bytes(&self) -> usize {
        LAYERS * self.layers[0].iter().map(|weights| weights.bytes.len()).sum::<usize>() + self.head.bytes.len()
    }

    /// All matrices, for `rows` conversations.
    fn decode(&self, rows: usize) -> Result<()> {
        let x = activations(rows, WIDTH)?;
        for layer in 0..LAYERS {
            self.layer(&self.layers[layer % DISTINCT], &x)?;
        }
        linear_stored(&x, &self.head.matrix, None)?;
        Ok(())
    }

    fn layer(&self, [qkv, o, gate_up, down]: &[Weights; 4], x: &Tensor) -> Result<()> {
        linear_stored(x, &qkv.matrix, None)?;
        let mixed = linear_stored(x, &o.matrix, None)?;
        feed_forward_stored(&mixed, &gate_up.matrix, &down.matrix)?;
        Ok(())
    }

    /// The distinct layers once.
    fn layers(&self, x: &Tensor) -> Result<()> {
        self.layers.iter().try_for_each(|layer| self.layer(layer, x))
    }

    /// The same with candle's products.
    fn layers_of_candle(&self, x: &Tensor) -> Result<()> {
        for [qkv, o, gate_up, down] in &self.layers {
            qkv.candle.multiply(x)?;
            let mixed = o.candle.multiply(x)?;
            let wide = gate_up.candle.multiply(&mixed)?; // [R, 2F]
            let gate = wide.narrow(1, 0, HIDDEN)?.silu()?;
            down.candle.multiply(&gate.mul(&wide.narrow(1, HIDDEN, HIDDEN)?)?)?;
        }
        Ok(())
    }

    /// Reads the distinct layers once and does next to nothing with them.
    fn read(&self) -> u64 {
        let one = |bytes: &[u8]| bytes.as_chunks().0.iter().fold(0, |all, word| all ^ u64::from_ne_bytes(*word));
        let matrices = self.layers.iter().flatten();
        matrices.map(|weights| weights.bytes.par_chunks(1 << 20).map(one).reduce(|| 0, |a, b| a ^ b)).sum()
    }
}

/// f32 products of the same shapes, as they are elsewhere in this crate.
fn f32_layer(weights: &[Tensor; 4], x: &Tensor) -> Result<()> {
    let [qkv, o, gate_up, down] = weights;
    linear(x, qkv, None)?;
    feed_forward(&linear(x, o, None)?, gate_up, down)?;
    Ok(())
}

fn seconds<T>(run: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    std::hint::black_box(run());
    start.elapsed().as_secs_f64()
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(format: Format, plain: &[[Tensor; 4]]) -> Result<()> {
    let model = Model::new(format)?;
    let bytes = model.bytes() as f64;
    let of_layers = model.layers.iter().flatten().map(|weights| weights.bytes.len()).sum::<usize>() as f64;
    let part = DISTINCT as f64 / LAYERS as f64;
    let (one, many) = (activations(1, WIDTH)?, activations(PREFILL, WIDTH)?);
    model.decode(1)?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push([
            seconds(|| model.read()),
            seconds(|| model.decode(1)),
            seconds(|| model.layers(&one)),
            seconds(|| model.layers_of_candle(&one)),
            seconds(|| model.layers(&activations(8, WIDTH)?)),
            seconds(|| model.layers(&many)),
            seconds(|| plain.iter().try_for_each(|layer| f32_layer(layer, &many))),
        ]);
    }
    let column = |i: usize| median(times.iter().map(|times| times[i]));
    let ratio = |a: usize, b: usize| median(times.iter().map(|times| times[a] / times[b]));
    println!(
        "{:<5} decode {:5.2} tokens/s {:5.1} GB/s, memory {:5.1} GB/s, of it {:.2}; of candle's speed {:6.2}; 8 rows {:4.2} of one's time; prefill {:5.1} tokens/s, of f32's speed {:.2}",
        format.name(),
        1.0 / column(1),
        bytes / column(1) / 1e9,
        of_layers / column(0) / 1e9,
        ratio(0, 2),
        ratio(3, 2),
        ratio(4, 2),
        part * PREFILL as f64 / column(5),
        ratio(6, 5),
    );
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("skipped: this measures minutes of products; run `cargo bench -p lare-kernels --bench stored`");
        return Ok(());
    }
    let asked = |format: &Format| arguments.iter().any(|argument| argument == format.name());
    let any = Format::ALL.iter().any(asked);
    println!(
        "Qwen2.5-1.5B's matrices, {} threads, median of {ROUNDS} rounds; decode: one row, all matrices; prefill: {PREFILL} rows, layers alone",
        rayon::current_num_threads()
    );
    let layer = |_| -> Result<[Tensor; 4]> {
        let [a, b, c, d] = SHAPES.map(|[outputs, inputs]| activations(outputs, inputs).and_then(|x| x * 0.02));
        Ok([a?, b?, c?, d?])
    };
    let plain = (0..DISTINCT).map(layer).collect::<Result<Vec<_>>>()?;
    let formats = Format::ALL.into_iter().rev().filter(|format| !any || asked(format));
    formats.into_iter().try_for_each(|format| measure(format, &plain))
}
