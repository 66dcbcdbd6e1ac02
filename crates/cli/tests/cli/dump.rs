//! `lare dump` against what transformers computed for the tiny checkpoints (tools/reference/families.py), from the
//! pictures' files on.

use crate::support::Place;
use safetensors::{Dtype, SafeTensors};
use std::fs;
use std::path::{Path, PathBuf};

fn fixture(family: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/families");
    fixtures.join(family).canonicalize().unwrap()
}

fn numbers(archive: &SafeTensors, name: &str) -> Vec<f64> {
    let view = archive.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
        Dtype::I64 => data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        Dtype::U8 => data.iter().map(|b| f64::from(*b)).collect(),
        other => panic!("{name} holds {other:?}"),
    }
}

/// Runs `lare dump` on the prompt `wide` (or `long`) of a family and compares everything that both have.
fn compare(family: &str, prompt: &str, picture: Option<usize>) -> usize {
    let (place, folder) = (Place::new(), fixture(family));
    let golden = fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let ids: Vec<String> = numbers(&golden, &format!("{prompt}.input_ids")).iter().map(|id| id.to_string()).collect();
    let (ids, model) = (ids.join(","), folder.display().to_string());
    let mut arguments = vec!["dump", "--model", &model, "--ids", &ids, "--out", "ours.safetensors"];
    if let Some(number) = picture {
        let name = format!("picture.{number}.rgb");
        let (pixels, shape) = (numbers(&golden, &name), golden.tensor(&name).unwrap().shape().to_vec());
        let rgb = pixels.into_iter().map(|x| x as u8).collect();
        let image = image::RgbImage::from_raw(shape[1] as u32, shape[0] as u32, rgb).unwrap();
        image.save(place.path().join("picture.png")).unwrap();
        arguments.extend(["--image", "picture.png"]);
    }
    let ran = place.run(&arguments);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ours = fs::read(place.path().join("ours.safetensors")).unwrap();
    let ours = SafeTensors::deserialize(&ours).unwrap();
    let near = |ours_name: &str, golden_name: &str| {
        let (mut got, expected) = (numbers(&ours, ours_name), numbers(&golden, golden_name));
        // Of plain positions the reference has one axis; of logits, in committed cases, the last rows.
        match ours_name {
            "positions" => got.truncate(expected.len()),
            "logits" => drop(got.drain(..got.len() - expected.len())),
            _ => {}
        }
        assert_eq!(got.len(), expected.len(), "{family} {ours_name}");
        let most = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
        let far = expected.iter().zip(&got).fold(0f64, |far, (e, g)| far.max((e - g).abs()));
        assert!(far <= 1e-4 * most, "{family}: {ours_name} is off by {far} of {most}");
    };
    let mut compared = 0;
    for name in ours.names() {
        let golden_name = format!("{prompt}.{name}");
        if golden.tensor(&golden_name).is_ok() {
            near(name, &golden_name);
            compared += 1;
        }
    }
    if let Some(number) = picture {
        near("pixel_values", &format!("picture.{number}.pixel_values"));
    }
    compared
}

#[test]
fn every_intermediate_of_every_family_is_the_reference_s() {
    // input_ids, positions, vision, logits; two attention rows; three hidden states.
    assert_eq!(compare("qwen2_5_vl", "wide", Some(1)), 9);
    assert_eq!(compare("smolvlm", "wide", Some(1)), 9);
    assert!(compare("qwen3_vl", "wide", Some(1)) >= 9);
    assert_eq!(compare("llama", "long", None), 8);
}

#[test]
fn a_prompt_that_does_not_fit_its_pictures_is_refused_in_words() {
    let (place, folder) = (Place::new(), fixture("qwen2_5_vl").display().to_string());
    let refused = |arguments: &[&str]| {
        let ran = place.run(&[&["dump", "--model", &folder, "--out", "x.safetensors"], arguments].concat());
        assert_eq!((ran.code, ran.out.as_str(), place.names().is_empty()), (2, "", true), "{}", ran.err);
        ran.err
    };
    let error = refused(&["--ids", "70,5,5,5,71"]);
    assert!(error.contains("image tokens") && error.contains("0 for 0 pictures") && error.contains('3'), "{error}");
    // The fixtures have no tokenizer: words cannot be rendered.
    let error = refused(&["--prompt", "What?"]);
    assert!(error.contains("tokenizer"), "{error}");
}
