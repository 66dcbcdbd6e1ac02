//! One file a command: arguments in, a result and how it ended out.

pub mod ask;
pub mod docs;
pub mod doctor;
pub mod inspect;
pub mod make_data;
pub mod report;
pub mod train;

use crate::embedded;
use crate::failure::Failure;
use lare_infer::{Assistant, Device};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
fn assistant(folder: Option<&Path>) -> Result<Assistant, Failure> {
    Ok(match folder {
        Some(folder) => Assistant::from_folder(folder)?,
        None => Assistant::from_files(&embedded::files(), &Device::Cpu)?,
    })
}

/// `3 steps`, `1 step`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Counts Ctrl-C; the second one ends the program at once.
fn listen() -> Result<Arc<AtomicUsize>, Failure> {
    let presses = Arc::new(AtomicUsize::new(0));
    let counted = presses.clone();
    ctrlc::set_handler(move || {
        if counted.fetch_add(1, Ordering::Relaxed) > 0 {
            std::process::exit(130);
        }
    })?;
    Ok(presses)
}
