//! An answer as it is said: server-sent events, one chunk each.
//!
//! ```text
//! data: {"choices":[{"delta":{"role":"assistant","content":""}}]}       at once, when the request is accepted
//! data: {"choices":[{"delta":{}}],"lare":{"look":{...}}}                a latent step, where `lare.trace` is true
//! data: {"choices":[{"delta":{"content":"a word"}}]}                    more of the answer
//! data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":...}   the end
//! data: {"choices":[],"usage":{...}}                                    instead of the usage above, with `include_usage`
//! data: [DONE]
//! ```
//!
//! What goes wrong after the first chunk is `data: {"error":{...}}`, after which the stream ends without `[DONE]`.

use crate::app::now;
use crate::convert::{self, Wanted};
use crate::error::Problem;
use crate::underway::Underway;
use crate::wire::{Chunk, ChunkChoice, ChunkExtras, Delta, Usage};
use axum::http::HeaderName;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use lare_infer::engine::Update;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// The stream of an accepted request.
pub fn respond(underway: Underway, about: Answer, keep_alive: Duration) -> Response {
    let mut chunks = Chunks { underway, events: VecDeque::new(), about, looks: 0, over: false };
    let role = Delta { role: Some("assistant"), content: Some("") };
    let first = data(&chunks.about.chunk(Some((role, None))));
    chunks.events.push_back(first);
    let events = stream::unfold(chunks, |mut chunks| async move {
        let event = chunks.next().await?;
        Some((Ok::<_, Infallible>(event), chunks))
    });
    let alive = KeepAlive::new().interval(keep_alive).text("still here");
    // Proxies that collect answers before they pass them on are asked not to.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    (unbuffered, Sse::new(events).keep_alive(alive)).into_response()
}

/// What all chunks of an answer have in common.
pub struct Answer {
    /// Its name.
    pub id: String,
    /// Who answers.
    pub model: String,
    /// Seconds since 1970.
    pub created: u64,
    /// What its client wants.
    pub wanted: Wanted,
}

impl Answer {
    /// An answer that begins now.
    pub fn new(id: String, model: String, wanted: Wanted) -> Self {
        Self { id, model, created: now(), wanted }
    }

    fn chunk<'a>(&'a self, choice: Option<(Delta<'a>, Option<&'static str>)>) -> Chunk<'a> {
        let choice =
            choice.map(|(delta, finish_reason)| ChunkChoice { index: 0, delta, logprobs: None, finish_reason });
        Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices: choice.into_iter().collect(),
            usage: None,
            lare: None,
        }
    }

    fn with_usage<'a>(chunk: Chunk<'a>, usage: Usage) -> Chunk<'a> {
        Chunk { usage: Some(usage), lare: Some(ChunkExtras::Cost(usage.lare)), ..chunk }
    }
}

struct Chunks {
    underway: Underway,
    events: VecDeque<Event>,
    about: Answer,
    looks: usize,
    over: bool,
}

impl Chunks {
    async fn next(&mut self) -> Option<Event> {
        while self.events.is_empty() && !self.over {
            let update = self.underway.next().await;
            self.take(update);
        }
        self.events.pop_front()
    }

    fn take(&mut self, update: Result<Update, Problem>) {
        let mut events = Vec::new();
        let about = &self.about;
        match update {
            Ok(Update::Look { look, grids, drawing }) => {
                self.looks += 1;
                if about.wanted.looks {
                    let look = Box::new(convert::look(self.looks, &look, &grids, drawing.as_ref()));
                    let chunk = about.chunk(Some((Delta::default(), None)));
                    events.push(data(&Chunk { lare: Some(ChunkExtras::Look { look }), ..chunk }));
                }
            }
            Ok(Update::Text(text)) => {
                let delta = Delta { role: None, content: Some(&text) };
                events.push(data(&about.chunk(Some((delta, None)))));
            }
            Ok(Update::Done(answered)) => {
                let usage = convert::usage(&answered);
                let last = about.chunk(Some((Delta::default(), Some(convert::finish_reason(&answered)))));
                if about.wanted.usage_chunk {
                    events.push(data(&last));
                    events.push(data(&Answer::with_usage(about.chunk(None), usage)));
                } else {
                    events.push(data(&Answer::with_usage(last, usage)));
                }
                events.push(Event::default().data("[DONE]"));
                self.over = true;
            }
            Ok(Update::Failed(_)) => {} // given as an error by [`Underway::next`]
            Err(problem) => {
                events.push(Event::default().data(problem.json().to_string()));
                self.over = true;
            }
        }
        self.events.extend(events);
    }
}

/// A chunk's numbers and texts always have a form in JSON.
fn data(chunk: &Chunk) -> Event {
    Event::default().data(serde_json::to_string(chunk).unwrap_or_default())
}
