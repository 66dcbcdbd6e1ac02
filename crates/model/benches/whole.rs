//! A whole language model with latent steps, in the shape of Qwen2.5-1.5B: prefill, text tokens, latent steps.
//!
//! `cargo bench -p lare-model --bench whole`, names of formats after `--` for those alone. Weights are random, in a folder of
//! 3.3 GB that is made for it and removed. The eyes are Qwen2.5-VL's in width and have one block: what they see is looked at again,
//! how long they take is not measured here. Text tokens count with their logits, latent steps with the halting head; both take
//! turns behind the same picture, and medians are printed. `tools/bench/language_models.sh` puts llama.cpp and PyTorch beside it.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/weights/mod.rs"]
mod weights;

use candle_core::{Device, Tensor};
use lare_model::adapter::{Base, Settings, write};
use lare_model::config::{Choice, Memory, Refocus, Scorer, Thinking};
use lare_model::conversation::{Change, pass};
use lare_model::pretrained::{PatchGrid, Pixels, Pretrained, Text};
use lare_model::{Adapter, Conversation, Format, Given, Ground, Path, Refocused, Turn};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path as Folder;
use std::sync::Arc;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WIDTH: usize = 1536;
const HEADS: usize = 12;
const KV_HEADS: usize = 2;
const HEAD_WIDTH: usize = 128;
const HIDDEN: usize = 8960;
const VOCABULARY: usize = 151_936;
const LAYERS: usize = 28;
const EYES: usize = 1280;
const EYES_HIDDEN: usize = 3420;
const PATCH: usize = 14;
const IMAGE: u32 = 151_655;
const BEGIN: u32 = 151_652;
const END: u32 = 151_653;

/// Tokens of the prompt without a picture, and of the text behind it.
const PREFILL: usize = 64;
const DECODE: usize = 32;
/// Side of the picture in image tokens, and words behind it.
const SIDE: usize = 16;
const ASKED: usize = 16;
const ROUNDS: usize = 5;
/// Latent steps of one question.
const STEPS: usize = 8;

const FORMATS: [(&str, Format); 5] =
    [("f32", Format::F32), ("bf16", Format::Bf16), ("f16", Format::F16), ("q8_0", Format::Q8_0), ("q4_k", Format::Q4K)];

fn config() -> Value {
    json!({
        "model_type": "qwen2_5_vl", "tie_word_embeddings": true, "dtype": "bfloat16",
        "image_token_id": IMAGE, "video_token_id": IMAGE + 1, "vision_start_token_id": BEGIN, "vision_end_token_id": END,
        "text_config": {
            "model_type": "qwen2_5_vl_text", "hidden_act": "silu", "hidden_size": WIDTH, "intermediate_size": HIDDEN,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
            "layer_types": vec!["full_attention"; LAYERS], "max_position_embeddings": 4096, "max_window_layers": LAYERS,
            "rms_norm_eps": 1e-6, "sliding_window": null, "use_sliding_window": false, "vocab_size": VOCABULARY,
            "rope_parameters": { "mrope_section": [16, 24, 24], "rope_theta": 1e6, "rope_type": "default" },
        },
        "vision_config": {
            "model_type": "qwen2_5_vl_vision", "hidden_act": "silu", "depth": 1, "fullatt_block_indexes": [0],
            "hidden_size": EYES, "intermediate_size": EYES_HIDDEN, "num_heads": 16, "in_channels": 3, "patch_size": PATCH,
            "out_hidden_size": WIDTH, "spatial_merge_size": 2, "temporal_patch_size": 2, "tokens_per_second": 2,
            "window_size": 112, "rope_parameters": { "rope_theta": 1e4, "rope_type": "axial" },
        },
    })
}

/// Names and shapes of all weights.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, WIDTH])];
    for layer in 0..LAYERS {
        let mut put = |name: &str, shape: &[usize]| all.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
        for (name, heads) in [("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)] {
            put(&format!("self_attn.{name}_proj.weight"), &[heads * HEAD_WIDTH, WIDTH]);
            put(&format!("self_attn.{name}_proj.bias"), &[heads * HEAD_WIDTH]);
        }
        put("self_attn.o_proj.weight", &[WIDTH, HEADS * HEAD_WIDTH]);
        put("mlp.gate_proj.weight", &[HIDDEN, WIDTH]);
        put("mlp.up_proj.weight", &[HIDDEN, WIDTH]);
        put("mlp.down_proj.weight", &[WIDTH, HIDDEN]);
        put("input_layernorm.weight", &[WIDTH]);
        put("post_attention_layernorm.weight", &[WIDTH]);
    }
    let mut put = |name: &str, shape: &[usize]| all.push((name.to_owned(), shape.to_vec()));
    put("model.norm.weight", &[WIDTH]);
    put("visual.patch_embed.proj.weight", &[EYES, 3, 2, PATCH, PATCH]);
    let block = [
        ("attn.qkv", 3 * EYES, EYES),
        ("attn.proj", EYES, EYES),
        ("mlp.gate_proj", EYES_HIDDEN, EYES),
        ("mlp.up_proj", EYES_HIDDEN, EYES),
        ("mlp.down_proj", EYES, EYES_HIDDEN),
    ];
    for (name, rows, cols) in block {
        put(&format!("visual.blocks.0.{name}.weight"), &[rows, cols]);
        put(&format!("visual.blocks.0.{name}.bias"), &[rows]);
    }
    put("visual.blocks.0.norm1.weight", &[EYES]);
    put("visual.blocks.0.norm2.weight", &[EYES]);
    put("visual.merger.ln_q.weight", &[EYES]);
    put("visual.merger.mlp.0.weight", &[4 * EYES, 4 * EYES]);
    put("visual.merger.mlp.0.bias", &[4 * EYES]);
    put("visual.merger.mlp.2.weight", &[WIDTH, 4 * EYES]);
    put("visual.merger.mlp.2.bias", &[WIDTH]);
    all
}

/// The bytes of bf16 numbers.
fn bf16(numbers: impl Iterator<Item = f32>) -> Vec<u8> {
    numbers.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect()
}

/// A folder as users have it, of one block of random numbers again and again.
fn write_base(folder: &Folder) -> std::io::Result<()> {
    fs::write(folder.join("config.json"), config().to_string())?;
    let tensors = tensors();
    let (mut header, mut at) = (Map::new(), 0);
    for (name, shape) in &tensors {
        let end = at + 2 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({ "dtype": "BF16", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut out = BufWriter::new(File::create(folder.join("model.safetensors"))?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    // An odd number of them, so that rows do not repeat each other.
    let block = bf16(weights::noise(7, 1_048_573).into_iter().map(|x| x * 0.02));
    let mut place = 0;
    for (name, shape) in tensors {
        if let [rows] = shape[..] {
            let number = if name.ends_with("bias") { 0.0 } else { 1.0 };
            out.write_all(&bf16(std::iter::repeat_n(number, rows)))?;
            continue;
        }
        let mut left = 2 * shape.iter().product::<usize>();
        while left > 0 {
            let part = &block[place..block.len().min(place + left)];
            out.write_all(part)?;
            left -= part.len();
            place = (place + part.len()) % block.len();
        }
    }
    out.flush()?;
    read_again(out.get_ref())
}

/// Has the system forget what it holds of a file that was just written, and read it from the disk when it is mapped, as with
/// weights that were fetched another day. What was written lies in its memory in small pieces, what was read mostly in pages
/// of 2 MB, from which bf16, which is not copied, decodes faster (EXPERIMENTS.md).
#[cfg_attr(not(target_os = "linux"), expect(clippy::unnecessary_wraps, reason = "only Linux can be told"))]
fn read_again(file: &File) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        file.sync_all()?;
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
    Ok(())
}

/// As configs/qwen2_5_vl-3b-lora.toml has it, at this width.
fn settings() -> Refocus {
    Refocus {
        thinking: Thinking::Refocus,
        choice: Choice::Best,
        scorer: Scorer::MeanAttention,
        memory: Memory::Fine,
        patches: 32,
        exclude_earlier: false,
        revisit: true,
        bias: true,
        gate: true,
        max_steps: STEPS,
        blocks: 2,
        heads: 12,
        feed_forward: 2 * WIDTH,
    }
}

/// Makes both folders, of the base and of its adapter.
fn write_folders(base: &Folder, adapter: &Folder) {
    write_base(base).unwrap();
    let source = weights::Weights::new("", 0);
    Refocused::new(Pretrained::from_folder(base, None).unwrap(), &settings(), Path::root(&source)).unwrap();
    let of = Settings::new(Base::of(base, "random").unwrap(), settings(), None, None);
    write(adapter, &of, &source.values()).unwrap();
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn seconds(run: impl FnOnce()) -> f64 {
    let started = Instant::now();
    run();
    started.elapsed().as_secs_f64()
}

/// Feeds back a word, and computes the logits of the next one.
fn say(model: &Refocused, talk: &mut Conversation, word: u32) -> u32 {
    let decoder = &model.base.language;
    pass(decoder, Some(&model.refocus), &mut [Turn { of: talk, given: Given::Words(&[word]) }]).unwrap();
    let logits = decoder.logits(talk.hidden().unwrap()).unwrap();
    logits.argmax(1).unwrap().to_vec1::<u32>().unwrap()[0]
}

/// Takes a latent step, and asks the halting head.
fn step(model: &Refocused, talk: &mut Conversation) -> f32 {
    let given = Given::Step(Change::default());
    pass(&model.base.language, Some(&model.refocus), &mut [Turn { of: talk, given }]).unwrap();
    model.refocus.halt_logits(talk.hidden().unwrap()).unwrap().to_vec1::<f32>().unwrap()[0]
}

fn conversation(model: &Refocused, ground: &Arc<Ground>, own: &[u32]) -> Conversation {
    let decoder = &model.base.language;
    let slab = decoder.slab(own.len() + 2 * DECODE + 2, &Device::Cpu).unwrap();
    let mut talk = Conversation::new(ground.clone(), slab).unwrap();
    pass(decoder, Some(&model.refocus), &mut [Turn { of: &mut talk, given: Given::Words(own) }]).unwrap();
    talk
}

/// A picture that was looked at.
fn scene(model: &Refocused) -> Arc<Ground> {
    let (rows, pixels) = (2 * SIDE, 3 * 2 * PATCH * PATCH);
    let values =
        Tensor::from_vec(weights::noise(3, rows * rows * pixels), (rows * rows, pixels), &Device::Cpu).unwrap();
    let picture = model.base.encode(&Pixels::Patches { values, grid: PatchGrid { rows, cols: rows } }, &()).unwrap();
    let ids = [vec![BEGIN], vec![IMAGE; SIDE * SIDE]].concat();
    Arc::new(Ground::Scene(model.look(&[Text { ids: &ids, pictures: &[picture] }]).unwrap()))
}

fn measure(name: &str, format: Format, base: &Folder, adapter: &Folder) {
    let model = Refocused::from_folder(base, Some(format), &Adapter::open(adapter).unwrap()).unwrap();
    let words: Vec<u32> = (0..PREFILL as u32).map(|i| 1000 + 37 * i).collect();
    let read = || model.base.open(&[Text { ids: &words, pictures: &[] }], &()).unwrap();
    let alone = Arc::new(Ground::Prefix(read()));
    let prefill = median((0..ROUNDS).map(|_| seconds(|| drop(read()))).collect());

    let mut talk = conversation(&model, &alone, &words[..1]);
    let mut word = say(&model, &mut talk, words[1]);
    let decode = seconds(|| (0..DECODE).for_each(|_| word = say(&model, &mut talk, word))) / DECODE as f64;

    let (ground, own) = (scene(&model), [&[END], &words[..ASKED]].concat());
    let [mut thinking, mut saying, mut feeding] = [(); 3].map(|()| conversation(&model, &ground, &own));
    let (mut steps, mut tokens, mut fed) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..DECODE {
        // Earlier thoughts are queries of a step: it is measured with as many as questions have.
        if number % STEPS == 0 {
            thinking = conversation(&model, &ground, &own);
        }
        steps.push(seconds(|| _ = step(&model, &mut thinking)));
        tokens.push(seconds(|| word = say(&model, &mut saying, word)));
        let given = Given::Words(std::slice::from_ref(&word));
        let turn = Turn { of: &mut feeding, given };
        fed.push(seconds(|| _ = pass(&model.base.language, Some(&model.refocus), &mut [turn]).unwrap()));
    }
    let [step, token, fed] = [steps, tokens, fed].map(|times| 1e3 * median(times));
    println!(
        "{name:5} prefill {:6.1} tokens/s  decode {:5.1} tokens/s  latent step {step:6.1} ms  text token {token:6.1} ms, \
         without its logits {fed:6.1}  step / token {:.2}, {:.2}",
        PREFILL as f64 / prefill,
        1.0 / decode,
        step / token,
        step / fed
    );
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (base, adapter) = (place.path().join("base"), place.path().join("adapter"));
    fs::create_dir(&base).unwrap();
    write_folders(&base, &adapter);
    let threads = rayon::current_num_threads();
    println!(
        "{threads} threads, {PREFILL} tokens read, {DECODE} said; then behind a picture of {} tokens",
        SIDE * SIDE
    );
    for (name, format) in FORMATS.into_iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|a| a == name)) {
        measure(name, format, &base, &adapter);
    }
}
