//! Whether the server can answer, and how many requests it owes an answer.

use crate::error::Problem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// How a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// The model has not answered yet.
    Starting,
    /// It has.
    Ready,
    /// It failed to.
    Broken,
    /// The server takes no more requests.
    Closing,
}

impl Standing {
    fn of(number: u8) -> Self {
        let all = [Self::Starting, Self::Ready, Self::Broken, Self::Closing];
        all.into_iter().find(|standing| *standing as u8 == number).unwrap_or(Self::Broken)
    }
}

/// How the server stands, seen from every thread.
#[derive(Debug, Default)]
pub struct Health {
    standing: AtomicU8,
    in_flight: AtomicUsize,
    left: Notify,
}

impl Health {
    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::of(self.standing.load(Ordering::SeqCst))
    }

    /// A server that is being closed stays so.
    pub fn set(&self, standing: Standing) {
        let change = |now| (now != Standing::Closing as u8).then_some(standing as u8);
        let _was = self.standing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
    }

    /// Whether it can answer.
    ///
    /// # Errors
    /// 503, with the reason as its code.
    pub fn check(&self) -> Result<(), Problem> {
        match self.standing() {
            Standing::Ready => Ok(()),
            Standing::Starting => Err(Problem::unavailable("starting", "the model has not given its first answer yet")),
            Standing::Broken => {
                Err(Problem::unavailable("broken", "the model does not answer; the log has the reason"))
            }
            Standing::Closing => Err(Problem::closing()),
        }
    }

    /// Counts a request in, until the guard is dropped.
    ///
    /// # Errors
    /// 503 when the server is being closed.
    pub fn enter(self: &Arc<Self>) -> Result<InFlight, Problem> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let guard = InFlight(self.clone());
        // In this order: whoever closes the server first and counts then has counted this one, or it is refused here.
        match self.standing() {
            Standing::Closing => Err(Problem::closing()),
            _ => Ok(guard),
        }
    }

    /// Requests that are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Waits until no request is under way.
    pub async fn idle(&self) {
        loop {
            let left = self.left.notified();
            if self.in_flight() == 0 {
                return;
            }
            left.await;
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub struct InFlight(Arc<Health>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.0.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_closes_takes_nothing_in_and_never_opens_again() {
        let health = Arc::new(Health::default());
        assert_eq!(health.check().unwrap_err().code, "starting");
        let inside = health.enter().unwrap();
        health.set(Standing::Ready);
        assert!(health.check().is_ok());
        health.set(Standing::Closing);
        health.set(Standing::Ready);
        assert_eq!(health.standing(), Standing::Closing);
        assert_eq!(health.enter().unwrap_err().status, 503);
        assert_eq!(health.in_flight(), 1);
        drop(inside);
        assert_eq!(health.in_flight(), 0);
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_the_last_request() {
        let health = Arc::new(Health::default());
        let inside = health.enter().unwrap();
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(inside);
        waiting.await.unwrap();
    }
}
