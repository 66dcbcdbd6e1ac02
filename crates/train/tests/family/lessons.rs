//! Samples of files: which are trained on, which are left out, and which end a run before it begins.

use super::{Heard, Place, SAMPLES, SUITE};
use lare_train::config::{FileFormat, Files};
use lare_train::family::Family;
use lare_train::subject::Subject;
use std::collections::BTreeSet;
use std::fs;

#[test]
fn samples_that_do_not_fit_are_left_out_by_name_and_never_cut() {
    let place = Place::new("qwen2_5_vl");
    let mut config = place.config();
    let long = fs::read_to_string(place.at.join("samples.json")).unwrap();
    let long = long.replacen("What is this?", &"What is this? ".repeat(40), 1).replacen("sample 0", "the long one", 1);
    fs::write(place.at.join("samples.json"), long).unwrap();
    config.data.max_tokens = Some(120);
    let mut heard = Heard::until(1);
    place.run(&config, "run", &mut heard).unwrap();
    // It stands in the file to train on and in the file to validate on, which are the same here.
    let ids: Vec<&str> = heard.dropped.iter().map(|dropped| dropped.id.as_str()).collect();
    assert_eq!(ids, ["the long one", "the long one"]);
    let reason = &heard.dropped[0].reason;
    assert!(reason.contains("at most 120") && reason.contains("16 of them of pictures"), "{reason}");
    let listed = fs::read_to_string(place.at.join("run/dropped.jsonl")).unwrap();
    assert!(listed.lines().count() == 2 && listed.contains("the long one"), "{listed}");
    config.data.max_tokens = Some(10);
    let message = place.run(&config, "none", &mut Heard::default()).unwrap_err().to_string();
    assert!(message.contains("no sample is left") && message.contains("the long one"), "{message}");
}

#[test]
fn pictures_that_are_missing_or_broken_end_a_run_before_it_begins() {
    let place = Place::new("smolvlm");
    fs::remove_file(place.at.join("3.png")).unwrap();
    fs::write(place.at.join("5.png"), b"no picture").unwrap();
    let message = place.run(&place.config(), "run", &mut Heard::default()).unwrap_err().to_string();
    for part in ["2 of 16 pictures", "sample `sample 3`", "3.png", "sample `sample 5`", "5.png", "hint"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(!place.at.join("run").exists());
}

#[test]
fn every_sample_is_trained_on_once_an_epoch_in_an_order_of_its_own() {
    let place = Place::new("smolvlm");
    let mut config = place.config();
    config.stages[0].pictures_per_batch = 4;
    let mut subject = Family::open(&config, &SUITE, &place.base()).unwrap();
    let mut epoch = |first: usize| -> Vec<Vec<u32>> {
        let batches = (first..first + SAMPLES / 4).map(|index| subject.batch(0, index, None).unwrap());
        let pixels = |batch: lare_train::batch::Batch<std::sync::Arc<Vec<lare_train::family::Shared>>>| {
            let bits = |shared: &lare_train::family::Shared| -> Vec<u32> {
                super::flat(&shared.pictures[0].seen.tokens).iter().map(|x| x.to_bits()).collect()
            };
            batch.prompts.picture_of_row.iter().map(|s| bits(&batch.pictures[*s as usize])).collect::<Vec<_>>()
        };
        batches.flat_map(pixels).collect()
    };
    let (one, two, again) = (epoch(0), epoch(SAMPLES / 4), epoch(0));
    assert_eq!(one, again, "a batch follows from its number");
    assert_ne!(one, two);
    let all: BTreeSet<_> = one.into_iter().collect();
    assert_eq!((all.len(), all), (SAMPLES, two.into_iter().collect()));
}

#[test]
fn messages_are_trained_on_as_llava_is() {
    let place = Place::new("qwen3_vl");
    let line = r#"{"id": "a", "messages": [{"role": "user", "content": [{"type": "image", "image": "1.png"}, {"type": "text", "text": "What is this?"}]}, {"role": "assistant", "content": "left"}, {"role": "user", "content": "And now?"}, {"role": "assistant", "content": "right"}]}"#;
    fs::write(place.at.join("lines.jsonl"), format!("{line}\n")).unwrap();
    let mut config = place.config();
    config.data.files =
        vec![Files { format: Some(FileFormat::Messages), file: place.at.join("lines.jsonl"), ..Files::default() }];
    config.stages[0].pictures_per_batch = 2;
    let mut subject = Family::open(&config, &SUITE, &place.base()).unwrap();
    let batch = subject.batch(0, 0, None).unwrap();
    assert_eq!((batch.pictures.len(), batch.rows.len()), (1, 2), "both stand behind the same picture");
    assert_eq!(batch.steps, [2, 2], "where no looks are known, as many as the stage has");
    let mut lengths: Vec<usize> = batch.rows.iter().map(|row| row.prompt.len()).collect();
    lengths.sort_unstable();
    assert!(lengths[1] > lengths[0] + 5, "the second has what was said before it: {lengths:?}");
    assert!(batch.rows.iter().all(|row| row.targets.iter().all(|target| target.coverage.is_empty())));
    assert!(place.run(&config, "run", &mut Heard::default()).unwrap().complete);
}

#[test]
fn a_sample_with_a_region_outside_its_picture_is_left_out_by_name() {
    let place = Place::new("smolvlm");
    let line = |id: &str, edges: &str, more: &str| {
        format!(
            r#"{{"id": "{id}", "image": "1.png", "question": "What?", "answer": "left", "bboxes": [{edges}]{more}}}"#
        )
    };
    let lines = [
        line("inside", "[0.1, 0.2, 0.9, 1]", ""),
        line("thousandths", "[100, 200, 900, 1000]", r#", "bbox_format": "thousandths""#),
        line("outside", "[100, 200, 900, 1000]", ""),
    ];
    fs::write(place.at.join("lines.jsonl"), lines.join("\n")).unwrap();
    let mut config = place.config();
    config.data.files = vec![Files { file: place.at.join("lines.jsonl"), ..Files::default() }];
    config.stages[0].pictures_per_batch = 2;
    let mut heard = Heard::until(1);
    place.run(&config, "run", &mut heard).unwrap();
    let dropped: Vec<(&str, bool)> =
        heard.dropped.iter().map(|d| (d.id.as_str(), d.reason.contains("`bboxes`, look 1: [100, 200"))).collect();
    assert_eq!(dropped, [("outside", true)]);
    let mut subject = Family::open(&config, &SUITE, &place.base()).unwrap();
    let batch = subject.batch(0, 0, None).unwrap();
    assert_eq!(batch.rows.len(), 2);
    let near = batch.rows[0].targets[0].coverage.iter().zip(&batch.rows[1].targets[0].coverage);
    assert!(near.into_iter().all(|(a, b)| (a - b).abs() < 1e-3), "the same region in either unit");
    assert!(batch.rows[0].targets[0].coverage.iter().any(|share| *share > 0.0));
}
