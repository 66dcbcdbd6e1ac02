//! A model, changed: stages, losses, optimiser, checkpoints.
//!
//! One strict file describes one run ([`Config`]); [`run::train`] performs it. Batches are a pure function of the
//! config and the step number, so a run that is killed and resumed repeats the uninterrupted one bit for bit on a
//! CPU.
//!
//! Invariants: this crate knows neither evaluation suites nor sessions; validation beyond its own monitors comes
//! in as a callback. Every term of the loss is one field of [`loss::LossTerms`], and its name is the name in the
//! metrics file.
//!
//! ```
//! let config = lare_train::Config::from_toml(include_str!("../tests/tiny.toml"), "tiny.toml")?;
//! assert_eq!(config.total_steps(), config.stages.iter().map(|s| s.steps).sum::<usize>());
//! # Ok::<(), lare_train::Error>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod batch;
mod changes;
pub mod checkpoint;
mod checks;
pub mod config;
mod error;
pub mod family;
pub mod folder;
pub mod halting;
pub mod language;
pub mod loss;
pub mod meaning;
pub mod metrics;
pub mod monitor;
pub mod nano;
pub mod order;
pub mod overrides;
pub mod reading;
pub mod run;
pub mod schedule;
pub mod stages;
pub mod subject;
pub mod vars;

pub use config::Config;
pub use error::{Error, Result};
pub use lare_kernels::{bf16_unit, round_products_to_bf16};
