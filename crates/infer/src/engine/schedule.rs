//! The engine's thread: who is admitted, whose picture is encoded, and pass after pass.

use super::pictures::{Found, Key, Pictures, key_of};
use super::pool::Pool;
use super::stats::{Counters, ROWS};
use super::{Answered, Failure, Limits, Request, Sink, Update};
use crate::advance::{News, advance, guarded};
use crate::draw;
use crate::session::{Finish, encode, grid, ground};
use crate::talk::{Draft, Talk, cells_of};
use crate::{Assistant, Result};
use lare_data::{Picture, Prepared, prepare};
use lare_model::cache::Slab;
use lare_model::{Conversation, Ground};
use lare_trace::Grid;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Tokens of prompts that one pass reads at most: who decodes does not wait for more.
const MOST_WORDS: usize = 64;
/// Where drawings start, as everywhere in this program.
const DRAWING_SEED: u64 = 0;
/// How long the thread sleeps at most while requests wait for something: a caller that is gone does not wake it.
const NAP: Duration = Duration::from_millis(20);

/// A request that was accepted.
pub(super) struct Job {
    pub draft: Draft<'static>,
    pub request: Request,
    pub sink: Sink,
    pub gone: Arc<AtomicBool>,
    pub accepted: Instant,
}

impl Job {
    fn is_late(&self, now: Instant) -> bool {
        self.request.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// What the thread is told.
pub(super) enum Note {
    /// One more request.
    Job(Box<Job>),
    /// The picture of a request is ready to be encoded, or known.
    Prepared { id: u64, key: Key, grid: Grid, prepared: Box<Prepared> },
    /// A picture was encoded.
    Encoded { key: Key, ground: Result<Arc<Ground>> },
    /// The picture of a request could not be prepared.
    Unprepared { id: u64, reason: String },
    /// No more requests come.
    Close,
}

/// Where an admitted request stands.
enum Stage {
    /// Its picture is being prepared or encoded.
    Seeing { draft: Draft<'static>, slab: Slab },
    /// It is under way.
    Talking(Box<Talk<'static>>),
}

/// A request that was admitted.
struct Guest {
    id: u64,
    sink: Sink,
    gone: Arc<AtomicBool>,
    request: Request,
    stage: Option<Stage>,
    grid: Option<Grid>,
    slab_bytes: usize,
    accepted: Instant,
    begun: Instant,
    first_token: Option<Duration>,
}

/// How a request ends.
enum End {
    Answered,
    Failed(Failure),
    Abandoned,
}

/// The thread's state.
pub(super) struct Scheduler {
    assistant: Arc<Assistant>,
    limits: Limits,
    counters: Arc<Counters>,
    notes: Receiver<Note>,
    sender: Sender<Note>,
    waiting: VecDeque<Job>,
    guests: Vec<Guest>,
    pictures: Pictures,
    /// Encodes pictures beside the passes.
    encoders: ThreadPool,
    pool: Pool,
    next_id: u64,
    closing: bool,
}

impl Scheduler {
    pub(super) fn new(
        assistant: Arc<Assistant>,
        limits: Limits,
        counters: Arc<Counters>,
        (sender, notes): (Sender<Note>, Receiver<Note>),
    ) -> std::io::Result<Self> {
        Ok(Self {
            assistant,
            limits,
            counters,
            notes,
            sender,
            waiting: VecDeque::new(),
            guests: Vec::new(),
            pictures: Pictures::new(limits.picture_bytes),
            encoders: ThreadPoolBuilder::new().build().map_err(std::io::Error::other)?,
            pool: Pool::new(limits.cache_bytes),
            next_id: 0,
            closing: false,
        })
    }

    /// Until it is closed and everything is answered.
    pub(super) fn run(mut self) {
        loop {
            self.receive();
            self.let_go();
            self.admit();
            self.pass();
            if self.closing && self.waiting.is_empty() && self.guests.is_empty() {
                return;
            }
        }
    }

    /// Takes all notes there are. Waits for one when there is nothing to compute.
    fn receive(&mut self) {
        let talking = |guest: &Guest| matches!(guest.stage, Some(Stage::Talking(_)));
        if !self.guests.iter().any(talking) {
            let waits = !self.guests.is_empty() || !self.waiting.is_empty();
            let note = match waits {
                false => self.notes.recv().map_err(|_| RecvTimeoutError::Disconnected),
                true => self.notes.recv_timeout(NAP),
            };
            if let Ok(note) = note {
                self.take(note);
            }
        }
        while let Ok(note) = self.notes.try_recv() {
            self.take(note);
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Job(job) => self.waiting.push_back(*job),
            Note::Close => self.closing = true,
            Note::Prepared { id, key, grid, prepared } => self.prepared(id, key, grid, *prepared),
            Note::Unprepared { id, reason } => self.fail(&[id], &reason),
            Note::Encoded { key, ground } => {
                let ids = self.pictures.arrived(key, ground.as_ref().ok());
                match ground {
                    Ok(ground) => ids.into_iter().for_each(|id| self.begin(id, &ground)),
                    Err(error) => self.fail(&ids, &error.to_string()),
                }
            }
        }
    }

    /// Ends requests whose callers are gone, and those that are late.
    fn let_go(&mut self) {
        let now = Instant::now();
        for _ in 0..self.waiting.len() {
            let Some(mut job) = self.waiting.pop_front() else { break };
            let gone = job.gone.load(Ordering::Relaxed);
            if !gone && !job.is_late(now) {
                self.waiting.push_back(job);
                continue;
            }
            self.counters.unqueued();
            if gone {
                self.counters.count(|stats| stats.abandoned += 1);
            } else {
                self.counters.count(|stats| stats.timed_out += 1);
                (job.sink)(Update::Failed(Failure::Timeout));
            }
        }
        let ended = |guest: &Guest| {
            let late = guest.request.deadline.is_some_and(|deadline| deadline <= now);
            match (guest.gone.load(Ordering::Relaxed), late) {
                (true, _) => Some(End::Abandoned),
                (_, true) => Some(End::Failed(Failure::Timeout)),
                _ => None,
            }
        };
        let ended: Vec<(u64, End)> = self.guests.iter().filter_map(|g| Some((g.id, ended(g)?))).collect();
        ended.into_iter().for_each(|(id, end)| self.end(id, end));
    }

    /// Admits requests in the order they came, as long as there is room for the next one.
    fn admit(&mut self) {
        while self.guests.len() < self.limits.rows.max(1) {
            let Some(job) = self.waiting.front() else { return };
            let slots = job.draft.most_slots(self.assistant.config());
            let slab = match self.pool.rent(&self.assistant, slots) {
                Ok(None) => return,
                Ok(Some(slab)) => Ok(slab),
                Err(error) => Err(error),
            };
            let Some(job) = self.waiting.pop_front() else { return };
            self.counters.unqueued();
            self.admitted(job, slab);
        }
    }

    fn admitted(&mut self, mut job: Job, slab: Result<Slab>) {
        let slab = match slab {
            Ok(slab) => slab,
            Err(error) => {
                self.counters.count(|stats| stats.broken += 1);
                (job.sink)(Update::Failed(Failure::Broken { reason: error.to_string() }));
                return;
            }
        };
        let Job { draft, request, sink, gone, accepted } = job;
        let id = self.next_id;
        self.next_id += 1;
        let picture = request.pictures.first().cloned();
        let slab_bytes = slab.bytes();
        let stage = Some(Stage::Seeing { draft, slab });
        let begun = Instant::now();
        self.guests.push(Guest {
            id,
            sink,
            gone,
            request,
            stage,
            grid: None,
            slab_bytes,
            accepted,
            begun,
            first_token: None,
        });
        self.changed();
        let (assistant, sender) = (self.assistant.clone(), self.sender.clone());
        self.encoders.spawn(move || {
            let note = match guarded(|| Ok(picture.map(|picture| prepared_note(&assistant, id, &picture)))) {
                Ok(Some(note)) => note,
                Ok(None) => Note::Unprepared { id, reason: "a request without a picture".into() },
                Err(error) => Note::Unprepared { id, reason: error.to_string() },
            };
            drop(sender.send(note)); // nobody listens when the engine is gone
        });
    }

    /// Begins with a request whose picture is known, or has it encoded.
    fn prepared(&mut self, id: u64, key: Key, grid: Grid, prepared: Prepared) {
        let Some(guest) = self.guests.iter_mut().find(|guest| guest.id == id) else { return };
        guest.grid = Some(grid);
        match self.pictures.find(key, id) {
            Found::Known(ground) => {
                self.counters.count(|stats| stats.picture_hits += 1);
                self.begin(id, &ground);
            }
            Found::Awaited => self.counters.count(|stats| stats.picture_hits += 1),
            Found::Unknown => {
                self.counters.count(|stats| stats.picture_misses += 1);
                let (assistant, sender) = (self.assistant.clone(), self.sender.clone());
                self.encoders.spawn(move || {
                    let ground = guarded(|| Ok(Arc::new(ground(&assistant, &encode(&assistant, &prepared)?)?)));
                    drop(sender.send(Note::Encoded { key, ground })); // nobody listens when the engine is gone
                });
            }
        }
    }

    /// The picture of a request is there: it begins to read.
    fn begin(&mut self, id: u64, ground: &Arc<Ground>) {
        let Some(guest) = self.guests.iter_mut().find(|guest| guest.id == id) else { return };
        let Some(Stage::Seeing { draft, slab }) = guest.stage.take() else { return };
        match Conversation::new(ground.clone(), slab) {
            Ok(conversation) => guest.stage = Some(Stage::Talking(Box::new(Talk::new(draft, conversation)))),
            Err(error) => self.fail(&[id], &error.to_string()),
        }
    }

    fn fail(&mut self, ids: &[u64], reason: &str) {
        for id in ids {
            self.end(*id, End::Failed(Failure::Broken { reason: reason.to_owned() }));
        }
    }

    /// One pass of all that are under way.
    fn pass(&mut self) {
        let (started, assistant) = (Instant::now(), self.assistant.clone());
        let (mut places, mut talks) = (Vec::new(), Vec::new());
        for (place, guest) in self.guests.iter_mut().enumerate() {
            if let Some(Stage::Talking(talk)) = &mut guest.stage {
                places.push(place);
                talks.push(&mut **talk);
            }
        }
        if talks.is_empty() {
            return;
        }
        let all = advance(&assistant, &mut talks, MOST_WORDS);
        let (rows, micros) = (places.len(), started.elapsed().as_micros() as u64);
        self.counters.count(|stats| {
            stats.passes += 1;
            stats.rows += rows as u64;
            stats.pass_micros += micros;
            stats.passes_by_rows[ROWS.iter().position(|most| rows <= *most).unwrap_or(ROWS.len())] += 1;
        });
        let mut drawings = self.drawings(&places, &all).into_iter();
        let mut ends = Vec::new();
        for (place, news) in places.into_iter().zip(all) {
            let guest = &mut self.guests[place];
            let end = match news {
                Ok(news) => guest.tell(&self.assistant, news, &mut drawings, &self.counters),
                Err(error) => Some(End::Failed(Failure::Broken { reason: error.to_string() })),
            };
            ends.extend(end.map(|end| (guest.id, end)));
        }
        ends.into_iter().for_each(|(id, end)| self.end(id, end));
    }

    /// The pictures drawn from the thoughts of this pass, of those who asked for them, in order.
    fn drawings(&self, places: &[usize], all: &[Result<Vec<News>>]) -> Vec<Option<Picture>> {
        let looks = places.iter().zip(all).filter(|(place, _)| self.guests[**place].request.draw);
        let looks = looks.flat_map(|(_, news)| news.iter().flatten()).filter_map(|news| match news {
            News::Looked(look) => Some(look),
            _ => None,
        });
        let thoughts: Vec<&[f32]> = looks.map(|look| &look.thought[..]).collect();
        if thoughts.is_empty() {
            return Vec::new();
        }
        let drawn = guarded(|| draw::thoughts(&self.assistant, &thoughts, DRAWING_SEED)).unwrap_or_default();
        drawn.into_iter().map(|d| Some(Picture { width: d.side, height: d.side, rgb: d.rgb })).collect()
    }

    /// Ends a request.
    fn end(&mut self, id: u64, end: End) {
        let Some(place) = self.guests.iter().position(|guest| guest.id == id) else { return };
        let mut guest = self.guests.remove(place);
        match guest.stage.take() {
            Some(Stage::Seeing { slab, .. }) => self.pool.give_back(slab),
            Some(Stage::Talking(talk)) => self.pool.give_back(talk.conversation.into_slab()),
            None => self.pool.lose(guest.slab_bytes),
        }
        self.counters.count(|stats| match &end {
            End::Answered => stats.answered += 1,
            End::Abandoned => stats.abandoned += 1,
            End::Failed(Failure::Timeout) => stats.timed_out += 1,
            End::Failed(Failure::Broken { .. }) => stats.broken += 1,
        });
        self.changed();
        if let End::Failed(failure) = end {
            (guest.sink)(Update::Failed(failure));
        }
    }

    /// Those who watch see what there is now.
    fn changed(&self) {
        self.counters.set_running(self.guests.len());
        self.counters.count(|stats| {
            (stats.picture_bytes, stats.cache_bytes) = (self.pictures.bytes(), self.pool.rented());
        });
    }
}

/// What is said of a picture before it is encoded.
fn prepared_note(assistant: &Assistant, id: u64, picture: &Picture) -> Note {
    let vision = &assistant.config().vision;
    let prepared = prepare(picture, vision.cell_px, vision.max_cells);
    let grid = grid(assistant.config(), picture, &prepared);
    Note::Prepared { id, key: key_of(&prepared), grid, prepared: Box::new(prepared) }
}

impl Guest {
    /// Passes news on, and gives how the request ends, if it does.
    fn tell(
        &mut self,
        assistant: &Assistant,
        news: Vec<News>,
        drawings: &mut dyn Iterator<Item = Option<Picture>>,
        counters: &Counters,
    ) -> Option<End> {
        for news in news {
            let heard = match news {
                News::Looked(look) => {
                    counters.count(|stats| stats.latent_steps += 1);
                    let drawing = if self.request.draw { drawings.next().flatten() } else { None };
                    (self.sink)(Update::Look { look, grids: self.grid.into_iter().collect(), drawing })
                }
                News::Said(text) => {
                    self.first_token.get_or_insert_with(|| self.accepted.elapsed());
                    (self.sink)(Update::Text(text))
                }
                News::Done(finish) => {
                    if let Some(answered) = self.answered(assistant, finish) {
                        counters.count(|stats| {
                            stats.text_tokens += answered.usage.text_tokens as u64;
                            stats.prefill_positions += answered.prompt_tokens as u64;
                        });
                        (self.sink)(Update::Done(Box::new(answered)));
                    }
                    return Some(End::Answered);
                }
            };
            if !heard {
                return Some(End::Abandoned);
            }
        }
        None
    }

    fn answered(&mut self, assistant: &Assistant, finish: Finish) -> Option<Answered> {
        let Some(Stage::Talking(talk)) = &mut self.stage else { return None };
        let cells = cells_of(talk.conversation.ground());
        let total = self.accepted.elapsed();
        Some(Answered {
            text: std::mem::take(&mut talk.said),
            finish,
            stopped: talk.stopped,
            usage: talk.usage(assistant.config(), cells),
            prompt_tokens: talk.prompt_positions(assistant.config(), cells),
            grids: self.grid.into_iter().collect(),
            queued: self.begun.duration_since(self.accepted),
            first_token: self.first_token.unwrap_or(total),
            total,
        })
    }
}
