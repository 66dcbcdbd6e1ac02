//! One axis of a plot: round ends, round steps, and where a value lies.

use super::number::fixed;

/// About how many steps an axis has.
const STEPS: f64 = 5.0;

/// What an axis may show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Its lowest and highest value.
    pub ends: (f64, f64),
    /// It shows at least so much: a single value has room around it.
    pub least: f64,
    /// Whether only whole numbers mean something.
    pub whole: bool,
}

impl Limits {
    /// Shares in percent.
    pub const PERCENT: Self = Self { ends: (0.0, 100.0), least: 10.0, whole: false };
    /// Differences of shares, in points.
    pub const POINTS: Self = Self { ends: (-100.0, 100.0), least: 4.0, whole: false };
    /// Means of counts.
    pub const MEAN: Self = Self { ends: (0.0, f64::INFINITY), least: 1.0, whole: false };
    /// Counts.
    pub const COUNT: Self = Self { ends: (0.0, f64::INFINITY), least: 1.0, whole: true };
    /// Cosine similarities.
    pub const COSINE: Self = Self { ends: (-1.0, 1.0), least: 0.5, whole: false };
}

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// What it shows, in what units.
    pub name: String,
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// The shortest axis with round ends that has all values, within the limits.
    pub fn over(name: impl Into<String>, values: &[f64], limits: Limits) -> Self {
        let finite = values.iter().copied().filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), value| (l.min(value), h.max(value)));
        let (low, high) = if low > high { (0.0, limits.least) } else { (low, high) };
        let middle = (low + high) / 2.0;
        let half = ((high - low) / 2.0).max(limits.least / 2.0);
        let step = round_step(2.0 * half / STEPS, limits.whole);
        // Half a thousandth of a step: what lies on a line but for rounding does not ask for one line more.
        let slack = step * 5e-4;
        let low = (((middle - half + slack) / step).floor() * step).max(limits.ends.0);
        let high = (((middle + half - slack) / step).ceil() * step).min(limits.ends.1);
        Self { name: name.into(), low, high: high.max(low + step), step }
    }

    /// Its lines with their numbers.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let digits = if self.step < 1.0 { (-self.step.log10()).ceil() as usize } else { 0 };
        let count = ((self.high - self.low) / self.step).round() as usize;
        (0..=count).map(|tick| self.low + tick as f64 * self.step).map(|value| (value, fixed(value, digits))).collect()
    }

    /// Where a value lies on a line from one pixel to another; what is past an end lies on it.
    pub fn at(&self, value: f64, from: f64, to: f64) -> f64 {
        let part = (value - self.low) / (self.high - self.low);
        if part.is_finite() { from + part.clamp(0.0, 1.0) * (to - from) } else { from }
    }
}

/// 1, 2 or 5 times a power of ten, at least as long as `rough`.
fn round_step(rough: f64, whole: bool) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0].map(|times| times * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = round.unwrap_or(10.0 * power);
    if whole { step.max(1.0) } else { step }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[f64], limits: Limits) -> Vec<String> {
        Axis::over("x", values, limits).ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ends_and_steps_are_round() {
        assert_eq!(texts(&[61.2, 88.0], Limits::PERCENT), ["60", "70", "80", "90"]);
        assert_eq!(texts(&[1.0, 2.0, 4.0], Limits::COUNT), ["1", "2", "3", "4"]);
        assert_eq!(texts(&[0.31, 0.92], Limits::COSINE), ["0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(&[-3.0, 40.0], Limits::POINTS), ["\u{2212}10", "0", "10", "20", "30", "40"]);
    }

    #[test]
    fn an_axis_stays_within_what_can_be() {
        assert_eq!(texts(&[100.0], Limits::PERCENT).last().map(String::as_str), Some("100"));
        assert_eq!(texts(&[0.0], Limits::PERCENT).first().map(String::as_str), Some("0"));
        assert_eq!(texts(&[0.0], Limits::COUNT), ["0", "1"]);
    }

    #[test]
    fn no_values_or_none_that_is_a_number_still_make_an_axis() {
        for values in [&[][..], &[f64::NAN], &[f64::INFINITY, f64::NAN], &[7.0], &[1e-300, 0.0], &[1e12, 0.0]] {
            for limits in [Limits::PERCENT, Limits::POINTS, Limits::MEAN, Limits::COUNT, Limits::COSINE] {
                let axis = Axis::over("x", values, limits);
                let ticks = axis.ticks();
                assert!((2..=12).contains(&ticks.len()), "{values:?}: {ticks:?}");
                assert!(ticks.iter().all(|(value, _)| value.is_finite()), "{values:?}: {ticks:?}");
                for value in [f64::NAN, f64::INFINITY, -1e9, 0.0, 7.0, 1e9] {
                    assert!((10.0..=20.0).contains(&axis.at(value, 10.0, 20.0)), "{value} on {ticks:?}");
                }
            }
        }
    }

    #[test]
    fn values_lie_in_their_order() {
        let axis = Axis::over("x", &[0.0, 50.0], Limits::PERCENT);
        assert_eq!([0.0, 25.0, 50.0].map(|value| axis.at(value, 0.0, 100.0)), [0.0, 50.0, 100.0]);
        assert_eq!(axis.at(50.0, 100.0, 0.0), 0.0);
    }
}
