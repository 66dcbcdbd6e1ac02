//! What many requests came to.

use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Why a request has no answer, in few words: equal ones are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed(pub String);

/// One request.
#[derive(Clone, Debug)]
pub struct Sample {
    pub total: Duration,
    pub said: Result<Answer, Failed>,
}

/// What one answer brought.
#[derive(Clone, Debug)]
pub struct Answer {
    pub first_token: Option<Duration>,
    pub text_tokens: u64,
    pub latent_steps: u64,
}

/// What a load came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Requests that were to be asked.
    pub requests: usize,
    /// Requests under way at once.
    pub concurrency: usize,
    /// Those with an answer.
    pub answered: usize,
    /// Time from the first request to the last answer.
    pub seconds: f64,
    /// Answers a second.
    pub requests_per_second: f64,
    /// Text tokens a second.
    pub text_tokens_per_second: f64,
    /// Latent steps a second.
    pub latent_steps_per_second: f64,
    /// Text tokens of all answers.
    pub text_tokens: u64,
    /// Latent steps of all answers.
    pub latent_steps: u64,
    /// From asking to the first text token, in milliseconds.
    pub first_token_ms: Percentiles,
    /// From asking to the end, in milliseconds.
    pub total_ms: Percentiles,
    /// Requests without an answer, by why.
    pub errors: BTreeMap<String, usize>,
}

/// How long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half took less.
    pub p50: f64,
    /// 95 of 100 took less.
    pub p95: f64,
    /// 99 of 100 took less.
    pub p99: f64,
    /// None took more.
    pub max: f64,
}

impl Percentiles {
    /// Of durations in any order: the nearest rank.
    fn of(durations: impl Iterator<Item = Duration>) -> Self {
        let mut ms: Vec<f64> = durations.map(|duration| duration.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let Some(max) = ms.last().copied() else {
            return Self::default();
        };
        let at = |share: f64| ms[((share * ms.len() as f64).ceil() as usize).clamp(1, ms.len()) - 1];
        Self { p50: at(0.50), p95: at(0.95), p99: at(0.99), max }
    }
}

impl Report {
    pub(super) fn of(samples: &[Sample], requests: usize, concurrency: usize, took: Duration) -> Self {
        let answers: Vec<(&Sample, &Answer)> =
            samples.iter().filter_map(|sample| Some((sample, sample.said.as_ref().ok()?))).collect();
        let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
        let text_tokens = answers.iter().map(|(_, answer)| answer.text_tokens).sum();
        let latent_steps = answers.iter().map(|(_, answer)| answer.latent_steps).sum();
        let mut errors = BTreeMap::new();
        for failed in samples.iter().filter_map(|sample| sample.said.as_ref().err()) {
            *errors.entry(failed.0.clone()).or_default() += 1;
        }
        Self {
            requests,
            concurrency,
            answered: answers.len(),
            seconds,
            requests_per_second: answers.len() as f64 / seconds,
            text_tokens_per_second: text_tokens as f64 / seconds,
            latent_steps_per_second: latent_steps as f64 / seconds,
            text_tokens,
            latent_steps,
            first_token_ms: Percentiles::of(answers.iter().filter_map(|(_, answer)| answer.first_token)),
            total_ms: Percentiles::of(answers.iter().map(|(sample, _)| sample.total)),
            errors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let p = Percentiles::of((1..=200).rev().map(Duration::from_millis));
        assert_eq!((p.p50, p.p95, p.p99, p.max), (100.0, 190.0, 198.0, 200.0));
        let one = Percentiles::of([Duration::from_millis(3)].into_iter());
        assert_eq!((one.p50, one.p99), (3.0, 3.0));
        assert_eq!(Percentiles::of(std::iter::empty()), Percentiles::default());
    }

    #[test]
    fn latent_and_text_are_told_apart_and_errors_by_kind() {
        let ms = Duration::from_millis;
        let answer = Answer { first_token: Some(ms(5)), text_tokens: 4, latent_steps: 3 };
        let good = Sample { total: ms(10), said: Ok(answer) };
        let bad = |why: &str| Sample { total: ms(1), said: Err(Failed(why.into())) };
        let samples = [good.clone(), good, bad("status 429"), bad("status 429"), bad("timeout")];
        let report = Report::of(&samples, 5, 2, ms(2000));
        assert_eq!((report.answered, report.requests_per_second), (2, 1.0));
        assert_eq!((report.text_tokens_per_second, report.latent_steps_per_second), (4.0, 3.0));
        assert_eq!((report.first_token_ms.p50, report.total_ms.p50), (5.0, 10.0));
        assert_eq!(report.errors, BTreeMap::from([("status 429".into(), 2), ("timeout".into(), 1)]));
    }
}
