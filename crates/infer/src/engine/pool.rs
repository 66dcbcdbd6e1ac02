//! Keys and values of all requests that are being answered, within a budget.
//!
//! A request is given room for all it may come to when it is admitted, so that it never stops half-way for want of memory;
//! rooms are used again. What it goes on from counts for each request as if no other shared it: which do is known only when
//! their pictures are. Pages, which would let requests share what they do not use, were left out.

use crate::Result;
use crate::model::Speaking;
use crate::talk::Draft;
use lare_model::cache::Slab;

/// Rooms have multiples of so many slots, so that they fit requests of other lengths later.
const ROOM_SLOTS: usize = 32;

/// Rooms for keys and values.
pub(super) struct Pool {
    budget: usize,
    rented: usize,
    free: Vec<Slab>,
}

fn rounded(slots: usize) -> usize {
    slots.next_multiple_of(ROOM_SLOTS)
}

impl Pool {
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, rented: 0, free: Vec::new() }
    }

    /// Bytes that a conversation may need.
    pub(super) fn bytes_for(model: &dyn Speaking, draft: &Draft) -> usize {
        let own = rounded(draft.most_slots(model)).saturating_mul(model.decoder().slot_bytes());
        own.saturating_add(draft.ground_bytes(model))
    }

    /// Bytes that requests have.
    pub(super) fn rented(&self) -> usize {
        self.rented
    }

    /// A room for what a conversation may come to, unless it does not fit now.
    pub(super) fn rent(&mut self, model: &dyn Speaking, draft: &Draft) -> Result<Option<Slab>> {
        let needed = Self::bytes_for(model, draft);
        if self.rented.saturating_add(needed) > self.budget {
            return Ok(None);
        }
        let slots = rounded(draft.most_slots(model));
        let known = self.free.iter().position(|slab| slab.slots() == slots);
        let slab = match known {
            Some(known) => self.free.swap_remove(known),
            None => model.decoder().slab(slots, model.device())?,
        };
        self.rented += needed;
        self.shrink();
        Ok(Some(slab))
    }

    /// Takes a room back from a conversation that had so many bytes.
    pub(super) fn give_back(&mut self, slab: Slab, bytes: usize) {
        self.lose(bytes);
        self.free.push(slab);
        self.shrink();
    }

    /// A room that is lost with the conversation it was for.
    pub(super) fn lose(&mut self, bytes: usize) {
        self.rented -= bytes;
    }

    /// Free rooms count towards the budget too.
    fn shrink(&mut self) {
        let mut kept: usize = self.free.iter().map(Slab::bytes).sum();
        while self.rented + kept > self.budget {
            let Some(slab) = self.free.pop() else { return };
            kept -= slab.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::question;
    use crate::{Assistant, Options, Steps, tiny};
    use lare_data::Size;

    fn draft(assistant: &Assistant, max_tokens: usize) -> Draft<'static> {
        let options = Options { steps: Steps::Fixed(0), max_tokens, ..Options::default() };
        Draft::new(assistant, &[question(1, "cat")], &[Size::square(192)], options).unwrap()
    }

    #[test]
    fn rooms_are_used_again_and_stay_within_the_budget() {
        let assistant = tiny::assistant();
        let [small, other, large] = [5, 29, 30].map(|tokens| draft(&assistant, tokens)); // behind a prompt of 3
        let [room, twice] = [&small, &large].map(|draft| Pool::bytes_for(&assistant, draft));
        let ground = small.ground_bytes(&assistant);
        assert!(ground > 0 && Pool::bytes_for(&assistant, &other) == room && twice - ground == 2 * (room - ground));
        let mut pool = Pool::new(2 * room);
        let [first, second] = [&small, &other].map(|draft| pool.rent(&assistant, draft).unwrap().unwrap());
        assert!(pool.rent(&assistant, &small).unwrap().is_none());
        assert_eq!((pool.rented(), first.bytes()), (2 * room, room - ground));
        pool.give_back(first, room);
        pool.give_back(second, room);
        assert_eq!((pool.rented(), pool.free.len()), (0, 2));
        // A larger one takes the place of both.
        let slab = pool.rent(&assistant, &large).unwrap().unwrap();
        assert_eq!((slab.slots(), pool.free.len(), pool.rented()), (64, 0, twice));
        pool.lose(twice);
        assert_eq!(pool.rented(), 0);
    }
}
