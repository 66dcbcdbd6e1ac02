//! `lare merge`: an adapter's low-rank changes folded into its base.

use super::Outcome;
use crate::args;
use crate::failure::Failure;
use crate::hub;
use crate::messages::{Messages, Report};
use lare_infer::Adapter;
use lare_model::merge::merge;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Writes the merged folder.
pub fn run(arguments: &args::Merge, messages: &Messages) -> Result<Outcome, Failure> {
    let base = hub::folder(&arguments.model)?;
    let adapter = Adapter::open(&arguments.adapter)?;
    let changed = merge(&base, &adapter, &arguments.out)?;
    messages.report(&Merged { changed, out: arguments.out.clone() })?;
    Ok(Outcome::Done)
}

struct Merged {
    changed: usize,
    out: PathBuf,
}

impl Report for Merged {
    fn text(&self) -> String {
        format!("{} with {} changed\n", self.out.display(), counted_matrices(self.changed))
    }

    fn json(&self) -> Value {
        json!({ "folder": self.out, "changed": self.changed })
    }
}

fn counted_matrices(count: usize) -> String {
    if count == 1 { "1 matrix".to_owned() } else { format!("{count} matrices") }
}
