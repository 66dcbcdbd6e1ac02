//! What an engine has done so far, for those who watch it.

use super::{Load, Refusal};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Buckets of [`Stats::passes_by_rows`]: passes of at most so many rows, and in the last one of more.
pub const ROWS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Sums since the engine was started, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests whose deadline passed.
    pub timed_out: u64,
    /// Requests that an error or a panic ended.
    pub broken: u64,
    /// Requests whose caller was gone.
    pub abandoned: u64,
    /// Requests refused because the queue was full.
    pub refused_full: u64,
    /// Requests refused because they can never be answered.
    pub refused_bad: u64,
    /// Requests refused because the engine was being closed.
    pub refused_closing: u64,
    /// Forward passes.
    pub passes: u64,
    /// Rows of all passes together: over [`Stats::passes`], the mean batch.
    pub rows: u64,
    /// Passes by their number of rows: at most 1, 2, 4, 8, 16, 32, and more.
    pub passes_by_rows: [u64; ROWS.len() + 1],
    /// Microseconds spent in passes.
    pub pass_micros: u64,
    /// Latent steps.
    pub latent_steps: u64,
    /// Tokens that were said, those that end thoughts and answers included, of answered requests.
    pub text_tokens: u64,
    /// Positions of the prompts of answered requests, pictures included.
    pub prefill_positions: u64,
    /// Requests whose picture was known already, or about to be.
    pub picture_hits: u64,
    /// Pictures that were encoded.
    pub picture_misses: u64,
    /// Bytes of encoded pictures that are kept.
    pub picture_bytes: usize,
    /// Bytes reserved for keys and values of requests that are being answered.
    pub cache_bytes: usize,
}

/// The same, while it is counted.
#[derive(Default)]
pub(super) struct Counters {
    waiting: AtomicUsize,
    running: AtomicUsize,
    stats: Mutex<Stats>,
}

impl Counters {
    /// Changes some sums.
    pub(super) fn count(&self, change: impl FnOnce(&mut Stats)) {
        // A panic while counting leaves sums that are still sums.
        change(&mut self.stats.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    pub(super) fn stats(&self) -> Stats {
        *self.stats.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        self.count(|stats| match refusal {
            Refusal::Full { .. } => stats.refused_full += 1,
            Refusal::Closing => stats.refused_closing += 1,
            Refusal::Bad { .. } => stats.refused_bad += 1,
        });
    }

    pub(super) fn load(&self) -> Load {
        Load { waiting: self.waiting.load(Ordering::Relaxed), running: self.running.load(Ordering::Relaxed) }
    }

    /// One more waits, unless `most` do already.
    pub(super) fn queued(&self, most: usize) -> bool {
        let more = |waiting| (waiting < most.max(1)).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// One that waited no longer does.
    pub(super) fn unqueued(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn set_running(&self, running: usize) {
        self.running.store(running, Ordering::Relaxed);
    }
}
