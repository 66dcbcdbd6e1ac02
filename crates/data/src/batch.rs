//! The order in which samples are visited: seeded, endless, and resumable from a saved position.

use serde::{Deserialize, Serialize};

/// An endless sequence of sample numbers. It is its own checkpoint: save it with serde, read it back, go on.
///
/// Sample numbers of the procedural suite are simply consecutive; the seed moves the start, so that two
/// runs with different seeds train on different scenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Which sequence.
    pub seed: u64,
    /// How many numbers were taken from it.
    pub position: u64,
}

impl Stream {
    /// The sequence of this seed, at its beginning.
    #[must_use]
    pub fn new(seed: u64) -> Stream {
        Stream { seed, position: 0 }
    }

    /// The next sample number. Never repeats before 2^40 numbers have been taken.
    pub fn next_index(&mut self) -> u64 {
        let index = self.seed.wrapping_shl(40).wrapping_add(self.position);
        self.position += 1;
        index
    }

    /// A seeded order of `0..len` for data sets of a fixed size; another `epoch`, another order.
    #[must_use]
    pub fn shuffled(&self, len: usize, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        let mut dice = crate::scenes::dice::Dice::new(&[self.seed, epoch, len as u64]);
        dice.shuffle(&mut order);
        order
    }
}

impl Iterator for Stream {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        Some(self.next_index())
    }
}

#[cfg(test)]
mod tests {
    use super::Stream;

    #[test]
    fn a_stream_read_back_goes_on_where_it_was_saved() {
        let mut stream = Stream::new(3);
        for _ in 0..1000 {
            stream.next_index();
        }
        let saved = serde_json::to_string(&stream).unwrap();
        let mut resumed: Stream = serde_json::from_str(&saved).unwrap();
        assert_eq!(resumed.next_index(), stream.next_index());
    }

    #[test]
    fn streams_of_two_seeds_share_no_number() {
        let (first, second) = (Stream::new(0), Stream::new(1));
        assert!(first.take(1000).all(|a| second.take(1000).all(|b| a != b)));
    }

    #[test]
    fn a_shuffled_order_visits_everything_once_and_depends_on_the_epoch() {
        let stream = Stream::new(7);
        let mut order = stream.shuffled(100, 0);
        assert_ne!(order, stream.shuffled(100, 1));
        assert_eq!(order, stream.shuffled(100, 0));
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
