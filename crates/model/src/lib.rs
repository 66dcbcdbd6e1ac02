//! A vision-language model that thinks by looking again: weights in, tensors out.
//!
//! Multimodal reasoning via latent refocusing (Ma et al., arXiv 2511.02360). [`Reasoner`] encodes a picture,
//! reads a prompt, takes K latent steps, each of which re-reads the patches its own attention picked
//! ([`refocus`]), and gives the logits of the answer.
//!
//! Invariants: no text, no sampling, no losses, no randomness and no clock in this crate; the only files it
//! reads and writes are weights and their config. With no latent step the system is the plain model, to the bit. The same
//! function takes a latent step in training, inference and evaluation.
//!
//! Letters: `B` rows, `S` pictures, `P` image tokens, `F` fine features, `T` text tokens, `K` latent steps,
//! `R` patches re-read per step, `D` language width, `Dv` vision width, `H` heads, `G` key/value heads,
//! `Dh` head width, `L` layers, `V` vocabulary.
//!
//! ```
//! use lare_model::{Config, specifications};
//!
//! let config = Config::from_toml(include_str!("../tests/tiny.toml"), "tiny.toml")?;
//! let parameters: usize = specifications(&config)?.iter().map(|p| p.shape.iter().product::<usize>()).sum();
//! assert!(parameters > 10_000);
//! # Ok::<(), lare_model::Error>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod adapter;
pub mod backbone;
pub mod cache;
pub mod config;
mod context;
pub mod conversation;
pub mod decoder;
mod error;
mod look;
pub mod lora;
pub mod mask;
pub mod merge;
pub mod nn;
pub mod pretrained;
pub mod qformer;
pub mod reasoner;
pub mod reasoning;
pub mod refocus;
pub mod refocused;
pub mod rope;
pub mod semantic;
pub mod tap;
pub mod weights;

pub use adapter::Adapter;
pub use config::Config;
pub use conversation::{Conversation, Given, Ground, Turn};
pub use error::{Error, Result};
pub use lare_kernels::Format;
pub use lora::Lora;
pub use reasoner::{Reasoner, Views};
pub use reasoning::{Prompts, Reasoning, Thread};
pub use refocus::{Focus, Look};
pub use refocused::Refocused;
pub use weights::{Init, Loaded, ParameterSpec, Path, Source, specifications};
