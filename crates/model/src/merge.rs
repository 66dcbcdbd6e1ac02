//! An adapter's low-rank changes folded into its base: the model that any other program loads.

use crate::adapter::{self, Adapter, Base, Settings};
use crate::pretrained::Pretrained;
use crate::{Error, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// Ends of names of files with weights, which are written anew or not at all; everything else of a folder is copied.
const OF_WEIGHTS: [&str; 9] = ["safetensors", "bin", "pt", "pth", "gguf", "h5", "msgpack", "onnx", "ot"];

/// Writes the folder `out`, which must not exist: the base with `W + alpha / r * B A` for each changed matrix `W`, rounded
/// to the number type it is stored in, everything that lies beside the weights, and an adapter of what is left, the latent
/// step. Gives how many matrices were changed.
///
/// # Errors
/// [`Error::Arguments`] for an adapter without low-rank changes, [`Error::OtherBase`] for one of another base,
/// [`Error::Write`] for a folder that exists or cannot be written.
pub fn merge(base: &Path, adapter: &Adapter, out: &Path) -> Result<usize> {
    let settings = &adapter.settings;
    let Some(lora) = &settings.lora else {
        let (expected, got) = ("one that changes matrices of its base".into(), "a latent step alone".into());
        return Err(Error::Arguments { what: "adapter", expected, got });
    };
    adapter.refuse_other_base(base)?;
    let failed = |path: &Path, reason: String| Error::Write { path: path.into(), reason };
    if out.exists() {
        return Err(failed(out, "it exists".into()));
    }
    fs::create_dir_all(out).map_err(|e| failed(out, e.to_string()))?;
    let weights = &adapter.weights;
    let change = |name: &str| -> Result<Option<Tensor>> {
        let factors = [weights.find(&format!("{name}.lora_b")), weights.find(&format!("{name}.lora_a"))];
        let [Some(up), Some(down)] = factors else { return Ok(None) };
        Ok(Some((up.matmul(down)? * lora.scale())?))
    };
    let changed = Pretrained::write_changed(base, out, &change)?;
    let entries = fs::read_dir(base).map_err(|e| failed(base, e.to_string()))?;
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()) {
        let is_of_weights = path.extension().and_then(OsStr::to_str).is_some_and(|end| OF_WEIGHTS.contains(&end));
        if let Some(name) = path.file_name().filter(|_| !is_of_weights) {
            fs::copy(&path, out.join(name)).map_err(|e| failed(&out.join(name), e.to_string()))?;
        }
    }
    let rest = weights.entries().map(|(name, _)| name).filter(|name| !name.contains(".lora_"));
    let rest: BTreeMap<String, Tensor> =
        rest.filter_map(|name| Some((name.to_owned(), weights.find(name)?.clone()))).collect();
    let name = out.file_name().map_or_else(|| settings.base.name.clone(), |name| name.to_string_lossy().into_owned());
    let of_rest = Settings::new(Base::of(out, &name)?, settings.refocus.clone(), None, settings.semantic.clone());
    let of_rest = of_rest.with_auto_steps(settings.auto_steps);
    adapter::write(out, &of_rest, &rest)?;
    Ok(changed)
}
