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
mod host;
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
pub use app::{Settings, published_name, served_name};
pub use error::Misconfigured;
pub use limits::Limits;
pub use serve::{Ended, Server};

use lare_infer::engine::About;

/// Takes a body as far as the engine's door, as a server of default limits does, and gives the number of its pictures. Needs no
/// model: for fuzzing, and for looking at requests.
///
/// # Errors
/// The body of the answer that a client would get.
pub fn examine(body: &[u8]) -> Result<usize, String> {
    let about = About { name: String::new(), max_steps: 8, pictures: usize::MAX, can_draw: true, answer_tokens: None };
    let limits = Limits::default();
    let budget = limits::Budget::new(limits.memory_bytes);
    let examined = || -> Result<usize, error::Problem> {
        let (request, _) = convert::read(body)?;
        let name = request.model.clone().unwrap_or_default();
        let asked = convert::understand(request, &name, &about, &limits)?;
        let load = |(field, url): &(String, String)| picture::of_uri(field, url, &limits, &budget);
        let pictures: Vec<picture::Loaded> = asked.pictures.iter().map(load).collect::<Result<_, error::Problem>>()?;
        Ok(pictures.len())
    };
    examined().map_err(|problem| problem.json().to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_body_is_examined_without_a_model() {
        assert!(super::examine(b"{").unwrap_err().contains("invalid_json"));
        let text = br#"{"messages":[{"role":"user","content":"a"}]}"#;
        assert_eq!(super::examine(text), Ok(0));
        let picture = br#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":"data:image/png;base64,AA"}]}]}"#;
        assert!(super::examine(picture).unwrap_err().contains("messages[0].content[0].image_url.url"));
    }
}
