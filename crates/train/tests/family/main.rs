//! Claims about training what is added to pretrained models, on tiny checkpoints of every family.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod configs;
mod lessons;
mod overfit;
mod terms;

use candle_core::{Device, Tensor};
use lare_data::{Picture, Suite, Tokenizer};
use lare_train::Config;
use lare_train::folder::RunFolder;
use lare_train::metrics::StepRecord;
use lare_train::run::{Ended, Hooks, Setting, Start, train};
use lare_train::subject::Dropped;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

const FAMILIES: [&str; 3] = ["qwen2_5_vl", "qwen3_vl", "smolvlm"];

static SUITE: LazyLock<Suite> = LazyLock::new(Suite::new);
static TOKENIZER: LazyLock<(Tokenizer, String)> = LazyLock::new(|| {
    let text = lare_data::tokenizer::build();
    (Tokenizer::from_bytes(text.as_bytes()).unwrap(), text)
});

/// Pictures with a question each.
const SAMPLES: usize = 16;
/// Words that a tiny model can say at all: the embedding of a token must not lie among those of others.
const ANSWERS: [&str; 4] = ["left", "right", "K3", "one"];

/// A folder as users have it, with samples beside it.
struct Place {
    _folder: TempDir,
    at: PathBuf,
}

impl Place {
    fn new(family: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_owned();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
        fs::create_dir(at.join("base")).unwrap();
        for part in ["chat", "folders"] {
            for entry in fs::read_dir(fixtures.join(part).join(family)).unwrap() {
                let from = entry.unwrap().path();
                fs::copy(&from, at.join("base").join(from.file_name().unwrap())).unwrap();
            }
        }
        let samples: Vec<_> = (0..SAMPLES).map(|number| sample(&at, number)).collect();
        fs::write(at.join("samples.json"), json!(samples).to_string()).unwrap();
        Self { _folder: folder, at }
    }

    /// A run on the samples.
    fn config(&self) -> Config {
        let text = include_str!("tiny.toml").replace("PLACE", &self.at.display().to_string());
        Config::from_toml(&text, "tiny.toml").unwrap()
    }

    /// A run on the suite.
    fn of_suite(&self) -> Config {
        let mut config = self.config();
        config.data.files.clear();
        (config.data.questions_per_picture, config.data.passes_per_block) = (2, 2);
        for stage in &mut config.stages {
            let mix = "share = 1.0\nlooks = [1, 2]\ntasks = { read = 1.0, locate = 1.0 }";
            stage.mix.push(toml::from_str(mix).unwrap());
            stage.pictures_per_batch = 2;
        }
        config
    }

    fn base(&self) -> PathBuf {
        self.at.join("base")
    }

    fn run(&self, config: &Config, name: &str, hooks: &mut dyn Hooks) -> lare_train::Result<Ended> {
        self.start(config, name, None, hooks)
    }

    fn start(
        &self,
        config: &Config,
        name: &str,
        init: Option<Start>,
        hooks: &mut dyn Hooks,
    ) -> lare_train::Result<Ended> {
        let folder = self.at.join(name);
        let folder = &RunFolder::claim(&folder, folder.exists())?;
        let resume = folder.path().join("config.toml").exists();
        let tokenizer = (&TOKENIZER.0, &TOKENIZER.1[..]);
        let base = self.base();
        let base = Some(base.as_path());
        train(
            config,
            &Setting { folder, resume, init, device: Device::Cpu, suite: &SUITE, tokenizer, base, language: None },
            hooks,
        )
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.at.join(path)).unwrap()
    }
}

/// A picture of one quarter that is black, chequered, striped or red, what it is called, and where to look: first all over,
/// then at the quarter.
fn sample(at: &Path, number: usize) -> serde_json::Value {
    let (quarter, kind) = (number % 4, number / 4);
    let (left, top) = (16 * (quarter % 2), 16 * (quarter / 2));
    let mut rgb = vec![128u8; 32 * 32 * 3];
    for y in top..top + 16 {
        for x in left..left + 16 {
            let black = [0, if (x + y) % 2 == 0 { 0 } else { 255 }, if y % 4 < 2 { 0 } else { 255 }, 0][kind];
            let shade = if kind == 3 { [255, 0, 0] } else { [black; 3] };
            rgb[(y * 32 + x) * 3..][..3].copy_from_slice(&shade);
        }
    }
    let name = format!("{number}.png");
    let picture = Picture { width: 32, height: 32, rgb };
    fs::write(at.join(&name), lare_data::export::png(&picture).unwrap()).unwrap();
    json!({
        "id": format!("sample {number}"),
        "image": name,
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is this?"},
            {"from": "gpt", "value": ANSWERS[kind]},
        ],
        "bboxes": [[0, 0, 32, 32], [left, top, left + 16, top + 16]],
        "rationale": ["It is here.", format!("It is {}.", ANSWERS[kind])],
    })
}

/// Keeps what it hears; stops after some steps.
#[derive(Default)]
struct Heard {
    stop_after: Option<usize>,
    done: usize,
    records: Vec<StepRecord>,
    right: Vec<(String, f64)>,
    dropped: Vec<Dropped>,
}

impl Heard {
    fn until(step: usize) -> Self {
        Self { stop_after: Some(step), ..Self::default() }
    }
}

impl Hooks for Heard {
    fn step(&mut self, done: usize, _: usize, record: &StepRecord) {
        self.done = done;
        self.records.push(record.clone());
    }
    fn validation(&mut self, _: usize, right: &[(String, f64)]) {
        self.right = right.to_vec();
    }
    fn stop(&self) -> bool {
        self.stop_after.is_some_and(|last| self.done >= last)
    }
    fn dropped(&mut self, dropped: &[Dropped]) {
        self.dropped = dropped.to_vec();
    }
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}
