//! How sure a share or a difference is: Wilson intervals, Newcombe's for paired differences, McNemar's exact test.

use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF};

/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// An estimate with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether zero is outside.
    #[must_use]
    pub fn leaves_zero_out(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// A share of `all`, with Wilson's interval; `None` of nothing.
#[must_use]
pub fn wilson(right: usize, all: usize) -> Option<Interval> {
    if all == 0 {
        return None;
    }
    let (n, p) = (all as f64, right as f64 / all as f64);
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    // At 0 and at `all` one end is the share itself; rounding must not put it on the other side.
    Some(Interval { value: p, low: (middle - half).max(0.0).min(p), high: (middle + half).min(1.0).max(p) })
}

/// Two runs on the same items: what each got right, pair by pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairs {
    /// Both right.
    pub both: usize,
    /// The first alone.
    pub first: usize,
    /// The second alone.
    pub second: usize,
    /// Neither.
    pub neither: usize,
}

impl Pairs {
    /// Counts pairs `(first right, second right)`.
    pub fn of(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut counts = Self::default();
        for pair in pairs {
            *match pair {
                (true, true) => &mut counts.both,
                (true, false) => &mut counts.first,
                (false, true) => &mut counts.second,
                (false, false) => &mut counts.neither,
            } += 1;
        }
        counts
    }

    /// Items.
    #[must_use]
    pub fn all(&self) -> usize {
        self.both + self.first + self.second + self.neither
    }

    /// Share right of the first minus that of the second, with Newcombe's interval for paired shares (method 10 of
    /// Statistics in Medicine 17, 1998, 2635 to 2650): it is never of width zero, however alike the two are; `None` of
    /// nothing.
    #[must_use]
    pub fn difference(&self) -> Option<Interval> {
        let (first, second) =
            (wilson(self.both + self.first, self.all())?, wilson(self.both + self.second, self.all())?);
        let value = (self.first as f64 - self.second as f64) / self.all() as f64;
        let correlation = self.correlation();
        let reach = |a: f64, b: f64| (a * a - 2.0 * correlation * a * b + b * b).max(0.0).sqrt();
        let low = value - reach(first.value - first.low, second.high - second.value);
        let high = value + reach(first.high - first.value, second.value - second.low);
        Some(Interval { value, low: low.max(-1.0), high: high.min(1.0) })
    }

    /// Newcombe's coefficient between the two, which takes half an item away from agreement; 0 where one was always or
    /// never right.
    fn correlation(&self) -> f64 {
        let [both, first, second, neither] = [self.both, self.first, self.second, self.neither].map(|n| n as f64);
        let spread = (both + first) * (second + neither) * (both + second) * (first + neither);
        let agreement = both * neither - first * second;
        let half = self.all() as f64 / 2.0;
        let agreement = if agreement > 0.0 { (agreement - half).max(0.0) } else { agreement };
        if spread > 0.0 { agreement / spread.sqrt() } else { 0.0 }
    }

    /// McNemar's exact test: the probability of pairs as uneven as these if both were equally good.
    #[must_use]
    pub fn mcnemar(&self) -> f64 {
        let (least, uneven) = (self.first.min(self.second) as u64, (self.first + self.second) as u64);
        match Binomial::new(0.5, uneven) {
            Ok(even) if uneven > 0 => (2.0 * even.cdf(least)).min(1.0),
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64, by: f64) {
        assert!((a - b).abs() <= by, "{a} is not {b} within {by}");
    }

    #[test]
    fn wilson_gives_the_textbook_intervals() {
        // R: prop.test(right, all, correct = FALSE)$conf.int
        for (right, all, low, high) in
            [(8, 10, 0.490_162_5, 0.943_317_8), (0, 10, 0.0, 0.277_532_8), (87, 100, 0.790_196_5, 0.922_428_3)]
        {
            let interval = wilson(right, all).unwrap();
            near(interval.low, low, 1e-5);
            near(interval.high, high, 1e-5);
        }
        assert_eq!(wilson(10, 10).unwrap().high, 1.0);
        assert!(wilson(0, 0).is_none());
    }

    #[test]
    fn mcnemar_counts_what_only_one_of_two_got_right() {
        // R: binom.test(first, first + second)$p.value
        for (first, second, p) in [(10, 2, 0.038_574_22), (5, 5, 1.0), (0, 0, 1.0), (0, 8, 0.007_812_5)] {
            near(Pairs { both: 40, first, second, neither: 7 }.mcnemar(), p, 1e-7);
        }
    }

    #[test]
    fn a_paired_difference_is_as_sure_as_its_pairs() {
        let found = Pairs { both: 500, first: 120, second: 40, neither: 340 }.difference().unwrap();
        near(found.value, 0.08, 1e-12);
        // Of so many, the interval of the normal distribution: a mean of 1, -1 and 0.
        let half = Z * ((0.16 - 0.08f64.powi(2)) / 1000.0).sqrt();
        near(found.low, 0.08 - half, 0.003);
        near(found.high, 0.08 + half, 0.003);
        // R: contingencytables::Newcombe_square_and_add_CI_paired_2x2 on its own example
        let few = Pairs { both: 1, first: 1, second: 7, neither: 12 }.difference().unwrap();
        near(few.low, -0.507, 5e-4);
        near(few.high, -0.026, 5e-4);
        // That none of 7 differs does not say that none ever does.
        let same = Pairs { both: 3, first: 0, second: 0, neither: 4 }.difference().unwrap();
        assert!(same.value == 0.0 && same.low < -0.1 && same.high > 0.1, "{same:?}");
        let all_right = Pairs { both: 7, ..Pairs::default() }.difference().unwrap();
        assert!(all_right.value == 0.0 && all_right.low < -0.1 && all_right.high > 0.1, "{all_right:?}");
        assert!(Pairs::default().difference().is_none());
    }

    #[test]
    fn pairs_are_counted_by_who_was_right() {
        let pairs = Pairs::of([(true, true), (true, false), (true, false), (false, true), (false, false)]);
        assert_eq!(pairs, Pairs { both: 1, first: 2, second: 1, neither: 1 });
        assert_eq!(pairs.all(), 5);
    }
}
