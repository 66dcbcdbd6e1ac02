//! A nano model whose language model starts from a pretrained one: its blocks as they were published, all or the first of them, and each
//! word of the suite's vocabulary as the mean of the pieces in which the pretrained tokenizer writes it.

use crate::vars::Vars;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use lare_data::Tokenizer;
use lare_data::chat::FolderTokenizer;
use lare_model::config::{Config, Language};
use lare_model::decoder::Shape;
use lare_model::pretrained::gguf::{Gguf, is_gguf};
use lare_model::pretrained::parts::Parts;
use lare_model::{Init, Source};
use std::path::Path;

const EMBEDDING: &str = "language.embedding";
/// The last stage of the coarse eyes, which is as wide as the decoder.
const LAST_STAGE: &str = "vision.coarse.stages.3.";
/// How large what the coarse eyes see starts, where in a decoder from nothing it is 1. The first blocks of a pretrained one add much of the same to
/// every token (SmolLM2-135M: mean square 3 in the first, whatever the token): of tokens as small as its embeddings, or of 1, hardly anything is
/// left to tell them apart by.
const SEEN: f64 = 4.0;

/// Puts the language model of a Hugging Face folder or GGUF file into the variables of a nano model with the decoder `ours`.
///
/// # Errors
/// If it cannot be loaded, or is of another shape: named with what `ours` has and what it has.
pub fn start(folder: &Path, ours: &Language, words: &Tokenizer, vars: &Vars) -> Result<()> {
    let parts = Parts::of_folder(folder, None)?;
    same_shape(folder, &ours.shape(), &parts.published.architecture.language)?;
    let theirs = match is_gguf(folder) {
        true => FolderTokenizer::from_gguf(folder, Gguf::open(folder)?.metadata())?,
        false => FolderTokenizer::from_folder(folder)?,
    };
    for (name, tensor) in parts.language()? {
        if block(&name).is_some_and(|block| block >= ours.layers) {
            continue;
        }
        let tensor = if name == EMBEDDING { embeddings(folder, &tensor, words, &theirs)? } else { tensor };
        vars.set(&name, &tensor)?;
    }
    Ok(())
}

/// Fits the eyes of a smaller model to the decoder of `model`: outputs of their last stage start as copies of those there were (Net2WiderNet, arXiv
/// 1511.05641), and what they see starts large.
///
/// # Errors
/// If memory cannot be had.
pub fn fit_eyes(model: &Config, vars: &Vars) -> Result<()> {
    let width = model.language.width;
    for (name, var) in vars.all().into_iter().filter(|(name, _)| name.starts_with(LAST_STAGE)) {
        let rows = var.dim(0)?;
        if (1..width).contains(&rows) {
            let copied: Vec<u32> = (0..width).map(|row| (row % rows) as u32).collect();
            vars.set(&name, &var.index_select(&Tensor::new(copied, var.device())?, 0)?)?;
        }
    }
    let features = 4 * model.vision.position_frequencies;
    vars.tensor("vision.coarse_norm.weight", &[width], Init::Constant(SEEN))?;
    let positions = Init::Normal(SEEN / (features as f64).sqrt());
    vars.tensor("vision.coarse_position.weight", &[width, features], positions)?;
    Ok(())
}

/// The number of the block that a tensor is of.
fn block(name: &str) -> Option<usize> {
    name.strip_prefix("language.blocks.")?.split('.').next()?.parse().ok()
}

/// Refuses a decoder that computes something else: the two may differ in their words, in how far they count, and ours may end earlier.
fn same_shape(path: &Path, ours: &Shape, theirs: &Shape) -> Result<()> {
    let fields = |shape: &Shape| {
        [
            ("width", shape.width.to_string()),
            ("heads", shape.heads.to_string()),
            ("kv_heads", shape.kv_heads.to_string()),
            ("width of a head", shape.head_width.to_string()),
            ("feed_forward", shape.feed_forward.to_string()),
            ("norm_eps", (shape.norm_eps as f32).to_string()), // a GGUF file holds it in f32
            ("bias on queries, keys and values", shape.qkv_bias.to_string()),
            ("norm of queries and keys", shape.qk_norm.to_string()),
            ("output layer that is the embedding", shape.tied.to_string()),
        ]
    };
    let other = |field: &str, ours: &str, got: String| {
        Err(Error::Language {
            path: path.to_owned(),
            expected: format!("{field}: {ours}, as in `[model.language]`"),
            got,
        })
    };
    if ours.layers > theirs.layers {
        return other("layers", &ours.layers.to_string(), format!("{}; fewer would do", theirs.layers));
    }
    for ((field, ours), (_, theirs)) in fields(ours).into_iter().zip(fields(theirs)) {
        if ours != theirs {
            return other(field, &ours, theirs);
        }
    }
    if ours.rope != theirs.rope {
        return other("rope_theta", "the same rotary frequencies", "others".into());
    }
    Ok(())
}

/// `[V, D]`, of the suite's words, from those of the pretrained vocabulary.
fn embeddings(path: &Path, published: &Tensor, words: &Tokenizer, theirs: &FolderTokenizer) -> Result<Tensor> {
    let rows = published.dim(0)?;
    let row = |id: usize| -> Result<Tensor> {
        let pieces = theirs.encode_plain(&written(words.word(id as u32).unwrap_or_default()))?;
        if let Some(piece) = pieces.iter().find(|piece| **piece as usize >= rows) {
            let expected = format!("pieces below {rows}, the rows of its embedding");
            return Err(Error::Language { path: path.to_owned(), expected, got: format!("{piece} of its tokenizer") });
        }
        let pieces = Tensor::from_vec(pieces.clone(), pieces.len(), &Device::Cpu)?;
        Ok(published.index_select(&pieces, 0)?.mean_keepdim(0)?)
    };
    Ok(Tensor::cat(&(0..words.vocab_size()).map(row).collect::<Result<Vec<_>>>()?, 0)?)
}

/// How a token of the suite's stands in running text: a word behind a space, what continues a word, a digit or a sign without one,
/// and a mark as the word that names it.
fn written(token: &str) -> String {
    let inside = |from: &str, to: &str| token.strip_prefix(from).and_then(|rest| rest.strip_suffix(to));
    match (inside("<", ">"), inside("##", "")) {
        (Some(mark), _) if !mark.is_empty() => format!(" {}", mark.trim_start_matches('/')),
        (_, Some(piece)) if !piece.is_empty() => piece.to_owned(),
        _ if token.chars().all(char::is_alphabetic) => format!(" {token}"),
        _ => token.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lare_model::config::Context;

    /// Llama's folder of fixtures with a tokenizer, its frequencies as they are without stretching: where those differ is tested below.
    fn folder(rope: &str) -> tempfile::TempDir {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
        let folder = tempfile::tempdir().unwrap();
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(fixtures.join("chat/llama").join(file), folder.path().join(file)).unwrap();
        }
        // The tokenizer knows more words than the model: rows for all of them.
        let weights = fixtures.join("families/llama/model.safetensors");
        let mut weights = candle_core::safetensors::load(weights, &Device::Cpu).unwrap();
        let rows = weights.get_mut("model.embed_tokens.weight").unwrap();
        *rows = Tensor::cat(&[&*rows, &*rows], 0).unwrap();
        candle_core::safetensors::save(&weights, folder.path().join("model.safetensors")).unwrap();
        let config = std::fs::read_to_string(fixtures.join("families/llama/config.json")).unwrap();
        let [rows, stretching] = ["\"vocab_size\": 320", "\"llama3\""];
        assert!(config.contains(rows) && config.contains(stretching));
        let config = config.replace(rows, "\"vocab_size\": 640").replace(stretching, &format!("\"{rope}\""));
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        folder
    }

    fn tiny() -> Config {
        Config::from_toml(include_str!("../../model/tests/tiny.toml"), "tiny.toml").unwrap()
    }

    fn language(folder: &Path, words: &Tokenizer) -> Language {
        let shape = lare_model::pretrained::Architecture::from_folder(folder).unwrap().language;
        Language {
            vocabulary: words.vocab_size(),
            width: shape.width,
            layers: shape.layers,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            feed_forward: shape.feed_forward,
            rope_theta: 500_000.0,
            norm_eps: shape.norm_eps,
            max_positions: 64,
            context: Context::Coarse,
            says_steps: false,
        }
    }

    #[test]
    fn words_stand_behind_a_space_and_signs_do_not() {
        let all = [("dog", " dog"), ("K", " K"), ("7", "7"), ("?", "?"), ("##ing", "ing"), ("#", "#"), ("<", "<")];
        for (token, expected) in all.into_iter().chain([("</think>", " think"), ("<end>", " end")]) {
            assert_eq!(written(token), expected);
        }
    }

    #[test]
    fn blocks_start_as_published_and_a_word_as_the_mean_of_its_pieces() {
        let (words, vars, folder) = (Tokenizer::suite().unwrap(), Vars::new(1, Device::Cpu), folder("default"));
        let ours = language(folder.path(), &words);
        start(folder.path(), &ours, &words, &vars).unwrap();
        let given: std::collections::BTreeMap<_, _> = vars.all().into_iter().collect();
        let published = Parts::of_folder(folder.path(), None).unwrap().language().unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (name, tensor) in published.iter().filter(|(name, _)| *name != EMBEDDING) {
            assert_eq!(values(&given[name]), values(tensor), "{name}");
        }
        let theirs = FolderTokenizer::from_folder(folder.path()).unwrap();
        let (word, pieces) = (words.id("strawberry").unwrap(), theirs.encode_plain(" strawberry").unwrap());
        assert!(pieces.len() > 1, "{pieces:?}");
        let rows: Vec<Vec<f32>> =
            pieces.iter().map(|id| values(&published[EMBEDDING].get(*id as usize).unwrap())).collect();
        let got = values(&given[EMBEDDING].get(word as usize).unwrap());
        for (column, got) in got.into_iter().enumerate() {
            let mean = rows.iter().map(|row| row[column]).sum::<f32>() / rows.len() as f32;
            assert!((mean - got).abs() < 1e-6, "{mean} {got}");
        }
        // What a decoder then asks for is all there, and nothing else: none of it starts at random.
        let root = lare_model::Path::root(&vars);
        root.at("language", |path| lare_model::decoder::Decoder::new(path, &ours.shape())).unwrap();
        assert_eq!(vars.asked(), given.into_keys().collect());
    }

    #[test]
    fn a_shorter_decoder_has_the_first_blocks() {
        let (words, vars, folder) = (Tokenizer::suite().unwrap(), Vars::new(1, Device::Cpu), folder("default"));
        let whole = language(folder.path(), &words);
        assert!(whole.layers > 1);
        let ours = Language { layers: whole.layers - 1, ..whole };
        start(folder.path(), &ours, &words, &vars).unwrap();
        let root = lare_model::Path::root(&vars);
        root.at("language", |path| lare_model::decoder::Decoder::new(path, &ours.shape())).unwrap();
        let given: std::collections::BTreeSet<_> = vars.all().into_iter().map(|(name, _)| name).collect();
        assert_eq!(vars.asked(), given);
    }

    #[test]
    fn eyes_of_a_smaller_model_see_the_same_several_times_and_larger() {
        let (vars, mut model) = (Vars::new(1, Device::Cpu), tiny());
        let narrow = Tensor::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu).unwrap();
        vars.set("vision.coarse.stages.3.conv.weight", &narrow).unwrap();
        model.language.width = 8;
        fit_eyes(&model, &vars).unwrap();
        let given: std::collections::BTreeMap<_, _> = vars.all().into_iter().collect();
        let first = given["vision.coarse.stages.3.conv.weight"].narrow(1, 0, 1).unwrap().flatten_all().unwrap();
        assert_eq!(first.to_vec1::<f32>().unwrap(), [1.0, 3.0, 5.0, 1.0, 3.0, 5.0, 1.0, 3.0]);
        assert_eq!(given["vision.coarse_norm.weight"].to_vec1::<f32>().unwrap(), [SEEN as f32; 8]);
        // What a run brings along stays as it is.
        vars.set("vision.coarse_norm.weight", &Tensor::ones(8, candle_core::DType::F32, &Device::Cpu).unwrap())
            .unwrap();
        fit_eyes(&model, &vars).unwrap();
        let kept: std::collections::BTreeMap<_, _> = vars.all().into_iter().collect();
        assert_eq!(kept["vision.coarse_norm.weight"].to_vec1::<f32>().unwrap(), [1.0; 8]);
        assert_eq!(kept["vision.coarse.stages.3.conv.weight"].dims(), [8, 2]);
    }

    #[test]
    fn another_shape_is_refused_by_the_field() {
        let (words, vars, base) = (Tokenizer::suite().unwrap(), Vars::new(1, Device::Cpu), folder("default"));
        let fitting = language(base.path(), &words);
        let refused = |changed: Language| start(base.path(), &changed, &words, &vars).unwrap_err().to_string();
        assert!(refused(Language { layers: 7, ..fitting.clone() }).contains("layers: 7"));
        assert!(refused(Language { rope_theta: 77.0, ..fitting.clone() }).contains("rope_theta"));
        assert!(refused(Language { norm_eps: 0.5, ..fitting.clone() }).contains("norm_eps: 0.5"));
        let stretched = folder("llama3");
        let fitting = language(stretched.path(), &words);
        assert!(start(stretched.path(), &fitting, &words, &vars).unwrap_err().to_string().contains("rope_theta"));
    }
}
