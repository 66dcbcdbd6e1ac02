//! Hugging Face folders as users have them: what `lare ask` says of them is what transformers says
//! (tools/reference/folders.py).

use crate::support::{Place, Ran};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A user's folder: text files of fixtures/chat, weights of fixtures/folders.
fn user_folder(family: &str, to: &Path) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    fs::create_dir_all(to).unwrap();
    for part in ["chat", "folders"] {
        for entry in fs::read_dir(fixtures.join(part).join(family)).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
        }
    }
}

fn golden(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap()
}

fn ask(place: &Place, family: &str, more: &[&str]) -> Ran {
    let folder = place.path().join("user");
    user_folder(family, &folder);
    let fixed = ["ask", "--model", "user", "user/photo.png", "What is this?", "--max-tokens", "24"];
    place.run(&[&fixed, more].concat())
}

#[test]
fn a_folder_answers_what_transformers_answers() {
    for family in ["qwen2_5_vl", "qwen3_vl", "smolvlm"] {
        let place = Place::new();
        for more in [&["--json"][..], &["--json", "--dtype", "f32"]] {
            let ran = ask(&place, family, more);
            assert_eq!(ran.code, 0, "{family}: {}", ran.err);
            let (told, golden) = (ran.json(), golden(&place.path().join("user")));
            assert_eq!(told["answer"], golden["text"], "{family} {more:?}");
            assert_eq!(told["usage"]["prompt_tokens"], golden["ids"].as_array().unwrap().len(), "{family}");
        }
    }
}

#[test]
fn a_folder_without_its_tokenizer_or_template_is_refused_by_name() {
    let place = Place::new();
    for (file, named) in [("tokenizer.json", "tokenizer.json"), ("chat_template.json", "chat_template")] {
        user_folder("qwen2_5_vl", &place.path().join("broken"));
        fs::remove_file(place.path().join("broken").join(file)).unwrap();
        let ran = place.run(&["ask", "--model", "broken", "broken/photo.png", "What is this?"]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{file}: {}", ran.err);
        assert!(ran.err.contains(named) && ran.err.contains("hint:"), "{}", ran.err);
    }
}

#[test]
fn latent_steps_are_refused_with_the_way_out() {
    let ran = ask(&Place::new(), "smolvlm", &["--steps", "2"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("`--steps` needs a model") && ran.err.contains("leave --steps out"), "{}", ran.err);
}

/// A cache with one model, `owner/tiny`.
fn cache(place: &Place) -> PathBuf {
    let model = place.path().join("cache/models--owner--tiny");
    user_folder("smolvlm", &model.join("snapshots/0123abcd"));
    fs::create_dir(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), "0123abcd").unwrap();
    model
}

fn ask_by_id(place: &Place, id: &str) -> (Option<i32>, String, String) {
    let photo = "cache/models--owner--tiny/snapshots/0123abcd/photo.png";
    let mut command = place.lare(&["ask", "--model", id, photo, "What is this?", "--max-tokens", "24"]);
    let output = command.env("HF_HUB_CACHE", place.path().join("cache")).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn an_id_finds_its_snapshot_in_the_cache() {
    let place = Place::new();
    let model = cache(&place);
    let (code, out, err) = ask_by_id(&place, "owner/tiny");
    assert_eq!(code, Some(0), "{err}");
    let golden = golden(&model.join("snapshots/0123abcd"));
    assert!(golden["text"].as_str().unwrap().contains(" ass ass") && out.contains(" ass ass"), "{out:?}");
}

#[test]
fn an_id_that_is_not_in_the_cache_says_where_it_was_looked_for_and_how_to_get_it() {
    let place = Place::new();
    let model = cache(&place);
    let (code, _, err) = ask_by_id(&place, "owner/other");
    assert_eq!(code, Some(2));
    assert!(err.contains("models--owner--other") && err.contains("hf download owner/other"), "{err}");
    fs::remove_file(model.join("snapshots/0123abcd/model.safetensors")).unwrap();
    let (code, _, err) = ask_by_id(&place, "owner/tiny");
    assert_eq!(code, Some(2));
    assert!(err.contains("a snapshot without model.safetensors"), "{err}");
}

#[test]
fn a_folder_is_inspected_with_what_memory_it_takes() {
    for family in ["qwen2_5_vl", "qwen3_vl", "smolvlm"] {
        let place = Place::new();
        user_folder(family, &place.path().join("user"));
        let ran = place.run(&["inspect", "user", "--json"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let told = ran.json();
        assert_eq!((&told["family"], &told["loads"]), (&Value::from(family), &Value::from(true)));
        let file = fs::read(place.path().join("user/model.safetensors")).unwrap();
        let weights = safetensors::SafeTensors::deserialize(&file).unwrap();
        let numbers: usize = weights.tensors().iter().map(|(_, t)| t.shape().iter().product::<usize>()).sum();
        let parameters = &told["parameters"];
        let counted = parameters["language"].as_u64().unwrap() + parameters["vision"].as_u64().unwrap();
        assert_eq!(counted, numbers as u64, "{family}");
        assert_eq!(told["memory_bytes"]["f32"], 4 * numbers, "{family}");
        let bf16 = told["memory_bytes"]["bf16"].as_u64().unwrap();
        assert!((2 * counted..3 * counted).contains(&bf16), "{family}: {bf16}");
        let text = place.run(&["inspect", "user", "--tensors"]).out;
        assert!(text.contains("loads       yes") && text.contains("embed_tokens"), "{text}");
    }
}

#[test]
fn a_folder_that_would_not_load_is_told_with_its_fault() {
    let place = Place::new();
    let folder = place.path().join("user");
    user_folder("qwen2_5_vl", &folder);
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    fs::write(folder.join("config.json"), config.replace("\"qwen2_5_vl\"", "\"llava\"")).unwrap();
    let ran = place.run(&["inspect", "user"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("loads       no") && ran.err.contains("model_type"), "{}{}", ran.out, ran.err);
    fs::write(folder.join("config.json"), config).unwrap();
    fs::write(folder.join("model.safetensors"), [0; 100]).unwrap();
    let ran = place.run(&["inspect", "user"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("qwen2_5_vl") && ran.err.contains("model.safetensors"), "{}{}", ran.out, ran.err);
}
