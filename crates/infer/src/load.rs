//! From a model folder, or from bytes in the program, to a model that answers.

use crate::{Error, Result};
use candle_core::Device;
use lare_data::Tokenizer;
use lare_model::{Config, Loaded, Path as Module, Reasoner};
use lare_trace::ModelInfo;
use sha2::{Digest, Sha256};
use std::path::Path;

/// The architecture's file in a model folder.
pub const CONFIG: &str = "config.toml";
/// The weights' file in a model folder.
pub const WEIGHTS: &str = "model.safetensors";
/// The tokenizer's file in a model folder.
pub const TOKENIZER: &str = "tokenizer.json";

/// The files of a model folder, read. A folder on disk and the model inside the program come down to this.
pub struct Files<'a> {
    /// The folder, for messages.
    pub place: &'a str,
    /// `config.toml`.
    pub config: &'a str,
    /// `model.safetensors`.
    pub weights: &'a [u8],
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
}

impl Files<'_> {
    /// A file's name as messages give it.
    #[must_use]
    pub fn name(&self, file: &str) -> String {
        format!("{}/{file}", self.place)
    }
}

/// The files of a folder, owned.
pub struct OwnedFiles {
    place: String,
    config: String,
    weights: Vec<u8>,
    tokenizer: Vec<u8>,
}

impl OwnedFiles {
    /// Reads a folder's three files.
    ///
    /// # Errors
    /// [`Error::NotAFolder`] for another kind of path, [`Error::RunFolder`] for the folder around it, and [`lare_model::Error::Read`] naming the file that is
    /// missing or cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let expected = format!("{CONFIG}, {WEIGHTS} and {TOKENIZER}");
        if !folder.is_dir() {
            let got = if folder.exists() { "a file" } else { "nothing of that name" };
            return Err(Error::NotAFolder { folder: folder.into(), expected, got: got.into() });
        }
        if !folder.join(WEIGHTS).exists() && folder.join("model").join(WEIGHTS).is_file() {
            return Err(Error::RunFolder { folder: folder.into(), expected });
        }
        let config = read(folder, CONFIG)?;
        let config = String::from_utf8(config).map_err(|e| lare_model::Error::ConfigSyntax {
            file: folder.join(CONFIG).display().to_string(),
            reason: e.to_string(),
        })?;
        let (weights, tokenizer) = (read(folder, WEIGHTS)?, read(folder, TOKENIZER)?);
        Ok(Self { place: folder.display().to_string(), config, weights, tokenizer })
    }

    /// The same, borrowed.
    #[must_use]
    pub fn files(&self) -> Files<'_> {
        Files { place: &self.place, config: &self.config, weights: &self.weights, tokenizer: &self.tokenizer }
    }
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    std::fs::read(&path).map_err(|e| {
        let hint = format!(
            "a model folder holds {CONFIG}, {WEIGHTS} and {TOKENIZER}, as `lare train` writes them; one of Hugging Face holds config.json"
        );
        lare_model::Error::Read { path, reason: e.to_string(), hint }.into()
    })
}

/// A model that answers.
pub struct Assistant {
    /// The model.
    pub reasoner: Reasoner,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// SHA-256 of the weights file, in hex.
    pub weights_hash: String,
    /// SHA-256 of the resolved config, in hex.
    pub config_hash: String,
    device: Device,
}

impl Assistant {
    /// What a trace or an evaluation knows it by.
    #[must_use]
    pub fn identity(&self) -> ModelInfo {
        let (config_hash, weights_hash) = (self.config_hash.clone(), self.weights_hash.clone());
        ModelInfo { name: self.name().to_owned(), config_hash, weights_hash }
    }

    /// Loads a model folder onto the CPU.
    ///
    /// # Errors
    /// As [`OwnedFiles::read`] and [`Assistant::from_files`].
    pub fn from_folder(folder: &Path) -> Result<Self> {
        Self::from_files(&OwnedFiles::read(folder)?.files(), &Device::Cpu)
    }

    /// Loads a model from its files' contents.
    ///
    /// # Errors
    /// Names the file and the field, tensor or token that does not fit: a config with an unknown key, weights that
    /// are damaged or of another architecture, a tokenizer of another vocabulary.
    pub fn from_files(files: &Files, device: &Device) -> Result<Self> {
        let config = Config::from_toml(files.config, &files.name(CONFIG))?;
        let tokenizer = tokenizer(files, &config)?;
        let loaded = Loaded::from_bytes(files.weights, &files.name(WEIGHTS), device)?;
        let reasoner = Reasoner::new(&config, Module::root(&loaded))?;
        loaded.refuse_extra()?;
        let config_hash = sha256(config.to_toml()?.as_bytes());
        let weights_hash = loaded.hash().to_owned();
        Ok(Self { reasoner, tokenizer, weights_hash, config_hash, device: device.clone() })
    }

    /// A model that is already built; `hash` stands for its weights.
    ///
    /// # Errors
    /// When the config cannot be written as text.
    pub fn from_parts(reasoner: Reasoner, tokenizer: Tokenizer, hash: &str, device: &Device) -> Result<Self> {
        let config_hash = sha256(reasoner.config().to_toml()?.as_bytes());
        Ok(Self { reasoner, tokenizer, weights_hash: hash.to_owned(), config_hash, device: device.clone() })
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.reasoner.config()
    }

    /// The name shown in answers, traces and reports.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config().name
    }

    /// Where its tensors live.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }
}

fn tokenizer(files: &Files, config: &Config) -> Result<Tokenizer> {
    let file = files.name(TOKENIZER);
    let tokenizer =
        Tokenizer::from_bytes(files.tokenizer).map_err(|source| Error::Tokenizer { file: file.clone(), source })?;
    let (expected, got) = (config.language.vocabulary, tokenizer.vocab_size());
    if expected != got {
        return Err(Error::Vocabulary { file, config: files.name(CONFIG), expected, got });
    }
    Ok(tokenizer)
}

/// SHA-256 in hex: how models, configs and pictures are named in records.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_no_folder_is_named() {
        let message = Assistant::from_folder("no/such/model".as_ref()).err().unwrap().to_string();
        assert!(message.contains("`no/such/model`") && message.contains("nothing of that name"), "{message}");
    }

    #[test]
    fn the_file_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG), "").unwrap();
        let message = Assistant::from_folder(folder.path()).err().unwrap().to_string();
        assert!(message.contains(WEIGHTS), "{message}");
    }

    #[test]
    fn in_the_folder_of_a_run_the_model_is_pointed_at() {
        let run = tempfile::tempdir().unwrap();
        std::fs::create_dir(run.path().join("model")).unwrap();
        std::fs::write(run.path().join("model").join(WEIGHTS), "").unwrap();
        std::fs::write(run.path().join(CONFIG), "").unwrap();
        let message = Assistant::from_folder(run.path()).err().unwrap().to_string();
        assert!(message.ends_with(&format!("pass `{}`", run.path().join("model").display())), "{message}");
    }

    #[test]
    fn a_hash_is_the_one_other_tools_print() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
