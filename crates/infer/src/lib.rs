//! A model, used: pictures and questions in, answers with everything that led to them out.
//!
//! [`Assistant`] is a loaded model; [`session::answer`] answers a batch of questions, several pictures and shapes at
//! once, and tells of every look and word as it happens; [`record::record`] turns an answer into a trace.
//!
//! Invariants: no gradients, no printing, no environment, no files but those of a model folder. The same seed gives
//! the same answer. With frozen weights an answer has the same bits alone, in any batch, and served by an [`Engine`].
//!
//! ```no_run
//! use lare_infer::{Assistant, Batch, Options, Question, session};
//!
//! let assistant = Assistant::from_folder("runs/nano/model".as_ref())?;
//! let picture = lare_data::image::open("desk.png".as_ref())?;
//! let question = Question::new(0, "What is on the cup?", Options::default());
//! let batch = Batch { pictures: &[&picture], questions: &[question] };
//! let answers = session::answer(&assistant, &batch, &mut |_| ())?;
//! assert_eq!(answers.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod advance;
pub mod draw;
pub mod engine;
mod error;
pub mod folder;
pub mod generator;
pub mod inspect;
pub mod load;
pub mod look;
pub mod model;
pub mod options;
pub mod places;
pub mod record;
pub mod replaced;
pub mod sampler;
pub mod session;
mod talk;

pub use candle_core::{Device, Tensor};
pub use engine::Engine;
pub use error::{Error, Result};
pub use lare_data::export::png;
pub use lare_data::{Picture, chat, image};
pub use lare_model::pretrained::Holding;
pub use lare_model::{Adapter, Format};
pub use lare_trace::{Grid, Usage, Word};
pub use load::{Assistant, Files, OwnedFiles};
pub use look::LookReport;
pub use options::{Options, Steps};
pub use replaced::Replaced;
pub use sampler::{Sampler, Sampling};
pub use session::{Answer, Batch, Event, Finish, Question};

#[cfg(test)]
mod tiny;
