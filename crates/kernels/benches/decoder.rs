//! One training step of a 6.6M-parameter decoder on these kernels, against PyTorch eager on this CPU.
//!
//! `cargo bench -p lare-kernels`. Each measurement is a process of its own, so that its peak memory is
//! its own; ours and PyTorch's (`tools/bench/torch_decoder.py`, skipped where `import torch` fails)
//! take turns, so that a busy machine slows both. On a machine that others keep busy, compare processor
//! time on one thread: `cargo bench -p lare-kernels -- --threads 1`.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::expect_used)]

use candle_core::{Device, Result, Tensor, Var};
use lare_kernels::{AdamW, AdamWOptions, Sight, attention, cross_entropy, feed_forward, linear, rms_norm};
use std::process::Command;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WIDTH: usize = 256;
const LAYERS: usize = 6;
const HEADS: usize = 8;
const HIDDEN: usize = 1024;
const VOCABULARY: usize = 512;
const LENGTH: usize = 128;
const BATCH: usize = 16;

const WARMUP_STEPS: usize = 2;
const STEPS: usize = 10;
const ROUNDS: usize = 3;
/// The argument by which the benchmark calls itself for one measurement.
const MEASURE: &str = "--measure-ours";

struct Layer {
    norm1: Var,
    q: Var,
    kv: Var,
    o: Var,
    norm2: Var,
    gate_up: Var,
    down: Var,
}

struct Decoder {
    embedding: Var,
    positions: Var,
    layers: Vec<Layer>,
    norm: Var,
    head: Var,
    sight: Sight,
}

/// Weights of standard deviation 0.02, seeded by their number.
fn weight(number: &mut u64, shape: (usize, usize)) -> Result<Var> {
    *number += 1;
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    // The sum of twelve uniforms has standard deviation 1.
    let values: Vec<f32> = (0..shape.0 * shape.1).map(|_| 0.02 * (0..12).map(|_| uniform()).sum::<f32>()).collect();
    Var::from_vec(values, shape, &Device::Cpu)
}

fn ones() -> Result<Var> {
    Var::from_vec(vec![1f32; WIDTH], WIDTH, &Device::Cpu)
}

impl Decoder {
    fn new() -> Result<Self> {
        let n = &mut 0;
        let mut layers = Vec::new();
        for _ in 0..LAYERS {
            layers.push(Layer {
                norm1: ones()?,
                q: weight(n, (WIDTH, WIDTH))?,
                kv: weight(n, (2 * WIDTH, WIDTH))?,
                o: weight(n, (WIDTH, WIDTH))?,
                norm2: ones()?,
                gate_up: weight(n, (2 * HIDDEN, WIDTH))?,
                down: weight(n, (WIDTH, HIDDEN))?,
            });
        }
        let sight = Sight {
            shared_of_row: [].into(),
            shared_visible: [].into(),
            own_visible: vec![true; BATCH * LENGTH].into(),
            first_slot: 0,
            causal: true,
        };
        Ok(Self {
            embedding: weight(n, (VOCABULARY, WIDTH))?,
            positions: weight(n, (LENGTH, WIDTH))?,
            layers,
            norm: ones()?,
            head: weight(n, (VOCABULARY, WIDTH))?,
            sight,
        })
    }

    fn params(&self) -> Vec<Var> {
        let layers = self.layers.iter().flat_map(|l| [&l.norm1, &l.q, &l.kv, &l.o, &l.norm2, &l.gate_up, &l.down]);
        [&self.embedding, &self.positions, &self.norm, &self.head].into_iter().chain(layers).cloned().collect()
    }

    fn loss(&self, ids: &Tensor, targets: &[Option<u32>]) -> Result<Tensor> {
        let x = self.embedding.index_select(ids, 0)?.reshape((BATCH, LENGTH, WIDTH))?;
        let mut x = x.broadcast_add(&self.positions)?; // [B, T, D]
        for layer in &self.layers {
            let h = rms_norm(&x, &layer.norm1, 1e-6)?;
            let q = linear(&h, &layer.q, None)?.reshape((BATCH, LENGTH, HEADS, WIDTH / HEADS))?;
            let kv = linear(&h, &layer.kv, None)?.reshape((BATCH, LENGTH, 2, HEADS, WIDTH / HEADS))?;
            let mixed = attention(&q, &kv, None, &self.sight)?; // [B, T, D]
            x = (x + linear(&mixed, &layer.o, None)?)?;
            let h = rms_norm(&x, &layer.norm2, 1e-6)?;
            x = (x + feed_forward(&h, &layer.gate_up, &layer.down)?)?;
        }
        let logits = linear(&rms_norm(&x, &self.norm, 1e-6)?, &self.head, None)?; // [B, T, V]
        cross_entropy(&logits.reshape((BATCH * LENGTH, VOCABULARY))?, targets)?.mean_all()
    }
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    let kb = line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok());
    kb.unwrap_or(f64::NAN) / 1024.0
}

/// Processor time of this process so far, all threads, in ms (in steps of 10).
fn processor_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15 of the line, counted after the name, which may hold spaces; 100 ticks a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10.0
}

/// Trains and prints what `torch_decoder.py` prints.
fn measure() -> Result<()> {
    let model = Decoder::new()?;
    let params = model.params();
    let options =
        AdamWOptions { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: vec![0.01; params.len()], ema_decay: None };
    let rate_scale = vec![1.0; params.len()];
    let mut optimizer = AdamW::new(params, options)?;
    let token = |i: usize| ((i * 7919 + 13) % 97 % VOCABULARY) as u32;
    let ids = Tensor::from_iter((0..BATCH * LENGTH).map(token), &Device::Cpu)?;
    let targets: Vec<Option<u32>> = (0..BATCH * LENGTH).map(|i| Some(token(i + 1))).collect();
    let (mut times, mut losses, mut processor) = (Vec::new(), Vec::new(), 0.0);
    for step in 0..WARMUP_STEPS + STEPS {
        if step == WARMUP_STEPS {
            processor = processor_ms();
        }
        let start = Instant::now();
        let loss = model.loss(&ids, &targets)?;
        losses.push(loss.to_scalar::<f32>()?);
        let forward = start.elapsed().as_secs_f64();
        let grads = lare_kernels::backward(&loss)?;
        let backward = start.elapsed().as_secs_f64();
        drop(loss);
        optimizer.step(&grads, 1e-3, &rate_scale, f64::INFINITY)?;
        drop(grads);
        let end = start.elapsed().as_secs_f64();
        if step >= WARMUP_STEPS {
            times.push([end, forward, backward - forward, end - backward]);
        }
    }
    let column = |i: usize| median(times.iter().map(|t| t[i]));
    println!(
        "{:.3} {:.1} {:.1} {:.1} {:.1} {:.1} {:.4} {:.4}",
        BATCH as f64 / column(0),
        peak_mb(),
        column(1) * 1e3,
        column(2) * 1e3,
        column(3) * 1e3,
        (processor_ms() - processor) / STEPS as f64,
        losses[0],
        losses[losses.len() - 1]
    );
    Ok(())
}

/// Runs a measurement in a process of its own: samples/s, peak MB, four times in ms, two losses.
fn run(command: &mut Command) -> Option<Vec<f64>> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (numbers.len() == 8).then_some(numbers)
}

fn report(name: &str, rounds: &[Vec<f64>]) -> [f64; 3] {
    let column = |i: usize| median(rounds.iter().map(|round| round[i]));
    println!(
        "{name:<8} {:6.2} samples/s  peak {:5.0} MB  forward {:5.1} ms  backward {:5.1} ms  optimiser {:4.1} ms  processor {:4.0} ms/step  loss {:.3} -> {:.3}",
        column(0),
        column(1),
        column(2),
        column(3),
        column(4),
        column(5),
        column(6),
        column(7)
    );
    [column(0), column(1), column(5)]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == MEASURE) {
        return measure().expect("the training step runs");
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        return eprintln!("skipped: this measures minutes of training; run `cargo bench -p lare-kernels`");
    }
    let asked = arguments.iter().skip_while(|argument| *argument != "--threads").nth(1);
    let threads = asked
        .and_then(|threads| threads.parse().ok())
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/bench/torch_decoder.py");
    let has_torch = Command::new("python3").args(["-c", "import torch"]).output().is_ok_and(|o| o.status.success());
    let (mut ours, mut torch) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.extend(run(Command::new(&arguments[0]).arg(MEASURE).env("RAYON_NUM_THREADS", threads.to_string())));
        if has_torch {
            torch.extend(run(Command::new("python3").arg(script).args([STEPS.to_string(), threads.to_string()])));
        }
    }
    println!(
        "decoder {WIDTH} x {LAYERS}, batch {BATCH} x {LENGTH}, f32, {threads} threads, median of {ROUNDS} rounds of {STEPS} steps"
    );
    let [our_speed, our_peak, our_processor] = report("lare", &ours);
    if torch.is_empty() {
        return println!("pytorch  skipped: `import torch` fails here");
    }
    let [torch_speed, torch_peak, torch_processor] = report("pytorch", &torch);
    println!(
        "ratio    {:.2} of PyTorch's speed, {:.2} of its memory, {:.2} of its processor time",
        our_speed / torch_speed,
        our_peak / torch_peak,
        our_processor / torch_processor
    );
}
