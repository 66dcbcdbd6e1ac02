//! Encoded pictures by the hash of what the model is shown of them, the least recently used forgotten first.
//!
//! With a picture goes all that requests about it share: the decoder's keys and values of it, and the memory that looks read.

use lare_data::Prepared;
use lare_model::Ground;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// The hash of a picture's size and pixels.
pub(super) type Key = [u8; 32];

/// The key of a picture as the model sees it.
pub(super) fn key_of(picture: &Prepared) -> Key {
    let mut hasher = Sha256::new();
    hasher.update((picture.width as u64).to_le_bytes());
    hasher.update((picture.height as u64).to_le_bytes());
    hasher.update(&picture.rgb);
    hasher.finalize().into()
}

struct Known {
    ground: Arc<Ground>,
    bytes: usize,
    last_used: u64,
}

/// What is known of a picture.
pub(super) enum Found {
    /// It is encoded.
    Known(Arc<Ground>),
    /// Somebody else waits for it already, and whoever asked now is told with them.
    Awaited,
    /// Nothing: whoever asked has to have it encoded.
    Unknown,
}

/// Encoded pictures, and who waits for those that are being encoded.
pub(super) struct Pictures {
    known: HashMap<Key, Known>,
    awaited: HashMap<Key, Vec<u64>>,
    budget: usize,
    bytes: usize,
    uses: u64,
}

impl Pictures {
    pub(super) fn new(budget: usize) -> Self {
        Self { known: HashMap::new(), awaited: HashMap::new(), budget, bytes: 0, uses: 0 }
    }

    /// Bytes of the pictures that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Looks a picture up for the request `id`.
    pub(super) fn find(&mut self, key: Key, id: u64) -> Found {
        self.uses += 1;
        if let Some(known) = self.known.get_mut(&key) {
            known.last_used = self.uses;
            return Found::Known(known.ground.clone());
        }
        if let Some(waiting) = self.awaited.get_mut(&key) {
            waiting.push(id);
            return Found::Awaited;
        }
        self.awaited.insert(key, vec![id]);
        Found::Unknown
    }

    /// A picture was encoded, or could not be: gives those who wait for it.
    pub(super) fn arrived(&mut self, key: Key, ground: Option<&Arc<Ground>>) -> Vec<u64> {
        if let Some(ground) = ground {
            self.keep(key, ground);
        }
        self.awaited.remove(&key).unwrap_or_default()
    }

    fn keep(&mut self, key: Key, ground: &Arc<Ground>) {
        let bytes = ground.bytes();
        if bytes > self.budget {
            return;
        }
        while self.bytes + bytes > self.budget {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.last_used).map(|(key, _)| *key);
            let Some(dropped) = oldest.and_then(|key| self.known.remove(&key)) else { break };
            self.bytes -= dropped.bytes;
        }
        self.bytes += bytes;
        let known = Known { ground: ground.clone(), bytes, last_used: self.uses };
        if let Some(old) = self.known.insert(key, known) {
            self.bytes -= old.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{session, tiny};
    use lare_data::prepare;

    fn picture(seed: u64) -> (Key, Arc<Ground>) {
        let assistant = tiny::assistant();
        let prepared = prepare(&tiny::picture(192, 192, seed), 64, 16);
        let ground = session::ground(&assistant, &session::encode(&assistant, &prepared).unwrap()).unwrap();
        (key_of(&prepared), Arc::new(ground))
    }

    #[test]
    fn the_least_recently_used_picture_is_forgotten_first() {
        let [(a, ground), (b, _), (c, _)] = [1, 2, 3].map(picture);
        let mut pictures = Pictures::new(2 * ground.bytes());
        for key in [a, b] {
            assert!(matches!(pictures.find(key, 7), Found::Unknown));
            assert!(matches!(pictures.find(key, 8), Found::Awaited));
            assert_eq!(pictures.arrived(key, Some(&ground)), [7, 8]);
        }
        assert!(matches!(pictures.find(a, 9), Found::Known(_)));
        assert!(matches!(pictures.find(c, 9), Found::Unknown));
        assert_eq!(pictures.arrived(c, Some(&ground)), [9]);
        assert!(matches!(pictures.find(b, 9), Found::Unknown), "b was used before a");
        assert!(matches!(pictures.find(a, 9), Found::Known(_)));
        assert_eq!(pictures.bytes(), 2 * ground.bytes());
    }

    #[test]
    fn a_picture_that_could_not_be_encoded_can_be_tried_again() {
        let (key, _) = picture(1);
        let mut pictures = Pictures::new(1 << 20);
        assert!(matches!(pictures.find(key, 1), Found::Unknown));
        assert_eq!(pictures.arrived(key, None), [1]);
        assert!(matches!(pictures.find(key, 2), Found::Unknown));
    }

    #[test]
    fn pictures_of_the_same_pixels_in_another_shape_have_another_key() {
        let (wide, tall) = (tiny::picture(256, 192, 1), tiny::picture(192, 256, 1));
        let [wide, tall] = [wide, tall].map(|p| Prepared { rgb: vec![7; 9], ..prepare(&p, 64, 16) });
        assert_ne!(key_of(&wide), key_of(&tall));
    }
}
