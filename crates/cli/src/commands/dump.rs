//! `lare dump`: every intermediate between a prompt and its logits, to compare with another implementation.

use super::{Outcome, counted};
use crate::args::Dump;
use crate::failure::Failure;
use crate::files;
use crate::hub;
use crate::messages::{Messages, Report};
use lare_infer::generator::{self, Prompt};
use lare_infer::{Adapter, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes the file.
pub fn run(dump: &Dump, messages: &Messages) -> Result<Outcome, Failure> {
    let sources = dump.image.iter().map(|path| files::picture(path)).collect::<Result<Vec<_>, _>>()?;
    let pictures: Vec<_> = sources.iter().map(|source| &source.opened.picture).collect();
    let prompt = match &dump.prompt {
        Some(text) => Prompt::Question(text),
        None => Prompt::Ids(&dump.ids),
    };
    let model = hub::folder(&dump.model)?;
    let adapter = dump.adapter.as_deref().map(Adapter::open).transpose()?;
    let named = generator::dump(
        &model,
        dump.computing.holding(dump.dtype.map(Into::into))?,
        adapter.as_ref(),
        &pictures,
        prompt,
    )?;
    // Into memory first, then in one go, as every file is written: half a file would look like a difference.
    let bytes = generator::archive(&named)?;
    files::write(&dump.out, &bytes)?;
    messages.report(&Told { out: &dump.out, named: &named })?;
    Ok(Outcome::Done)
}

struct Told<'a> {
    out: &'a Path,
    named: &'a BTreeMap<String, Tensor>,
}

impl Report for Told<'_> {
    fn text(&self) -> String {
        let tensor = |(name, tensor): (&String, &Tensor)| format!("{name:<20} {:?}", tensor.dims());
        let mut lines: Vec<String> = self.named.iter().map(tensor).collect();
        lines.push(format!("{} in {}", counted(self.named.len(), "tensor"), self.out.display()));
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let shapes: BTreeMap<_, _> = self.named.iter().map(|(name, tensor)| (name, tensor.dims())).collect();
        json!({ "file": self.out, "tensors": shapes })
    }
}
