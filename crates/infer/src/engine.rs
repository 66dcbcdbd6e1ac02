//! One model, many callers: requests go in, and what happens to each comes out as it happens.
//!
//! ```text
//! submit ─ lay out, check ─► queue ─ admit: first come, first served, as its keys and values fit ─► pictures, and what it goes
//!                 on from, unless they are known; each pass: all that are ready read, think or say, in one forward pass ─► updates
//! ```
//!
//! An [`Engine`] answers on a thread of its own and encodes pictures on others. [`Engine::submit`] refuses at once
//! what cannot be answered or has no place in the queue; everything else ends in exactly one [`Update::Done`] or
//! [`Update::Failed`], unless its caller is gone.

mod grounds;
mod pool;
mod schedule;
mod shelf;
mod stats;
#[cfg(test)]
mod tests;

pub use stats::{ROWS, Stats};

use crate::Error;
use crate::look::LookReport;
use crate::model::{Model, Speaking};
use crate::options::{Options, Steps, most_steps};
use crate::replaced::{Live, Replacing};
use crate::session::Finish;
use crate::talk::Draft;
use lare_data::chat::Message;
use lare_data::{Picture, Size};
use lare_trace::{Grid, Usage};
use pool::Pool;
use schedule::{Call, Job, Note, Scheduler};
use stats::Counters;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
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
    /// Bytes of keys and values of all requests that are being answered, those of what they go on from included.
    pub cache_bytes: usize,
    /// Bytes of encoded pictures, and of what conversations go on from, kept for later requests.
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
    /// Most latent steps where their number is the model's to choose.
    pub most_steps: usize,
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
    /// Tokens of an answer that it asks for itself, unless a request says otherwise.
    pub answer_tokens: Option<usize>,
}

/// How an engine stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that are being answered.
    pub running: usize,
}

/// Sends a call; false when nobody is there to take it.
type Calls = Box<dyn Fn(Call) -> bool + Send>;

/// A model on a thread of its own.
pub struct Engine {
    model: Arc<dyn Speaking>,
    limits: Limits,
    /// The way to its thread, until it is closed.
    calls: Mutex<Option<Calls>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counters: Arc<Counters>,
}

impl Engine {
    /// Starts its threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<M: Model>(model: Arc<M>, limits: Limits) -> std::io::Result<Self> {
        let (sender, notes) = mpsc::channel();
        let counters = Arc::new(Counters::default());
        let scheduler = Scheduler::new(model.clone(), limits, counters.clone(), (sender.clone(), notes))?;
        // A pool of its own: passes must not wait for the threads that encode pictures.
        let pool = rayon::ThreadPoolBuilder::new().build().map_err(std::io::Error::other)?;
        let run = move || pool.install(move || scheduler.run());
        let thread = std::thread::Builder::new().name("engine".into()).spawn(run)?;
        let calls: Calls = Box::new(move |call| sender.send(Note::Call(call)).is_ok());
        let (calls, thread) = (Mutex::new(Some(calls)), Mutex::new(Some(thread)));
        Ok(Self { model, limits, calls, thread, counters })
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
        let draft = draft(&*self.model, &self.limits, &request).map_err(refused)?;
        let gone = Arc::new(AtomicBool::new(false));
        let job = Job { draft: Box::new(draft), request, sink, gone: gone.clone(), accepted: Instant::now() };
        let Ok(calls) = self.calls.lock() else { return Err(refused(Refusal::Closing)) };
        let Some(send) = calls.as_ref() else { return Err(refused(Refusal::Closing)) };
        if !self.counters.queued(self.limits.queue) {
            return Err(refused(Refusal::Full { waiting: self.limits.queue }));
        }
        // The scheduler keeps the channel open until after it was told to close, which is behind this lock.
        if send(Call::Job(Box::new(job))) { Ok(Ticket { gone }) } else { Err(refused(Refusal::Closing)) }
    }

    /// What its model can do.
    #[must_use]
    pub fn about(&self) -> About {
        About {
            name: self.model.name().to_owned(),
            max_steps: most_steps(&*self.model),
            pictures: self.limits.pictures.min(self.model.most_pictures()),
            can_draw: self.model.can_draw(),
            answer_tokens: self.model.manner().answer_tokens,
        }
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
        if let Ok(mut calls) = self.calls.lock()
            && let Some(send) = calls.take()
        {
            send(Call::Close); // nobody is there when it is closed already
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

/// A request that is ready to be begun with, or why it never can be.
fn draft(model: &dyn Speaking, limits: &Limits, request: &Request) -> std::result::Result<Draft<'static>, Refusal> {
    let bad = |field, reason: String| Err(Refusal::Bad { field, reason });
    let most = limits.pictures.min(model.most_pictures());
    if request.pictures.len() > most {
        return bad("pictures", format!("at most {most} pictures, got {}", request.pictures.len()));
    }
    if request.replace.is_some() && model.refocus().is_none() {
        return bad("replace", "this model takes no latent steps: nothing can be replaced".into());
    }
    if request.draw && !model.can_draw() {
        return bad("draw", "this model does not draw its thoughts".into());
    }
    let refused = |error: Error| match error {
        Error::Option { field, .. } => Refusal::Bad { field, reason: error.to_string() },
        _ => Refusal::Bad { field: "messages", reason: error.to_string() },
    };
    let mut options = request.options;
    if request.replace == Some(Replacement::MarkersOnly) {
        options.steps = Steps::Fixed(0);
    }
    let sizes: Vec<Size> = request.pictures.iter().map(|picture| Size::of(picture)).collect();
    let mut draft = Draft::new(model, &request.messages, &sizes, options).map_err(refused)?;
    draft.cap_steps(request.most_steps);
    draft.stop.clone_from(&request.stop);
    if let Some(replace) = request.replace {
        draft.replacing = Replacing::Live(Live::new(replace));
    }
    let needed = Pool::bytes_for(model, &draft);
    if needed > limits.cache_bytes {
        let reason = format!(
            "its prompt, steps and answer may take {needed} bytes of keys and values, and all requests together have {}; ask for a shorter answer",
            limits.cache_bytes
        );
        return bad("max_tokens", reason);
    }
    Ok(draft)
}
