//! `lare inspect` with a Hugging Face folder or GGUF file: what it holds, whether it would load, and what memory it takes.

use super::inspect::size;
use super::{Outcome, counted};
use crate::failure::Failure;
use crate::messages::{Messages, Report};
use lare_infer::folder::{Found, look};
use lare_model::pretrained::gguf::Held;
use serde_json::{Value, json};
use std::path::Path;

/// Tells what the folder holds; the answer is no when it would not load.
pub fn run(folder: &Path, tensors: bool, messages: &Messages) -> Result<Outcome, Failure> {
    let mut found = look(folder);
    let fault = found.fault.take().map(Failure::from);
    messages.report(&Told { folder, found, files: files(folder), fault: fault.clone(), tensors })?;
    Ok(match fault {
        None => Outcome::Done,
        Some(fault) => {
            messages.failure(&fault);
            Outcome::No
        }
    })
}

/// Names and sizes of the folder's files, without those of the hub's own; of a file, its own.
fn files(folder: &Path) -> Vec<(String, usize)> {
    if let Ok(told) = std::fs::metadata(folder)
        && told.is_file()
    {
        return vec![(folder.file_name().unwrap_or_default().to_string_lossy().into_owned(), told.len() as usize)];
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // Through links: a snapshot of the hub's cache is made of them.
    let file = |entry: std::fs::DirEntry| {
        let told = std::fs::metadata(entry.path()).ok().filter(std::fs::Metadata::is_file)?;
        Some((entry.file_name().to_string_lossy().into_owned(), told.len() as usize))
    };
    let mut files: Vec<_> = entries.filter_map(file).filter(|(name, _)| !name.starts_with('.')).collect();
    files.sort();
    files
}

struct Told<'a> {
    folder: &'a Path,
    found: Found,
    files: Vec<(String, usize)>,
    fault: Option<Failure>,
    tensors: bool,
}

impl Told<'_> {
    fn architecture(&self) -> Vec<String> {
        let Some(architecture) = &self.found.architecture else { return Vec::new() };
        let l = &architecture.language;
        let mut lines = vec![
            format!(
                "language    {} layers of width {}, {} heads, {} of keys and values",
                l.layers, l.width, l.heads, l.kv_heads
            ),
            format!("            {} tokens, {} positions", l.vocabulary, l.max_positions),
        ];
        lines.extend(self.found.vocabulary.map(|tokens| format!("tokenizer   {tokens} tokens, with a chat template")));
        lines.extend(self.found.parameters.map(|[language, vision]| {
            format!("parameters  {language} in the language model, {vision} in the vision tower")
        }));
        lines
    }

    fn memory(&self) -> Vec<String> {
        // Types of a GGUF file are mixed: no one format is the file's own.
        let mixed = self.found.tensors.is_empty() || self.found.held.is_some();
        let stored = (!mixed).then(|| self.found.stored());
        let of = |(format, bytes): &(lare_infer::Format, usize)| {
            let as_stored = if Some(*format) == stored { ", as it is stored: mapped" } else { "" };
            format!("memory      {:>9} with --dtype {}{as_stored}", size(*bytes), format.name().to_lowercase())
        };
        let mut lines: Vec<String> = self.found.held.iter().map(held).collect();
        lines.extend(self.found.memory.iter().map(of));
        lines.extend(
            self.found
                .cache_bytes
                .map(|bytes| format!("            {:>9} for each 1000 positions", size(1000 * bytes))),
        );
        lines
    }
}

/// What a GGUF file takes as it is loaded by default.
fn held(held: &Held) -> String {
    let widened: Vec<String> =
        held.widened.iter().map(|(from, to)| format!("{from} is widened to {}", to.name())).collect();
    let all =
        format!("memory      {:>9} without --dtype, {} of it mapped", size(held.mapped + held.own), size(held.mapped));
    if widened.is_empty() { all } else { format!("{all}; {}", widened.join(", ")) }
}

impl Report for Told<'_> {
    fn text(&self) -> String {
        let family = self.found.architecture.as_ref().map_or("unknown", |architecture| &architecture.family);
        let loads = if self.fault.is_none() { "yes" } else { "no" };
        let mut lines =
            vec![format!("model       {family} ({})", self.folder.display()), format!("loads       {loads}")];
        lines.extend(self.files.iter().map(|(name, bytes)| format!("file        {name:<32} {:>9}", size(*bytes))));
        lines.extend(self.architecture());
        lines.extend(self.memory());
        if let Some(first) = self.found.unused.first() {
            lines.push(format!("unused      {}, the first is {first}", counted(self.found.unused.len(), "tensor")));
        }
        for tensor in self.found.tensors.iter().filter(|_| self.tensors) {
            let shape = format!("{:?}", tensor.shape);
            lines.push(format!("tensor      {:<5} {shape:<20} {}", tensor.number_type, tensor.name));
        }
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let found = &self.found;
        let files: Vec<Value> =
            self.files.iter().map(|(name, bytes)| json!({ "name": name, "bytes": bytes })).collect();
        let tensors: Vec<Value> =
            found.tensors.iter().map(|t| json!({ "name": t.name, "shape": t.shape, "type": t.number_type })).collect();
        let memory = found.memory.iter().map(|(format, bytes)| (format.name().to_lowercase(), json!(bytes)));
        json!({
            "place": self.folder.display().to_string(),
            "family": found.architecture.as_ref().map(|architecture| &architecture.family),
            "loads": self.fault.is_none(),
            "fault": self.fault.as_ref().map(|fault| fault.json()["error"].clone()),
            "files": files,
            "parameters": found.parameters.map(|[language, vision]| json!({ "language": language, "vision": vision })),
            "stored": (!found.tensors.is_empty()).then(|| found.stored().name().to_lowercase()),
            "memory_bytes": memory.collect::<serde_json::Map<_, _>>(),
            "held_bytes": found.held.as_ref().map(|held| json!({ "mapped": held.mapped, "own": held.own })),
            "widened": found.held.as_ref().map(|held| held.widened.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
            "cache_bytes_per_position": found.cache_bytes,
            "vocabulary": found.vocabulary,
            "tensors": if self.tensors { json!(tensors) } else { json!(tensors.len()) },
            "unused": found.unused,
        })
    }
}
