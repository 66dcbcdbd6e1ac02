//! llama.cpp's vocabularies with its own test texts and ids: `LARE_GGUF_VOCABULARIES` is the folder that holds them,
//! `vendor/llama.cpp/models` of the source distribution of `llama-cpp-python` 0.3.36 on PyPI. Nothing is tested without it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lare_data::chat::FolderTokenizer;
use lare_model::pretrained::gguf::Gguf;
use std::path::{Path, PathBuf};

/// Vocabularies of a kind that is read, and how many texts each has.
const READ: [&str; 8] = ["qwen2", "llama-bpe", "gpt-2", "starcoder", "refact", "command-r", "mpt", "deepseek-coder"];
/// Those that must be refused: another kind of tokenizer, or words that are not known.
const REFUSED: [&str; 4] = ["llama-spm", "phi-3", "bert-bge", "falcon"];

fn tokenizer(folder: &Path, name: &str) -> Result<FolderTokenizer, String> {
    let path = folder.join(format!("ggml-vocab-{name}.gguf"));
    let gguf = Gguf::open(&path).unwrap();
    FolderTokenizer::from_gguf(&path, gguf.metadata()).map_err(|error| error.to_string())
}

/// The texts of a file `.inp` and the ids of its `.out`.
fn cases(folder: &Path, name: &str) -> Vec<(String, Vec<u32>)> {
    let read = |kind: &str| std::fs::read_to_string(folder.join(format!("ggml-vocab-{name}.gguf.{kind}"))).unwrap();
    let (texts, ids) = (read("inp"), read("out"));
    let texts: Vec<String> = texts.split("\n__ggml_vocab_test__\n").map(str::to_owned).collect();
    let ids: Vec<Vec<u32>> =
        ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
    assert!(texts.len().abs_diff(ids.len()) <= 1, "{name}: {} texts, {} lines of ids", texts.len(), ids.len());
    texts.into_iter().zip(ids).collect()
}

#[test]
fn texts_become_the_ids_that_llama_cpp_makes() {
    let Some(folder) = std::env::var_os("LARE_GGUF_VOCABULARIES").map(PathBuf::from) else { return };
    let mut wrong = Vec::new();
    for name in READ {
        let tokenizer = tokenizer(&folder, name).unwrap();
        let cases = cases(&folder, name);
        assert!(cases.len() > 40, "{name}: {} texts", cases.len());
        let differs = |(text, ids): &&(String, Vec<u32>)| tokenizer.encode(text).unwrap() != *ids;
        wrong.extend(cases.iter().filter(differs).map(|(text, _)| format!("{name}: {text:?}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for name in REFUSED {
        let message = tokenizer(&folder, name).map(drop).expect_err(name);
        assert!(message.contains("tokenizer.ggml.") && message.contains("hint:"), "{name}: {message}");
    }
}
