//! Folders that do not hold what they should: each is refused with the file, the tensor or field, and a way out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use candle_core::{Device, Tensor};
use lare_kernels::Format;
use lare_model::pretrained::{Pretrained, Text};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/families").join(family)
}

fn copy(family: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", WHOLE] {
        std::fs::copy(fixture(family).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

fn tensors(folder: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder.join(WHOLE), &Device::Cpu).unwrap()
}

/// Splits the weights into two shards with an index, and gives the index.
fn shard(folder: &Path) -> Value {
    let mut names: Vec<(String, Tensor)> = tensors(folder).into_iter().collect();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    let half = names.len() / 2;
    let mut map = serde_json::Map::new();
    for (number, part) in [&names[..half], &names[half..]].into_iter().enumerate() {
        let file = format!("model-0000{}-of-00002.safetensors", number + 1);
        let part: HashMap<String, Tensor> = part.iter().cloned().collect();
        candle_core::safetensors::save(&part, folder.join(&file)).unwrap();
        map.extend(part.keys().map(|name| (name.clone(), json!(file))));
    }
    std::fs::remove_file(folder.join(WHOLE)).unwrap();
    let index = json!({"metadata": {}, "weight_map": map});
    std::fs::write(folder.join(INDEX), index.to_string()).unwrap();
    index
}

fn refusal(folder: &Path) -> String {
    Pretrained::from_folder(folder, None).unwrap_err().to_string()
}

/// The last hidden states of some words.
fn hidden(model: &Pretrained) -> Vec<f32> {
    let prefix = model.open(&[Text { ids: &[70, 90, 64, 100], pictures: &[] }], &()).unwrap();
    prefix.hidden.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_folder_that_lacks_a_file_says_which() {
    let folder = copy("llama");
    std::fs::remove_file(folder.path().join(WHOLE)).unwrap();
    let message = refusal(folder.path());
    assert!(message.contains(WHOLE) && message.contains(INDEX), "{message}");
    let folder = copy("llama");
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(refusal(folder.path()).contains("config.json"));
}

#[test]
fn a_missing_shard_is_named() {
    let folder = copy("llama");
    shard(folder.path());
    let lost = "model-00002-of-00002.safetensors";
    std::fs::remove_file(folder.path().join(lost)).unwrap();
    let message = refusal(folder.path());
    assert!(message.contains(lost) && message.contains(INDEX), "{message}");
}

#[test]
fn an_index_that_does_not_tell_the_truth_is_refused() {
    let changed = |change: &dyn Fn(&mut Value)| {
        let folder = copy("llama");
        let mut index = shard(folder.path());
        change(&mut index);
        std::fs::write(folder.path().join(INDEX), index.to_string()).unwrap();
        refusal(folder.path())
    };
    let message =
        changed(&|index| index["weight_map"]["model.layers.9.extra"] = json!("model-00001-of-00002.safetensors"));
    assert!(message.contains("misplaces `model.layers.9.extra`"), "{message}");
    assert!(message.contains("expected  in model-00001-of-00002.safetensors"), "{message}");
    assert!(message.contains("got       in none of its files"), "{message}");
    let message = changed(&|index| index["weight_map"]["model.norm.weight"] = json!("../model.safetensors"));
    assert!(message.contains("places `model.norm.weight` outside its folder"), "{message}");
    assert!(message.contains("\"../model.safetensors\"") && message.contains(INDEX), "{message}");
    let message = changed(&|index| index["weight_map"]["model.norm.weight"] = json!(2));
    assert!(message.contains("got       2"), "{message}");
    let message = changed(&|index| *index = json!({"metadata": {}}));
    assert!(message.contains("`weight_map`") && message.contains("got       [\"metadata\"]"), "{message}");
    let message = changed(&|index| *index = json!("cut"));
    assert!(message.contains("got       no object"), "{message}");
}

#[test]
fn a_file_that_was_cut_short_is_refused_before_anything_is_computed() {
    let folder = copy("smolvlm");
    let path = folder.path().join(WHOLE);
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let message = refusal(folder.path());
        assert!(
            message.contains("not a whole safetensors file") || message.contains("cannot read"),
            "{length}: {message}"
        );
    }
}

#[test]
fn a_tensor_of_another_shape_or_name_or_type_is_named() {
    let folder = copy("qwen3_vl");
    edit(folder.path(), |config| config["text_config"]["intermediate_size"] = json!(66));
    let message = refusal(folder.path());
    assert!(
        message.contains("mlp.gate_proj.weight") && message.contains("[66, 48]") && message.contains("[64, 48]"),
        "{message}"
    );

    let folder = copy("qwen3_vl");
    let mut all = tensors(folder.path());
    let moved = all.remove("model.visual.merger.norm.weight").unwrap();
    all.insert("model.visual.merger.norm.wait".into(), moved);
    candle_core::safetensors::save(&all, folder.path().join(WHOLE)).unwrap();
    let message = refusal(folder.path());
    assert!(message.contains("`model.visual.merger.norm.weight` is missing"), "{message}");
    assert!(message.contains("nearest   `model.visual.merger.norm.wait`"), "{message}");

    let folder = copy("llama");
    let mut all = tensors(folder.path());
    all.insert("model.norm.weight".into(), Tensor::zeros(48, candle_core::DType::I64, &Device::Cpu).unwrap());
    candle_core::safetensors::save(&all, folder.path().join(WHOLE)).unwrap();
    let message = refusal(folder.path());
    assert!(message.contains("model.norm.weight") && message.contains("I64"), "{message}");
}

#[test]
fn a_config_that_lacks_a_field_or_asks_for_what_is_not_computed_is_refused_by_field() {
    type Change = fn(&mut Value);
    let cases: [(&str, &str, Change); 12] = [
        ("qwen2_5_vl", "`model_type`", |c| c["model_type"] = json!("qwen2_audio")),
        ("qwen2_5_vl", "`vision_config`", |c| _ = c.as_object_mut().unwrap().remove("vision_config")),
        ("qwen2_5_vl", "`image_token_id`", |c| _ = c.as_object_mut().unwrap().remove("image_token_id")),
        ("qwen2_5_vl", "`text_config.rms_norm_eps`", |c| c["text_config"]["rms_norm_eps"] = Value::Null),
        ("qwen2_5_vl", "`text_config.use_sliding_window`", |c| c["text_config"]["use_sliding_window"] = json!(true)),
        ("qwen2_5_vl", "`vision_config.window_size`", |c| c["vision_config"]["window_size"] = json!("16")),
        ("qwen2_5_vl", "mrope_section", |c| c["text_config"]["rope_parameters"]["mrope_section"] = json!([1, 2, 4])),
        ("qwen3_vl", "`text_config.head_dim`", |c| c["text_config"]["head_dim"] = Value::Null),
        ("qwen3_vl", "deepstack_visual_indexes", |c| c["vision_config"]["deepstack_visual_indexes"] = json!([7])),
        ("smolvlm", "`vision_config.image_size`", |c| c["vision_config"]["image_size"] = json!(20)),
        ("llama", "`attention_bias`", |c| c["attention_bias"] = json!(true)),
        ("llama", "rope_type", |c| c["rope_parameters"]["rope_type"] = json!("yarn")),
    ];
    for (family, field, change) in cases {
        let folder = copy(family);
        edit(folder.path(), change);
        let message = refusal(folder.path());
        assert!(message.contains(field) && message.contains("config.json"), "{field}: {message}");
        assert!(message.contains("expected") && message.contains("hint:"), "{field}: {message}");
    }
}

#[test]
fn sizes_that_no_model_has_are_refused_by_field_before_memory_is_taken_for_them() {
    let huge = [json!(1u64 << 23), json!(1u64 << 40), json!(u64::MAX), json!(-1), json!(0), json!(1e300)];
    let fields = [
        ("llama", "", "num_hidden_layers"),
        ("llama", "", "hidden_size"),
        ("llama", "", "num_attention_heads"),
        ("llama", "", "num_key_value_heads"),
        ("llama", "", "head_dim"),
        ("llama", "", "intermediate_size"),
        ("llama", "", "vocab_size"),
        ("qwen2_5_vl", "text_config", "num_hidden_layers"),
        ("qwen2_5_vl", "vision_config", "depth"),
        ("qwen2_5_vl", "vision_config", "hidden_size"),
        ("qwen2_5_vl", "vision_config", "num_heads"),
        ("qwen2_5_vl", "vision_config", "patch_size"),
        ("qwen2_5_vl", "vision_config", "window_size"),
        ("qwen2_5_vl", "vision_config", "temporal_patch_size"),
        ("qwen3_vl", "text_config", "head_dim"),
        ("qwen3_vl", "vision_config", "depth"),
        ("qwen3_vl", "vision_config", "intermediate_size"),
        ("qwen3_vl", "vision_config", "spatial_merge_size"),
        ("smolvlm", "text_config", "num_hidden_layers"),
        ("smolvlm", "vision_config", "num_hidden_layers"),
        ("smolvlm", "vision_config", "image_size"),
        ("smolvlm", "vision_config", "num_channels"),
        ("smolvlm", "", "scale_factor"),
    ];
    for (family, table, field) in fields {
        let folder = copy(family);
        for size in &huge {
            let part = |c: &mut Value| {
                let table = if table.is_empty() { c } else { &mut c[table] };
                table[field] = size.clone();
            };
            edit(folder.path(), part);
            let message = refusal(folder.path());
            let named = if table.is_empty() { format!("`{field}`") } else { format!("`{table}.{field}`") };
            assert!(message.contains(&named) && message.contains("from 1 to"), "{field} of {size}: {message}");
        }
    }
    let folder = copy("qwen2_5_vl");
    edit(folder.path(), |c| c["text_config"]["rope_parameters"]["mrope_section"] = json!([u64::MAX, u64::MAX, 2]));
    assert!(refusal(folder.path()).contains("mrope_section"));
    let folder = copy("qwen2_5_vl");
    edit(folder.path(), |c| c["image_token_id"] = json!(1u64 << 40));
    assert!(refusal(folder.path()).contains("the number of a token"));
}

#[test]
fn shards_load_as_the_whole() {
    let folder = copy("llama");
    let whole = hidden(&Pretrained::from_folder(folder.path(), None).unwrap());
    shard(folder.path());
    assert_eq!(whole, hidden(&Pretrained::from_folder(folder.path(), None).unwrap()));
}

#[test]
fn matrices_can_be_converted_while_they_are_loaded() {
    let model = |format| Pretrained::from_folder(&fixture("llama"), format).unwrap();
    let exact = hidden(&model(None));
    let most = exact.iter().fold(0f32, |most, x| most.max(x.abs()));
    let far = |format| {
        let got = hidden(&model(Some(format)));
        exact.iter().zip(got).fold(0f32, |far, (e, g)| far.max((e - g).abs())) / most
    };
    assert_eq!(far(Format::F32), 0.0);
    let (half, brain) = (far(Format::F16), far(Format::Bf16));
    assert!(half > 0.0 && half < 0.01, "{half}");
    assert!(brain > half && brain < 0.05, "{brain}");
}

#[test]
fn a_head_that_is_stored_although_the_config_says_tied_is_used() {
    let folder = copy("llama");
    let tied = hidden(&Pretrained::from_folder(folder.path(), None).unwrap());
    let mut all = tensors(folder.path());
    let embedding = all["model.embed_tokens.weight"].clone();
    all.insert("lm_head.weight".into(), (embedding * 2.0).unwrap());
    candle_core::safetensors::save(&all, folder.path().join(WHOLE)).unwrap();
    let model = Pretrained::from_folder(folder.path(), None).unwrap();
    assert!(!model.architecture.language.tied && model.unused.is_empty());
    assert_eq!(tied, hidden(&model));
}
