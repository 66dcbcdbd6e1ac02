//! One model, many callers: requests go in, and what happens to each comes out as it happens.
//!
//! ```text
//! submit ─ check ─► queue ─ admit: first come, first served, as its keys and values fit ─► picture, unless it is known
//!                              each pass: all that are ready read, think or say, in one forward pass ─► updates
//! ```
//!
//! An [`Engine`] answers on a thread of its own and encodes pictures on others. [`Engine::submit`] refuses at once
//! what cannot be answered or has no place in the queue; everything else ends in exactly one [`Update::Done`] or
//! [`Update::Failed`], unless its caller is gone.

mod pictures;
mod pool;
mod schedule;
mod stats;
#[cfg(test)]
mod tests;

pub use stats::{ROWS, Stats};

use crate::Error;
use crate::load::Assistant;
use crate::look::LookReport;
use crate::options::{Options, Steps};
use crate::replaced::{Live, Replacing};
use crate::session::Finish;
use crate::talk::Draft;
use lare_data::Picture;
use lare_data::chat::{Content, Message, Part, Role};
use lare_trace::{Grid, Usage};
use pool::Pool;
use schedule::{Job, Note, Scheduler};
use stats::Counters;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What an engine may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that wait; one more is refused.
    pub queue: usize,
    /// Requests computed together in one forward pass.
    pub rows: usize,
    /// Most pictures of one request.
    pub pictures: usize,
    /// Bytes of keys and values of all requests that are being answered.
    pub cache_bytes: usize,
    /// Bytes of encoded pictures kept for later requests about them.
    pub picture_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queue: 64, rows: 16, pictures: 8, cache_bytes: 2 << 30, picture_bytes: 256 << 20 }
    }
}

/// What a causal test puts in the place of every thought or look of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// Thoughts of zeros.
    Zero,
    /// Gaussian noise of the thought's own norm.
    Noise {
        /// Where the draws start.
        seed: u64,
    },
    /// The first thought again and again.
    RepeatFirst,
    /// No thoughts: `</think>` at once.
    MarkersOnly,
    /// Patches drawn at random in place of those that were chosen.
    RandomPatches {
        /// Where the draws start.
        seed: u64,
    },
}

/// One conversation to be answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was said so far.
    pub messages: Vec<Message>,
    /// Its pictures, in the order of [`Part::Picture`].
    pub pictures: Vec<Arc<Picture>>,
    /// How it is answered; `max_tokens` is clamped to the context that is left.
    pub options: Options,
    /// Texts at which the answer ends; they are no part of it.
    pub stop: Vec<String>,
    /// What is put in the place of thoughts or looks.
    pub replace: Option<Replacement>,
    /// Whether each look brings the picture drawn from its thought, where the model can draw.
    pub draw: bool,
    /// Not answered after this.
    pub deadline: Option<Instant>,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Update {
    /// It took a latent step.
    Look {
        /// What it saw and thought.
        look: Box<LookReport>,
        /// How the cells of each picture lie on the original; the look's scores count through all of them.
        grids: Arc<[Grid]>,
        /// The picture drawn from the thought, where it was asked for.
        drawing: Option<Picture>,
    },
    /// It said more; joined, these are the answer.
    Text(String),
    /// It is answered.
    Done(Box<Answered>),
    /// It cannot be answered.
    Failed(Failure),
}

/// Why a request that was accepted has no answer.
#[derive(Debug)]
pub enum Failure {
    /// Its deadline passed.
    Timeout,
    /// The model failed, or a panic ended this request.
    Broken {
        /// For the log, not for the caller.
        reason: String,
    },
}

/// An answer and what it cost.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The answer's words.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Whether one of [`Request::stop`] ended it.
    pub stopped: bool,
    /// What it cost, in tokens and positions.
    pub usage: Usage,
    /// Positions of the prompt, pictures included.
    pub prompt_tokens: usize,
    /// How the patches of each picture lie on the original.
    pub grids: Vec<Grid>,
    /// From being accepted to being begun.
    pub queued: Duration,
    /// From being accepted to the first token of the answer.
    pub first_token: Duration,
    /// From being accepted to the end.
    pub total: Duration,
}

/// Why a request is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// As many requests wait as may.
    #[error("{waiting} requests are waiting")]
    Full {
        /// That many.
        waiting: usize,
    },
    /// The engine is being closed.
    #[error("no more requests are taken")]
    Closing,
    /// It can never be answered as it stands.
    #[error("`{field}`: {reason}")]
    Bad {
        /// The part of the request: `messages`, `pictures`, `steps`, ...
        field: &'static str,
        /// What is expected and what was got.
        reason: String,
    },
}

/// Takes the updates of one request. Gives false when nobody listens any more: the request is then dropped.
pub type Sink = Box<dyn FnMut(Update) -> bool + Send>;

/// An accepted request. Dropping it ends the request as soon as the forward pass under way is over.
#[derive(Debug)]
pub struct Ticket {
    gone: Arc<AtomicBool>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// What an engine's model can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The model's own name.
    pub name: String,
    /// Most latent steps; 0 for a model that answers in text alone.
    pub max_steps: usize,
    /// Most pictures of one request, under this engine's limits.
    pub pictures: usize,
    /// Whether it can draw its thoughts.
    pub can_draw: bool,
}

/// How an engine stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that are being answered.
    pub running: usize,
}

/// A model on a thread of its own.
pub struct Engine {
    assistant: Arc<Assistant>,
    limits: Limits,
    notes: Mutex<Option<Sender<Note>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counters: Arc<Counters>,
}

impl Engine {
    /// Starts its threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(assistant: Arc<Assistant>, limits: Limits) -> std::io::Result<Self> {
        let (sender, notes) = mpsc::channel();
        let counters = Arc::new(Counters::default());
        let scheduler = Scheduler::new(assistant.clone(), limits, counters.clone(), (sender.clone(), notes))?;
        // A pool of its own: passes must not wait for the threads that encode pictures.
        let pool = rayon::ThreadPoolBuilder::new().build().map_err(std::io::Error::other)?;
        let run = move || pool.install(move || scheduler.run());
        let thread = std::thread::Builder::new().name("engine".into()).spawn(run)?;
        let (notes, thread) = (Mutex::new(Some(sender)), Mutex::new(Some(thread)));
        Ok(Self { assistant, limits, notes, thread, counters })
    }

    /// Queues a request. `sink` gets its updates, from the engine's thread: it must not block.
    ///
    /// # Errors
    /// [`Refusal`] for what can never be answered, when the queue is full, and after [`Engine::close`].
    pub fn submit(&self, request: Request, sink: Sink) -> std::result::Result<Ticket, Refusal> {
        let refused = |refusal: Refusal| {
            self.counters.refused(&refusal);
            refusal
        };
        let draft = draft(&self.assistant, &self.limits, &request).map_err(refused)?;
        let gone = Arc::new(AtomicBool::new(false));
        let job = Job { draft, request, sink, gone: gone.clone(), accepted: Instant::now() };
        let Ok(notes) = self.notes.lock() else { return Err(refused(Refusal::Closing)) };
        let Some(notes) = notes.as_ref() else { return Err(refused(Refusal::Closing)) };
        if !self.counters.queued(self.limits.queue) {
            return Err(refused(Refusal::Full { waiting: self.limits.queue }));
        }
        // The scheduler keeps the channel open until after it was told to close, which is behind this lock.
        notes.send(Note::Job(Box::new(job))).map_err(|_| refused(Refusal::Closing))?;
        Ok(Ticket { gone })
    }

    /// What its model can do.
    #[must_use]
    pub fn about(&self) -> About {
        let max_steps = self.assistant.config().refocus.max_steps;
        let pictures = self.limits.pictures.min(1);
        About { name: self.assistant.name().to_owned(), max_steps, pictures, can_draw: true }
    }

    /// How many wait and run.
    #[must_use]
    pub fn load(&self) -> Load {
        self.counters.load()
    }

    /// What it has done so far, and what it holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }

    /// Takes no more requests and waits until those that were accepted are answered.
    pub fn close(&self) {
        if let Ok(mut notes) = self.notes.lock()
            && let Some(notes) = notes.take()
        {
            drop(notes.send(Note::Close));
        }
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            drop(thread.join());
        }
    }
}

impl Drop for Engine {
    /// As [`Engine::close`].
    fn drop(&mut self) {
        self.close();
    }
}

/// The question of a conversation with the nano model: one message of one picture and its text.
fn question(request: &Request) -> std::result::Result<String, Refusal> {
    let bad = |field, reason: &str| Err(Refusal::Bad { field, reason: reason.into() });
    let mut asked = request.messages.iter().filter(|message| message.role != Role::System);
    let (Some(message), None) = (asked.next(), asked.next()) else {
        return bad("messages", "this model answers one question; give one message of the role `user`");
    };
    if request.pictures.len() != 1 {
        let reason = format!("this model answers about one picture, got {}", request.pictures.len());
        return Err(Refusal::Bad { field: "messages", reason });
    }
    let text = match &message.content {
        Content::Text(text) => text.clone(),
        Content::Parts(parts) => {
            let texts = parts.iter().filter_map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Picture => None,
            });
            texts.collect::<Vec<_>>().join(" ")
        }
    };
    Ok(text)
}

/// A request that is ready to be begun with, or why it never can be.
fn draft(assistant: &Assistant, limits: &Limits, request: &Request) -> std::result::Result<Draft<'static>, Refusal> {
    if request.pictures.len() > limits.pictures {
        let reason = format!("at most {} pictures, got {}", limits.pictures, request.pictures.len());
        return Err(Refusal::Bad { field: "messages", reason });
    }
    let text = question(request)?;
    let refused = |error: Error| match error {
        Error::Option { field, .. } => Refusal::Bad { field, reason: error.to_string() },
        _ => Refusal::Bad { field: "messages", reason: error.to_string() },
    };
    let mut options = request.options;
    if request.replace == Some(Replacement::MarkersOnly) {
        options.steps = Steps::Fixed(0);
    }
    let mut draft = Draft::new(assistant, &text, options, 1).map_err(refused)?;
    draft.stop.clone_from(&request.stop);
    if let Some(replace) = request.replace {
        draft.replacing = Replacing::Live(Live::new(replace));
    }
    let needed = Pool::bytes_for(assistant, draft.most_slots(assistant.config()));
    if needed > limits.cache_bytes {
        let reason = format!(
            "its prompt, steps and answer may take {needed} bytes of keys and values, and all requests together have {}; ask for a shorter answer",
            limits.cache_bytes
        );
        return Err(Refusal::Bad { field: "max_tokens", reason });
    }
    Ok(draft)
}
