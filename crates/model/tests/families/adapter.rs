//! Adapter folders of every family: what is written is what is read, and only the base it was trained on takes it.

use super::refocused::{asked, cases, settings};
use super::weights::Weights;
use super::{folders, lora::lora};
use candle_core::{DType, Device, Tensor};
use lare_model::adapter::{self, Base, SETTINGS, Settings, WEIGHTS};
use lare_model::merge::merge;
use lare_model::pretrained::Pretrained;
use lare_model::{Adapter, Format, Loaded, Lora, Path, Reasoning, Refocused};
use std::collections::HashMap;
use std::fs;
use std::path::{Path as Folder, PathBuf};

const TARGETS: [&str; 2] = ["language.blocks.*.qkv.query", "language.*.down"];

/// An adapter of made-up weights in `to`, and the model with it.
fn adapter_of(base: &Folder, lora: Option<&Lora>, to: &Folder) -> Refocused {
    let weights = Weights::new("", 0);
    let pretrained = match lora {
        Some(lora) => Pretrained::adapted(base, None, lora, &weights).unwrap(),
        None => Pretrained::from_folder(base, None).unwrap(),
    };
    let model = Refocused::new(pretrained, &settings(), Path::root(&weights)).unwrap();
    let of = Settings::new(Base::of(base, "owner/base").unwrap(), settings(), lora.cloned(), None);
    adapter::write(to, &of, &weights.values()).unwrap();
    model
}

fn opened(base: &Folder, adapter: &Folder) -> lare_model::Result<Refocused> {
    Refocused::from_folder(base, None, &Adapter::open(adapter)?)
}

fn refused(base: &Folder, adapter: &Folder) -> String {
    opened(base, adapter).unwrap_err().to_string()
}

/// The folders of families that see.
pub fn seeing() -> Vec<PathBuf> {
    let sees = |folder: &PathBuf| Pretrained::from_folder(folder, None).unwrap().fine().is_some();
    folders().into_iter().filter(sees).collect()
}

fn copied(folder: &Folder, to: &Folder) {
    fs::create_dir_all(to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(folder.join(file), to.join(file)).unwrap();
    }
}

/// A model in training sums some products in another order than one that was read: what is read twice has the same bits.
#[test]
fn what_is_read_back_thinks_the_same() {
    let (place, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for ((case, all), folder) in cases().into_iter().zip(seeing()) {
        for lora in [None, Some(lora(&TARGETS))] {
            let written = adapter_of(&folder, lora.as_ref(), place.path());
            let read = opened(&folder, place.path()).unwrap();
            adapter_of(&folder, lora.as_ref(), again.path());
            let read_again = opened(&folder, again.path()).unwrap();
            let said = |model: &Refocused| {
                let (_, mut thread) = asked(model, &[&all[0]], &[2]);
                let logits = model.say(&mut thread, &[vec![7]]).unwrap();
                logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            let [written, read, read_again] = [&written, &read, &read_again].map(said);
            assert_eq!(read, read_again, "{} {lora:?}", case.name);
            let far = written.iter().zip(&read).fold(0f32, |far, (a, b)| far.max((a - b).abs()));
            let most = read.iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(far <= 1e-5 * most, "{} {lora:?}: {far} of {most}", case.name);
        }
    }
}

/// The matrices of the latent step as bf16 has them, in f32 again.
fn rounded(adapter: &Folder, to: &Folder) {
    fs::create_dir_all(to).unwrap();
    fs::copy(adapter.join(SETTINGS), to.join(SETTINGS)).unwrap();
    let tensors = candle_core::safetensors::load(adapter.join(WEIGHTS), &Device::Cpu).unwrap();
    let round = |(name, tensor): (String, Tensor)| {
        let matrix = name.starts_with("refocus.") && name.ends_with(".weight") && tensor.rank() == 2;
        let numbers = if matrix { tensor.to_dtype(DType::BF16).unwrap() } else { tensor };
        (name, numbers.to_dtype(DType::F32).unwrap())
    };
    let tensors: HashMap<String, Tensor> = tensors.into_iter().map(round).collect();
    candle_core::safetensors::save(&tensors, to.join(WEIGHTS)).unwrap();
}

#[test]
fn beside_a_quantised_base_the_latent_step_has_bf16_matrices_and_beside_any_other_its_own() {
    let place = tempfile::tempdir().unwrap();
    for ((case, all), folder) in cases().into_iter().zip(seeing()) {
        let (own, round) = (place.path().join("own"), place.path().join("round"));
        adapter_of(&folder, Some(&lora(&TARGETS)), &own);
        rounded(&own, &round);
        let said = |model: &Refocused| {
            let (_, mut thread) = asked(model, &[&all[0]], &[2]);
            let logits = model.say(&mut thread, &[vec![7]]).unwrap();
            logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let of = |adapter: &Folder, format: Option<Format>| {
            said(&Refocused::from_folder(&folder, format, &Adapter::open(adapter).unwrap()).unwrap())
        };
        let quantised = of(&own, Some(Format::Q8_0));
        assert_eq!(quantised, of(&round, Some(Format::Q8_0)), "{}", case.name);
        for format in [None, Some(Format::F32), Some(Format::Bf16)] {
            assert_ne!(of(&own, format), of(&round, format), "{} {format:?}", case.name);
        }
        // The same numbers in f32, through other products.
        let adapter = Adapter::open(&round).unwrap();
        let bytes = fs::read(round.join(WEIGHTS)).unwrap();
        let weights = Loaded::from_bytes(&bytes, WEIGHTS, &Device::Cpu).unwrap();
        let base = Pretrained::adapted(&folder, Some(Format::Q8_0), &lora(&TARGETS), &weights).unwrap();
        let wide = said(&Refocused::new(base, &adapter.settings.refocus, Path::root(&weights)).unwrap());
        let most = wide.iter().fold(0f32, |most, x| most.max(x.abs()));
        let far = wide.iter().zip(&quantised).fold(0f32, |far, (a, b)| far.max((a - b).abs()));
        assert!(far <= 1e-4 * most, "{}: {far} of {most}", case.name);
    }
}

#[test]
fn another_base_is_refused_by_name_and_fingerprint() {
    let (place, folder) = (tempfile::tempdir().unwrap(), &seeing()[0]);
    let (adapter, other) = (place.path().join("adapter"), place.path().join("other"));
    adapter_of(folder, None, &adapter);
    let own = Pretrained::fingerprint(folder).unwrap();
    copied(folder, &other);
    assert!(opened(&other, &adapter).is_ok());
    // The last numbers of the file: of one tensor, by one bit.
    let mut bytes = fs::read(other.join("model.safetensors")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(other.join("model.safetensors"), bytes).unwrap();
    let message = refused(&other, &adapter);
    let got = Pretrained::fingerprint(&other).unwrap();
    for part in
        ["owner/base", own.as_str(), got.as_str(), &other.display().to_string(), "pass the folder of owner/base"]
    {
        assert!(message.contains(part), "{part} in {message}");
    }
    let of_another_family = seeing().into_iter().find(|folder| folder.file_name().unwrap() == "qwen3_vl").unwrap();
    let message = refused(&of_another_family, &adapter);
    assert!(message.contains("qwen2_5_vl") && message.contains("qwen3_vl"), "{message}");
}

#[test]
fn the_same_weights_have_one_fingerprint_in_any_files() {
    let (place, folder) = (tempfile::tempdir().unwrap(), &seeing()[0]);
    copied(folder, place.path());
    let own = Pretrained::fingerprint(place.path()).unwrap();
    let whole = place.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&whole, &Device::Cpu).unwrap();
    fs::remove_file(whole).unwrap();
    let (mut shards, mut map) = ([HashMap::new(), HashMap::new()], serde_json::Map::new());
    for (number, (name, tensor)) in tensors.into_iter().enumerate() {
        map.insert(name.clone(), format!("part-{}.safetensors", number % 2).into());
        shards[number % 2].insert(name, tensor);
    }
    for (number, shard) in shards.iter().enumerate() {
        candle_core::safetensors::save(shard, place.path().join(format!("part-{number}.safetensors"))).unwrap();
    }
    let index = serde_json::json!({ "weight_map": map }).to_string();
    fs::write(place.path().join("model.safetensors.index.json"), index).unwrap();
    assert_eq!(Pretrained::fingerprint(place.path()).unwrap(), own);
}

/// Of one file or of shards.
fn tensors_of(folder: &Folder) -> HashMap<String, Tensor> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let weights = files.filter(|file| {
        file.extension().is_some_and(|extension| extension == "safetensors")
            && !["golden.safetensors", "lare.safetensors"].contains(&file.file_name().unwrap().to_str().unwrap())
    });
    weights.flat_map(|file| candle_core::safetensors::load(file, &Device::Cpu).unwrap()).collect()
}

#[test]
fn a_merged_base_is_the_adapted_one_and_thinks_as_it_did() {
    let place = tempfile::tempdir().unwrap();
    for (number, ((case, all), folder)) in cases().into_iter().zip(seeing()).enumerate() {
        let (adapter, out) = (place.path().join("adapter"), place.path().join(format!("merged-{number}")));
        let written = adapter_of(&folder, Some(&lora(&TARGETS)), &adapter);
        let changed = merge(&folder, &Adapter::open(&adapter).unwrap(), &out).unwrap();
        assert_eq!(changed, 2 * case.model.architecture.language.layers, "{}", case.name);
        let merged = opened(&out, &out).unwrap();
        let said = |model: &Refocused| {
            let (_, mut thread) = asked(model, &[&all[0]], &[2]);
            let logits = model.say(&mut thread, &[vec![7]]).unwrap();
            logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let (adapted, merged) = (said(&written), said(&merged));
        let (before, after) = (tensors_of(&folder), tensors_of(&out));
        let most = adapted.iter().fold(0f32, |most, x| most.max(x.abs()));
        let far = adapted.iter().zip(&merged).fold(0f32, |far, (a, b)| far.max((a - b).abs()));
        // A bf16 base rounds what was folded in.
        let tolerance = if before.values().all(|x| x.dtype() == DType::F32) { 1e-4 } else { 1e-2 };
        assert!(far <= tolerance * most, "{}: {far} of {most}", case.name);
        // What no pattern names stays as it is, to the bit.
        let bits = |x: &Tensor| x.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        let differing = before.iter().filter(|(name, tensor)| bits(tensor) != bits(&after[*name])).count();
        assert_eq!((before.len(), differing), (after.len(), changed), "{}", case.name);
        assert!(out.join("preprocessor_config.json").is_file() && out.join("config.json").is_file());
        // Its adapter is of it alone.
        assert!(refused(&folder, &out).contains(&format!("merged-{number}")));
        let again =
            |to: &str| merge(&out, &Adapter::open(&out).unwrap(), &place.path().join(to)).unwrap_err().to_string();
        assert!(again("again").contains("a latent step alone"));
        let there = merge(&folder, &Adapter::open(&adapter).unwrap(), &out).unwrap_err().to_string();
        assert!(there.contains("it exists"), "{there}");
    }
}

#[test]
fn a_folder_that_is_none_or_is_spoilt_is_refused_by_the_part_that_does_not_fit() {
    let (place, folder) = (tempfile::tempdir().unwrap(), &seeing()[0]);
    let at = place.path();
    assert!(refused(folder, at).contains(SETTINGS));
    adapter_of(folder, None, at);
    let good = fs::read_to_string(at.join(SETTINGS)).unwrap();
    let spoilt = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} in {good}");
        fs::write(at.join(SETTINGS), good.replacen(from, to, 1)).unwrap();
        refused(folder, at)
    };
    assert!(spoilt("\"version\": 1", "\"version\": 4").contains("`version`"));
    assert!(spoilt("\"patches\": 3", "\"patches\": 0").contains("refocus.patches"));
    assert!(spoilt("\"patches\"", "\"cells\"").contains("cells"));
    assert!(spoilt("\"blocks\": 1", "\"blocks\": 2").contains("is missing"));
    assert!(spoilt("\"gate\": true", "\"gate\": false").contains("used by nothing"));
    assert!(spoilt("{", "").contains("lare_config.json"));
    fs::write(at.join(SETTINGS), &good).unwrap();
    fs::write(at.join(WEIGHTS), [0; 9]).unwrap();
    assert!(refused(folder, at).contains("not a whole safetensors file"));
    fs::remove_file(at.join(WEIGHTS)).unwrap();
    assert!(refused(folder, at).contains(WEIGHTS));
}
