//! The engine's thread: who is admitted, whose picture is encoded, and pass after pass.

use super::grounds::{Arrived, Grounds};
use super::pool::Pool;
use super::stats::{Counters, ROWS};
use super::{Answered, Failure, Limits, Request, Sink, Update};
use crate::Result;
use crate::advance::{News, advance, guarded};
use crate::model::{Key, Model, Prepared, Speaking};
use crate::places::{Places, on_cells};
use crate::session::Finish;
use crate::talk::{Draft, Talk};
use lare_data::Picture;
use lare_model::cache::Slab;
use lare_model::{Conversation, Ground};
use lare_trace::Grid;
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
    pub draft: Box<Draft<'static>>,
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

/// What the engine's owner tells its thread.
pub(super) enum Call {
    /// One more request.
    Job(Box<Job>),
    /// No more requests come.
    Close,
}

/// Pictures that are ready to be encoded, by their keys.
type Ready<M> = Vec<(Key, Prepared<<M as Model>::Form>)>;

/// What the thread is told.
pub(super) enum Note<M: Model> {
    /// By its owner.
    Call(Call),
    /// The pictures of a request are ready to be encoded, or cannot be.
    Prepared { id: u64, pictures: std::result::Result<Ready<M>, String> },
    /// A picture was encoded.
    Seen { key: Key, seen: std::result::Result<Arc<M::Seen>, String> },
    /// What conversations go on from was made.
    Ground { key: Key, ground: std::result::Result<Arc<Ground>, String> },
}

/// Where an admitted request stands.
enum Stage {
    /// Its pictures are being prepared or encoded.
    Seeing { draft: Box<Draft<'static>>, slab: Slab },
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
    /// Of each picture, how its cells lie on it.
    places: Vec<Places>,
    /// Bytes of keys and values that are reserved for it.
    bytes: usize,
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
pub(super) struct Scheduler<M: Model> {
    model: Arc<M>,
    limits: Limits,
    counters: Arc<Counters>,
    notes: Receiver<Note<M>>,
    waiting: VecDeque<Job>,
    guests: Vec<Guest>,
    grounds: Grounds<M>,
    pool: Pool,
    next_id: u64,
    closing: bool,
}

impl<M: Model> Scheduler<M> {
    pub(super) fn new(
        model: Arc<M>,
        limits: Limits,
        counters: Arc<Counters>,
        (sender, notes): (Sender<Note<M>>, Receiver<Note<M>>),
    ) -> std::io::Result<Self> {
        Ok(Self {
            grounds: Grounds::new(model.clone(), limits.picture_bytes, counters.clone(), sender)?,
            model,
            limits,
            counters,
            notes,
            waiting: VecDeque::new(),
            guests: Vec::new(),
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

    fn take(&mut self, note: Note<M>) {
        match note {
            Note::Call(Call::Job(job)) => self.waiting.push_back(*job),
            Note::Call(Call::Close) => self.closing = true,
            Note::Prepared { id, pictures: Ok(pictures) } => self.prepared(id, pictures),
            Note::Prepared { id, pictures: Err(reason) } => self.fail(id, &reason),
            Note::Seen { key, seen } => {
                let guests = &self.guests;
                let failed = self.grounds.seen(key, seen, &|id| guests.iter().any(|guest| guest.id == id));
                failed.into_iter().for_each(|arrived| self.arrived(arrived));
            }
            Note::Ground { key, ground } => {
                let arrived = self.grounds.arrived(key, ground);
                self.arrived(arrived);
            }
        }
    }

    /// Those who wait for a ground begin, or fail with it.
    fn arrived(&mut self, Arrived { requests, ground }: Arrived) {
        for id in requests {
            match &ground {
                Ok(ground) => self.begin(id, ground),
                Err(reason) => self.fail(id, reason),
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
            let slab = match self.pool.rent(&*self.model, &job.draft) {
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
        let (bytes, pictures) = (Pool::bytes_for(&*self.model, &draft), request.pictures.clone());
        let stage = Some(Stage::Seeing { draft, slab });
        let (begun, first_token, places) = (Instant::now(), None, Vec::new());
        self.guests.push(Guest { id, sink, gone, request, stage, places, bytes, accepted, begun, first_token });
        self.changed();
        self.grounds.beside(move |model| {
            let pictures = guarded(|| pictures.iter().map(|picture| ready(model, picture)).collect());
            Note::Prepared { id, pictures: pictures.map_err(|error| error.to_string()) }
        });
    }

    /// Begins with a request whose ground is known, or has it made.
    fn prepared(&mut self, id: u64, pictures: Ready<M>) {
        let Some(guest) = self.guests.iter_mut().find(|guest| guest.id == id) else { return };
        let Some(Stage::Seeing { draft, .. }) = &guest.stage else { return };
        let split = pictures.into_iter().map(|(key, Prepared { form, places })| ((key, form), places));
        let (forms, places): (Vec<_>, Vec<_>) = split.unzip();
        guest.places = places;
        if let Some(ground) = self.grounds.find(id, &draft.first, forms) {
            self.begin(id, &ground);
        }
    }

    /// What a request goes on from is there: it begins to read.
    fn begin(&mut self, id: u64, ground: &Arc<Ground>) {
        let Some(guest) = self.guests.iter_mut().find(|guest| guest.id == id) else { return };
        let Some(Stage::Seeing { draft, slab }) = guest.stage.take() else { return };
        match Conversation::new(ground.clone(), slab) {
            Ok(conversation) => {
                guest.stage = Some(Stage::Talking(Box::new(Talk::new(&*self.model, *draft, conversation))));
            }
            Err(error) => self.fail(id, &error.to_string()),
        }
    }

    fn fail(&mut self, id: u64, reason: &str) {
        self.end(id, End::Failed(Failure::Broken { reason: reason.to_owned() }));
    }

    /// One pass of all that are under way.
    fn pass(&mut self) {
        let (started, model) = (Instant::now(), self.model.clone());
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
        let all = advance(&*model, &mut talks, MOST_WORDS);
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
                Ok(news) => guest.tell(&*self.model, news, &mut drawings, &self.counters),
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
        let drawn = guarded(|| self.model.draw(&thoughts, DRAWING_SEED)).unwrap_or_default();
        drawn.into_iter().map(|d| Some(Picture { width: d.side, height: d.side, rgb: d.rgb })).collect()
    }

    /// Ends a request.
    fn end(&mut self, id: u64, end: End) {
        let Some(place) = self.guests.iter().position(|guest| guest.id == id) else { return };
        let mut guest = self.guests.remove(place);
        match guest.stage.take() {
            Some(Stage::Seeing { slab, .. }) => self.pool.give_back(slab, guest.bytes),
            Some(Stage::Talking(talk)) => self.pool.give_back(talk.conversation.into_slab(), guest.bytes),
            None => self.pool.lose(guest.bytes),
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
            (stats.picture_bytes, stats.cache_bytes) = (self.grounds.bytes(), self.pool.rented());
        });
    }
}

/// A picture as it is encoded, with its key.
fn ready<M: Model>(model: &M, picture: &Picture) -> Result<(Key, Prepared<M::Form>)> {
    let prepared = model.prepare(picture)?;
    Ok((model.key_of(&prepared.form), prepared))
}

impl Guest {
    /// Passes news on, and gives how the request ends, if it does.
    fn tell(
        &mut self,
        model: &dyn Speaking,
        news: Vec<News>,
        drawings: &mut dyn Iterator<Item = Option<Picture>>,
        counters: &Counters,
    ) -> Option<End> {
        for news in news {
            let heard = match news {
                News::Looked(look) => {
                    counters.count(|stats| stats.latent_steps += 1);
                    let drawing = if self.request.draw { drawings.next().flatten() } else { None };
                    let look = Box::new(on_cells(&self.places, *look));
                    let grids = self.grids().collect();
                    (self.sink)(Update::Look { look, grids, drawing })
                }
                News::Said(text) => {
                    self.first_token.get_or_insert_with(|| self.accepted.elapsed());
                    (self.sink)(Update::Text(text))
                }
                News::Done(finish) => {
                    if let Some(answered) = self.answered(model, finish) {
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

    /// How the cells of each picture lie on it.
    fn grids(&self) -> impl Iterator<Item = Grid> {
        self.places.iter().map(|places| places.grid)
    }

    fn answered(&mut self, model: &dyn Speaking, finish: Finish) -> Option<Answered> {
        let grids = self.grids().collect();
        let Some(Stage::Talking(talk)) = &mut self.stage else { return None };
        let total = self.accepted.elapsed();
        Some(Answered {
            text: std::mem::take(&mut talk.said),
            finish,
            stopped: talk.stopped,
            usage: talk.usage(model),
            prompt_tokens: talk.prompt_positions(),
            grids,
            queued: self.begun.duration_since(self.accepted),
            first_token: self.first_token.unwrap_or(total),
            total,
        })
    }
}
