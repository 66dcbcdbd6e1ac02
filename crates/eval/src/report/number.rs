//! Numbers as a report shows them, one way for each kind. What is not finite is shown as no number.

use crate::stats::Interval;

/// Stands where there is no number.
pub(super) const NONE: &str = "–";
/// A minus as wide as the plus and the digits.
const MINUS: char = '\u{2212}';

/// A number with so many digits after the point; what rounds to zero has no sign.
pub(super) fn fixed(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(size) if is_zero(size) => size.to_owned(),
        Some(size) => format!("{MINUS}{size}"),
        None => text,
    }
}

/// The same with a plus.
pub(super) fn signed(value: f64, digits: usize) -> String {
    let text = fixed(value, digits);
    let has_sign = text.starts_with(MINUS) || text == NONE || is_zero(&text);
    if has_sign { text } else { format!("+{text}") }
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0' | b'.'))
}

/// A share in percent: `81.5`.
pub(super) fn percent(share: f64) -> String {
    fixed(100.0 * share, 1)
}

/// The ends of a share's interval in percent: `[77.0, 85.3]`.
pub(super) fn range(share: &Interval) -> String {
    format!("[{}, {}]", percent(share.low), percent(share.high))
}

/// A difference of shares in points: `+1.5`.
pub(super) fn points(difference: f64) -> String {
    signed(100.0 * difference, 1)
}

/// The ends of a difference's interval in points.
pub(super) fn points_range(difference: &Interval) -> String {
    format!("[{}, {}]", points(difference.low), points(difference.high))
}

/// A probability under the null hypothesis.
pub(super) fn p(value: f64) -> String {
    if value < 0.001 { "< 0.001".to_owned() } else { fixed(value, 3) }
}

/// A share as it is plotted: in percent.
pub(super) fn in_percent(share: &Interval) -> Interval {
    let Interval { value, low, high } = *share;
    Interval { value: 100.0 * value, low: 100.0 * low, high: 100.0 * high }
}

/// `1 question`, `3 questions`.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The beginning of a hash, enough to tell it from others.
pub(super) fn short(hash: &str) -> String {
    hash.chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_digits_it_was_asked_for_and_zero_has_no_sign() {
        for (value, digits, text) in
            [(81.46, 1, "81.5"), (-0.04, 1, "0.0"), (-1.26, 1, "\u{2212}1.3"), (3.0, 0, "3"), (-2.6, 0, "\u{2212}3")]
        {
            assert_eq!(fixed(value, digits), text);
        }
        assert_eq!([signed(1.5, 1), signed(-1.5, 1), signed(0.04, 1)], ["+1.5", "\u{2212}1.5", "0.0"]);
    }

    #[test]
    fn what_is_not_finite_is_shown_as_no_number() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!([fixed(value, 1), signed(value, 1), percent(value), points(value)], [NONE; 4]);
        }
        assert_eq!(p(f64::NAN), NONE);
    }

    #[test]
    fn a_small_p_is_not_shown_as_zero() {
        assert_eq!([p(0.000_4), p(0.012_3), p(1.0)], ["< 0.001", "0.012", "1.000"]);
    }
}
