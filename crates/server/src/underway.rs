//! One request from its first byte to its last: what is counted and logged of it, and its updates as they come.

use crate::app::App;
use crate::error::Problem;
use crate::health::{InFlight, Standing};
use crate::limits::Held;
use crate::metrics::{Outcome, seconds};
use lare_infer::engine::{Answered, Failure, Ticket, Update};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedReceiver;

/// Counts a request once and writes its line in the log, however it ends.
pub struct Tracked {
    app: Arc<App>,
    id: String,
    begun: Instant,
    stream: bool,
    outcome: Option<Outcome>,
    answered: Option<Box<Answered>>,
}

impl Tracked {
    /// A request that has just come.
    pub(crate) fn new(app: Arc<App>, id: String) -> Self {
        Self { app, id, begun: Instant::now(), stream: false, outcome: None, answered: None }
    }

    /// Its client wants the answer as it is said.
    pub fn streams(&mut self) {
        self.stream = true;
    }

    /// It is refused, or failed.
    pub fn failed(&mut self, problem: &Problem) {
        self.outcome = Some(Outcome::of(problem.status.as_u16()));
    }

    fn done(&mut self, answered: &Answered) {
        self.outcome = Some(Outcome::ok);
        self.app.metrics.answered(answered);
        self.answered = Some(Box::new(Answered { text: String::new(), ..answered.clone() }));
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let vanished = if std::thread::panicking() { Outcome::failed } else { Outcome::disconnected };
        let outcome = self.outcome.unwrap_or(vanished);
        self.app.metrics.ended(outcome);
        let ms = self.begun.elapsed().as_secs_f64() * 1e3;
        let (id, stream) = (&self.id, self.stream);
        match &self.answered {
            Some(answered) => tracing::info!(
                id,
                ?outcome,
                stream,
                ms,
                prompt_tokens = answered.prompt_tokens,
                text_tokens = answered.usage.text_tokens,
                latent_steps = answered.usage.latent_steps,
                queued_ms = answered.queued.as_secs_f64() * 1e3,
                first_token_ms = answered.first_token.as_secs_f64() * 1e3,
                "answer"
            ),
            None => tracing::info!(id, ?outcome, stream, ms, "no answer"),
        }
    }
}

/// A request that the engine has accepted. Dropping it ends it.
pub struct Underway {
    /// What is known of it.
    pub tracked: Tracked,
    pub(crate) updates: UnboundedReceiver<Update>,
    pub(crate) deadline: tokio::time::Instant,
    /// Kept as long as it goes on.
    pub(crate) _kept: Kept,
}

/// What a request keeps as long as it goes on.
#[expect(dead_code, reason = "kept, not read")]
pub struct Kept {
    /// Dropped, it tells the engine that nobody waits for the answer.
    pub(crate) ticket: Ticket,
    /// Its pictures' memory.
    pub(crate) held: Vec<Held>,
    /// Until this is gone the server does not end.
    pub(crate) in_flight: InFlight,
}

impl Underway {
    /// What happens next; after [`Update::Done`] nothing does.
    ///
    /// # Errors
    /// 504 when it took too long, 500 when the engine failed.
    pub async fn next(&mut self) -> Result<Update, Problem> {
        let app = self.tracked.app.clone();
        let late = || Problem::timeout(seconds(app.settings.limits.answer_time));
        let ended = match tokio::time::timeout_at(self.deadline, self.updates.recv()).await {
            Err(_) => Err(late()),
            Ok(Some(Update::Failed(Failure::Timeout))) => Err(late()),
            Ok(Some(Update::Failed(Failure::Broken { reason }))) => {
                tracing::error!(id = self.tracked.id, reason, "the model failed");
                Err(Problem::broken())
            }
            Ok(Some(update)) => Ok(update),
            Ok(None) => {
                tracing::error!(id = self.tracked.id, "the engine is gone");
                app.health.set(Standing::Broken);
                Err(Problem::broken())
            }
        };
        match &ended {
            Ok(Update::Done(answered)) => self.tracked.done(answered),
            Ok(_) => {}
            Err(problem) => self.tracked.failed(problem),
        }
        ended
    }
}
