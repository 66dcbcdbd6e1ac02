//! An engine, served: OpenAI's chat completions over HTTP, with latent steps as a thing of their own, and a page.
//!
//! [`Server`] takes an [`Engine`](lare_infer::engine::Engine) and answers on a socket until it is told to close. What goes
//! over the wire is in [`wire`]; `docs/server.md` says the same for those who ask.
//!
//! Invariants: every request ends in one answer or one error in OpenAI's shape, never in a panic or a connection that
//! hangs. What was accepted is answered, also while the server is being closed. Limits are checked before what they limit
//! is read, decoded or fetched. Nothing is printed and nothing reads the environment: what happens is told through
//! `tracing`. No tensors.
//!
//! ```no_run
//! use lare_infer::{Assistant, engine::{Engine, Limits}};
//! use lare_server::{Server, Settings};
//! use std::sync::Arc;
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let assistant = Assistant::from_folder("weights/nano".as_ref())?;
//! let engine = Engine::start(Arc::new(assistant), Limits::default())?;
//! let server = Server::new(Arc::new(engine), Settings::new("lare-nano"))?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! server.run(listener, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod address;
mod app;
pub mod bench;
mod convert;
mod error;
mod fetch;
mod health;
mod layers;
mod limits;
mod metrics;
mod openapi;
mod page;
mod picture;
mod routes;
mod serve;
mod stream;
mod underway;
pub mod wire;

pub use address::is_public;
pub use app::{Settings, served_name};
pub use error::Misconfigured;
pub use limits::Limits;
pub use serve::{Ended, Server};
