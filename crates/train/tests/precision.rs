//! Claims about training in bf16. Alone in its binary: the precision is one of the process.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use candle_core::Device;
use lare_data::{Suite, Tokenizer};
use lare_train::config::Precision;
use lare_train::folder::RunFolder;
use lare_train::metrics::StepRecord;
use lare_train::run::{Hooks, Setting, train};
use lare_train::{Config, Error};
use std::path::Path;

/// Keeps the losses; stops after some steps.
struct Losses(Vec<f64>, usize);

impl Hooks for Losses {
    fn step(&mut self, _: usize, _: usize, record: &StepRecord) {
        self.0.push(record.terms.iter().map(|(_, value)| value).sum());
    }
    fn validation(&mut self, _: usize, _: &[(String, f64)]) {}
    fn stop(&self) -> bool {
        self.0.len() >= self.1
    }
}

fn losses(precision: Precision, folder: &Path, resume: bool, stop_after: usize) -> lare_train::Result<Vec<f64>> {
    let mut config = Config::from_toml(include_str!("tiny.toml"), "tiny.toml").unwrap();
    config.precision = precision;
    let text = lare_data::tokenizer::build();
    let tokenizer = Tokenizer::from_bytes(text.as_bytes()).unwrap();
    let (folder, suite) = (&RunFolder::claim(folder, resume)?, &Suite::new());
    let mut losses = Losses(Vec::new(), stop_after);
    let setting = Setting {
        folder,
        resume,
        init: None,
        language: None,
        device: Device::Cpu,
        suite,
        tokenizer: (&tokenizer, &text),
        base: None,
    };
    train(&config, &setting, &mut losses)?;
    Ok(losses.0)
}

#[test]
fn a_run_in_bf16_goes_as_one_in_f32_and_resumes_to_the_bit_or_is_refused_by_name() {
    let [exact, rounded, resumed] = [0; 3].map(|_| tempfile::tempdir().unwrap());
    let expected = losses(Precision::F32, exact.path(), false, usize::MAX).unwrap();
    let got = losses(Precision::Bf16, rounded.path(), false, usize::MAX);
    if lare_train::bf16_unit().is_none() {
        assert!(matches!(got, Err(Error::Precision { .. })));
        return eprintln!("skipped: this machine has no instructions for bf16 (AMX or AVX-512 BF16)");
    }
    let got = got.unwrap();
    assert_ne!(got, expected, "bf16 was not used");
    for (step, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() < 0.05 * expected, "step {step}: {got}, in f32 {expected}");
    }
    losses(Precision::Bf16, resumed.path(), false, 5).unwrap();
    losses(Precision::Bf16, resumed.path(), true, usize::MAX).unwrap();
    let weights = |folder: &Path| std::fs::read(folder.join("model/model.safetensors")).unwrap();
    assert!(weights(resumed.path()) == weights(rounded.path()), "weights differ");
}
