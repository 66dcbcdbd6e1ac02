//! The whole way: from samples to an adapter that answers.

use super::{Heard, Place, SAMPLES, SUITE, flat};
use candle_core::{Device, Tensor};
use lare_model::reasoning::Scene;
use lare_model::{Adapter, Init, Reasoning, Refocused, Source, Thread};
use lare_train::batch::Batch;
use lare_train::family::{Family, Shared};
use lare_train::run::Start;
use lare_train::subject::{Learner, Subject};
use std::collections::HashMap;
use std::sync::Arc;

/// The averages of a run's last checkpoint, which are what it had in memory when it ended.
struct AtTheEnd(HashMap<String, Tensor>);

impl Source for AtTheEnd {
    fn tensor(&self, name: &str, shape: &[usize], _: Init) -> lare_model::Result<Tensor> {
        let tensor = self.0[&format!("ema.{name}")].clone();
        assert_eq!(tensor.dims(), shape, "{name}");
        Ok(tensor)
    }
}

fn thought(model: &Refocused, batch: &Batch<Arc<Vec<Shared>>>) -> (Scene, Thread) {
    let (scene, _) = model.look_at(batch).unwrap();
    let mut thread = model.prompt(&scene, &batch.prompts).unwrap();
    model.think(&scene, &mut thread, &batch.steps).unwrap();
    (scene, thread)
}

/// What a model says to each row after its thoughts, the likeliest token after the other, and all logits on the way.
fn said(model: &Refocused, batch: &Batch<Arc<Vec<Shared>>>) -> (Vec<Vec<u32>>, Vec<f32>) {
    let (_, mut thread) = thought(model, batch);
    let mut logits = model.language().logits(&thread.hidden).unwrap(); // [B, V]
    let mut said = vec![Vec::new(); batch.rows.len()];
    let mut all = Vec::new();
    for _ in 0..batch.rows.iter().map(|row| row.answer.len()).max().unwrap() {
        all.extend(flat(&logits));
        let next: Vec<u32> = logits.argmax(1).unwrap().to_vec1().unwrap();
        said.iter_mut().zip(&next).for_each(|(said, next)| said.push(*next));
        let ids: Vec<Vec<u32>> = next.into_iter().map(|id| vec![id]).collect();
        logits = model.say(&mut thread, &ids).unwrap().squeeze(1).unwrap();
    }
    (said, all)
}

/// Learns sixteen samples with latent steps, to zero errors, and reads the adapter back.
fn learns(family: &str) {
    let place = Place::new(family);
    let mut config = place.config();
    (config.checkpoint_every_steps, config.log_every_steps) = (1000, 1000);
    config.lora.as_mut().unwrap().rank = 8;
    config.stages = vec![config.stages.swap_remove(1)];
    let stage = &mut config.stages[0];
    (stage.steps, stage.warmup_steps, stage.rate, stage.accumulate) = (120, 10, 1e-2, 1);
    stage.pictures_per_batch = SAMPLES;
    config.validate_every_steps = stage.steps;
    let mut heard = Heard::default();
    let ended = place.run(&config, "run", &mut heard).unwrap();
    assert!(ended.complete && ended.path.ends_with("adapter"), "{family}");
    let right = heard.right.iter().find(|(name, _)| name == "samples");
    assert_eq!(right.map(|(_, share)| *share), Some(1.0), "{family}");

    let mut subject = Family::open(&config, &SUITE, &place.base()).unwrap();
    let last = ended.path.with_file_name(format!("checkpoint-{}", config.total_steps()));
    let at_the_end = candle_core::safetensors::load(last.join("optimizer.safetensors"), &Device::Cpu).unwrap();
    let (in_memory, ()) = subject.build(&AtTheEnd(at_the_end)).unwrap();
    let batch = subject.validation(0, 0, &in_memory).unwrap().unwrap();
    assert_eq!((batch.rows.len(), &batch.steps), (SAMPLES, &vec![2; SAMPLES]));
    let reloaded = Refocused::from_folder(&place.base(), None, &Adapter::open(&ended.path).unwrap()).unwrap();
    let ((one, logits), (two, logits_again)) = (said(&in_memory, &batch), said(&reloaded, &batch));
    for (row, said) in batch.rows.iter().zip(&two) {
        assert_eq!(said[..row.answer.len()], row.answer, "{family}");
    }
    assert_eq!(one, two);
    let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(&logits) == bits(&logits_again), "{family}");
    // The answers hang on the thoughts.
    let without = Batch { steps: vec![0; SAMPLES], ..batch.clone() };
    assert!(bits(&said(&reloaded, &without).1) != bits(&logits), "{family}");
}

#[test]
fn qwen2_5_vl_learns_sixteen_samples_to_zero_errors_and_its_adapter_answers_the_same_to_the_bit() {
    learns("qwen2_5_vl");
}

#[test]
fn qwen3_vl_learns_sixteen_samples_to_zero_errors_and_its_adapter_answers_the_same_to_the_bit() {
    learns("qwen3_vl");
}

#[test]
fn smolvlm_learns_sixteen_samples_to_zero_errors_and_its_adapter_answers_the_same_to_the_bit() {
    learns("smolvlm");
}

#[test]
fn a_resumed_run_equals_the_uninterrupted_one_to_the_bit() {
    let place = Place::new("smolvlm");
    for (name, config) in [("files", place.config()), ("suite", place.of_suite())] {
        let (whole, parts) = (format!("{name}-whole"), format!("{name}-parts"));
        assert!(place.run(&config, &whole, &mut Heard::default()).unwrap().complete);
        for stop in [1, 3, 5, 7] {
            assert!(!place.run(&config, &parts, &mut Heard::until(stop)).unwrap().complete);
        }
        assert!(place.run(&config, &parts, &mut Heard::default()).unwrap().complete);
        for file in ["adapter/lare.safetensors", "adapter/lare_config.json", "checkpoint-8/optimizer.safetensors"] {
            assert!(place.read(&format!("{whole}/{file}")) == place.read(&format!("{parts}/{file}")), "{name}: {file}");
        }
    }
}

#[test]
fn what_is_frozen_stays_and_an_adapter_can_be_gone_on_from() {
    let place = Place::new("qwen2_5_vl");
    let mut config = place.config();
    config.stages.truncate(1);
    let before = place.read("base/model.safetensors");
    let adapter = place.run(&config, "one", &mut Heard::default()).unwrap().path;
    assert!(before == place.read("base/model.safetensors"));
    let weights = candle_core::safetensors::load(adapter.join("lare.safetensors"), &Device::Cpu).unwrap();
    let of_lora = |name: &&String| name.ends_with("lora_b");
    assert!(weights.keys().any(|name| name.starts_with("semantic.denoiser.")));
    assert!(weights.keys().filter(of_lora).count() > 0);
    for name in weights.keys().filter(of_lora) {
        assert!(flat(&weights[name]).iter().all(|x| *x == 0.0), "{name} was frozen");
    }
    let start = Start { path: &adapter, only: &[] };
    place.start(&config, "two", Some(start), &mut Heard::until(0)).unwrap();
    let taken = candle_core::safetensors::load(place.at.join("two/checkpoint-0/weights.safetensors"), &Device::Cpu);
    let taken = taken.unwrap();
    assert_eq!(taken.len(), weights.len());
    assert!(weights.iter().all(|(name, tensor)| flat(tensor) == flat(&taken[name])));
}

#[test]
fn every_mode_trains_and_its_adapter_loads() {
    use lare_model::config::{Choice, Scorer, Thinking};
    let place = Place::new("qwen3_vl");
    let kinds = [
        ("hidden", Thinking::Hidden, Choice::Best, Scorer::MeanAttention),
        ("constant", Thinking::Constant, Choice::Best, Scorer::WeightedAttention),
        ("splice", Thinking::Splice, Choice::Best, Scorer::DotProduct),
        ("crop", Thinking::Splice, Choice::Window, Scorer::MeanAttention),
        ("direct", Thinking::Refocus, Choice::Best, Scorer::MeanAttention),
        ("text-cot", Thinking::Refocus, Choice::Best, Scorer::MeanAttention),
    ];
    for (name, thinking, choice, scorer) in kinds {
        let mut config = place.config();
        let refocus = config.refocus.as_mut().unwrap();
        (refocus.thinking, refocus.choice, refocus.scorer, refocus.revisit) = (thinking, choice, scorer, true);
        for stage in &mut config.stages {
            (stage.steps, stage.say_rest) = (2, name == "text-cot");
            if ["direct", "text-cot"].contains(&name) {
                (stage.latent_steps, stage.spare_steps) = (0, 0);
            }
        }
        let mut heard = Heard::default();
        let ended = place.run(&config, name, &mut heard).unwrap();
        let terms: Vec<&str> = heard.records[2].terms.iter().map(|(name, _)| *name).collect();
        match name {
            "direct" | "text-cot" => assert_eq!(terms, ["answer", "focus", "halt"], "{name}"),
            _ => assert_eq!(terms, ["answer", "align", "rec", "focus", "halt", "read"], "{name}"),
        }
        let halting: Vec<&str> = heard.records[4].terms.iter().map(|(name, _)| *name).collect();
        assert_eq!(halting, ["halt"], "{name}");
        let adapter = Adapter::open(&ended.path).unwrap();
        assert!(Refocused::from_folder(&place.base(), None, &adapter).is_ok(), "{name}");
    }
}
