//! GGUF files: what transformers computes from the same weights (tools/reference/gguf_models.py), and files that are refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use candle_core::Tensor;
use lare_model::Format;
use lare_model::decoder::Rows;
use lare_model::pretrained::gguf::{Gguf, is_gguf};
use lare_model::pretrained::{Pretrained, Text};
use std::path::{Path, PathBuf};

/// Largest error over the largest logit.
const TOLERANCE: f32 = 1e-4;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf").join(name)
}

fn golden(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Logits behind all of `ids` but those of the first, `[T - 1, V]`, and what greedy decoding appends.
fn said(model: &Pretrained, ids: &[u32], count: usize) -> (Tensor, Vec<u32>) {
    let (first, own) = ids.split_at(1);
    let prefix = model.open(&[Text { ids: first, pictures: &[] }], &()).unwrap();
    let mut cache = prefix.begin(vec![0].into());
    let run = model.go_on(&mut cache, &[own.to_vec()], Rows::None, &()).unwrap();
    let logits = model.language.logits(&run.hidden.squeeze(0).unwrap()).unwrap();
    let (rows, _) = logits.dims2().unwrap();
    let (mut last, mut said) = (logits.narrow(0, rows - 1, 1).unwrap(), Vec::new());
    while said.len() < count {
        let token = last.flatten_all().unwrap().argmax(0).unwrap().to_scalar::<u32>().unwrap();
        said.push(token);
        let run = model.go_on(&mut cache, &[vec![token]], Rows::None, &()).unwrap();
        last = model.language.logits(&run.hidden.squeeze(0).unwrap()).unwrap();
    }
    (logits, said)
}

#[test]
fn logits_and_greedy_text_are_the_reference_s() {
    for name in ["qwen2", "qwen3", "llama"] {
        let golden = golden(&format!("{name}.json"));
        let model = Pretrained::from_folder(&fixture(&format!("{name}.gguf")), Some(Format::F32)).unwrap();
        let (logits, said) = said(&model, &ids(&golden["ids"]), 64);
        assert_eq!(said, ids(&golden["greedy"]), "{name}");
        let expected: Vec<f32> = golden["logits"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|row| row.as_array().unwrap())
            .map(|x| x.as_f64().unwrap() as f32)
            .collect();
        let got: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
        let got = &got[got.len() - expected.len()..];
        let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        let far = expected.iter().zip(got).fold(0f32, |far, (e, g)| far.max((e - g).abs()));
        assert!(far <= TOLERANCE * most, "{name}: off by {far} of {most}");
    }
}

#[test]
fn as_it_is_stored_a_file_computes_nearly_the_same() {
    for name in ["qwen2", "qwen3", "llama"] {
        let ids = ids(&golden(&format!("{name}.json"))["ids"]);
        let logits = |format| -> Vec<f32> {
            let model = Pretrained::from_folder(&fixture(&format!("{name}.gguf")), format).unwrap();
            said(&model, &ids, 1).0.flatten_all().unwrap().to_vec1().unwrap()
        };
        let (exact, stored) = (logits(Some(Format::F32)), logits(None));
        let square = |of: &mut dyn Iterator<Item = f32>| of.map(|x| x * x).sum::<f32>().sqrt();
        let far = square(&mut exact.iter().zip(&stored).map(|(a, b)| a - b)) / square(&mut exact.iter().copied());
        // Products with stored weights round activations too.
        assert!(far < 0.03, "{name}: off by {far}");
    }
}

#[test]
fn what_a_file_takes_is_told() {
    let file = fixture("llama.gguf");
    let model = Pretrained::from_folder(&file, None).unwrap();
    let gguf = Gguf::open(&file).unwrap();
    let held = gguf.held(&model.architecture);
    let numbers = |name: &str| gguf.listed().iter().find(|t| t.name == name).unwrap().shape.iter().product::<usize>();
    // Of this file's matrices only ffn_up lies as it is used; queries and keys are put in another order.
    assert_eq!(held.mapped, numbers("blk.0.ffn_up.weight") / 256 * 144);
    let widened: Vec<&str> = held.widened.iter().map(|(name, _)| *name).collect();
    assert_eq!(widened.len(), 5, "{widened:?}");
    assert!(held.widened.iter().all(|(_, to)| *to == Format::F16) && !widened.contains(&"Q4_K"));
}

/// A file in parts, to be broken.
#[derive(Clone)]
struct Written {
    magic: [u8; 4],
    version: u32,
    tensor_count: Option<u64>,
    pair_count: Option<u64>,
    /// Key, type and bytes.
    pairs: Vec<(String, u32, Vec<u8>)>,
    /// Name, axes as in the file, type and offset.
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    data: usize,
}

const U32: u32 = 4;
const F32: u32 = 6;
const TEXT: u32 = 8;
const LIST: u32 = 9;

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Written {
    /// A whole model of the architecture `llama`, with numbers in F32 that are all 0.
    fn whole() -> Self {
        let mut pairs = vec![("general.architecture".to_owned(), TEXT, text("llama"))];
        let sizes =
            [("block_count", 1u32), ("context_length", 64), ("embedding_length", 8), ("feed_forward_length", 12)];
        let heads = [("attention.head_count", 2), ("attention.head_count_kv", 1)];
        for (key, size) in sizes.into_iter().chain(heads) {
            pairs.push((format!("llama.{key}"), U32, size.to_le_bytes().to_vec()));
        }
        pairs.push(("llama.attention.layer_norm_rms_epsilon".into(), F32, 1e-5f32.to_le_bytes().to_vec()));
        let mut whole = Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            pair_count: None,
            pairs,
            tensors: Vec::new(),
            data: 0,
        };
        for (name, shape) in [
            ("token_embd", vec![8, 5]),
            ("output_norm", vec![8]),
            ("blk.0.attn_norm", vec![8]),
            ("blk.0.attn_q", vec![8, 8]),
            ("blk.0.attn_k", vec![8, 4]),
            ("blk.0.attn_v", vec![8, 4]),
            ("blk.0.attn_output", vec![8, 8]),
            ("blk.0.ffn_norm", vec![8]),
            ("blk.0.ffn_gate", vec![8, 12]),
            ("blk.0.ffn_up", vec![8, 12]),
            ("blk.0.ffn_down", vec![12, 8]),
        ] {
            whole.add(&format!("{name}.weight"), shape);
        }
        whole
    }

    fn add(&mut self, name: &str, axes: Vec<u64>) {
        let bytes = axes.iter().product::<u64>() as usize * 4;
        self.tensors.push((name.into(), axes, 0, self.data as u64));
        self.data += bytes.next_multiple_of(32);
    }

    fn set(&mut self, key: &str, kind: u32, bytes: Vec<u8>) {
        self.pairs.retain(|(own, _, _)| own != key);
        self.pairs.push((key.into(), kind, bytes));
    }

    fn tensor(&mut self, name: &str) -> &mut (String, Vec<u64>, u32, u64) {
        self.tensors.iter_mut().find(|(own, ..)| own == name).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.pairs {
            bytes.extend([text(key), kind.to_le_bytes().to_vec(), value.clone()].concat());
        }
        for (name, axes, kind, offset) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((axes.len() as u32).to_le_bytes());
            axes.iter().for_each(|axis| bytes.extend(axis.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32) + self.data, 0);
        bytes
    }
}

/// Loads bytes as the file `model.gguf`.
fn load(bytes: &[u8]) -> Result<Pretrained, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Pretrained::from_folder(&path, None).map_err(|e| e.to_string().replace(&path.display().to_string(), "model.gguf"))
}

/// Names what is wrong, a change that makes it so, and words that the message must have.
type Fault = (&'static str, fn(&mut Written), &'static [&'static str]);

const FAULTS: &[Fault] = &[
    ("another file", |f| f.magic = *b"PK\x03\x04", &["is not a GGUF file", "`PK\\x03\\x04`"]),
    ("version 1", |f| f.version = 1, &["version 1", "version 2 or 3"]),
    ("the other byte order", |f| f.version = 3u32.swap_bytes(), &["little-endian"]),
    ("more values than bytes", |f| f.pair_count = Some(u64::MAX), &["ends before what it announces"]),
    ("more tensors than bytes", |f| f.tensor_count = Some(1 << 40), &["ends before what it announces"]),
    ("one value too many", |f| f.pair_count = Some(f.pairs.len() as u64 + 1), &["model.gguf"]),
    (
        "a list without an end",
        |f| f.set("x", LIST, [&U32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat()),
        &["ends within its header"],
    ),
    ("a text without an end", |f| f.set("x", TEXT, u64::MAX.to_le_bytes().to_vec()), &["ends within its header"]),
    (
        "lists within lists",
        |f| {
            let list = [&LIST.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
            f.set("x", LIST, list.repeat(40));
        },
        &["unreadable `x`", "deep"],
    ),
    ("a value of no type", |f| f.set("x", 77, vec![0; 8]), &["unreadable `x`", "type 77"]),
    ("an alignment of 0", |f| f.set("general.alignment", U32, vec![0; 4]), &["`general.alignment`", "a power of two"]),
    ("no architecture", |f| drop(f.pairs.remove(0)), &["`general.architecture`", "got       nothing"]),
    (
        "another architecture",
        |f| f.set("general.architecture", TEXT, text("mamba")),
        &["llama, qwen2 or qwen3", "\"mamba\""],
    ),
    (
        "a missing size",
        |f| f.pairs.retain(|(key, _, _)| key != "llama.block_count"),
        &["`llama.block_count` in model.gguf", "got       nothing"],
    ),
    ("a text for a size", |f| f.set("llama.block_count", TEXT, text("one")), &["`llama.block_count`", "\"one\""]),
    (
        "layers without end",
        |f| f.set("llama.block_count", U32, vec![0xff; 4]),
        &["`llama.block_count`", "from 1 to 16777216"],
    ),
    (
        "more layers than tensors",
        |f| f.set("llama.block_count", U32, (1u32 << 20).to_le_bytes().to_vec()),
        &["`llama.block_count`", "at most 11, the tensors of the file"],
    ),
    (
        "heads that do not divide",
        |f| f.set("llama.attention.head_count_kv", U32, 3u32.to_le_bytes().to_vec()),
        &["`llama.attention.head_count_kv`", "a divisor of 2"],
    ),
    (
        "values of another width",
        |f| f.set("llama.attention.value_length", U32, 2u32.to_le_bytes().to_vec()),
        &["`llama.attention.value_length`", "expected  4"],
    ),
    (
        "positions stretched in an unknown way",
        |f| f.set("llama.rope.scaling.type", TEXT, text("yarn")),
        &["`llama.rope.scaling.type`", "\"yarn\""],
    ),
    (
        "positions stretched by nothing",
        |f| f.set("llama.rope.scaling.type", TEXT, text("linear")),
        &["`llama.rope.scaling.factor`", "got       nothing"],
    ),
    ("experts", |f| f.set("llama.expert_count", U32, 8u32.to_le_bytes().to_vec()), &["`llama.expert_count`", "8"]),
    (
        "a part of several",
        |f| f.set("split.count", U32, 2u32.to_le_bytes().to_vec()),
        &["`split.count`", "llama-gguf-split --merge"],
    ),
    (
        "too many tokens",
        |f| {
            let tokens = [&TEXT.to_le_bytes()[..], &6u64.to_le_bytes(), &text("a").repeat(6)].concat();
            f.set("tokenizer.ggml.tokens", LIST, tokens);
        },
        &["too many `tokenizer.ggml.tokens`", "at most 5"],
    ),
    (
        "a missing tensor",
        |f| f.tensors.retain(|(name, ..)| name != "blk.0.attn_k.weight"),
        &["no tensor `blk.0.attn_k.weight`", "[4, 8]", "nearest"],
    ),
    ("no embedding", |f| drop(f.tensors.remove(0)), &["`token_embd.weight`"]),
    (
        "a tensor of another shape",
        |f| f.tensor("blk.0.ffn_up.weight").1 = vec![8, 11],
        &["`blk.0.ffn_up.weight` in the wrong shape", "[12, 8]", "[11, 8]"],
    ),
    (
        "a tensor behind the end",
        |f| f.tensor("blk.0.ffn_down.weight").3 += 1 << 30,
        &["before the end of tensor `blk.0.ffn_down.weight`"],
    ),
    ("an offset that overflows", |f| f.tensor("blk.0.ffn_down.weight").3 = u64::MAX - 31, &["blk.0.ffn_down.weight"]),
    (
        "a shape that overflows",
        |f| f.tensor("blk.0.ffn_up.weight").1 = vec![1 << 62, 1 << 62],
        &["blk.0.ffn_up.weight"],
    ),
    (
        "a tensor of nothing",
        |f| f.tensor("blk.0.ffn_norm.weight").1 = vec![0],
        &["`blk.0.ffn_norm.weight`", "some and no"],
    ),
    ("too many axes", |f| f.tensor("blk.0.ffn_up.weight").1 = vec![1; 9], &["`blk.0.ffn_up.weight`", "at most 4 axes"]),
    (
        "a known type that is not read",
        |f| f.tensor("blk.0.ffn_up.weight").2 = 23,
        &["`blk.0.ffn_up.weight` in a number type", "IQ4_XS", "Q6_K"],
    ),
    ("an unknown type", |f| f.tensor("blk.0.ffn_up.weight").2 = 999, &["`blk.0.ffn_up.weight`", "type 999"]),
    (
        "rows of broken blocks",
        |f| f.tensor("blk.0.ffn_up.weight").2 = 8,
        &["`blk.0.ffn_up.weight`", "a multiple of 32"],
    ),
    ("a tensor twice", |f| f.tensors.push(f.tensors[2].clone()), &["`blk.0.attn_norm.weight` twice"]),
    (
        "a tensor of another variant",
        |f| f.add("blk.0.attn_q.bias", vec![8]),
        &["`blk.0.attn_q.bias`, which the model has no place for"],
    ),
    ("frequencies divided by 0", |f| f.add("rope_freqs.weight", vec![2]), &["`rope_freqs.weight`", "numbers above 0"]),
];

#[test]
fn broken_files_are_refused_with_what_is_wrong() {
    load(&Written::whole().bytes()).unwrap();
    for (name, change, words) in FAULTS {
        let mut file = Written::whole();
        change(&mut file);
        let message = load(&file.bytes()).map(drop).expect_err(name);
        for word in words.iter().chain(&["expected  ", "got  ", "hint: "]) {
            assert!(message.contains(word), "{name}: no {word:?} in\n{message}");
        }
    }
}

#[test]
fn a_file_that_ends_anywhere_is_refused() {
    let whole = Written::whole().bytes();
    for length in (0..whole.len()).step_by(7) {
        let message = load(&whole[..length]).map(drop).expect_err("cut short");
        assert!(message.starts_with("model.gguf "), "{length}: {message}");
    }
}

#[test]
fn a_gguf_file_is_known_by_its_name_or_its_first_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    assert!(is_gguf(&write("a.GGUF", b"")) && is_gguf(&write("blob", b"GGUF\x03")));
    assert!(!is_gguf(&write("b.safetensors", b"GGU")) && !is_gguf(folder.path()));
}

#[test]
fn positions_stretched_in_line_turn_more_slowly() {
    let mut file = Written::whole();
    let plain = load(&file.bytes()).unwrap().architecture.language.rope;
    file.set("llama.rope.scaling.type", TEXT, text("linear"));
    file.set("llama.rope.scaling.factor", F32, 4f32.to_le_bytes().to_vec());
    let stretched = load(&file.bytes()).unwrap().architecture.language.rope;
    assert_eq!(stretched, plain.divided(&[4.0, 4.0]));
}
