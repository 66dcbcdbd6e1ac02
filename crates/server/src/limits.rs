//! What a server takes, and the memory that requests may hold.

use crate::error::Problem;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Pixels of a picture, as its header says, before any of it is decoded.
    pub picture_pixels: u64,
    /// Pictures of a request; the model may take fewer.
    pub pictures: usize,
    /// Latent steps a request may ask for by number; `auto` stays within what the model was trained for.
    pub steps: usize,
    /// Text tokens of an answer; what asks for more is cut to this.
    pub tokens: usize,
    /// Memory of bodies and decoded pictures of all requests together.
    pub memory_bytes: usize,
    /// Connections held at once; more wait to be accepted.
    pub connections: usize,
    /// Time for a request's head to arrive, and for a connection without requests.
    pub head_time: Duration,
    /// Time for a request's body to arrive.
    pub body_time: Duration,
    /// Time in which a client must take something of what is written to it.
    pub write_time: Duration,
    /// Time from a request to the end of its answer.
    pub answer_time: Duration,
    /// Time in which accepted requests are finished when the server is closed.
    pub drain_time: Duration,
    /// Time for a picture to be fetched from its URL.
    pub fetch_time: Duration,
    /// Time without a chunk after which a stream says that it is alive.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            body_bytes: 32 << 20,
            picture_pixels: 32_000_000,
            pictures: 8,
            steps: usize::MAX,
            tokens: 4096,
            memory_bytes: 1 << 30,
            connections: 256,
            head_time: seconds(15),
            body_time: seconds(60),
            write_time: seconds(30),
            answer_time: seconds(300),
            drain_time: seconds(30),
            fetch_time: seconds(15),
            keep_alive: seconds(10),
        }
    }
}

/// Memory that requests may hold together.
#[derive(Clone, Debug)]
pub struct Budget {
    kibibytes: Arc<Semaphore>,
    most: usize,
}

/// Memory that one request holds, until this is dropped.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let most = (bytes >> 10).clamp(1, u32::MAX as usize);
        Self { kibibytes: Arc::new(Semaphore::new(most)), most }
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// 413 for more than there ever is, 429 for more than there is now.
    pub fn take(&self, bytes: usize) -> Result<Held, Problem> {
        let wanted = bytes.div_ceil(1 << 10).max(1);
        if wanted > self.most {
            let message = format!("the request needs {wanted} KiB; the server has {} KiB for all", self.most);
            return Err(Problem::too_large(None, message));
        }
        let permit = self.kibibytes.clone().try_acquire_many_owned(wanted as u32);
        permit.map(Held).map_err(|_| Problem::full("requests under way hold the memory there is; try again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_held_is_not_given_twice() {
        let budget = Budget::new(100 << 10);
        let held = budget.take(60 << 10).unwrap();
        assert_eq!(budget.take(60 << 10).unwrap_err().status, 429);
        drop(held);
        assert!(budget.take(60 << 10).is_ok());
        assert_eq!(budget.take(101 << 10).unwrap_err().status, 413);
    }
}
