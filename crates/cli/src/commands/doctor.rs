//! `lare doctor`: this machine, this build, and whether the model inside the program works on it.

use super::{Outcome, assistant};
use crate::failure::Failure;
use crate::messages::{Messages, Report};
use lare_data::{Picture, Split, Suite, Task};
use lare_infer::{Assistant, Batch, Device, Options, Question, session};
use serde_json::{Value, json};
use std::time::Instant;

/// Questions of the self-test.
const QUESTIONS: u64 = 4;

/// Looks at everything; the answer is no when a fault was found.
pub fn run(messages: &Messages) -> Result<Outcome, Failure> {
    let threads = rayon::current_num_threads();
    let bf16 = lare_train::bf16_unit();
    let mut findings = vec![
        Finding::text("machine", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        Finding::text("processor", processor()),
        Finding {
            name: "threads",
            text: format!("{threads} used of {}", cores()),
            json: json!({ "used": threads, "cores": cores() }),
        },
        memory(),
        Finding::text("simd", simd()),
        Finding {
            name: "bf16",
            text: bf16.map_or_else(
                || "no instructions for it".into(),
                |unit| format!("training and `lare eval --bf16` can use it ({unit})"),
            ),
            json: json!(bf16),
        },
        Finding::text("versions", versions()),
    ];
    let mut faults = simd_faults();
    match self_test() {
        Ok(test) => findings.extend([
            Finding::text("model", test.model),
            Finding {
                name: "loading",
                text: format!("{:.0} ms", test.load_ms),
                json: json!({ "time_ms": test.load_ms }),
            },
            Finding {
                name: "answering",
                text: format!(
                    "{:.0} ms a question, first look and {:.1} latent steps included",
                    test.answer_ms, test.steps
                ),
                json: json!({ "time_ms": test.answer_ms, "latent_steps": test.steps }),
            },
            Finding {
                name: "self-test",
                text: format!("{} of {QUESTIONS} right, twice the same", test.right),
                json: json!({ "right": test.right, "of": QUESTIONS }),
            },
        ]),
        Err(fault) => faults.push(fault),
    }
    let sound = faults.is_empty();
    messages.report(&Told { findings, faults: &faults })?;
    for fault in &faults {
        messages.failure(fault);
    }
    Ok(if sound { Outcome::Done } else { Outcome::No })
}

/// Something found out, for people and for programs.
struct Finding {
    name: &'static str,
    text: String,
    json: Value,
}

impl Finding {
    fn text(name: &'static str, text: String) -> Self {
        Self { name, json: json!(text), text }
    }
}

struct Told<'a> {
    findings: Vec<Finding>,
    faults: &'a [Failure],
}

impl Report for Told<'_> {
    fn text(&self) -> String {
        let mut lines: Vec<String> =
            self.findings.iter().map(|found| format!("{:<11} {}", found.name, found.text)).collect();
        lines.push(format!(
            "{:<11} {}",
            "faults",
            if self.faults.is_empty() { "none".into() } else { self.faults.len().to_string() }
        ));
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let found: serde_json::Map<String, Value> =
            self.findings.iter().map(|found| (found.name.to_owned(), found.json.clone())).collect();
        let faults: Vec<Value> = self.faults.iter().map(|fault| fault.json()["error"].clone()).collect();
        json!({ "sound": self.faults.is_empty(), "findings": found, "faults": faults })
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The first line of a file of Linux's that begins with `key`, without it.
fn system_line(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim_matches([' ', '\t', ':']).to_owned())
}

fn processor() -> String {
    system_line("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into())
}

fn memory() -> Finding {
    let gigabytes = |key| {
        let kilobytes: f64 = system_line("/proc/meminfo", key)?.trim_end_matches(" kB").parse().ok()?;
        Some(kilobytes / 1e6)
    };
    match (gigabytes("MemAvailable:"), gigabytes("MemTotal:")) {
        (Some(free), Some(total)) => Finding {
            name: "memory",
            text: format!("{free:.1} GB free of {total:.1} GB"),
            json: json!({ "free_gb": free, "total_gb": total }),
        },
        _ => Finding::text("memory", "unknown".into()),
    }
}

/// Instruction sets that matter here: in this build, and on this machine.
#[cfg(target_arch = "x86_64")]
fn levels() -> [(&'static str, bool, bool); 3] {
    [
        ("AVX2", cfg!(target_feature = "avx2"), std::arch::is_x86_feature_detected!("avx2")),
        ("FMA", cfg!(target_feature = "fma"), std::arch::is_x86_feature_detected!("fma")),
        ("AVX-512", cfg!(target_feature = "avx512f"), std::arch::is_x86_feature_detected!("avx512f")),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn levels() -> [(&'static str, bool, bool); 1] {
    [("NEON", cfg!(target_feature = "neon"), cfg!(target_arch = "aarch64"))]
}

fn simd() -> String {
    let list = |chosen: Vec<&str>| {
        if chosen.is_empty() { "none".to_owned() } else { chosen.join(", ") }
    };
    let built = list(levels().iter().filter(|(_, built, _)| *built).map(|(name, ..)| *name).collect());
    let there = list(levels().iter().filter(|(_, _, there)| *there).map(|(name, ..)| *name).collect());
    // Matrix products choose their kernels at run time; the rest is as it was built.
    let wide = levels().iter().any(|(name, _, there)| *name == "AVX-512" && *there);
    format!(
        "built with {built}; here: {there}; matrix products use {}",
        if wide { "AVX-512" } else { "the widest of these" }
    )
}

fn simd_faults() -> Vec<Failure> {
    let mut faults = Vec::new();
    for (name, built, there) in levels() {
        if there && !built {
            faults.push(
                Failure::new(format!("this build does not use {name}, which this machine has"))
                    .part("expected", "a build with `-C target-cpu=native`, as .cargo/config.toml asks for")
                    .part("got", "a build for older machines")
                    .hint("build it here, from the repository's folder, without RUSTFLAGS of your own"),
            );
        }
    }
    faults
}

fn versions() -> String {
    format!("lare {}, candle {}", env!("CARGO_PKG_VERSION"), locked("candle-core"))
}

/// The version of a dependency in the lock file that this was built with.
fn locked(name: &str) -> &'static str {
    let lock = include_str!("../../../../Cargo.lock");
    let after = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).map(|(_, after)| after);
    after.and_then(|after| after.split('"').next()).unwrap_or("unknown")
}

/// What the self-test measured.
struct SelfTest {
    model: String,
    load_ms: f64,
    answer_ms: f64,
    steps: f64,
    right: usize,
}

/// Answers a few questions of the suite, twice, one at a time.
fn self_test() -> Result<SelfTest, Failure> {
    let started = Instant::now();
    let assistant = assistant(None, &Device::Cpu)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let suite = Suite::new();
    let (mut answer_ms, mut steps, mut right) = (0.0, 0, 0);
    for index in 0..QUESTIONS {
        let sample = suite.sample(Split::Val, Task::Read, index);
        let first = answered(&assistant, &sample.picture, &sample.question.text)?;
        let second = answered(&assistant, &sample.picture, &sample.question.text)?;
        if first.text != second.text || first.looks.iter().zip(&second.looks).any(|(a, b)| a.thought != b.thought) {
            return Err(Failure::new("the same question was answered differently the second time")
                .part("expected", format!("`{}`, from the same numbers", first.text))
                .part("got", format!("`{}`", second.text))
                .hint("test the machine's memory; nothing here is random"));
        }
        answer_ms += second.timing.total;
        steps += second.usage.latent_steps;
        right += usize::from(second.text == sample.question.answer);
    }
    if right * 2 < QUESTIONS as usize {
        return Err(Failure::new("the model inside the program reads wrongly")
            .part("expected", format!("{} of {QUESTIONS} easy questions right, or more", QUESTIONS / 2))
            .part("got", right)
            .hint("build again from a clean folder; if it stays so, weights and code do not belong together"));
    }
    let n = QUESTIONS as f64;
    let model = format!("{}, weights {}", assistant.name(), assistant.weights_hash.get(..12).unwrap_or_default());
    Ok(SelfTest { model, load_ms, answer_ms: answer_ms / n, steps: steps as f64 / n, right })
}

fn answered(assistant: &Assistant, picture: &Picture, text: &str) -> Result<lare_infer::Answer, Failure> {
    let question = Question::new(0, text, Options::default());
    let batch = Batch { pictures: &[picture], questions: &[question] };
    let answers = session::answer(assistant, &batch, &mut |_| ())?;
    answers.into_iter().next().ok_or_else(|| Failure::new("a question was not answered"))
}
