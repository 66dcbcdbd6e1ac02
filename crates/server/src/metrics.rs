//! What `/metrics` tells, in Prometheus' text format.

use lare_infer::engine::{Answered, Load, ROWS, Stats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
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

/// Where the engine's own numbers come from, when they are asked for.
pub type Source = Box<dyn Fn() -> (Load, Stats) + Send + Sync>;

/// The counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<ByOutcome, Counter>,
    latent_steps: Counter,
    text_tokens: Counter,
    prompt_tokens: Counter,
    refocused: Counter,
    positions: Counter,
    queue_seconds: Histogram,
    first_token_seconds: Histogram,
    answer_seconds: Histogram,
    connections: Gauge,
}

/// From a millisecond to a minute.
const SECONDS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

impl Metrics {
    /// Counters at 0, beside an engine's.
    #[must_use]
    pub fn new(engine: Source) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("lare"),
            requests: Family::default(),
            latent_steps: Counter::default(),
            text_tokens: Counter::default(),
            prompt_tokens: Counter::default(),
            refocused: Counter::default(),
            positions: Counter::default(),
            queue_seconds: Histogram::new(SECONDS),
            first_token_seconds: Histogram::new(SECONDS),
            answer_seconds: Histogram::new(SECONDS),
            connections: Gauge::default(),
        };
        metrics.register(engine);
        metrics
    }

    fn register(&mut self, engine: Source) {
        let r = &mut self.registry;
        r.register("requests", "Requests for an answer, by how they ended", self.requests.clone());
        r.register("latent_steps", "Latent steps of answers", self.latent_steps.clone());
        r.register("text_tokens", "Text tokens of answers", self.text_tokens.clone());
        r.register("prompt_tokens", "Positions of prompts, pictures included", self.prompt_tokens.clone());
        r.register("refocused_visual_tokens", "Entries of visual memory read by latent steps", self.refocused.clone());
        r.register("processed_positions", "Positions the language model computed", self.positions.clone());
        r.register("queue_seconds", "From being accepted to being begun", self.queue_seconds.clone());
        r.register("first_token_seconds", "From being accepted to the first token", self.first_token_seconds.clone());
        r.register("answer_seconds", "From being accepted to the end", self.answer_seconds.clone());
        r.register("connections", "Open connections", self.connections.clone());
        r.register_collector(Box::new(Watched(engine)));
    }

    /// A request ended.
    pub fn ended(&self, outcome: Outcome) {
        self.requests.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// An answer was given.
    pub fn answered(&self, answered: &Answered) {
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
    pub fn text(&self) -> String {
        let mut text = String::new();
        match prometheus_text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}

/// An engine's own numbers.
struct Watched(Source);

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl Collector for Watched {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let (load, stats) = (self.0)();
        let now = [
            ("queue", "Requests that wait", load.waiting),
            ("running", "Requests that are being answered", load.running),
            ("picture_cache_bytes", "Bytes of encoded pictures that are kept", stats.picture_bytes),
            ("cache_bytes", "Bytes reserved for keys and values", stats.cache_bytes),
        ];
        for (name, help, value) in now {
            let gauge = ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let sums = [
            ("picture_cache_hits", "Requests whose picture was known already", stats.picture_hits),
            ("picture_cache_misses", "Pictures that were encoded", stats.picture_misses),
        ];
        for (name, help, value) in sums {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let seconds = ConstCounter::new(stats.pass_micros as f64 / 1e6);
        seconds.encode(encoder.encode_descriptor("pass_seconds", "Time in passes", None, MetricType::Counter)?)?;
        let most = ROWS.iter().map(|rows| *rows as f64).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = most.zip(stats.passes_by_rows).collect();
        let help = "Requests computed together in a pass of the model";
        let mut histogram = encoder.encode_descriptor("batch_size", help, None, MetricType::Histogram)?;
        histogram.encode_histogram::<NoLabelSet>(stats.rows as f64, stats.passes, &buckets, None)
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
        let load = Load { waiting: 3, running: 2 };
        let passes_by_rows = [1, 2, 0, 0, 4, 0, 0];
        let stats = Stats { passes: 7, rows: 60, passes_by_rows, picture_hits: 5, ..Stats::default() };
        let metrics = Metrics::new(Box::new(move || (load, stats)));
        metrics.ended(Outcome::ok);
        metrics.ended(Outcome::queue_full);
        let text = metrics.text();
        for line in [
            "lare_requests_total{outcome=\"ok\"} 1",
            "lare_requests_total{outcome=\"queue_full\"} 1",
            "lare_queue 3",
            "lare_running 2",
            "lare_latent_steps_total 0",
            "lare_text_tokens_total 0",
            "lare_first_token_seconds_bucket{le=\"0.005\"} 0",
            "lare_answer_seconds_count 0",
            "lare_batch_size_sum 60.0",
            "lare_batch_size_bucket{le=\"2\"} 3",
            "lare_batch_size_bucket{le=\"+Inf\"} 7",
            "lare_picture_cache_hits_total 5",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
