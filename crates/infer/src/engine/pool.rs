//! Keys and values of all requests that are being answered, within a budget.
//!
//! A request is given room for all it may come to when it is admitted, so that it never stops half-way for want of memory;
//! rooms are used again. Pages, which would let requests share what they do not use, were left out: a request of the nano
//! model takes half a megabyte at most.

use crate::{Assistant, Result};
use lare_model::Reasoning;
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

    /// Bytes of a room for `slots` slots.
    pub(super) fn bytes_for(assistant: &Assistant, slots: usize) -> usize {
        rounded(slots).saturating_mul(assistant.reasoner.language().slot_bytes())
    }

    /// Bytes that requests have.
    pub(super) fn rented(&self) -> usize {
        self.rented
    }

    /// A room for `slots` slots, unless it does not fit now.
    pub(super) fn rent(&mut self, assistant: &Assistant, slots: usize) -> Result<Option<Slab>> {
        let needed = Self::bytes_for(assistant, slots);
        if self.rented + needed > self.budget {
            return Ok(None);
        }
        let known = self.free.iter().position(|slab| slab.slots() == rounded(slots));
        let slab = match known {
            Some(known) => self.free.swap_remove(known),
            None => assistant.reasoner.language().slab(rounded(slots), assistant.device())?,
        };
        self.rented += slab.bytes();
        self.shrink();
        Ok(Some(slab))
    }

    /// Takes a room back.
    pub(super) fn give_back(&mut self, slab: Slab) {
        self.rented -= slab.bytes();
        self.free.push(slab);
        self.shrink();
    }

    /// A room that is lost with the request it was for.
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
    use crate::tiny;

    #[test]
    fn rooms_are_used_again_and_stay_within_the_budget() {
        let assistant = tiny::assistant();
        let room = Pool::bytes_for(&assistant, 1);
        let mut pool = Pool::new(2 * room);
        let first = pool.rent(&assistant, 20).unwrap().unwrap();
        let second = pool.rent(&assistant, 32).unwrap().unwrap();
        assert!(pool.rent(&assistant, 1).unwrap().is_none());
        assert_eq!((pool.rented(), first.bytes()), (2 * room, room));
        pool.give_back(first);
        pool.give_back(second);
        assert_eq!((pool.rented(), pool.free.len()), (0, 2));
        // A larger one takes the place of both.
        let large = pool.rent(&assistant, 33).unwrap().unwrap();
        assert_eq!((large.slots(), pool.free.len()), (64, 0));
        pool.lose(large.bytes());
        assert!(pool.rent(&assistant, 65).unwrap().is_none());
    }
}
