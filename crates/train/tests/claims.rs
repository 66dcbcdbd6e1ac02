//! Claims about training, on a model small enough for a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use candle_core::{Device, Tensor};
use lare_data::{Suite, Task, Tokenizer, prompt};
use lare_model::config::{Context, Scorer, Thinking};
use lare_model::{Path as Module, Reasoner};
use lare_train::batch::Batch;
use lare_train::config::LossWeights;
use lare_train::folder::RunFolder;
use lare_train::loss::{self, LossTerms};
use lare_train::metrics::StepRecord;
use lare_train::nano::{Feeder, Shown};
use lare_train::run::{Ended, Hooks, Setting, Start, train};
use lare_train::vars::{Vars, dice};
use lare_train::{Config, Error};
use std::path::Path;
use std::sync::LazyLock;

static SUITE: LazyLock<Suite> = LazyLock::new(Suite::new);
static TOKENIZER: LazyLock<(Tokenizer, String)> = LazyLock::new(|| {
    let text = lare_data::tokenizer::build();
    (Tokenizer::from_bytes(text.as_bytes()).unwrap(), text)
});

fn tiny() -> Config {
    Config::from_toml(include_str!("tiny.toml"), "tiny.toml").unwrap()
}

/// Stops after some steps, or never.
struct StopAfter(usize, std::cell::Cell<usize>);

impl Hooks for StopAfter {
    fn step(&mut self, done: usize, _: usize, _: &StepRecord) {
        self.1.set(done);
    }
    fn validation(&mut self, _: usize, right: &[(String, f64)]) {
        assert!(right.iter().all(|(_, share)| (0.0..=1.0).contains(share)));
    }
    fn stop(&self) -> bool {
        self.1.get() >= self.0
    }
}

fn go(config: &Config, folder: &Path, resume: bool, stop_after: usize) -> lare_train::Result<Ended> {
    go_from(config, None, folder, resume, stop_after)
}

fn go_from(
    config: &Config,
    init: Option<&Path>,
    folder: &Path,
    resume: bool,
    stop_after: usize,
) -> lare_train::Result<Ended> {
    let init = init.map(|path| Start { path, only: &[] });
    run(config, init, folder, resume, &mut StopAfter(stop_after, std::cell::Cell::new(0)))
}

fn run(
    config: &Config,
    init: Option<Start>,
    folder: &Path,
    resume: bool,
    hooks: &mut dyn Hooks,
) -> lare_train::Result<Ended> {
    let folder = &RunFolder::claim(folder, resume)?;
    let tokenizer = (&TOKENIZER.0, &TOKENIZER.1[..]);
    train(
        config,
        &Setting { folder, resume, init, device: Device::Cpu, suite: &SUITE, tokenizer, base: None, language: None },
        hooks,
    )
}

#[test]
fn a_resumed_run_equals_the_uninterrupted_one_to_the_bit() {
    let config = tiny();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(go(&config, one.path(), false, usize::MAX).unwrap().complete);
    // Stopped inside every stage, and at a boundary between two.
    for stop in [2, 3, 5, 9, 12] {
        assert!(!go(&config, two.path(), stop > 2, stop).unwrap().complete);
    }
    assert!(go(&config, two.path(), true, usize::MAX).unwrap().complete);
    for file in ["model/model.safetensors", "model/config.toml", "checkpoint-13/optimizer.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(read(one.path()) == read(two.path()), "{file} differs");
    }
    // Rates of work differ; everything else that was logged must not.
    let lines = |folder: &Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let mut lines: Vec<_> = text.lines().map(parse).collect();
        lines.iter_mut().for_each(|line| {
            line.as_object_mut().unwrap().remove("rows_per_second");
        });
        lines
    };
    assert!(lines(one.path()) == lines(two.path()), "what was logged differs");
}

#[test]
fn a_run_starts_from_an_exported_model() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = go(&tiny(), one.path(), false, usize::MAX).unwrap().path;
    let started = go_from(&tiny(), Some(&model), two.path(), false, 0).unwrap().path;
    let exported = std::fs::read(model.join("model.safetensors")).unwrap();
    let exported = safetensors::SafeTensors::deserialize(&exported).unwrap();
    let taken = std::fs::read(started.join("weights.safetensors")).unwrap();
    let taken = safetensors::SafeTensors::deserialize(&taken).unwrap();
    for (name, tensor) in exported.tensors() {
        let half = tensor.data().as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32());
        let taken = taken.tensor(&name).unwrap();
        let full = taken.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        assert!(half.eq(full), "{name}");
    }
}

#[test]
fn weights_of_another_model_are_refused_and_the_first_tensor_that_differs_is_named() {
    let place = tempfile::tempdir().unwrap();
    let mut larger = tiny();
    larger.model.as_mut().unwrap().refocus.blocks += 1;
    let (small, large) = (place.path().join("small"), place.path().join("large"));
    let small = go(&tiny(), &small, false, 0).unwrap().path;
    let large = go(&larger, &large, false, 0).unwrap().path;
    let refused = |config: &Config, init: &Path| {
        go_from(config, Some(init), &place.path().join("new"), false, 0).unwrap_err().to_string()
    };
    let message = refused(&larger, &small);
    assert!(message.contains("qformer.blocks.1") && message.contains("missing"), "{message}");
    let message = refused(&tiny(), &large);
    assert!(message.contains("qformer.blocks.1") && message.contains("unknown"), "{message}");
    assert!(go_from(&larger, Some(&large), &place.path().join("same"), false, 0).is_ok());
}

#[test]
fn another_kind_of_model_can_start_with_the_eyes_of_one() {
    let place = tempfile::tempdir().unwrap();
    let seeing = go(&tiny(), &place.path().join("seeing"), false, 1).unwrap().path;
    let mut hidden = tiny();
    hidden.seed += 1;
    hidden.model.as_mut().unwrap().refocus.thinking = lare_model::config::Thinking::Hidden;
    let start = |only: &str, out: &str| {
        let only = [only.to_owned()];
        let start = Start { path: &seeing, only: &only };
        run(&hidden, Some(start), &place.path().join(out), false, &mut StopAfter(0, std::cell::Cell::new(0)))
    };
    let begun = start("vision.", "begun").unwrap().path;
    let read = |path: &Path| std::fs::read(path.join("weights.safetensors")).unwrap();
    let (seeing, begun) = (read(&seeing), read(&begun));
    let seeing = safetensors::SafeTensors::deserialize(&seeing).unwrap();
    let mut other = 0;
    for (name, tensor) in safetensors::SafeTensors::deserialize(&begun).unwrap().tensors() {
        let same = seeing.tensor(&name).is_ok_and(|seen| seen.data() == tensor.data());
        assert!(same || !name.starts_with("vision."), "{name} was not taken");
        other += usize::from(!same);
    }
    assert!(other > 0, "all was taken");
    let message = start("eyes.", "refused").unwrap_err().to_string();
    assert!(message.contains("`eyes.`"), "{message}");
}

#[test]
fn the_same_seed_gives_the_same_weights_to_the_bit() {
    let on_threads = |count: usize, config: &Config, folder: &Path| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap();
        pool.install(|| go(config, folder, false, usize::MAX).map(|_| ())).unwrap();
    };
    let mut config = tiny();
    for stages in 1..=4 {
        config.stages = tiny().stages[..stages].to_vec();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        on_threads(1, &config, one.path());
        on_threads(3, &config, two.path());
        let read = |folder: &Path| std::fs::read(folder.join("model/model.safetensors")).unwrap();
        assert!(read(one.path()) == read(two.path()), "{} stages", stages);
    }
}

#[test]
fn a_checkpoint_of_another_config_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    go(&tiny(), folder.path(), false, 2).unwrap();
    let mut other = tiny();
    other.optimizer.beta2 = 0.9;
    other.stages[0].accumulate += 1;
    let message = go(&other, folder.path(), true, 4).unwrap_err().to_string();
    assert!(message.contains("the config has changed"), "{message}");
    for part in ["optimizer.beta2: 0.98 -> 0.9", "stages[0].accumulate: ", "config.toml"] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn stages_that_have_not_begun_may_change_and_the_run_equals_one_that_had_them_from_the_start() {
    let read = |folder: &Path| std::fs::read(folder.join("model/model.safetensors")).unwrap();
    let mut longer = tiny();
    longer.stages[3].steps += 2;
    let whole = tempfile::tempdir().unwrap();
    go(&longer, whole.path(), false, usize::MAX).unwrap();
    // Ended with two stages of four; stopped inside the third.
    let (mut first_two, mut other) = (tiny(), tiny());
    first_two.stages.truncate(2);
    other.stages[3].rate = 0.5;
    let inside: usize = first_two.total_steps() + 1;
    for (begun_with, stop_after) in [(first_two, usize::MAX), (other, inside)] {
        let folder = tempfile::tempdir().unwrap();
        go(&begun_with, folder.path(), false, stop_after).unwrap();
        assert!(go(&longer, folder.path(), true, usize::MAX).unwrap().complete);
        assert!(read(whole.path()) == read(folder.path()), "stopped after {stop_after}");
        // All of them have begun now.
        let message = go(&tiny(), folder.path(), true, usize::MAX).unwrap_err().to_string();
        assert!(message.contains("stages[3].steps") && message.contains("not begun may change"), "{message}");
    }
}

#[test]
fn a_run_cannot_end_after_the_fact_where_a_stage_had_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut first_two = tiny();
    first_two.stages.truncate(2);
    assert!(!go(&tiny(), folder.path(), false, first_two.total_steps()).unwrap().complete);
    let message = go(&first_two, folder.path(), true, usize::MAX).unwrap_err().to_string();
    assert!(message.contains("stages: 4 there, 2 now"), "{message}");
    assert!(go(&tiny(), folder.path(), true, usize::MAX).unwrap().complete);
}

#[test]
fn a_damaged_checkpoint_names_the_one_to_go_back_to() {
    let folder = tempfile::tempdir().unwrap();
    go(&tiny(), folder.path(), false, 4).unwrap();
    let newest = folder.path().join("checkpoint-4");
    for name in ["weights.safetensors", "optimizer.safetensors", "state.json"] {
        let whole = std::fs::read(newest.join(name)).unwrap();
        std::fs::write(newest.join(name), &whole[..whole.len() / 2]).unwrap();
        let message = go(&tiny(), folder.path(), true, 5).unwrap_err().to_string();
        for part in ["checkpoint-4 is damaged", "remove that folder", "checkpoint-3, which is whole"] {
            assert!(message.contains(part), "{name}: {part} in {message}");
        }
        std::fs::write(newest.join(name), whole).unwrap();
    }
    std::fs::remove_file(newest.join("weights.safetensors")).unwrap();
    std::fs::remove_file(folder.path().join("checkpoint-3/state.json")).unwrap();
    let message = go(&tiny(), folder.path(), true, 5).unwrap_err().to_string();
    assert!(message.contains("no other is whole"), "{message}");
}

/// Puts a file where a checkpoint is to go.
struct Obstacle<'a>(&'a Path);

impl Hooks for Obstacle<'_> {
    fn step(&mut self, done: usize, _: usize, _: &StepRecord) {
        if done == 2 {
            std::fs::write(self.0.join("checkpoint-3"), "in the way").unwrap();
        }
    }
    fn validation(&mut self, _: usize, _: &[(String, f64)]) {}
    fn stop(&self) -> bool {
        false
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_no_half_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = run(&tiny(), None, folder.path(), false, &mut Obstacle(folder.path())).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("checkpoint-3"), "{error}");
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let half: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".partial")).collect();
    assert!(half.is_empty(), "{half:?}");
    assert_eq!(std::fs::read(folder.path().join("checkpoint-3")).unwrap(), b"in the way");
}

#[test]
fn a_start_that_fails_does_not_keep_the_next_one_out() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("run");
    assert!(go_from(&tiny(), Some(&place.path().join("missing")), &folder, false, 0).is_err());
    assert!(!folder.exists());
    let mut config = tiny();
    config.stages[0].loss.read = 1e300;
    assert!(go(&config, &folder, false, usize::MAX).is_err(), "it fails after its files were begun");
    assert!(folder.join("config.toml").exists());
    assert!(go(&tiny(), &folder, false, 1).is_ok());
    let error = go(&tiny(), &folder, false, 1).unwrap_err();
    assert!(matches!(error, Error::Taken { .. }), "{error}");
}

#[test]
fn a_term_that_is_not_finite_stops_the_run_and_is_named() {
    let bad = Tensor::new(f32::NAN, &Device::Cpu).unwrap();
    let terms = LossTerms { focus: Some(bad), ..LossTerms::default() };
    let error = lare_train::metrics::finite(7, &terms, &weights_of("focus")).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { step: 7, term: "focus", .. }), "{error}");
    let mut config = tiny();
    config.stages[1].rate = 1e30;
    config.optimizer.clip_norm = 1e30;
    let folder = tempfile::tempdir().unwrap();
    let error = go(&config, folder.path(), false, usize::MAX).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { .. }), "{error}");
}

#[test]
fn an_unknown_key_in_a_run_config_is_named() {
    let text = include_str!("tiny.toml").replace("clip_norm", "clip_norms");
    let message = Config::from_toml(&text, "x.toml").unwrap_err().to_string();
    assert!(message.contains("clip_norms") && message.contains("x.toml"), "{message}");
}

#[test]
fn impossible_values_in_a_run_config_are_named() {
    let refused = |old: &str, new: &str| {
        let text = include_str!("tiny.toml");
        assert!(text.contains(old), "{old}");
        Config::from_toml(&text.replacen(old, new, 1), "x.toml").unwrap_err().to_string()
    };
    let cases = [
        ("\nsteps = 3", "\nsteps = 0", "stages[0].steps"),
        ("beta1 = 0.9", "beta1 = 1.0", "optimizer.beta1"),
        ("beta2 = 0.98", "beta2 = -0.1", "optimizer.beta2"),
        ("ema_decay = 0.9", "ema_decay = nan", "optimizer.ema_decay"),
        ("eps = 1e-8", "eps = 0.0", "optimizer.eps"),
        ("clip_norm = 1.0", "clip_norm = inf", "optimizer.clip_norm"),
        ("weight_decay = 0.02", "weight_decay = -1.0", "optimizer.weight_decay"),
        ("name = \"tiny\"", "name = \"../up\"", "name"),
        ("name = \"tiny\"", "name = \".hidden\"", "name"),
        ("name = \"tiny\"", "name = \"\"", "name"),
        ("halt = 0.0, read = 1.0,", "halt = 0.0, read = 0.0,", "stages[0].loss.read"),
        ("answer = 1.0, align = 0.1", "answer = nan, align = 0.1", "stages[1].loss.answer"),
        ("answer = 1.0, align = 0.1", "answer = -1.0, align = 0.1", "stages[1].loss.answer"),
        ("halt = 1.0, read = 0.0,", "halt = 0.0, read = 0.0,", "stages[3].loss.halt"),
        ("looks = [1, 2]", "looks = [1, 2]\nquestions_per_picture = 3", "stages[0].mix.questions_per_picture"),
        ("looks = [1, 2]", "looks = [1, 2]\nquestions_per_picture = 0", "stages[0].mix.questions_per_picture"),
    ];
    let hidden = |text: &str| text.replacen("thinking = \"refocus\"", "thinking = \"hidden\"", 1);
    let text = hidden(include_str!("tiny.toml"));
    let message = Config::from_toml(&text, "x.toml").unwrap_err().to_string();
    assert!(message.contains("stages[1].loss.focus") && message.contains("refocus.scorer"), "{message}");
    Config::from_toml(&text.replacen("dot_product", "weighted_attention", 1), "x.toml").unwrap();
    for (old, new, field) in cases {
        let message = refused(old, new);
        assert!(message.starts_with(&format!("`{field}` in x.toml is not usable")), "{new}: {message}");
        assert!(message.contains("expected  ") && message.contains("got  "), "{new}: {message}");
    }
}

#[test]
fn a_prefix_that_trains_nothing_is_named() {
    let mut config = tiny();
    config.stages[0].train.push("visoin.".into());
    let place = tempfile::tempdir().unwrap();
    let message = go(&config, &place.path().join("run"), false, 0).unwrap_err().to_string();
    assert!(message.contains("train of stage `read`") && message.contains("visoin."), "{message}");
    assert!(!place.path().join("run").exists());
}

fn weights_of(term: &str) -> LossWeights {
    let on = |name: &str| if name == term { 1.0 } else { 0.0 };
    LossWeights {
        answer: on("answer"),
        align: on("align"),
        rec: on("rec"),
        focus: on("focus"),
        halt: on("halt"),
        read: on("read"),
        name: on("name"),
    }
}

/// A model with gradients everywhere, and a batch for it.
fn setup(config: &Config, vars: &Vars) -> Batch<Shown> {
    vars.train(&[String::new()]);
    let model = Reasoner::new(config.nano().unwrap(), Module::root(vars)).unwrap();
    // Branches that start at nothing would hide mistakes behind them.
    for (i, (name, var)) in vars.all().into_iter().enumerate() {
        if var.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() == 0.0 {
            let noise = lare_train::vars::normals(&mut dice(1, &name, i as u64), var.elem_count());
            let noise: Vec<f32> = noise.iter().map(|x| 0.05 * x).collect();
            var.set(&Tensor::from_vec(noise, var.shape(), &Device::Cpu).unwrap()).unwrap();
        }
    }
    Feeder::new(config, &SUITE, &TOKENIZER.0, Device::Cpu).unwrap().batch(1, 0, Some(&model)).unwrap()
}

fn term(config: &Config, vars: &Vars, batch: &Batch<Shown>, name: &str) -> Tensor {
    let model = Reasoner::new(config.nano().unwrap(), Module::root(vars)).unwrap();
    let weights = weights_of(name);
    let terms = match name {
        "halt" => loss::halt(&model, batch).unwrap(),
        _ => loss::reason(&model, batch, &weights, &mut dice(3, "loss", 0)).unwrap().terms,
    };
    terms.total(&weights).unwrap()
}

#[test]
fn every_loss_term_has_the_gradient_that_finite_differences_give() {
    let cases = [
        ("answer", "language.blocks.0.qkv.weight"),
        ("answer", "refocus.qformer.blocks.0.cross_memory.weight"),
        ("align", "semantic.thought.weight"),
        ("align", "refocus.gate.weight"),
        ("align", "semantic.log_temperature"),
        ("rec", "semantic.denoiser.blocks.0.qkv.weight"),
        ("rec", "refocus.qformer.blocks.0.feed_forward.down.weight"),
        ("focus", "refocus.query.weight"),
        ("focus", "refocus.key.weight"),
        ("halt", "refocus.halt.weight"),
        ("halt", "refocus.halt.bias"),
        ("read", "semantic.read.weight"),
        ("read", "vision.fine_position.weight"),
        ("name", "vision.coarse_position.weight"),
        ("name", "language.embedding"),
    ];
    fits_finite_differences(&tiny(), &cases);
    // A step as a thought that does not look, then two in words: both are held to their regions by attention.
    let mut said = asking(Task::Hop, 3);
    (said.stages[1].latent_steps, said.stages[1].say_rest) = (1, true);
    said.model.as_mut().unwrap().language.says_steps = true;
    said.model.as_mut().unwrap().language.context = Context::CoarseAndFine;
    said.model.as_mut().unwrap().vision.spatial_merge = 2;
    said.model.as_mut().unwrap().refocus.scorer = Scorer::WeightedAttention;
    said.model.as_mut().unwrap().refocus.thinking = Thinking::Hidden;
    let reached = ["refocus.head_weights", "language.blocks.0.qkv.weight", "vision.fine_in_context.weight"];
    fits_finite_differences(&said, &reached.map(|parameter| ("focus", parameter)));
}

/// Checks pairs of a term and a parameter that it reaches.
fn fits_finite_differences(config: &Config, cases: &[(&str, &str)]) {
    for (name, parameter) in cases.iter().copied() {
        let vars = Vars::new(9, Device::Cpu);
        let batch = setup(config, &vars);
        let gradients = lare_kernels::backward(&term(config, &vars, &batch, name)).unwrap();
        let (_, var) = vars.all().into_iter().find(|(n, _)| n == parameter).unwrap();
        let gradient = gradients.get(&var).unwrap_or_else(|| panic!("{name}: no gradient at {parameter}")).clone();
        let length = gradient.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
        assert!(length > 1e-6, "{name}: no gradient at {parameter}");
        let start = var.as_tensor().copy().unwrap();
        let at = |direction: &Tensor, factor: f32| {
            var.set(&(&start + (direction * f64::from(factor)).unwrap()).unwrap()).unwrap();
            term(config, &vars, &batch, name).to_scalar::<f32>().unwrap()
        };
        let slope = |direction: &Tensor, step: f32| (at(direction, step) - at(direction, -step)) / (2.0 * step);
        // Along the gradient the loss must rise by its length. That alone would not see entries that are missing from it,
        // so it must also fit along directions that do not come from it.
        let along = slope(&(&gradient / f64::from(length)).unwrap(), 4e-3);
        assert!((along / length - 1.0).abs() < 0.06, "{name}, {parameter}: slope {along}, gradient {length}");
        let scale = (gradient.elem_count() as f32).sqrt().recip();
        for seed in 1..=3 {
            let values = lare_train::vars::normals(&mut dice(seed, "direction", 0), gradient.elem_count());
            let values: Vec<f32> = values.iter().map(|x| x * scale).collect();
            let direction = Tensor::from_vec(values, gradient.shape(), &Device::Cpu).unwrap();
            let expected = (&gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let found = slope(&direction, 2e-2);
            let most = 0.25 * length * scale;
            assert!((found - expected).abs() < most, "{name}, {parameter}: {found}, not {expected} within {most}");
        }
    }
}

/// The second stage with one task of so many looks.
fn asking(task: Task, looks: usize) -> Config {
    let mut config = tiny();
    let stage = &mut config.stages[1];
    (stage.mix[0].looks, stage.mix[0].tasks) = ([looks, looks], [(task, 1.0)].into());
    config
}

#[test]
fn steps_that_are_not_latent_yet_are_said() {
    let mut config = asking(Task::Hop, 3);
    (config.stages[1].latent_steps, config.stages[1].say_rest) = (1, true);
    let refused = Config::from_toml(&config.to_toml().unwrap(), "tiny.toml").unwrap_err().to_string();
    assert!(refused.contains("stages[1].say_rest") && refused.contains("says_steps"), "{refused}");
    config.model.as_mut().unwrap().language.says_steps = true;
    let vars = Vars::new(9, Device::Cpu);
    let batch = setup(&config, &vars);
    let tokenizer = &TOKENIZER.0;
    for (number, row) in batch.rows.iter().enumerate() {
        assert_eq!((batch.steps[number], row.targets.len()), (1, 3));
        let asked = |question: &&lare_data::Question| prompt::lay_out(tokenizer, &question.text).ids == row.prompt;
        let of_picture = &batch.pictures.groups[batch.prompts.picture_of_row[number] as usize].questions;
        let question = of_picture.iter().find(asked).unwrap();
        let said = format!("{} {}", question.steps[1].says, question.steps[2].says);
        assert_eq!(row.answer, prompt::answer_ids(tokenizer, Some(&said), &question.answer));
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(go(&config, folder.path(), false, usize::MAX).unwrap().complete);
}

#[test]
fn thoughts_of_any_order_are_held_to_what_they_took_and_words_that_are_said_stay() {
    for latent_steps in [3, 2] {
        let mut config = asking(Task::Count, 3);
        config.stages[1].latent_steps = latent_steps;
        let vars = Vars::new(9, Device::Cpu);
        let batch = setup(&config, &vars);
        let model = Reasoner::new(config.nano().unwrap(), Module::root(&vars)).unwrap();
        let outcome = loss::reason(&model, &batch, &weights_of("focus"), &mut dice(3, "loss", 0)).unwrap();
        let mut moved = 0;
        for (number, (given, taken)) in batch.rows.iter().zip(&outcome.batch.rows).enumerate() {
            let centres = |row: &lare_train::batch::Row, to: usize| -> Vec<(u32, u32)> {
                row.targets[..to].iter().map(|t| (t.centre.0.to_bits(), t.centre.1.to_bits())).collect()
            };
            let sorted = |mut list: Vec<(u32, u32)>| {
                list.sort_unstable();
                list
            };
            assert_eq!(sorted(centres(given, latent_steps)), sorted(centres(taken, latent_steps)));
            assert_eq!(centres(given, 3)[latent_steps..], centres(taken, 3)[latent_steps..]);
            moved += usize::from(centres(given, 3) != centres(taken, 3));
            let scores =
                outcome.thread.steps[0].log_scores.get(number).unwrap().exp().unwrap().to_vec1::<f32>().unwrap();
            let mean =
                |t: &lare_train::batch::Target| -> f32 { t.coverage.iter().zip(&scores).map(|(c, s)| c * s).sum() };
            assert!(taken.targets[..latent_steps].iter().all(|t| mean(&taken.targets[0]) >= mean(t)));
        }
        assert!(moved > 0, "no row had another order: the test shows nothing");
    }
}

#[test]
fn spare_steps_are_taken_and_nothing_but_the_answer_and_halting_depends_on_them() {
    let mut config = asking(Task::Hop, 3);
    config.stages[1].spare_steps = 9; // more than the model has
    let vars = Vars::new(9, Device::Cpu);
    let spared = setup(&config, &vars);
    let most = config.latent_step().unwrap().max_steps;
    assert!(spared.steps.iter().all(|steps| *steps == 3));
    assert!(spared.spare.iter().any(|spare| *spare > 0) && spared.taken().iter().all(|taken| *taken <= most));
    let plain = Batch { spare: vec![0; spared.rows.len()], ..spared.clone() };
    for (name, same) in
        [("focus", true), ("read", true), ("align", true), ("rec", true), ("answer", false), ("halt", false)]
    {
        let values = [&plain, &spared].map(|batch| term(&config, &vars, batch, name).to_scalar::<f32>().unwrap());
        assert_eq!((values[0] - values[1]).abs() < 1e-5, same, "{name}: {values:?}");
    }
    let feeder = Feeder::new(&config, &SUITE, &TOKENIZER.0, Device::Cpu).unwrap();
    let model = Reasoner::new(config.nano().unwrap(), Module::root(&vars)).unwrap();
    let validation = feeder.validation(1, &config.stages[1].mix[0], &model, 0).unwrap();
    assert!(validation.spare.iter().all(|spare| *spare == 0));
}

#[test]
fn the_control_of_rec_needs_another_picture_and_has_another_value() {
    for pictures in [1, 2] {
        let mut config = tiny();
        config.stages[1].pictures_per_batch = pictures;
        let vars = Vars::new(9, Device::Cpu);
        let batch = setup(&config, &vars);
        let model = Reasoner::new(config.nano().unwrap(), Module::root(&vars)).unwrap();
        let outcome = loss::reason(&model, &batch, &weights_of("rec"), &mut dice(3, "loss", 0)).unwrap();
        let rec = outcome.terms.rec.unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(outcome.rec_of_another.is_some(), pictures == 2);
        assert!(outcome.rec_of_another.is_none_or(|another| another.is_finite() && another != f64::from(rec)));
    }
}

#[test]
fn the_total_is_the_weighted_sum_of_the_terms() {
    let scalar = |x: f32| Some(Tensor::new(x, &Device::Cpu).unwrap());
    let terms = LossTerms { answer: scalar(2.0), focus: scalar(3.0), read: scalar(5.0), ..LossTerms::default() };
    let weights = LossWeights { answer: 1.0, align: 9.0, rec: 9.0, focus: 0.5, halt: 9.0, read: 0.1, name: 9.0 };
    let total = terms.total(&weights).unwrap().to_scalar::<f32>().unwrap();
    assert!((total - 4.0).abs() < 1e-6, "{total}");
}

#[test]
fn frozen_parameters_do_not_change() {
    let mut config = tiny();
    config.stages.truncate(1);
    let folder = tempfile::tempdir().unwrap();
    let ended = go(&config, folder.path(), false, usize::MAX).unwrap();
    assert!(ended.complete);
    let trained = Vars::new(0, Device::Cpu);
    lare_train::checkpoint::read_weights(&folder.path().join("checkpoint-3"), &[], &trained, &Device::Cpu).unwrap();
    let trained: std::collections::BTreeMap<_, _> = trained.all().into_iter().collect();
    let fresh = Vars::new(config.seed, Device::Cpu);
    Reasoner::new(config.nano().unwrap(), Module::root(&fresh)).unwrap();
    for (name, var) in fresh.all() {
        let moved = (trained[&name].as_tensor() - var.as_tensor()).unwrap().abs().unwrap().max_all().unwrap();
        let moved = moved.to_scalar::<f32>().unwrap();
        let encoder = name.starts_with("vision.fine.") || name.starts_with("vision.coarse.");
        assert_eq!(encoder, moved > 0.0, "{name} moved by {moved}");
    }
}

#[test]
fn every_term_and_its_gradient_are_the_same_to_the_bit_each_time() {
    let config = tiny();
    for name in ["answer", "align", "rec", "focus", "halt", "read"] {
        let vars = Vars::new(9, Device::Cpu);
        let batch = setup(&config, &vars);
        let bits = || -> Vec<(String, Vec<u32>)> {
            let loss = term(&config, &vars, &batch, name);
            let gradients = lare_kernels::backward(&loss).unwrap();
            let bits =
                |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect();
            let of = |(n, v): (String, candle_core::Var)| gradients.get(&v).map(|g| (n, bits(g)));
            std::iter::once(("the term".to_owned(), bits(&loss))).chain(vars.all().into_iter().filter_map(of)).collect()
        };
        let first = bits();
        for _ in 0..4 {
            for ((parameter, one), (_, two)) in first.iter().zip(bits()) {
                assert!(*one == two, "{name}: {parameter}");
            }
        }
    }
}
