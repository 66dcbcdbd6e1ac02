//! Save and resume: weights, optimiser, step. Batches and random numbers follow from the step alone.
//!
//! A checkpoint is a folder `checkpoint-STEP` with `weights.safetensors`, `optimizer.safetensors`, `state.json` and
//! the `config.toml` it was made with. It is written under another name, flushed and renamed: a folder of that name
//! is whole.

use crate::config::Config;
use crate::stages::Trained;
use crate::vars::{Vars, check_archive, read_tensors};
use crate::{Error, Result, changes};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps done in all.
    pub step: usize,
    /// The stage that the next step belongs to.
    pub stage: usize,
    /// Steps done in it.
    pub step_in_stage: usize,
    /// Updates that the optimiser has made in it.
    pub updates: u64,
}

impl State {
    /// Stages that have had a step: they are settled, the later ones can still change.
    fn begun(&self) -> usize {
        self.stage + usize::from(self.step_in_stage > 0)
    }
}

/// Checkpoints kept in a run's folder.
const KEPT: usize = 2;

/// SHA-256 of the resolved config, in hex.
pub fn config_hash(config: &Config) -> Result<String> {
    Ok(Sha256::digest(config.to_toml()?).iter().map(|b| format!("{b:02x}")).collect())
}

/// Writes `checkpoint-STEP` and drops all but the newest.
pub fn save(folder: &Path, config: &Config, state: &State, vars: &Vars, trained: &Trained) -> Result<PathBuf> {
    let last = folder.join(format!("checkpoint-{}", state.step));
    let partial = folder.join(format!(".checkpoint-{}.partial", state.step));
    let failed = |e: std::io::Error| Error::file("write", &last, &e);
    // A checkpoint that did not fit must not go on filling the disk.
    let unfinished = Unfinished(&partial);
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(failed)?;
    }
    std::fs::create_dir_all(&partial).map_err(failed)?;
    let mut weights = BTreeMap::new();
    for (name, var) in vars.all() {
        weights.insert(name, var.as_tensor().clone());
    }
    write_tensors(&partial.join("weights.safetensors"), &weights)?;
    let mut moments = BTreeMap::new();
    for ((name, (_, var)), moment) in trained.names.iter().zip(vars.all()).zip(trained.optimizer.state()) {
        let parts = [("first", Some(moment.first)), ("second", Some(moment.second)), ("ema", moment.ema)];
        for (part, values) in parts {
            if let Some(values) = values {
                moments.insert(format!("{part}.{name}"), Tensor::from_slice(values, var.shape(), &Device::Cpu)?);
            }
        }
    }
    write_tensors(&partial.join("optimizer.safetensors"), &moments)?;
    let text = serde_json::to_vec_pretty(state).map_err(|e| failed(e.into()))?;
    write_file(&partial.join("state.json"), &text)?;
    write_file(&partial.join("config.toml"), config.to_toml()?.as_bytes())?;
    let aside = folder.join(format!(".checkpoint-{}.replaced", state.step));
    if last.is_dir() {
        std::fs::rename(&last, &aside).map_err(failed)?;
    }
    std::fs::rename(&partial, &last).map_err(failed)?;
    drop(unfinished);
    // Only space is lost when this fails.
    let _ = std::fs::remove_dir_all(&aside);
    for old in checkpoints(folder).iter().rev().skip(KEPT) {
        // Only space is lost when this fails.
        let _ = std::fs::remove_dir_all(&old.1);
    }
    Ok(last)
}

/// Removes what was begun when dropped; after the rename nothing is there.
struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // The error that led here is the one to tell.
        drop(std::fs::remove_dir_all(self.0));
    }
}

/// Whole checkpoints of a run, oldest first.
pub fn checkpoints(folder: &Path) -> Vec<(usize, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("checkpoint-")?.parse().ok();
    let mut found: Vec<(usize, PathBuf)> = entries.filter_map(|e| Some((step(&e.path())?, e.path()))).collect();
    found.sort();
    found
}

/// The checkpoint to go on from, and where it stands; `None` before the first.
///
/// # Errors
/// [`Error::Changed`] names what differs from the run's config; [`Error::Damaged`] names an older checkpoint to go
/// back to.
pub fn newest(folder: &Path, config: &Config) -> Result<Option<(PathBuf, State)>> {
    let mut found = checkpoints(folder);
    let Some((_, path)) = found.pop() else {
        return Ok(None);
    };
    let error = match whole(&path, config) {
        Ok(state) => return Ok(Some((path, state))),
        Err(error @ Error::Changed { .. }) => return Err(error),
        Err(error) => error.to_string(),
    };
    let older = found.iter().rev().find(|(_, path)| whole(path, config).is_ok());
    let hint = match older {
        Some((_, older)) => {
            format!("remove that folder; `--resume` then goes on from {}, which is whole", older.display())
        }
        None => "bring it back from a copy, or start a new run in another folder: no other is whole".to_owned(),
    };
    let got = error.lines().next().unwrap_or_default().to_owned();
    Err(Error::Damaged { path, got, hint })
}

/// Where a checkpoint stands, if none of its files was cut short.
fn whole(path: &Path, config: &Config) -> Result<State> {
    let state = read_state(path, config)?;
    for name in ["weights.safetensors", "optimizer.safetensors"] {
        let file = path.join(name);
        let bytes = std::fs::read(&file).map_err(|e| Error::file("read", &file, &e))?;
        check_archive(&bytes, &file)?;
    }
    Ok(state)
}

/// Reads where a checkpoint stands, refusing one of another run. Stages that have not begun may differ.
fn read_state(path: &Path, config: &Config) -> Result<State> {
    let text = |name: &str| {
        let file = path.join(name);
        std::fs::read_to_string(&file).map_err(|e| Error::file("read", &file, &e))
    };
    let invalid = |name: &str, e: String| Error::file("read", path.join(name), &std::io::Error::other(e));
    let state: State = serde_json::from_str(&text("state.json")?).map_err(|e| invalid("state.json", e.to_string()))?;
    let begun = text("config.toml")?;
    let mut changes = changes::between(&begun, &config.to_toml()?, state.begun())
        .map_err(|e| invalid("config.toml", e.to_string()))?;
    // Between two stages the averages of the one before are gone: a run cannot end there any more.
    let then = toml::from_str::<toml::Table>(&begun).map_err(|e| invalid("config.toml", e.to_string()))?;
    let then = then.get("stages").and_then(toml::Value::as_array).map_or(0, Vec::len);
    if state.step_in_stage == 0 && state.stage == config.stages.len() && then > state.stage {
        changes.push(format!("stages: {then} there, {} now, and this is the start of the next", state.stage));
    }
    if !changes.is_empty() {
        let (path, changes) = (path.into(), changes.join("\n  "));
        return Err(Error::Changed { path, changes });
    }
    Ok(state)
}

/// Puts the weights of a checkpoint, or of a model or adapter that a run exported, into the variables.
pub fn read_weights(path: &Path, only: &[String], vars: &Vars, device: &Device) -> Result<()> {
    let exported = ["model.safetensors", lare_model::adapter::WEIGHTS].map(|name| path.join(name));
    let exported = exported.into_iter().find(|file| file.is_file());
    let file = exported.unwrap_or_else(|| path.join("weights.safetensors"));
    let bytes = std::fs::read(&file).map_err(|e| Error::file("read", &file, &e))?;
    for (name, tensor) in read_tensors(&bytes, &file, device)? {
        if only.is_empty() || only.iter().any(|prefix| name.starts_with(prefix.as_str())) {
            vars.set(&name, &tensor)?;
        }
    }
    Ok(())
}

/// Puts a checkpoint's optimiser state into a stage that was just entered.
pub fn read_optimizer(path: &Path, state: &State, trained: &mut Trained) -> Result<()> {
    let file = path.join("optimizer.safetensors");
    let bytes = std::fs::read(&file).map_err(|e| Error::file("read", &file, &e))?;
    let tensors = read_tensors(&bytes, &file, &Device::Cpu)?;
    let part = |part: &str, name: &str| -> Result<Vec<f32>> {
        let tensor = tensors.get(&format!("{part}.{name}")).ok_or_else(|| Error::Mismatch {
            path: file.clone(),
            what: format!("no {part} of `{name}`"),
            expected: "one for each parameter".into(),
            got: "none".into(),
        })?;
        Ok(tensor.flatten_all()?.to_vec1()?)
    };
    let mut moments = Vec::with_capacity(trained.names.len());
    for name in &trained.names {
        moments.push((part("first", name)?, part("second", name)?, part("ema", name)?));
    }
    let borrowed: Vec<lare_kernels::AdamWState> =
        moments.iter().map(|(first, second, ema)| lare_kernels::AdamWState { first, second, ema: Some(ema) }).collect();
    Ok(trained.optimizer.restore(state.updates, &borrowed)?)
}

fn write_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    write_file(path, &serialized(path, tensors, None)?)
}

/// The bytes of a safetensors file; `path` is for messages.
pub(crate) fn serialized(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    fact: Option<(String, String)>,
) -> Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
        let (bytes, dtype) = match flat.dtype() {
            DType::F16 => {
                let values: Vec<half::f16> = flat.to_vec1()?;
                (values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>(), safetensors::Dtype::F16)
            }
            _ => {
                let values: Vec<f32> = flat.to_dtype(DType::F32)?.to_vec1()?;
                (values.iter().flat_map(|v| v.to_le_bytes()).collect(), safetensors::Dtype::F32)
            }
        };
        raw.push((name, bytes, dtype, tensor.shape().dims().to_vec()));
    }
    let damaged = |e: safetensors::SafeTensorError| Error::file("write", path, &std::io::Error::other(e.to_string()));
    let mut views = Vec::with_capacity(raw.len());
    for (name, bytes, dtype, shape) in &raw {
        views.push((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).map_err(damaged)?));
    }
    safetensors::serialize(views, fact.map(|fact| std::iter::once(fact).collect())).map_err(damaged)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = std::fs::File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| Error::file("write", path, &e))
}

/// Writes a file under another name, flushes it and renames it: the path holds the old or the new, never a part.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().map_or_else(|| "file".into(), |n| n.to_string_lossy().into_owned());
    let partial = path.with_file_name(format!(".{name}.partial"));
    write_file(&partial, bytes)?;
    std::fs::rename(&partial, path).map_err(|e| Error::file("write", path, &e))
}
