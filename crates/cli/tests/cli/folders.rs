//! Hugging Face folders as users have them: what `lare ask` says of them is what transformers says
//! (tools/reference/folders.py).

use crate::support::{Place, Ran};
use lare_infer::{Device, Tensor};
use lare_model::adapter::{self, Base, Settings};
use lare_model::config::{Choice, Memory, Refocus, Scorer, Thinking};
use lare_model::pretrained::Pretrained;
use lare_model::{Init, Lora, Path as ModulePath, Refocused, Source};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A user's folder: text files of fixtures/chat, weights of fixtures/folders.
pub fn user_folder(family: &str, to: &Path) {
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
    for (flag, value) in [("--steps", "2"), ("--looks", "looks.png"), ("--trace", "looks")] {
        let ran = ask(&Place::new(), "smolvlm", &[flag, value]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""));
        let hint = format!("leave {flag} out");
        assert!(ran.err.contains(&format!("`{flag}` needs a model")) && ran.err.contains(&hint), "{}", ran.err);
    }
}

/// Weights from a parameter's name, and what was asked for.
#[derive(Default)]
struct MadeUp(RefCell<BTreeMap<String, Tensor>>);

impl Source for MadeUp {
    fn tensor(&self, name: &str, shape: &[usize], _: Init) -> lare_model::Result<Tensor> {
        let seed = name.bytes().fold(7u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let number = |place: u32| ((seed ^ place.wrapping_mul(0x9E37_79B9)) % 2001) as f32 / 5e3 - 0.2;
        let numbers: Vec<f32> = (0..shape.iter().product::<usize>() as u32).map(number).collect();
        let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu)?;
        self.0.borrow_mut().insert(name.into(), tensor.clone());
        Ok(tensor)
    }
}

/// An adapter of made-up weights.
pub fn write_adapter(base: &Path, to: &Path) {
    let settings = Refocus {
        thinking: Thinking::Refocus,
        choice: Choice::Best,
        scorer: Scorer::MeanAttention,
        memory: Memory::Fine,
        patches: 3,
        exclude_earlier: false,
        revisit: false,
        bias: true,
        gate: true,
        max_steps: 4,
        blocks: 1,
        heads: 2,
        feed_forward: 24,
    };
    let lora = Lora { rank: 2, alpha: 2.0, targets: vec!["language.blocks.*.qkv.value".into()] };
    let weights = MadeUp::default();
    let pretrained = Pretrained::adapted(base, None, &lora, &weights).unwrap();
    Refocused::new(pretrained, &settings, ModulePath::root(&weights)).unwrap();
    let of = Base::of(base, "owner/tiny").unwrap();
    adapter::write(to, &Settings::new(of, settings, Some(lora), None), &weights.0.into_inner()).unwrap();
}

#[test]
fn with_an_adapter_a_folder_thinks_before_it_answers() {
    for family in ["qwen2_5_vl", "qwen3_vl", "smolvlm"] {
        let place = Place::new();
        user_folder(family, &place.path().join("user"));
        write_adapter(&place.path().join("user"), &place.path().join("adapter"));
        let thought = |steps: &str| {
            let ran = ask(&place, family, &["--adapter", "adapter", "--json", "--steps", steps]);
            assert_eq!(ran.code, 0, "{family}: {}", ran.err);
            ran.json()
        };
        let (none, two, again) = (thought("0"), thought("2"), thought("2"));
        assert_eq!(two["answer"], again["answer"]);
        assert_eq!((&none["usage"]["latent_steps"], &two["usage"]["latent_steps"]), (&0.into(), &2.into()));
        let steps = two["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 2);
        for step in steps {
            let scores: Vec<f64> = step["scores"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            assert_eq!(scores.len() as u64, two["usage"]["image_tokens"].as_u64().unwrap(), "{family}");
            assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-4, "{family}");
            assert_eq!(step["chosen"].as_array().unwrap().len(), 3);
        }
        let auto = thought("auto");
        let steps = auto["steps"].as_array().unwrap();
        let halts = |step: &Value| step["halt_probability"].as_f64().unwrap() >= 0.5;
        assert!(steps.len() == 4 || steps.last().is_none_or(halts), "{auto}");
        let ran = ask(&place, family, &["--adapter", "adapter", "--steps", "5"]);
        assert_eq!((ran.code, ran.err.contains("0 to 4, the adapter's")), (2, true), "{}", ran.err);
    }
}

#[test]
fn an_adapter_is_trained_on_written_samples_and_asked() {
    let place = Place::new();
    user_folder("smolvlm", &place.path().join("user"));
    let made = [
        "make-data",
        "--split",
        "train",
        "--tasks",
        "read,locate",
        "--count",
        "6",
        "--format",
        "llava",
        "--out",
        "data",
    ];
    assert_eq!(place.run(&made).code, 0);
    let text = include_str!("../../../train/tests/family/tiny.toml");
    let text = text.replace("PLACE/base", "user").replace("PLACE/samples.json", "data/llava.json");
    place.file("tiny.toml", text.replace("PLACE", "data").as_bytes());
    let ran = place.run(&["train", "tiny.toml", "--out", "run", "--set", "validate_every_steps=4"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("lare ask PICTURE QUESTION --model user --adapter run/adapter"), "{}", ran.out);
    let asked = |steps: &str| {
        let fixed = ["ask", "--model", "user", "--adapter", "run/adapter", "data/images/train-read-000000.png"];
        let ran = place.run(&[&fixed[..], &["What is this?", "--steps", steps, "--json"]].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.json()["usage"]["latent_steps"].clone()
    };
    assert_eq!([asked("0"), asked("4")], [Value::from(0), Value::from(4)]);
    let resumed = place.run(&["train", "tiny.toml", "--out", "run", "--resume", "--set", "lora.rank=2"]);
    assert!(resumed.code == 2 && resumed.err.contains("lora.rank: 4 -> 2"), "{}", resumed.err);
    user_folder("qwen3_vl", &place.path().join("other"));
    let fixed = ["ask", "--model", "other", "--adapter", "run/adapter", "other/photo.png", "What is this?"];
    let ran = place.run(&fixed);
    assert!(ran.code == 2 && ran.err.contains("hint: pass the folder of user"), "{}", ran.err);
}

/// Trains an adapter in two latent steps, and not when to stop; gives what was said of that.
fn train_without_halting(place: &Place) -> String {
    user_folder("smolvlm", &place.path().join("user"));
    let made = "make-data --split train --tasks read --count 6 --format parquet --out data.parquet";
    assert_eq!(place.run(&made.split(' ').collect::<Vec<_>>()).code, 0);
    let text = include_str!("../../../train/tests/family/tiny.toml");
    let text = text.replace("PLACE/base", "user").replace("halt = 0.1", "halt = 0.0");
    let text = text.replace("format = \"llava\"\n", "").replace("PLACE/samples.json", "data.parquet");
    let text = text.replace("pictures = \"PLACE\"\n", "");
    let stages = text.find("[[stages]]\nname = \"halt\"").unwrap();
    place.file("tiny.toml", &text.as_bytes()[..stages]);
    let ran = place.run(&["train", "tiny.toml", "--out", "run", "--set", "validate_every_steps=100"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran.err
}

#[test]
fn an_adapter_that_was_not_taught_to_stop_thinks_as_it_was_trained() {
    let place = Place::new();
    let said = train_without_halting(&place);
    assert!(said.contains("no stage teaches the model when to stop") && said.contains("2 latent steps"), "{said}");
    let ask = |steps: &str| {
        let fixed = [
            "ask",
            "--model",
            "user",
            "--adapter",
            "run/adapter",
            "user/photo.png",
            "What is this?",
            "--trace",
            "looks",
        ];
        let ran = place.run(&[&fixed[..], &["--steps", steps, "--json", "--no-looks"]].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        (ran.json()["usage"]["latent_steps"].clone(), ran.err.contains("halting head was not trained"))
    };
    assert_eq!(ask("auto"), (2.into(), true));
    let traced = fs::read_to_string(place.path().join("looks/trace.json")).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&traced).unwrap()["input"]["options"]["steps"],
        2,
        "the trace says what was done"
    );
    assert_eq!([ask("0"), ask("3")], [(0.into(), false), (3.into(), false)]);
    let told = place.run(&["inspect", "run/adapter"]);
    assert!(told.code == 0 && told.out.contains("`--steps auto` takes 2 steps"), "{}{}", told.out, told.err);
    // An adapter of an older form does not say it, and its head is the same zeros.
    let path = place.path().join("run/adapter/lare_config.json");
    let settings: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((&settings["version"], &settings["auto_steps"]), (&3.into(), &2.into()));
    let mut older = settings.clone();
    older["version"] = 2.into();
    older.as_object_mut().unwrap().remove("auto_steps");
    fs::write(&path, older.to_string()).unwrap();
    assert_eq!(ask("auto"), (4.into(), true), "as many as it can take");
    let mut wrong = settings;
    wrong["auto_steps"] = 9.into();
    fs::write(&path, wrong.to_string()).unwrap();
    let ran = place.run(&["inspect", "run/adapter"]);
    assert!(ran.code == 1 && ran.err.contains("`auto_steps`") && ran.err.contains("at most 4"), "{}", ran.err);
}

#[test]
fn a_pretrained_model_is_measured_as_it_is_asked() {
    let place = Place::new();
    train_without_halting(&place);
    let eval = |more: &[&str]| {
        let ran = place.run(&[&["eval", "--model", "user", "--tasks", "read,hop", "--count", "2"], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran
    };
    let lines = |folder: &str| -> Vec<Value> {
        let text = fs::read_to_string(place.path().join(folder).join("items.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let adapted = ["--adapter", "run/adapter", "--max-tokens", "6"];
    let ran = eval(&[&adapted[..], &["--causal", "--keep", "2", "--out", "adapted"]].concat());
    assert!(ran.err.contains("halting head was not trained"), "{}", ran.err);
    let items = lines("adapted");
    assert_eq!(items.len(), 4);
    for (number, item) in (1..).zip(&items) {
        assert_eq!(item["usage"]["latent_steps"], 2, "{item}");
        let tried = item["replaced"].as_array().unwrap().len();
        assert!(tried >= 9 && !item["hits"].as_array().unwrap().is_empty(), "{item}");
        let picture = format!("adapted/traces/{number}/picture.png");
        let ask =
            [&["ask", "--model", "user"], &adapted[..], &["--no-looks", &picture, item["prompt"].as_str().unwrap()]];
        let asked = place.run(&ask.concat());
        assert_eq!(asked.out.trim_end(), item["said"].as_str().unwrap().trim_end(), "{}", asked.err);
    }
    let trace = fs::read_to_string(place.path().join("adapted/traces/1/trace.json")).unwrap();
    let trace: Value = serde_json::from_str(&trace).unwrap();
    assert_eq!(trace["model"]["name"], "user");
    let told = place.run(&["report", "adapted", "--out", "told"]);
    assert_eq!(told.code, 0, "{}", told.err);

    eval(&["--max-tokens", "6", "--dtype", "q8_0", "--out", "published"]);
    assert!(lines("published").iter().all(|item| item["usage"]["latent_steps"] == 0 && item["said"].is_string()));
    let settings = fs::read_to_string(place.path().join("published/settings.json")).unwrap();
    let settings: Value = serde_json::from_str(&settings).unwrap();
    let [dtype, tokens, steps] = ["dtype", "max_tokens", "steps"].map(|field| settings[field].clone());
    assert_eq!((dtype, tokens, steps), ("q8_0".into(), 6.into(), 0.into()));
    let ran = place.run(&["eval", "--dtype", "bf16", "--model", "told"]);
    assert!(ran.code == 2 && ran.err.contains("--dtype"), "{}", ran.err);
}

#[test]
fn the_looks_of_a_pretrained_model_are_traced_and_drawn() {
    for (family, columns_per_row) in [("qwen2_5_vl", 2.0), ("qwen3_vl", 2.0), ("smolvlm", 2.0)] {
        let place = Place::new();
        user_folder(family, &place.path().join("user"));
        write_adapter(&place.path().join("user"), &place.path().join("adapter"));
        let more = ["--adapter", "adapter", "--json", "--steps", "2", "--trace", "looks", "--looks", "all.png"];
        let ran = ask(&place, family, &more);
        assert_eq!(ran.code, 0, "{family}: {}", ran.err);
        let told = ran.json();
        assert_eq!(told["files"], serde_json::json!({ "looks": "all.png", "trace": "looks" }), "{family}");
        let record = fs::read_to_string(place.path().join("looks/trace.json")).unwrap();
        let record = lare_trace::Record::from_json(&record).unwrap();
        let (grid, input) = (record.grid, &record.input);
        // The photo is about twice as wide as it is high, and the grid reaches its edges.
        assert!((grid.cols as f32 * grid.cell_px_x - input.width as f32).abs() < 0.5, "{family}: {grid:?}");
        assert!((grid.rows as f32 * grid.cell_px_y - input.height as f32).abs() < 0.5, "{family}: {grid:?}");
        let shape = grid.cols as f32 / grid.rows as f32;
        assert!((shape - columns_per_row).abs() < 0.6, "{family}: {grid:?}");
        assert_eq!(record.model.name, "owner/tiny");
        assert_eq!(record.steps.len(), 2);
        for (step, thought) in record.steps.iter().zip(told["steps"].as_array().unwrap()) {
            // A token of SmolVLM's view of the whole has no cell of its own where all under it are listed.
            let (read, least) = (step.selected.len(), if family == "smolvlm" { 1 } else { 3 });
            assert!((least..=3).contains(&read) && step.nearest_words.len() == 5, "{family}: {step:?}");
            assert_eq!(thought["nearest_words"].as_array().unwrap().len(), 5);
        }
        for file in ["looks/step-1.png", "looks/step-2.png", "looks/looks.gif", "looks/index.html", "all.png"] {
            assert!(place.path().join(file).is_file(), "{family}: {file}");
        }
        let ran = place.run(&["report", "looks", "--picture", "user/photo.png", "--out", "again"]);
        assert_eq!(ran.code, 0, "{family}: {}", ran.err);
    }
}

#[test]
fn an_adapter_is_inspected_and_tried_on_a_base() {
    let place = Place::new();
    user_folder("qwen2_5_vl", &place.path().join("user"));
    user_folder("smolvlm", &place.path().join("other"));
    write_adapter(&place.path().join("user"), &place.path().join("adapter"));
    let ran = place.run(&["inspect", "adapter", "--tensors"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for part in ["base        owner/tiny (qwen2_5_vl)", "2 matrices of rank 2", "at most 4 steps", "refocus.", "lora_a"]
    {
        assert!(ran.out.contains(part), "{part} in {}", ran.out);
    }
    assert!(!ran.out.contains("fits"), "{}", ran.out);
    let ran = place.run(&["inspect", "adapter", "--model", "user", "--json"]);
    let told = ran.json();
    assert_eq!((ran.code, &told["fits"], &told["changed_matrices"]), (0, &true.into(), &2.into()), "{}", ran.err);
    assert_eq!(told["settings"]["base"]["name"], "owner/tiny");
    let ran = place.run(&["inspect", "adapter", "--model", "other"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("fits        no") && ran.err.contains("other (smolvlm)"), "{}{}", ran.out, ran.err);
    fs::write(place.path().join("adapter/lare.safetensors"), [0; 40]).unwrap();
    let ran = place.run(&["inspect", "adapter"]);
    assert_eq!((ran.code, ran.out.contains("reads       no")), (1, true), "{}", ran.out);
    let ran = place.run(&["inspect", "user", "--model", "user"]);
    assert!(ran.code == 2 && ran.err.contains("the base that an adapter is tried on"), "{}", ran.err);
}

#[test]
fn a_dump_with_an_adapter_has_its_low_rank_changes() {
    let place = Place::new();
    user_folder("qwen2_5_vl", &place.path().join("user"));
    write_adapter(&place.path().join("user"), &place.path().join("adapter"));
    let merge = ["merge", "--model", "user", "--adapter", "adapter", "--out", "merged"];
    assert_eq!(place.run(&merge).code, 0);
    let logits = |model: &str, more: &[&str]| -> Vec<f32> {
        let fixed =
            ["dump", "--model", model, "--image", "user/photo.png", "--prompt", "What is this?", "--out", "out"];
        let ran = place.run(&[&fixed, more].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let file = fs::read(place.path().join("out")).unwrap();
        let logits = safetensors::SafeTensors::deserialize(&file).unwrap();
        let logits = logits.tensor("logits").unwrap();
        logits.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let (plain, adapted) = (logits("user", &[]), logits("user", &["--adapter", "adapter"]));
    let merged = logits("merged", &[]);
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |far, (a, b)| far.max((a - b).abs()));
    // The merged matrices were rounded to bf16 again.
    assert!(
        far(&adapted, &plain) > 10.0 * far(&adapted, &merged),
        "{} {}",
        far(&adapted, &plain),
        far(&adapted, &merged)
    );
    let ran = place.run(&["dump", "--model", "user", "--ids", "1,2", "--adapter", "user", "--out", "out"]);
    assert!(ran.code == 2 && ran.err.contains("lare_config.json"), "{}", ran.err);
}

#[test]
fn an_adapter_of_another_base_is_refused_with_both_names() {
    let place = Place::new();
    user_folder("qwen2_5_vl", &place.path().join("base"));
    write_adapter(&place.path().join("base"), &place.path().join("adapter"));
    let ran = ask(&place, "smolvlm", &["--adapter", "adapter"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    for part in ["owner/tiny (qwen2_5_vl)", "user (smolvlm)", "hint: pass the folder of owner/tiny"] {
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
    let ran = ask(&place, "smolvlm", &["--adapter", "base"]);
    assert!(ran.code == 2 && ran.err.contains("lare_config.json"), "{}", ran.err);
}

#[test]
fn a_merged_folder_loads_and_answers_as_base_and_adapter_did() {
    let place = Place::new();
    user_folder("qwen2_5_vl", &place.path().join("user"));
    write_adapter(&place.path().join("user"), &place.path().join("adapter"));
    let merge = ["merge", "--model", "user", "--adapter", "adapter", "--out", "merged"];
    let ran = place.run(&merge);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with("merged with ") && ran.out.contains("matri"), "{}", ran.out);
    let answer = |model: &str, adapter: &[&str]| {
        let fixed = ["ask", "--model", model, "user/photo.png", "What is this?", "--max-tokens", "12", "--json"];
        let ran = place.run(&[&fixed, adapter].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.json()["answer"].clone()
    };
    let thinks = |model, adapter| answer(model, &["--adapter", adapter, "--steps", "2"]);
    assert_eq!(thinks("merged", "merged"), thinks("user", "adapter"));
    assert_eq!(answer("merged", &[]), answer("user", &["--adapter", "adapter", "--steps", "0"]));
    let ran = place.run(&merge);
    assert_eq!((ran.code, ran.err.contains("it exists")), (2, true), "{}", ran.err);
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
