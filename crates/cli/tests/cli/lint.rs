//! Training data: what `lare data lint` tells of files, and how it ends.

use crate::folders::user_folder;
use crate::support::{Place, Ran, png};
use serde_json::Value;
use std::fs;

fn lint(place: &Place, more: &[&str]) -> Ran {
    place.run(&[&["data", "lint"], more].concat())
}

fn problem<'a>(told: &'a Value, kind: &str) -> &'a Value {
    told["problems"].as_array().unwrap().iter().find(|one| one["kind"] == kind).unwrap_or(&Value::Null)
}

/// The suite in a format of `lare make-data`.
fn made(place: &Place, format: &str, out: &str) {
    let ran = place.run(&[
        "make-data",
        "--split",
        "train",
        "--tasks",
        "read,odd",
        "--count",
        "5",
        "--format",
        format,
        "--out",
        out,
    ]);
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[test]
fn what_the_program_writes_has_no_faults_in_any_format() {
    let place = Place::new();
    for (format, out, kind) in
        [("folder", "a", "questions"), ("llava", "b", "llava"), ("parquet", "c.parquet", "parquet")]
    {
        made(&place, format, out);
        let ran = lint(&place, &[out]);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        assert!(ran.out.contains(kind) && ran.out.contains("samples   10, with 10 answers"), "{}", ran.out);
        let told = lint(&place, &[out, "--json"]).json();
        let numbers = ["samples", "answers", "pictures", "errors"].map(|key| told[key].as_u64().unwrap());
        assert_eq!(numbers, [10, 10, 10, 0], "{told}");
        assert!(told["regions"].as_u64().unwrap() >= 10 && told["tokens"].is_null(), "{told}");
    }
    // All at once: the same questions on the same pictures again, and a table is not what was asked for.
    let told = lint(&place, &["a", "b", "--json"]).json();
    assert_eq!((&told["samples"], &problem(&told, "duplicate")["count"]), (&20.into(), &10.into()));
    let ran = lint(&place, &["c.parquet", "--format", "llava"]);
    assert!(ran.code == 1 && ran.out.contains("got       parquet") || ran.out.contains("got parquet"), "{}", ran.out);
}

#[test]
fn faults_are_named_with_file_place_field_and_the_way_out() {
    let place = Place::new();
    place.file("a.png", &png(60, 40));
    place.file("broken.png", &png(60, 40)[..90]);
    let sample = |image: &str, more: &str| {
        format!(r#"{{"image": "{image}", "question": "What is it?", "answer": "A cat."{more}}}"#)
    };
    let lines = [
        sample("a.png", r#", "bboxes": [[0, 0, 60, 40]]"#),
        sample("a.png", ""),
        sample("b.png", ""),
        sample("broken.png", ""),
        sample("a.png", r#", "id": "far", "bboxes": [[0, 0, 70, 40]]"#),
        sample("a.png", r#", "bboxes": [[0, 0, 1, 1]]"#),
        r#"{"image": "a.png", "question": "Why?", "answer": " "}"#.into(),
    ];
    place.file("x.jsonl", lines.join("\n").as_bytes());
    let ran = lint(&place, &["x.jsonl"]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    for part in [
        "x.jsonl, line 3, sample `number 3`, `image`: b.png: is not there",
        "x.jsonl, line 4, sample `number 4`, `image`: picture `broken.png` is truncated or damaged",
        "x.jsonl, line 5, sample `far`, `bboxes`: look 1: [0, 0, 70, 40] reaches out of the 60 x 40 pixels",
        "x.jsonl, line 6, sample `number 6`, `bboxes`: [0.0, 0.0, 1.0, 1.0], which is the whole picture or one pixel",
        "x.jsonl, line 7, sample `number 7`, `answer`: nothing, in turn 2",
        "warning: 2 x duplicate",
        "the same as in x.jsonl, line 1",
        "-> bring it back",
        "5 errors, 2 warnings",
    ] {
        assert!(ran.out.contains(part), "{part} in\n{}", ran.out);
    }
    let told = lint(&place, &["x.jsonl", "--bbox-format", "thousandths", "--json"]);
    assert_eq!((told.code, &problem(&told.json(), "region_outside")["count"]), (1, &Value::Null));
    let told = lint(&place, &["x.jsonl", "--named", "1", "--json"]).json();
    assert_eq!(problem(&told, "duplicate")["examples"].as_array().map(Vec::len), Some(1));
    let ran = lint(&place, &["none.jsonl"]);
    assert!(ran.code == 1 && ran.out.contains("none.jsonl") && ran.out.contains("1 error"), "{}", ran.out);
    assert_eq!(lint(&place, &[]).code, 2);
}

#[test]
fn tokens_are_counted_as_the_model_will_count_them() {
    let place = Place::new();
    user_folder("qwen2_5_vl", &place.path().join("user"));
    made(&place, "parquet", "data.parquet");
    let told = lint(&place, &["data.parquet", "--model", "user", "--json"]);
    assert_eq!(told.code, 0, "{}{}", told.out, told.err);
    let told = told.json();
    let at = |key: &str, which: &str| told[key][which].as_u64().unwrap();
    assert!(at("tokens", "min") > at("tokens_per_picture", "max"), "{told}");
    assert_eq!(told["too_long"], 0);
    // The same of a run, whose limit is lower and whose thoughts count.
    let text = include_str!("../../../train/tests/family/tiny.toml");
    let text =
        text.replace("PLACE/base", "user").replace("format = \"llava\"\n", "").replace("pictures = \"PLACE\"\n", "");
    let text = text.replace("PLACE/samples.json", "data.parquet");
    let most = at("tokens", "median") + 3;
    let text = text.replace("passes_per_block = 1", &format!("passes_per_block = 1\nmax_tokens = {most}"));
    place.file("run.toml", text.as_bytes());
    let ran = lint(&place, &["--config", "run.toml", "--json"]);
    let of_run = ran.json();
    assert_eq!(of_run["max_tokens"], most, "{of_run}");
    let longer = of_run["tokens"]["max"].as_u64().unwrap() - at("tokens", "max");
    assert_eq!(longer, 3, "2 latent steps and a spare one");
    assert!(problem(&of_run, "too_long")["count"].as_u64().is_some_and(|count| (1..20).contains(&count)), "{of_run}");
    // The run's two files are the same one.
    assert_eq!(problem(&of_run, "duplicate")["count"], 10);
    assert_eq!(ran.code, 0, "{}", ran.err);
    fs::remove_file(place.path().join("user/model.safetensors")).unwrap();
    let ran = lint(&place, &["data.parquet", "--model", "user"]);
    assert!(ran.code == 2 && ran.err.contains("model.safetensors"), "{}", ran.err);
}
