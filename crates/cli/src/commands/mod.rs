//! One file a command: arguments in, a result and how it ended out.

pub mod ask;
pub mod bench_serve;
pub mod docs;
pub mod doctor;
pub mod dump;
pub mod eval;
pub mod generate;
pub mod inspect;
mod inspect_adapter;
mod inspect_folder;
pub mod lint;
pub mod make_data;
pub mod merge;
pub mod report;
pub mod serve;
pub mod train;

use crate::embedded;
use crate::failure::Failure;
use lare_infer::{Assistant, Device, OwnedFiles};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was asked for is done.
    Done,
    /// It is done, and the answer is no.
    No,
    /// The user ended it, and nothing is lost.
    Interrupted,
}

/// The model in a folder, or the one inside the program.
fn assistant(folder: Option<&Path>, device: &Device) -> Result<Assistant, Failure> {
    Ok(match folder {
        Some(folder) => Assistant::from_files(&OwnedFiles::read(folder)?.files(), device)?,
        None => Assistant::from_files(&embedded::files(), device)?,
    })
}

/// `3 steps`, `1 step`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Becomes true at Ctrl-C or SIGTERM; the second one ends the program at once. SIGHUP is left alone: `nohup` has it
/// ignored, so that a run outlives its terminal.
fn listen() -> Result<Arc<AtomicBool>, Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: at the first signal nothing has been noted yet.
        flag::register_conditional_shutdown(signal, 130, ended.clone())?;
        flag::register(signal, ended.clone())?;
    }
    Ok(ended)
}
