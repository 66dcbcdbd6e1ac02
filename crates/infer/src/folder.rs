//! What a Hugging Face folder or a GGUF file holds, and whether it would load.

use crate::Error;
use crate::generator::{Generator, chat};
use lare_model::Format;
use lare_model::pretrained::Architecture;
use lare_model::pretrained::checkpoint::{Listed, listed};
use lare_model::pretrained::gguf::{Gguf, Held, is_gguf};
use std::path::Path;

/// What was found, as far as it could be read.
#[derive(Debug, Default)]
pub struct Found {
    /// The model, where `config.json` could be read.
    pub architecture: Option<Architecture>,
    /// Numbers of the decoder and of the vision tower.
    pub parameters: Option<[usize; 2]>,
    /// Bytes of the weights in memory, by the number type that matrices are converted to.
    pub memory: Vec<(Format, usize)>,
    /// Of a GGUF file, what it takes as it is loaded by default.
    pub held: Option<Held>,
    /// Bytes of keys and values of one position.
    pub cache_bytes: Option<usize>,
    /// Tokens of the tokenizer, where it could be read.
    pub vocabulary: Option<usize>,
    /// The files' tensors, where they could be listed.
    pub tensors: Vec<Listed>,
    /// Those that the model does not use.
    pub unused: Vec<String>,
    /// Why it would not load.
    pub fault: Option<Error>,
}

/// Looks at a folder, and loads it: weights are mapped, so nearly none is read.
#[must_use]
pub fn look(folder: &Path) -> Found {
    let mut found = Found {
        vocabulary: chat(folder).ok().map(|chat| chat.tokenizer().vocab_size()),
        tensors: listed(folder).unwrap_or_default(),
        ..Found::default()
    };
    if let Ok(mut architecture) = Architecture::from_folder(folder) {
        match Generator::from_folder(folder, None, None) {
            Err(fault) => found.fault = Some(fault),
            Ok(generator) => {
                architecture = generator.base().architecture.clone();
                found.unused.clone_from(&generator.base().unused);
            }
        }
        let stored = found.stored();
        if let Ok(needs) = architecture.needs() {
            found.parameters = Some(needs.parameters());
            let of = |format| Some((format, needs.bytes(format, stored).ok()?));
            found.memory = Format::ALL.into_iter().filter_map(of).collect();
        }
        found.held = Gguf::open(folder).ok().filter(|_| is_gguf(folder)).map(|gguf| gguf.held(&architecture));
        let shape = &architecture.language;
        found.cache_bytes = Some(shape.layers * 2 * shape.kv_heads * shape.head_width * size_of::<f32>());
        found.architecture = Some(architecture);
    } else {
        found.fault = Generator::from_folder(folder, None, None).err();
    }
    found
}

impl Found {
    /// The number type of most tensors; of a GGUF file, what matrices are widened to that cannot be used as they are.
    pub fn stored(&self) -> Format {
        if self.held.is_some() {
            return Format::F16;
        }
        let count = |name: &str| self.tensors.iter().filter(|tensor| tensor.number_type == name).count();
        let all = [(Format::F32, count("F32")), (Format::F16, count("F16")), (Format::Bf16, count("BF16"))];
        all.into_iter().max_by_key(|(_, count)| *count).map_or(Format::F32, |(format, _)| format)
    }
}
