//! `lare inspect`: what a model folder holds, and whether it would load.

use super::{Outcome, generate, inspect_adapter, inspect_folder};
use crate::args::Inspect;
use crate::embedded;
use crate::failure::Failure;
use crate::hub;
use crate::messages::{Messages, Report};
use lare_infer::inspect::{Sizes, TensorInfo, sizes, tensors};
use lare_infer::load::{CONFIG, OwnedFiles, TOKENIZER, WEIGHTS, sha256};
use lare_infer::{Assistant, Device, Files};
use serde_json::{Value, json};
use std::path::Path;

/// Tells what the folder holds; the answer is no when it would not load.
pub fn run(inspect: &Inspect, messages: &Messages) -> Result<Outcome, Failure> {
    let model = hub::folder(&inspect.model)?;
    if inspect_adapter::is_for(&model) {
        let base = inspect.base.as_deref().map(hub::folder).transpose()?;
        return inspect_adapter::run(&model, base.as_deref(), inspect.tensors, messages);
    }
    refuse_base(inspect)?;
    if generate::is_for(&model) {
        return inspect_folder::run(&model, inspect.tensors, messages);
    }
    let inside = model == Path::new(embedded::NAME);
    if !inside && !model.is_dir() {
        // Nothing to find a fault in.
        return Err(OwnedFiles::read(&model).err().map_or_else(|| Failure::new("no model folder"), Failure::from));
    }
    let owned = if inside { None } else { Some(OwnedFiles::read(&model)) };
    let (findings, fault) = match &owned {
        None => look(&embedded::files()),
        Some(Ok(owned)) => look(&owned.files()),
        Some(Err(error)) => (Findings::unread(&model), Some(Failure::from(lines(error)))),
    };
    let loads = fault.is_none();
    messages.report(&Told { findings, fault: fault.clone(), tensors: inspect.tensors })?;
    if let Some(fault) = fault {
        messages.failure(&fault);
    }
    Ok(if loads { Outcome::Done } else { Outcome::No })
}

/// Only an adapter is tried on another model.
fn refuse_base(inspect: &Inspect) -> Result<(), Failure> {
    match &inspect.base {
        None => Ok(()),
        Some(base) => Err(Failure::new("`--model` names the base that an adapter is tried on")
            .part("expected", "an adapter's folder to inspect")
            .part("got", inspect.model.display())
            .hint(format!("lare inspect ADAPTER --model {0}, or lare inspect {0}", base.display()))),
    }
}

/// An error by reference, as one that can be taken apart.
fn lines(error: &lare_infer::Error) -> std::io::Error {
    std::io::Error::other(error.to_string())
}

/// Reads what can be read, then tries to load it.
fn look(files: &Files) -> (Findings, Option<Failure>) {
    let mut findings = Findings {
        place: files.place.to_owned(),
        files: vec![
            file(CONFIG, files.config.as_bytes()),
            file(WEIGHTS, files.weights),
            file(TOKENIZER, files.tokenizer),
        ],
        tensors: tensors(files.weights, &files.name(WEIGHTS)).unwrap_or_default(),
        ..Findings::default()
    };
    findings.vocabulary = lare_data::Tokenizer::from_bytes(files.tokenizer).ok().map(|t| t.vocab_size());
    findings.config = files.config.to_owned();
    if let Ok(config) = lare_model::Config::from_toml(files.config, &files.name(CONFIG)) {
        findings.sizes = sizes(&config).ok();
        findings.context = Some((config.language.max_positions, config.vision.max_cells));
        findings.name = Some(config.name);
    }
    let fault = match Assistant::from_files(files, &Device::Cpu) {
        Err(error) => Some(error.into()),
        Ok(_) => findings.tensors.iter().find(|t| !t.finite).map(|tensor| {
            Failure::new(format!("tensor `{}` holds numbers that are not finite", tensor.name))
                .part("file", files.name(WEIGHTS))
                .part("expected", "finite numbers")
                .part("got", "NaN or infinity")
                .hint("go back to an earlier checkpoint of the run")
        }),
    };
    (findings, fault)
}

fn file(name: &'static str, bytes: &[u8]) -> (&'static str, usize, String) {
    (name, bytes.len(), sha256(bytes))
}

/// What was found, as far as it could be read.
#[derive(Default)]
struct Findings {
    place: String,
    name: Option<String>,
    files: Vec<(&'static str, usize, String)>,
    tensors: Vec<TensorInfo>,
    vocabulary: Option<usize>,
    sizes: Option<Sizes>,
    context: Option<(usize, usize)>,
    config: String,
}

impl Findings {
    fn unread(folder: &Path) -> Self {
        Self { place: folder.display().to_string(), ..Self::default() }
    }

    /// What the architecture needs and can take, where the config could be read.
    fn fits(&self) -> Vec<String> {
        let (Some(sizes), Some((positions, cells))) = (&self.sizes, self.context) else {
            return Vec::new();
        };
        let module = |(module, count): &(String, usize)| format!("            {count:>9} {module}");
        let mut lines: Vec<String> = sizes.parameters.iter().map(module).collect();
        if let Some(tokens) = self.vocabulary {
            lines.push(format!("tokenizer   {tokens} tokens"));
        }
        let (side, weights) = (sizes.square_px, size(sizes.weight_bytes));
        let (picture, question) = (size(sizes.picture_cache_bytes), size(sizes.question_cache_bytes));
        lines.extend([
            format!("fits        pictures of {cells} cells, up to {side} x {side} px without scaling"),
            format!("            {positions} positions of words and latents"),
            format!("memory      {weights} of weights"),
            format!("            {picture} a picture, at most {question} a question"),
        ]);
        lines
    }

    fn parameters(&self) -> usize {
        self.tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum()
    }
}

/// Findings and verdict.
struct Told {
    findings: Findings,
    fault: Option<Failure>,
    tensors: bool,
}

impl Report for Told {
    fn text(&self) -> String {
        let found = &self.findings;
        let name = found.name.as_deref().unwrap_or("unknown");
        let loads = if self.fault.is_none() { "yes" } else { "no" };
        let mut lines = vec![format!("model       {name} ({})", found.place), format!("loads       {loads}")];
        for (name, bytes, hash) in &found.files {
            let bytes = size(*bytes);
            lines.push(format!("file        {name:<18} {bytes:>9}  sha256 {hash}"));
        }
        let (parameters, tensors) = (found.parameters(), found.tensors.len());
        lines.push(format!("parameters  {parameters} in {tensors} tensors"));
        lines.extend(found.fits());
        for tensor in found.tensors.iter().filter(|_| self.tensors) {
            let shape = format!("{:?}", tensor.shape);
            lines.push(format!("tensor      {:<5} {shape:<20} {}", tensor.number_type, tensor.name));
        }
        lines.push(format!("\n{}", found.config.trim_end()));
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let found = &self.findings;
        let files: Vec<Value> = found
            .files
            .iter()
            .map(|(name, bytes, hash)| json!({ "name": name, "bytes": bytes, "sha256": hash }))
            .collect();
        let tensors: Vec<Value> =
            found.tensors.iter().map(|t| json!({ "name": t.name, "shape": t.shape, "type": t.number_type })).collect();
        json!({
            "place": found.place,
            "name": found.name,
            "loads": self.fault.is_none(),
            "fault": self.fault.as_ref().map(|f| f.json()["error"].clone()),
            "files": files,
            "parameters": found.parameters(),
            "parameters_by_module": found.sizes.as_ref().map(|s| s.parameters.iter().cloned().collect::<std::collections::BTreeMap<_, _>>()),
            "tensors": if self.tensors { json!(tensors) } else { json!(tensors.len()) },
            "vocabulary": found.vocabulary,
            "fits": found.context.map(|(positions, cells)| json!({
                "positions": positions,
                "cells": cells,
                "square_px": found.sizes.as_ref().map(|s| s.square_px),
            })),
            "memory_bytes": found.sizes.as_ref().map(|s| json!({
                "weights": s.weight_bytes,
                "picture": s.picture_cache_bytes,
                "question": s.question_cache_bytes,
            })),
            "config": found.config,
        })
    }
}

/// Bytes in the unit that suits them.
pub(super) fn size(bytes: usize) -> String {
    const UNITS: [(&str, f64); 3] = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let bytes = bytes as f64;
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!([7, 1_500, 18_000_000, 2_500_000_000].map(size), ["7 B", "1.5 kB", "18.0 MB", "2.5 GB"]);
    }
}
