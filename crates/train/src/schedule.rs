//! The learning rate: a linear warm-up, then constant or a half cosine, within each stage.

use crate::config::{Decay, Stage};

/// The share of the rate that a cosine ends at: the last steps still move.
const FLOOR: f64 = 0.01;

/// Learning rate at `step` of a stage, counted from 0.
pub fn rate(stage: &Stage, step: usize) -> f64 {
    let warm = ((step + 1) as f64 / stage.warmup_steps.max(1) as f64).min(1.0);
    let shape = match stage.decay {
        Decay::Constant => 1.0,
        Decay::Cosine => {
            let done = step as f64 / stage.steps.max(1) as f64;
            FLOOR + (1.0 - FLOOR) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
        }
    };
    stage.rate * warm * shape
}
