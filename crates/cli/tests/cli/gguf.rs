//! GGUF files, and language models alone: asked without a picture, inspected, dumped, refused
//! (tools/reference/gguf_models.py).

use crate::support::{Place, Ran, png};
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf").join(name).canonicalize().unwrap()
}

fn golden(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(&format!("{name}.json"))).unwrap()).unwrap()
}

fn ask(place: &Place, name: &str, more: &[&str]) -> Ran {
    let model = fixture(&format!("{name}.gguf")).display().to_string();
    let fixed = ["ask", "--model", &model, "What is this?", "--max-tokens", "24", "--json"];
    place.run(&[&fixed, more].concat())
}

#[test]
fn a_file_answers_what_transformers_answers() {
    for name in ["qwen2", "qwen3"] {
        let ran = ask(&Place::new(), name, &["--dtype", "f32"]);
        assert_eq!(ran.code, 0, "{name}: {}", ran.err);
        let (told, golden) = (ran.json(), golden(name));
        assert_eq!(told["answer"], golden["text"], "{name}");
        assert_eq!(told["usage"]["prompt_tokens"], golden["prompt"].as_array().unwrap().len(), "{name}");
        assert_eq!((&told["picture"], &told["usage"]["image_tokens"]), (&Value::Null, &Value::from(0)));
    }
    // The template of Llama 3 writes the day into the prompt.
    let ran = ask(&Place::new(), "llama", &[]);
    assert_eq!((ran.code, ran.json()["model"]["family"].as_str()), (0, Some("llama")), "{}", ran.err);
}

#[test]
fn questions_of_a_file_are_asked_without_a_picture() {
    let place = Place::new();
    place.file("questions.txt", b"What is this?\n\nWho are you?\n");
    let model = fixture("qwen2.gguf").display().to_string();
    let ran = place.run(&["ask", "--model", &model, "--questions", "questions.txt", "--max-tokens", "2", "--json"]);
    let asked: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((ran.code, asked.len()), (0, 2), "{}", ran.err);
    assert_eq!(asked[1]["question"], "Who are you?");
}

#[test]
fn a_folder_of_a_language_model_alone_is_asked_in_the_same_way() {
    let place = Place::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    fs::create_dir(place.path().join("user")).unwrap();
    for from in ["chat/llama/tokenizer.json", "chat/llama/chat_template.jinja", "families/llama/model.safetensors"] {
        fs::copy(fixtures.join(from), place.path().join("user").join(Path::new(from).file_name().unwrap())).unwrap();
    }
    fs::copy(fixtures.join("families/llama/config.json"), place.path().join("user/config.json")).unwrap();
    // Its vocabulary is smaller than the tokenizer's, so that only few texts can be asked; it is the arguments that count.
    let ran = place.run(&["ask", "--model", "user", "What is this?"]);
    assert!(!ran.err.contains("needs a picture"), "{}", ran.err);
    place.file("photo.png", &png(8, 8));
    let ran = place.run(&["ask", "--model", "user", "photo.png", "What is this?"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("sees no pictures") && ran.err.contains("leave the picture out"), "{}", ran.err);
}

#[test]
fn what_is_missing_of_a_question_is_told() {
    let place = Place::new();
    let model = fixture("qwen2.gguf").display().to_string();
    let ran = place.run(&["ask", "--model", &model]);
    assert!(ran.code == 2 && ran.err.contains("`lare ask` needs a question"), "{}", ran.err);
    let own = place.model().display().to_string();
    for (arguments, got) in [(&[][..], "neither"), (&["desk.png"], "`desk.png` alone")] {
        let ran = place.run(&[&["ask", "--model", &own], arguments].concat());
        assert_eq!(ran.code, 2);
        assert!(ran.err.contains("needs a picture and a question") && ran.err.contains(got), "{}", ran.err);
    }
    let ran = place.run(&["ask", "--model", &model, "What is this?", "--trace", "looks"]);
    assert!(ran.code == 2 && ran.err.contains("`--trace` needs a model that thinks"), "{}", ran.err);
}

#[test]
fn a_file_is_inspected_with_its_types_and_what_is_widened() {
    let place = Place::new();
    let model = fixture("llama.gguf").display().to_string();
    let ran = place.run(&["inspect", &model, "--tensors"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for part in ["loads       yes", "without --dtype", "Q6_K is widened to F16", "Q4_K  [256, 256]", "blk.0.ffn_down"] {
        assert!(ran.out.contains(part), "{part} in {}", ran.out);
    }
    let told = place.run(&["inspect", &model, "--json"]).json();
    assert_eq!((&told["family"], &told["loads"]), (&Value::from("llama"), &Value::from(true)));
    assert!(told["held_bytes"]["mapped"].as_u64().unwrap() > 0 && told["widened"].as_array().unwrap().len() == 5);
}

#[test]
fn a_dump_of_a_file_has_the_reference_s_logits() {
    for name in ["qwen2", "qwen3", "llama"] {
        let (place, golden) = (Place::new(), golden(name));
        let model = fixture(&format!("{name}.gguf")).display().to_string();
        let ids: Vec<String> = golden["ids"].as_array().unwrap().iter().map(ToString::to_string).collect();
        let ids = ids.join(",");
        let ran = place.run(&["dump", "--model", &model, "--ids", &ids, "--dtype", "f32", "--out", "ours.safetensors"]);
        assert_eq!(ran.code, 0, "{name}: {}", ran.err);
        let file = fs::read(place.path().join("ours.safetensors")).unwrap();
        let ours = SafeTensors::deserialize(&file).unwrap();
        let logits = ours.tensor("logits").unwrap();
        let got: Vec<f64> =
            logits.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
        let rows = golden["logits"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        let expected: Vec<f64> = rows.map(|x| x.as_f64().unwrap()).collect();
        let most = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
        let got = &got[got.len() - expected.len()..];
        let far = expected.iter().zip(got).fold(0f64, |far, (e, g)| far.max((e - g).abs()));
        assert!(far <= 1e-4 * most, "{name}: off by {far} of {most}");
    }
}

/// The fixture with a text in its metadata replaced by another of the same length.
fn changed(place: &Place, from: &str, to: &str) -> Ran {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(fixture("qwen2.gguf")).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    place.file("changed.gguf", &bytes);
    place.run(&["ask", "--model", "changed.gguf", "What is this?"])
}

#[test]
fn tokenizers_that_are_not_read_are_refused_by_name() {
    for (from, to, words) in [
        ("gpt2", "bert", ["`tokenizer.ggml.model`", "\"bert\"", "gpt2"]),
        ("tokenizer.ggml.pre", "tokenizer.ggml.xre", ["`tokenizer.ggml.pre`", "got       nothing", "smollm"]),
        ("tokenizer.ggml.merges", "tokenizer.ggml.xerges", ["`tokenizer.ggml.merges`", "got       nothing", "a list"]),
        (
            "tokenizer.chat_template",
            "tokenizer.xhat_template",
            ["`tokenizer.chat_template`", "got       nothing", "base model"],
        ),
    ] {
        let ran = changed(&Place::new(), from, to);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{from}: {}", ran.err);
        for word in words {
            assert!(ran.err.contains(word) && ran.err.contains("hint:"), "{from}: {word} in {}", ran.err);
        }
    }
}

#[test]
fn a_file_cannot_be_a_base_of_an_adapter() {
    let place = Place::new();
    let model = fixture("qwen2.gguf").display().to_string();
    let ran = place.run(&["merge", "--model", &model, "--adapter", "none", "--out", "merged"]);
    assert!(ran.code == 2 && ran.err.contains("lare_config.json"), "{}", ran.err);
}
