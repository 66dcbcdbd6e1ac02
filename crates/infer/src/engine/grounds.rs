//! What conversations go on from: looked up, or made of pictures that are looked up or encoded.
//!
//! Who asked first has a ground made; who asks for the same meanwhile waits with them, and gets it even when the first is
//! gone. Pictures and grounds are computed on threads of their own, beside the passes.

use super::schedule::Note;
use super::shelf::{Found, Shelf, ground_key};
use super::stats::Counters;
use crate::advance::guarded;
use crate::model::{Key, Model};
use lare_model::Ground;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// A ground that waits for its pictures.
struct Building<S> {
    id: u64,
    key: Key,
    first: Vec<u32>,
    seen: Vec<(Key, Option<Arc<S>>)>,
}

/// A ground that is there, or why it is not, and the requests that wait for it.
pub(super) struct Arrived {
    pub requests: Vec<u64>,
    pub ground: Result<Arc<Ground>, String>,
}

/// Grounds and pictures, those that are kept and those that are being made.
pub(super) struct Grounds<M: Model> {
    model: Arc<M>,
    counters: Arc<Counters>,
    sender: Sender<Note<M>>,
    encoders: ThreadPool,
    grounds: Shelf<Ground>,
    seen: Shelf<M::Seen>,
    building: Vec<Building<M::Seen>>,
    next_id: u64,
}

impl<M: Model> Grounds<M> {
    /// `budget`: bytes of what is kept.
    pub(super) fn new(
        model: Arc<M>,
        budget: usize,
        counters: Arc<Counters>,
        sender: Sender<Note<M>>,
    ) -> std::io::Result<Self> {
        let of_seen = if M::KEEPS_SEEN { budget / 2 } else { 0 };
        Ok(Self {
            model,
            counters,
            sender,
            encoders: ThreadPoolBuilder::new().build().map_err(std::io::Error::other)?,
            grounds: Shelf::new(budget - of_seen),
            seen: Shelf::new(of_seen),
            building: Vec::new(),
            next_id: 0,
        })
    }

    /// Bytes of what is kept.
    pub(super) fn bytes(&self) -> usize {
        self.grounds.bytes() + self.seen.bytes()
    }

    /// Runs something beside the passes, and has its note sent.
    pub(super) fn beside(&self, make: impl FnOnce(&M) -> Note<M> + Send + 'static) {
        let (model, sender) = (self.model.clone(), self.sender.clone());
        self.encoders.spawn(move || drop(sender.send(make(&model)))); // nobody listens when the engine is gone
    }

    /// What `request` goes on from, if it is known; otherwise it will be told.
    pub(super) fn find(&mut self, request: u64, first: &[u32], pictures: Vec<(Key, M::Form)>) -> Option<Arc<Ground>> {
        let keys: Vec<Key> = pictures.iter().map(|(key, _)| *key).collect();
        let (key, known) = (ground_key(first, &keys), keys.len() as u64);
        let found = self.grounds.find(key, request);
        if let Found::Unknown = found {
            self.build(key, first, pictures);
            return None;
        }
        self.counters.count(|stats| stats.picture_hits += known);
        match found {
            Found::Known(ground) => Some(ground),
            Found::Awaited | Found::Unknown => None,
        }
    }

    fn build(&mut self, key: Key, first: &[u32], pictures: Vec<(Key, M::Form)>) {
        let id = self.next_id;
        self.next_id += 1;
        let mut seen = Vec::with_capacity(pictures.len());
        for (key, form) in pictures {
            let found = self.seen.find(key, id);
            self.counters.count(|stats| match found {
                Found::Unknown => stats.picture_misses += 1,
                Found::Known(_) | Found::Awaited => stats.picture_hits += 1,
            });
            if let Found::Unknown = found {
                self.beside(move |model| {
                    let seen = guarded(|| Ok(Arc::new(model.see(&form)?)));
                    Note::Seen { key, seen: seen.map_err(|error| error.to_string()) }
                });
            }
            seen.push((key, if let Found::Known(seen) = found { Some(seen) } else { None }));
        }
        self.building.push(Building { id, key, first: first.to_vec(), seen });
        self.finish(id, &|_| true);
    }

    /// A picture was encoded, or could not be. Grounds that nobody who `is_there` waits for are not made.
    pub(super) fn seen(
        &mut self,
        key: Key,
        seen: Result<Arc<M::Seen>, String>,
        is_there: &dyn Fn(u64) -> bool,
    ) -> Vec<Arrived> {
        let made = seen.as_ref().ok().map(|seen| (seen, self.model.bytes_of(seen)));
        let builds = self.seen.arrived(key, made);
        let mut failed = Vec::new();
        for id in builds {
            let Some(place) = self.building.iter().position(|building| building.id == id) else { continue };
            match &seen {
                Ok(seen) => {
                    let waits = self.building[place].seen.iter_mut().filter(|(of, _)| *of == key);
                    waits.for_each(|(_, place)| *place = Some(seen.clone()));
                    self.finish(id, is_there);
                }
                Err(reason) => {
                    let building = self.building.swap_remove(place);
                    failed.push(self.arrived(building.key, Err(reason.clone())));
                }
            }
        }
        failed
    }

    /// Has a ground made whose pictures are all there.
    fn finish(&mut self, id: u64, is_there: &dyn Fn(u64) -> bool) {
        let is_whole = |building: &Building<M::Seen>| building.seen.iter().all(|(_, seen)| seen.is_some());
        let place = self.building.iter().position(|building| building.id == id && is_whole(building));
        let Some(Building { key, first, seen, .. }) = place.map(|place| self.building.swap_remove(place)) else {
            return;
        };
        if !self.grounds.waiting(key).iter().any(|request| is_there(*request)) {
            self.grounds.arrived(key, None);
            return;
        }
        let seen: Vec<Arc<M::Seen>> = seen.into_iter().filter_map(|(_, seen)| seen).collect();
        self.beside(move |model| {
            let ground = guarded(|| Ok(Arc::new(model.ground(&first, &seen)?)));
            Note::Ground { key, ground: ground.map_err(|error| error.to_string()) }
        });
    }

    /// A ground was made, or could not be.
    pub(super) fn arrived(&mut self, key: Key, ground: Result<Arc<Ground>, String>) -> Arrived {
        let made = ground.as_ref().ok().map(|ground| (ground, ground.bytes()));
        Arrived { requests: self.grounds.arrived(key, made), ground }
    }
}
