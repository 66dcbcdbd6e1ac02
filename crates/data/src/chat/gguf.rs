//! The text side of a GGUF file, as the files of the folder that it was made from: what is read of a folder is then read of
//! it too.
//!
//! A GGUF file names its way to cut text into words (`tokenizer.ggml.pre`) and does not spell it. What each name means was
//! read in llama.cpp, and its own test texts give the same ids (`tools/reference/gguf_models.py`). Where the Hugging Face
//! tokenizer of a name normalises text first and llama.cpp does not, it is normalised: the model was trained so.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::error::ChatError;
use super::files::{Folder, Object};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Token types: those that are recognised in text and not shown, those recognised and shown, and those that only fill up
/// the vocabulary.
const CONTROL: [i64; 2] = [2, 3];
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;

/// Tokens that end an answer wherever a vocabulary has them, as llama.cpp has it: a file names one end at most.
const ENDS: [&str; 5] = ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>"];

/// Words of Llama 3.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same, but each digit by itself.
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Each of these in turn cuts what those before it left.
const DEEPSEEK_CODER: [&str; 4] = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+"];

const KNOWN: &str = "qwen2, deepseek-r1-qwen, llama-bpe, llama3, llama-v3, smollm, starcoder, refact, command-r, codeshell, deepseek-coder, gpt-2, phi-2, olmo or mpt";

/// How text is cut into words.
struct Words {
    steps: Vec<Json>,
    /// Whether a word that is a token is taken as it is, whatever the merges make of it.
    whole: bool,
    /// Whether text is composed first (NFC).
    composed: bool,
}

/// What a name in `tokenizer.ggml.pre` means.
fn words(pre: &str) -> Option<Words> {
    let split = |regex: &str| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false });
    let digits = || json!({ "type": "Digits", "individual_digits": true });
    let bytes = |of_gpt_2: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": of_gpt_2 });
    let words = |steps: Vec<Json>| Words { steps, whole: false, composed: false };
    Some(match pre {
        "qwen2" => Words { composed: true, ..words(vec![split(QWEN_2), bytes(false)]) },
        "deepseek-r1-qwen" => words(vec![split(QWEN_2), bytes(false)]),
        "llama-bpe" | "llama3" | "llama-v3" => Words { whole: true, ..words(vec![split(LLAMA_3), bytes(false)]) },
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => words(vec![digits(), bytes(true)]),
        "gpt-2" | "phi-2" | "olmo" | "mpt" => words(vec![bytes(true)]),
        "deepseek-coder" => {
            let steps = DEEPSEEK_CODER.into_iter().map(split).chain([digits(), bytes(false)]);
            words(steps.collect())
        }
        _ => return None,
    })
}

/// A file's metadata as a folder. `path` is the file's, for messages.
///
/// # Errors
/// If a key is missing, of another type, or names a kind of tokenizer that is not known.
pub fn folder(path: &Path, metadata: &Map<String, Json>) -> Result<Folder, ChatError> {
    let metadata = Object::of(path.display().to_string(), metadata.clone());
    let tokens = list(&metadata, TOKENS, |token| token.as_str().map(str::to_owned))?;
    let types = match metadata.get(TYPES) {
        None => vec![1; tokens.len()],
        Some(_) => list(&metadata, TYPES, Json::as_i64)?,
    };
    if types.len() != tokens.len() {
        return Err(metadata.wrong(TYPES, "one for each token"));
    }
    let named = |name: &str| -> Result<Option<u32>, ChatError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let found = metadata.id(&key)?;
        match found.is_none_or(|id| (id as usize) < tokens.len()) {
            true => Ok(found),
            false => Err(metadata.wrong(&key, "the id of a token")),
        }
    };
    let mut config = Map::from_iter([("added_tokens_decoder".to_owned(), json!({}))]);
    for (name, theirs) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
        let token = named(theirs)?.map(|id| json!(tokens[id as usize]));
        config.extend(token.map(|token| (format!("{name}_token"), token)));
    }
    config.extend(metadata.string(TEMPLATE)?.map(|template| ("chat_template".to_owned(), json!(template))));
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        ends.extend(named(name)?);
    }
    for (id, token) in (0..).zip(&tokens) {
        if ENDS.contains(&token.as_str()) && CONTROL.contains(&types[id as usize]) && !ends.contains(&id) {
            ends.push(id);
        }
    }
    let family = metadata.string("general.architecture")?;
    let about = json!({ "model_type": family, "eos_token_id": ends, "bos_token_id": named("bos")? });
    Ok(Folder::inside(
        path,
        [
            ("tokenizer.json", tokenizer(&metadata, &tokens, &types)?.to_string()),
            ("tokenizer_config.json", Json::Object(config).to_string()),
            ("config.json", about.to_string()),
        ],
    ))
}

/// Refuses a file without a chat template.
pub fn require_template(path: &Path, metadata: &Map<String, Json>) -> Result<(), ChatError> {
    if metadata.contains_key(TEMPLATE) {
        return Ok(());
    }
    let metadata = Object::of(path.display().to_string(), Map::new());
    Err(metadata.wrong(TEMPLATE, "a chat template: a base model has none, use the instruction-tuned one"))
}

fn list<T>(metadata: &Object, key: &str, item: impl Fn(&Json) -> Option<T>) -> Result<Vec<T>, ChatError> {
    let read = |value: &Json| value.as_array()?.iter().map(item).collect();
    let expected = "a list of texts or whole numbers, as the format has it";
    metadata.read(key, expected, read)?.ok_or_else(|| metadata.wrong(key, expected))
}

/// `tokenizer.json`.
fn tokenizer(metadata: &Object, tokens: &[String], types: &[i64]) -> Result<Json, ChatError> {
    if metadata.string(MODEL)?.as_deref() != Some("gpt2") {
        return Err(metadata.wrong(MODEL, "gpt2, byte-level pairs: SentencePiece and others are not supported"));
    }
    let words = metadata.string(PRE)?.as_deref().and_then(words).ok_or_else(|| metadata.wrong(PRE, KNOWN))?;
    let pair = |pair: &Json| {
        let (left, right) = pair.as_str()?.split_once(' ')?;
        Some(json!([left, right]))
    };
    let merges = list(metadata, MERGES, pair)?;
    let numbered = || (0u32..).zip(tokens).zip(types);
    let known = numbered().filter(|(_, kind)| **kind != UNUSED);
    let vocabulary: Map<String, Json> = known.map(|((id, token), _)| (token.clone(), json!(id))).collect();
    let added = numbered().filter(|(_, kind)| CONTROL.contains(kind) || **kind == USER_DEFINED);
    let added: Vec<Json> = added
        .map(|((id, token), kind)| {
            json!({
                "id": id, "content": token, "special": *kind != USER_DEFINED,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": if words.composed { json!({ "type": "NFC" }) } else { Json::Null },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": words.steps },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": words.whole, "vocab": vocabulary, "merges": merges,
        },
    }))
}
