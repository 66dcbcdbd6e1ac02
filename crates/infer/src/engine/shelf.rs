//! What is kept for later requests, by the hash of what it came of; the least recently used is forgotten first.
//!
//! There are two shelves. One has grounds, what conversations with the same beginning go on from: the decoder's keys and values of
//! it, and the memory that looks read; by the tokens of that beginning and the keys of its pictures. The other has what a
//! pretrained model's vision tower saw in one picture, by the pixels it was shown.

use crate::model::Key;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// The key of what conversations go on from that begin with these tokens and pictures. A token that stands for a picture says
/// nothing of it: its key does.
pub(super) fn ground_key(first: &[u32], pictures: &[Key]) -> Key {
    let mut hasher = Sha256::new();
    hasher.update((first.len() as u64).to_le_bytes());
    first.iter().for_each(|id| hasher.update(id.to_le_bytes()));
    pictures.iter().for_each(|key| hasher.update(key));
    hasher.finalize().into()
}

struct Known<T> {
    item: Arc<T>,
    bytes: usize,
    last_used: u64,
}

/// What is known under a key.
pub(super) enum Found<T> {
    /// It is there.
    Known(Arc<T>),
    /// Somebody else waits for it already, and whoever asked now is told with them.
    Awaited,
    /// Nothing: whoever asked has to have it made.
    Unknown,
}

/// What is kept, and who waits for what is being made.
pub(super) struct Shelf<T> {
    known: HashMap<Key, Known<T>>,
    awaited: HashMap<Key, Vec<u64>>,
    budget: usize,
    bytes: usize,
    uses: u64,
}

impl<T> Shelf<T> {
    pub(super) fn new(budget: usize) -> Self {
        Self { known: HashMap::new(), awaited: HashMap::new(), budget, bytes: 0, uses: 0 }
    }

    /// Bytes of what is kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Looks something up for whoever has the number `id`.
    pub(super) fn find(&mut self, key: Key, id: u64) -> Found<T> {
        self.uses += 1;
        if let Some(known) = self.known.get_mut(&key) {
            known.last_used = self.uses;
            return Found::Known(known.item.clone());
        }
        if let Some(waiting) = self.awaited.get_mut(&key) {
            waiting.push(id);
            return Found::Awaited;
        }
        self.awaited.insert(key, vec![id]);
        Found::Unknown
    }

    /// Who waits for it.
    pub(super) fn waiting(&self, key: Key) -> &[u64] {
        self.awaited.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Something was made, of so many bytes, or could not be: gives those who wait for it.
    pub(super) fn arrived(&mut self, key: Key, made: Option<(&Arc<T>, usize)>) -> Vec<u64> {
        if let Some((item, bytes)) = made {
            self.keep(key, item, bytes);
        }
        self.awaited.remove(&key).unwrap_or_default()
    }

    fn keep(&mut self, key: Key, item: &Arc<T>, bytes: usize) {
        if bytes > self.budget || self.budget == 0 {
            return;
        }
        while self.bytes + bytes > self.budget {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.last_used).map(|(key, _)| *key);
            let Some(dropped) = oldest.and_then(|key| self.known.remove(&key)) else { break };
            self.bytes -= dropped.bytes;
        }
        self.bytes += bytes;
        let known = Known { item: item.clone(), bytes, last_used: self.uses };
        if let Some(old) = self.known.insert(key, known) {
            self.bytes -= old.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_is_forgotten_first() {
        let [a, b, c] = [[1; 32], [2; 32], [3; 32]];
        let (item, mut shelf) = (Arc::new("item"), Shelf::new(20));
        for key in [a, b] {
            assert!(matches!(shelf.find(key, 7), Found::Unknown));
            assert!(matches!(shelf.find(key, 8), Found::Awaited));
            assert_eq!(shelf.waiting(key), [7, 8]);
            assert_eq!(shelf.arrived(key, Some((&item, 10))), [7, 8]);
        }
        assert!(matches!(shelf.find(a, 9), Found::Known(_)));
        assert!(matches!(shelf.find(c, 9), Found::Unknown));
        assert_eq!(shelf.arrived(c, Some((&item, 10))), [9]);
        assert!(matches!(shelf.find(b, 9), Found::Unknown), "b was used before a");
        assert!(matches!(shelf.find(a, 9), Found::Known(_)));
        assert_eq!(shelf.bytes(), 20);
    }

    #[test]
    fn what_could_not_be_made_can_be_tried_again() {
        let mut shelf: Shelf<()> = Shelf::new(1 << 20);
        assert!(matches!(shelf.find([1; 32], 1), Found::Unknown));
        assert_eq!(shelf.arrived([1; 32], None), [1]);
        assert!(matches!(shelf.find([1; 32], 2), Found::Unknown));
    }

    #[test]
    fn grounds_with_the_same_placeholders_and_other_pictures_have_other_keys() {
        let key = |first: &[u32], pictures: &[u8]| {
            ground_key(first, &pictures.iter().map(|byte| [*byte; 32]).collect::<Vec<_>>())
        };
        let all =
            [key(&[5, 5], &[1]), key(&[5, 5], &[2]), key(&[5, 5, 5], &[1]), key(&[5, 5], &[1, 2]), key(&[5, 5], &[])];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }
}
