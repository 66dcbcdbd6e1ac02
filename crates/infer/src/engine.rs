//! One model, many callers: requests go in, and what happens to each comes out as it happens.
//!
//! An [`Engine`] owns its model on a thread of its own. [`Engine::submit`] refuses at once what cannot be answered or has no
//! place in the queue; everything else ends in exactly one [`Update::Done`] or [`Update::Failed`], unless its caller is gone.

use crate::load::Assistant;
use crate::look::LookReport;
use crate::options::Options;
use crate::session::{self, Batch, Event, Finish, Question};
use crate::{Error, Result};
use lare_data::chat::{Content, Message, Part, Role};
use lare_data::{Picture, prepare};
use lare_trace::{Grid, Usage};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
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

struct Job {
    request: Request,
    sink: Sink,
    gone: Arc<AtomicBool>,
    accepted: Instant,
}

#[derive(Default)]
struct Counters {
    waiting: AtomicUsize,
    running: AtomicUsize,
}

/// A model on a thread of its own.
pub struct Engine {
    assistant: Arc<Assistant>,
    limits: Limits,
    jobs: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counters: Arc<Counters>,
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(assistant: Arc<Assistant>, limits: Limits) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::sync_channel(limits.queue.max(1));
        let counters = Arc::new(Counters::default());
        let (model, counts) = (assistant.clone(), counters.clone());
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || work(&model, &queue, &counts))?;
        let (jobs, thread) = (Mutex::new(Some(jobs)), Mutex::new(Some(thread)));
        Ok(Self { assistant, limits, jobs, thread, counters })
    }

    /// Queues a request. `sink` gets its updates, from the engine's thread: it must not block.
    ///
    /// # Errors
    /// [`Refusal`] for what can never be answered, when the queue is full, and after [`Engine::close`].
    pub fn submit(&self, request: Request, sink: Sink) -> std::result::Result<Ticket, Refusal> {
        check(&self.assistant, &self.limits, &request)?;
        let gone = Arc::new(AtomicBool::new(false));
        let job = Job { request, sink, gone: gone.clone(), accepted: Instant::now() };
        let Ok(jobs) = self.jobs.lock() else { return Err(Refusal::Closing) };
        let Some(jobs) = jobs.as_ref() else { return Err(Refusal::Closing) };
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        match jobs.try_send(job) {
            Ok(()) => Ok(Ticket { gone }),
            Err(error) => {
                self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
                match error {
                    TrySendError::Full(_) => Err(Refusal::Full { waiting: self.limits.queue }),
                    TrySendError::Disconnected(_) => Err(Refusal::Closing),
                }
            }
        }
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
        let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        Load { waiting: count(&self.counters.waiting), running: count(&self.counters.running) }
    }

    /// Takes no more requests and waits until those that were accepted are answered.
    pub fn close(&self) {
        if let Ok(mut jobs) = self.jobs.lock() {
            jobs.take();
        }
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            drop(thread.join());
        }
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

fn check(assistant: &Assistant, limits: &Limits, request: &Request) -> std::result::Result<(), Refusal> {
    if request.pictures.len() > limits.pictures {
        let reason = format!("at most {} pictures, got {}", limits.pictures, request.pictures.len());
        return Err(Refusal::Bad { field: "messages", reason });
    }
    let text = question(request)?;
    let refused = |error: Error| match error {
        Error::Option { field, .. } => Refusal::Bad { field, reason: error.to_string() },
        _ => Refusal::Bad { field: "messages", reason: error.to_string() },
    };
    session::check(assistant, &Question::new(0, &text, request.options)).map_err(refused)
}

fn work(assistant: &Assistant, queue: &Receiver<Job>, counters: &Counters) {
    for mut job in queue {
        counters.waiting.fetch_sub(1, Ordering::Relaxed);
        counters.running.fetch_add(1, Ordering::Relaxed);
        if !job.gone.load(Ordering::Relaxed) {
            let last = match one(assistant, &mut job) {
                Ok(answered) => Update::Done(Box::new(answered)),
                Err(error) => Update::Failed(Failure::Broken { reason: error.to_string() }),
            };
            (job.sink)(last);
        }
        counters.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What was computed without thoughts, what looks appended and what was said; the last token is chosen and never fed.
fn prompt_positions(usage: &Usage) -> usize {
    (usage.processed_positions + 1)
        .saturating_sub(usage.text_tokens + usage.latent_steps + usage.appended_visual_tokens)
}

fn one(assistant: &Assistant, job: &mut Job) -> Result<Answered> {
    let begun = Instant::now();
    let text = question(&job.request).unwrap_or_default(); // checked when it was accepted
    let pictures: Vec<&Picture> = job.request.pictures.iter().map(AsRef::as_ref).collect();
    let question = Question::new(0, &text, job.request.options);
    let mut first = None;
    let vision = &assistant.config().vision;
    let grid = |picture: &&Picture| {
        session::grid(assistant.config(), picture, &prepare(picture, vision.cell_px, vision.max_cells))
    };
    let grids: Arc<[Grid]> = pictures.iter().map(grid).collect();
    let (sink, accepted) = (&mut job.sink, job.accepted);
    let batch = Batch { pictures: &pictures, questions: &[question] };
    let answers = session::answer(assistant, &batch, &mut |event| {
        match event {
            Event::Looked { look, .. } => {
                sink(Update::Look { look: Box::new(look.clone()), grids: grids.clone(), drawing: None })
            }
            Event::Token { text, .. } => {
                first.get_or_insert_with(|| accepted.elapsed());
                sink(Update::Text(text.into()))
            }
            Event::Done { .. } => true,
        };
    })?;
    let total = accepted.elapsed();
    let answer = answers.into_iter().next().ok_or(Error::EmptyQuestion { number: 1, got: text.clone() })?;
    Ok(Answered {
        prompt_tokens: prompt_positions(&answer.usage),
        text: answer.text,
        finish: answer.finish,
        stopped: false,
        usage: answer.usage,
        grids: vec![answer.grid],
        queued: begun.duration_since(accepted),
        first_token: first.unwrap_or(total),
        total,
    })
}
