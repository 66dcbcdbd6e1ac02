//! What `/metrics` tells, in Prometheus' text format.

use lare_infer::engine::{Answered, Load};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// How a request for an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the labels")]
pub enum Outcome {
    /// It has its answer.
    ok,
    /// It asked for what cannot be.
    bad_request,
    /// It had no key, or a wrong one.
    unauthorized,
    /// The body, a picture or the whole was too large.
    too_large,
    /// There was no room for it.
    queue_full,
    /// It took too long.
    timeout,
    /// Its client went away.
    disconnected,
    /// The server failed.
    failed,
    /// The server was being closed.
    closing,
}

impl Outcome {
    /// The outcome that a status stands for.
    #[must_use]
    pub fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::ok,
            401 => Self::unauthorized,
            413 => Self::too_large,
            429 => Self::queue_full,
            408 | 504 => Self::timeout,
            503 => Self::closing,
            500..=599 => Self::failed,
            _ => Self::bad_request,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Outcome,
}

/// The counters. Those of the engine's load are read when they are asked for.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<ByOutcome, Counter>,
    waiting: Gauge,
    running: Gauge,
    batch: Histogram,
    latent_steps: Counter,
    text_tokens: Counter,
    prompt_tokens: Counter,
    refocused: Counter,
    positions: Counter,
    queue_seconds: Histogram,
    first_token_seconds: Histogram,
    answer_seconds: Histogram,
    picture_hits: Gauge,
    picture_misses: Gauge,
    picture_bytes: Gauge,
    connections: Gauge,
}

/// From a millisecond to a minute.
const SECONDS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Requests computed together.
const ROWS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("lare"),
            requests: Family::default(),
            waiting: Gauge::default(),
            running: Gauge::default(),
            batch: Histogram::new(ROWS),
            latent_steps: Counter::default(),
            text_tokens: Counter::default(),
            prompt_tokens: Counter::default(),
            refocused: Counter::default(),
            positions: Counter::default(),
            queue_seconds: Histogram::new(SECONDS),
            first_token_seconds: Histogram::new(SECONDS),
            answer_seconds: Histogram::new(SECONDS),
            picture_hits: Gauge::default(),
            picture_misses: Gauge::default(),
            picture_bytes: Gauge::default(),
            connections: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Requests for an answer, by how they ended", self.requests.clone());
        r.register("queue", "Requests that wait", self.waiting.clone());
        r.register("running", "Requests that are being answered", self.running.clone());
        r.register("batch_size", "Requests under way when one was finished, itself included", self.batch.clone());
        r.register("latent_steps", "Latent steps taken", self.latent_steps.clone());
        r.register("text_tokens", "Text tokens generated", self.text_tokens.clone());
        r.register("prompt_tokens", "Positions of prompts, pictures included", self.prompt_tokens.clone());
        r.register("refocused_visual_tokens", "Entries of visual memory read by latent steps", self.refocused.clone());
        r.register("processed_positions", "Positions the language model computed", self.positions.clone());
        r.register("queue_seconds", "From being accepted to being begun", self.queue_seconds.clone());
        r.register("first_token_seconds", "From being accepted to the first token", self.first_token_seconds.clone());
        r.register("answer_seconds", "From being accepted to the end", self.answer_seconds.clone());
        r.register("picture_cache_hits", "Pictures whose features were kept", self.picture_hits.clone());
        r.register("picture_cache_misses", "Pictures that were encoded", self.picture_misses.clone());
        r.register("picture_cache_bytes", "Bytes of features kept", self.picture_bytes.clone());
        r.register("connections", "Open connections", self.connections.clone());
    }

    /// A request ended.
    pub fn ended(&self, outcome: Outcome) {
        self.requests.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// An answer was given, with so many requests under way.
    pub fn answered(&self, answered: &Answered, running: usize) {
        let usage = &answered.usage;
        let counts = [
            (&self.latent_steps, usage.latent_steps),
            (&self.text_tokens, usage.text_tokens),
            (&self.prompt_tokens, answered.prompt_tokens),
            (&self.refocused, usage.refocused_visual_tokens),
            (&self.positions, usage.processed_positions),
        ];
        for (counter, count) in counts {
            counter.inc_by(count as u64);
        }
        self.batch.observe(running.max(1) as f64);
        self.queue_seconds.observe(answered.queued.as_secs_f64());
        self.first_token_seconds.observe(answered.first_token.as_secs_f64());
        self.answer_seconds.observe(answered.total.as_secs_f64());
    }

    /// So many connections are open.
    pub fn connections(&self, open: usize) {
        self.connections.set(open as i64);
    }

    /// Everything, as text.
    #[must_use]
    pub fn text(&self, load: Load) -> String {
        self.waiting.set(load.waiting as i64);
        self.running.set(load.running as i64);
        let mut text = String::new();
        match prometheus_text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}

/// Seconds of a duration, at least 1, as messages give them.
#[must_use]
pub fn seconds(time: Duration) -> u64 {
    time.as_secs().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_told_under_its_name() {
        let metrics = Metrics::default();
        metrics.ended(Outcome::ok);
        metrics.ended(Outcome::queue_full);
        let text = metrics.text(Load { waiting: 3, running: 2 });
        for line in [
            "lare_requests_total{outcome=\"ok\"} 1",
            "lare_requests_total{outcome=\"queue_full\"} 1",
            "lare_queue 3",
            "lare_running 2",
            "lare_latent_steps_total 0",
            "lare_text_tokens_total 0",
            "lare_first_token_seconds_bucket{le=\"0.005\"} 0",
            "lare_answer_seconds_count 0",
            "lare_batch_size_sum 0.0",
            "lare_picture_cache_hits 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
