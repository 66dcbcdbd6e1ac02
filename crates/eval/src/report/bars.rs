//! Bars from zero with their intervals, a row each: what interventions cost.

use super::axis::{Axis, Limits};
use crate::stats::Interval;
use lare_trace::render::html::Text;
use std::fmt::Write as _;

/// Width in the units of the other plots.
const WIDTH: f64 = 460.0;
/// Where the axis begins and ends; the names stand to the left.
const LEFT: f64 = 112.0;
const RIGHT: f64 = WIDTH - 14.0;
/// Height of a row, and of its bar.
const ROW: f64 = 24.0;
const BAR: f64 = 11.0;
/// Room for the axis below the rows.
const BELOW: f64 = 46.0;

/// One row.
pub(super) struct Bar {
    /// What it is about; short.
    pub name: String,
    /// In points.
    pub value: Interval,
    /// Whether it is known not to be zero.
    pub is_sure: bool,
    /// Shown on hover.
    pub title: String,
}

/// Draws rows below each other; `title` is for those who do not see them.
pub(super) fn bars(title: &str, axis: &str, bars: &[Bar]) -> String {
    let ends = bars.iter().flat_map(|bar| [bar.value.low, bar.value.value, bar.value.high]);
    let axis = Axis::over(axis, &ends.chain([0.0]).collect::<Vec<_>>(), Limits::POINTS);
    let bottom = 6.0 + ROW * bars.len() as f64;
    let height = bottom + BELOW;
    let mut svg = format!(
        "<svg class=\"plot bars\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n<g class=\"frame\">",
        Text(title)
    );
    for (value, text) in axis.ticks() {
        let x = axis.at(value, LEFT, RIGHT);
        let class = if value == 0.0 { "base" } else { "rule" };
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<path class=\"{class}\" d=\"M{x:.1} 2V{bottom:.1}\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            bottom + 17.0
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"axis\" x=\"{RIGHT:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text></g>",
        height - 6.0,
        Text(&axis.name)
    );
    for (row, bar) in bars.iter().enumerate() {
        svg += &drawn(bar, &axis, 6.0 + ROW * (row as f64 + 0.5));
    }
    svg + "</svg>\n"
}

fn drawn(bar: &Bar, axis: &Axis, middle: f64) -> String {
    let [zero, value, low, high] =
        [0.0, bar.value.value, bar.value.low, bar.value.high].map(|value| axis.at(value, LEFT, RIGHT));
    format!(
        "<g class=\"row {}\"><title>{}</title><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect class=\"fill\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\"/><path class=\"bar\" d=\"M{low:.1} {middle:.1}H{high:.1}\"/></g>\n",
        if bar.is_sure { "sure" } else { "unsure" },
        Text(&bar.title),
        LEFT - 8.0,
        middle + 4.0,
        Text(&bar.name),
        zero.min(value),
        middle - BAR / 2.0,
        (value - zero).abs()
    )
}

#[cfg(test)]
mod tests {
    use super::super::plot::tests::numbers;
    use super::*;

    fn bar(value: f64, low: f64, high: f64) -> Bar {
        let value = Interval { value, low, high };
        Bar { name: "noise".into(), value, is_sure: value.leaves_zero_out(), title: "costs".into() }
    }

    #[test]
    fn bars_stay_inside_their_frame_and_begin_at_zero() {
        let svg = bars("cost", "points", &[bar(40.0, 30.0, 50.0), bar(-3.0, -8.0, 2.0), bar(0.0, 0.0, 0.0)]);
        let (lefts, widths) = (numbers(&svg, "x"), numbers(&svg, "width"));
        assert!(lefts.iter().all(|x| (0.0..=WIDTH).contains(x)), "{svg}");
        assert!(widths.iter().all(|width| (0.0..=RIGHT - LEFT).contains(width)), "{svg}");
        assert_eq!(svg.matches("class=\"row sure\"").count(), 1);
        assert_eq!(svg.matches("class=\"row unsure\"").count(), 2);
        assert_eq!(svg.matches("class=\"base\"").count(), 1, "zero is on the axis once");
    }

    #[test]
    fn no_bars_and_bars_of_nothing_have_no_nan() {
        for bars_of in [&[][..], &[bar(0.0, 0.0, 0.0)], &[bar(f64::NAN, f64::NAN, f64::NAN)]] {
            let svg = bars("cost", "points", bars_of);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn names_cannot_become_markup() {
        let one = Bar { name: "<script>".into(), title: "</title><b>".into(), ..bar(1.0, 0.5, 2.0) };
        let svg = bars("\"><script>", "<i>", &[one]);
        assert!(!svg.contains("<script>") && !svg.contains("<b>") && !svg.contains("<i>"), "{svg}");
    }
}
