//! Any bytes as a GGUF file: refused, or read as a model and a tokenizer whose sizes hold.
#![no_main]

use lare_data::chat::Chat;
use lare_model::pretrained::gguf::Gguf;
use lare_model::pretrained::{Architecture, Pretrained};
use libfuzzer_sys::fuzz_target;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Files are mapped, so bytes must be one: beside what was built, where nothing is kept.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(format!("input-{}.gguf", std::process::id()))
});

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*FILE, bytes).unwrap(); // invariant: the folder is that of this build
    if let Ok(gguf) = Gguf::open(&FILE) {
        drop(Architecture::from_gguf(&gguf));
        drop(Chat::from_gguf(&FILE, gguf.metadata()));
        drop(gguf.listed());
    }
    drop(Pretrained::from_folder(&FILE, None));
});
