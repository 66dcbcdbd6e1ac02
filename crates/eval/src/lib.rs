//! A model, judged: items in, graded answers with what they cost and what led to them out.
//!
//! | module | |
//! |---|---|
//! | [`item`] | what is asked: parts of the refocus suite |
//! | [`benchmark`] | what is asked: benchmarks that others use, in their own files |
//! | [`run`](mod@run) | asks every item, keeps a line of each, goes on where it was killed |
//! | [`keep`] | whole traces of a few answers, to look at |
//! | [`grade`] | right, wrong or unparsed; pure, and never a guess |
//! | [`intervene`] | what is put in the place of thoughts and looks, to see whether they matter |
//! | [`stats`], [`summary`] | shares and differences with intervals |
//! | [`rules`] | what benchmarks count as right: all orders of the options, pairs, a yes that is one |
//! | [`cells`] | regions of pictures and the cells a model looks at |
//! | [`report`] | runs side by side: tables and plots on one page |
//!
//! Invariants: no printing; no tensors; the same settings give the same results, times apart; nothing is counted right
//! that does not say so.
//!
//! ```no_run
//! use lare_eval::{Refocus, Settings, Source, Summary};
//! use lare_data::{Split, Task};
//!
//! let assistant = lare_infer::Assistant::from_folder("runs/nano/model".as_ref())?;
//! let source = Refocus::new(Split::Val, Task::ALL.to_vec(), 100);
//! let settings = Settings::new(assistant.identity(), &source);
//! let found = lare_eval::run(&assistant, &source, &settings, "runs/eval".as_ref(), &mut |_| true)?;
//! let summary = Summary::of(&settings, &found.records);
//! assert!(summary.is_some_and(|summary| summary.all.items == 900));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod benchmark;
pub mod cells;
mod error;
pub mod grade;
pub mod intervene;
pub mod item;
pub mod keep;
pub mod record;
pub mod report;
pub mod rules;
pub mod run;
pub mod settings;
pub mod stats;
pub mod summary;

pub use benchmark::Benchmark;
pub use error::{Error, Result, Unusable};
pub use grade::{Expected, Outcome};
pub use intervene::Intervention;
pub use item::{Item, Origin, Refocus, Source};
pub use keep::Kept;
pub use record::Record;
pub use report::Report;
pub use rules::Rules;
pub use run::{Evaluation, Job, read, run};
pub use settings::Settings;
pub use summary::Summary;
