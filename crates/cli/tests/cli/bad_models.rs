//! Model folders that do not hold what they should: refused by `ask`, explained by `inspect`.

use crate::support::{Place, png};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Damages a copy of the model, and gives what `ask` says about it.
fn refusal(damage: impl Fn(&Path)) -> String {
    let place = Place::new();
    place.file("desk.png", &png(64, 64));
    damage(&place.model());
    let ran = place.run(&["ask", "desk.png", "Where is the cat?", "--model", "model"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
    assert_eq!(place.names(), ["desk.png", "model"]);
    let inspected = place.run(&["inspect", "model"]);
    assert_eq!(inspected.code, 1, "{}", inspected.err);
    assert_eq!(inspected.err, ran.err, "inspect gives the same reason");
    assert!(inspected.out.contains("loads       no"), "{}", inspected.out);
    ran.err
}

fn edit(folder: &Path, name: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let path = folder.join(name);
    fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
}

/// Changes the header of the weights, and adds bytes behind the data.
fn edit_header(folder: &Path, more: &[u8], change: impl Fn(&mut serde_json::Map<String, Value>, usize)) {
    edit(folder, "model.safetensors", |bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let data = &bytes[8 + length..];
        change(&mut header, data.len());
        let header = serde_json::to_vec(&header).unwrap();
        [&(header.len() as u64).to_le_bytes()[..], &header, data, more].concat()
    });
}

#[test]
fn damaged_weights_are_named_with_the_way_out() {
    let refusals = [
        refusal(|folder| edit_header(folder, &[], |header, _| header["refocus.halt.bias"]["shape"] = json!([1, 1]))),
        refusal(|folder| {
            edit_header(folder, &[], |header, _| {
                let tensor = header.remove("refocus.halt.bias").unwrap();
                header.insert("refocus.stop.bias".into(), tensor);
            })
        }),
        refusal(|folder| {
            edit_header(folder, &[0, 0], |header, end| {
                header.insert(
                    "vision.more".into(),
                    json!({ "dtype": "F16", "shape": [1], "data_offsets": [end, end + 2] }),
                );
            })
        }),
        refusal(|folder| edit(folder, "model.safetensors", |bytes| bytes[..bytes.len() - 10].to_vec())),
        refusal(|folder| {
            edit(folder, "model.safetensors", |mut bytes| {
                bytes[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
                bytes
            })
        }),
        refusal(|folder| {
            edit(folder, "model.safetensors", |mut bytes| {
                bytes[..8].copy_from_slice(&5u64.to_le_bytes());
                bytes
            })
        }),
        refusal(|folder| edit(folder, "model.safetensors", |_| Vec::new())),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn other_files_that_do_not_fit_are_named_with_the_way_out() {
    let refusals = [
        refusal(|folder| fs::remove_file(folder.join("model.safetensors")).unwrap()),
        refusal(|folder| edit(folder, "config.toml", |text| [b"colour = \"red\"\n", &text[..]].concat())),
        refusal(|folder| edit(folder, "tokenizer.json", |_| b"{}".to_vec())),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn a_tokenizer_of_another_vocabulary_is_refused() {
    let refusal = refusal(|folder| {
        edit(folder, "config.toml", |text| {
            let text = String::from_utf8(text).unwrap();
            let old = text.lines().find(|line| line.starts_with("vocabulary")).unwrap();
            text.replace(old, "vocabulary = 77").into_bytes()
        });
    });
    assert!(refusal.contains("model/tokenizer.json has the wrong number of tokens"), "{refusal}");
    assert!(refusal.contains("expected  77   language.vocabulary of model/config.toml"), "{refusal}");
}

#[test]
fn a_folder_that_is_none_is_refused() {
    let place = Place::new();
    place.file("desk.png", &png(64, 64));
    let asked = place.run(&["ask", "desk.png", "Where is the cat?", "--model", "./no/such"]);
    let inspected = place.run(&["inspect", "./no/such"]);
    assert_eq!((asked.code, inspected.code), (2, 2));
    assert_eq!(asked.err, inspected.err);
    insta::assert_snapshot!(asked.err);
}

#[test]
fn in_the_folder_of_a_run_the_model_is_pointed_at() {
    let place = Place::new();
    place.file("desk.png", &png(64, 64));
    let model = place.model();
    fs::create_dir(place.path().join("run")).unwrap();
    fs::rename(model, place.path().join("run/model")).unwrap();
    let ran = place.run(&["ask", "desk.png", "Where is the cat?", "--model", "run"]);
    assert!(ran.code == 2 && ran.err.contains("hint: pass `run/model`"), "{}", ran.err);
}

#[test]
fn the_model_inside_the_program_and_its_copy_both_load() {
    let place = Place::new();
    place.model();
    for arguments in [&["inspect", "--json"][..], &["inspect", "model", "--json", "--tensors"]] {
        let ran = place.run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let object = ran.json();
        assert_eq!(object["loads"], true);
        assert!(object["parameters"].as_u64().is_some_and(|n| n > 10_000));
        assert!(object["memory_bytes"]["weights"].is_u64());
    }
}

#[test]
fn weights_that_are_not_numbers_end_in_an_error_and_not_in_an_answer() {
    for tensor in ["refocus.query.weight", "language.blocks.2.qkv.weight", "vision.fine_norm.weight"] {
        let place = Place::new();
        place.file("desk.png", &png(448, 448));
        edit(&place.model(), "model.safetensors", |mut bytes| {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
            let place = |end: usize| 8 + length + header[tensor]["data_offsets"][end].as_u64().unwrap() as usize;
            for half in bytes[place(0)..place(1)].chunks_exact_mut(2) {
                half.copy_from_slice(&0x7e00u16.to_le_bytes()); // NaN as f16
            }
            bytes
        });
        let ran = place.run(&["ask", "desk.png", "Where is the cat?", "--model", "model", "--no-looks"]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{tensor}: {}", ran.err);
        let inspected = place.run(&["inspect", "model"]);
        assert!(inspected.code == 1 && inspected.err.contains(tensor), "{}", inspected.err);
    }
}
