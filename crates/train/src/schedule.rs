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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn stage(decay: Decay) -> Stage {
        let config = Config::from_toml(include_str!("../tests/tiny.toml"), "tiny.toml").unwrap();
        Stage { steps: 100, warmup_steps: 10, rate: 2.0, decay, ..config.stages[0].clone() }
    }

    #[test]
    fn the_rate_rises_in_a_line_and_then_stays() {
        let stage = stage(Decay::Constant);
        for (step, expected) in [(0, 0.2), (4, 1.0), (9, 2.0), (10, 2.0), (99, 2.0)] {
            assert!((rate(&stage, step) - expected).abs() < 1e-12, "{step}: {}", rate(&stage, step));
        }
    }

    #[test]
    fn a_cosine_falls_by_half_in_the_middle_and_never_to_nothing() {
        let stage = stage(Decay::Cosine);
        assert!((rate(&stage, 50) - 2.0 * (FLOOR + (1.0 - FLOOR) / 2.0)).abs() < 1e-12);
        assert!(rate(&stage, 99) > 0.0 && rate(&stage, 99) < 0.03);
        assert!((10..99).all(|step| rate(&stage, step + 1) < rate(&stage, step)));
    }
}
