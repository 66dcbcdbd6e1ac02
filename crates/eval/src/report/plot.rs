//! A plot as SVG: a frame with two axes, and series of points in it. It needs no script; titles show on hover.

use super::axis::Axis;
use super::place::{Area, Labels};
use crate::stats::Interval;
use lare_trace::render::html::Text;
use std::fmt::Write as _;

/// Size of a plot, in units that are about a pixel where the page is narrow.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
/// The frame inside it.
const FRAME: Area = Area { left: 40.0, top: 30.0, right: WIDTH - 14.0, bottom: HEIGHT - 46.0 };
/// Half the size of a mark.
const MARK: f64 = 4.0;
/// How many shapes, tones and dashes series have before they begin again.
pub(super) const LOOKS: usize = 5;

/// A plot.
pub(super) struct Plot {
    /// What it shows, for those who do not see it.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
}

/// Points that belong together.
pub(super) struct Series {
    /// Number of its shape and tone.
    pub look: usize,
    /// From left to right.
    pub points: Vec<Point>,
    /// How sure they are, if that is drawn.
    pub spread: Spread,
    /// Whether a line goes through them.
    pub joined: bool,
}

/// A point.
pub(super) struct Point {
    /// Where it is.
    pub x: f64,
    /// How high, from where to where.
    pub y: Interval,
    /// Shown on hover.
    pub title: String,
    /// Stands beside it; may be empty.
    pub label: String,
}

/// How intervals are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// Not at all.
    None,
    /// A bar through each point.
    Bars,
    /// A band along the line.
    Band,
}

/// The class of a series' shape and tone.
pub(super) fn look_class(look: usize) -> String {
    format!("run-{}", look % LOOKS)
}

impl Plot {
    /// Where a value lies.
    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        (self.x.at(x, FRAME.left, FRAME.right), self.y.at(y, FRAME.bottom, FRAME.top))
    }

    /// Draws series, over stairs along what is the most for so much: `front`, from left to right.
    pub fn svg(&self, front: &[(f64, f64)], series: &[Series]) -> String {
        let mut labels = Labels::inside(FRAME);
        let (mut marks, mut names) = (self.stairs(front, &mut labels), String::new());
        for one in series {
            marks += &self.drawn(one);
            self.keep_clear(&mut labels, one);
        }
        for point in series.iter().flat_map(|one| &one.points).filter(|point| !point.label.is_empty()) {
            names += &labels.beside(&point.label, self.place(point.x, point.y.value));
        }
        format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n{}{marks}{names}\n</svg>\n",
            Text(&self.title),
            self.frame()
        )
    }

    /// Lines, numbers and names of the axes.
    fn frame(&self) -> String {
        let Area { left, top, right, bottom } = FRAME;
        let mut svg = String::from("<g class=\"frame\">");
        for (value, text) in self.y.ticks() {
            let y = self.y.at(value, bottom, top);
            // Writing to a String cannot fail.
            let _ = write!(
                svg,
                "<path class=\"rule\" d=\"M{left:.1} {y:.1}H{right:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                left - 7.0,
                y + 4.0
            );
        }
        for (value, text) in self.x.ticks() {
            let x = self.x.at(value, left, right);
            let _ = write!(
                svg,
                "<path class=\"tick\" d=\"M{x:.1} {bottom:.1}v5\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                bottom + 19.0
            );
        }
        let _ = writeln!(
            svg,
            "<path class=\"base\" d=\"M{left:.1} {bottom:.1}H{right:.1}\"/><text class=\"axis\" x=\"0\" y=\"14\">{}</text><text class=\"axis\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text></g>",
            Text(&self.y.name),
            HEIGHT - 6.0,
            Text(&self.x.name)
        );
        svg
    }

    fn drawn(&self, series: &Series) -> String {
        let mut svg = format!("<g class=\"series {}\">", look_class(series.look));
        if series.spread == Spread::Band {
            svg += &self.band(&series.points);
        }
        if series.joined && series.points.len() > 1 {
            let path: Vec<String> = series.points.iter().map(|point| self.spot(point.x, point.y.value)).collect();
            let _ = write!(svg, "<path class=\"line\" d=\"M{}\"/>", path.join("L"));
        }
        for point in &series.points {
            let _ = write!(svg, "<g class=\"point\"><title>{}</title>", Text(&point.title));
            // A band of one point has no width.
            if series.spread == Spread::Bars || (series.spread == Spread::Band && series.points.len() == 1) {
                let ((x, low), (_, high)) = (self.place(point.x, point.y.low), self.place(point.x, point.y.high));
                let _ = write!(svg, "<path class=\"bar\" d=\"M{x:.1} {low:.1}V{high:.1}\"/>");
            }
            let _ = write!(svg, "{}</g>", mark(series.look, self.place(point.x, point.y.value)));
        }
        svg + "</g>\n"
    }

    fn band(&self, points: &[Point]) -> String {
        let upper = points.iter().map(|point| self.spot(point.x, point.y.high));
        let lower = points.iter().rev().map(|point| self.spot(point.x, point.y.low));
        let around: Vec<String> = upper.chain(lower).collect();
        if points.len() < 2 { String::new() } else { format!("<path class=\"band\" d=\"M{}Z\"/>", around.join("L")) }
    }

    fn spot(&self, x: f64, y: f64) -> String {
        let (x, y) = self.place(x, y);
        format!("{x:.1} {y:.1}")
    }

    /// A line that goes on to the right and rises where a point is higher.
    fn stairs(&self, front: &[(f64, f64)], labels: &mut Labels) -> String {
        let corners: Vec<(f64, f64)> = front.iter().map(|(x, y)| self.place(*x, *y)).collect();
        let Some((mut at, rest)) = corners.split_first().map(|(first, rest)| (*first, rest)) else {
            return String::new();
        };
        let mut path = format!("M{:.1} {:.1}", at.0, at.1);
        for corner in rest {
            labels.avoid_line(at, (corner.0, at.1));
            labels.avoid_line((corner.0, at.1), *corner);
            let _ = write!(path, "H{:.1}V{:.1}", corner.0, corner.1);
            at = *corner;
        }
        labels.avoid_line(at, (FRAME.right, at.1));
        format!("<path class=\"front\" d=\"{path}H{:.1}\"><title>Pareto front</title></path>\n", FRAME.right)
    }

    /// Keeps labels off the marks, intervals and lines of a series.
    fn keep_clear(&self, labels: &mut Labels, series: &Series) {
        let spots: Vec<(f64, f64)> = series.points.iter().map(|point| self.place(point.x, point.y.value)).collect();
        for ((x, y), point) in spots.iter().zip(&series.points) {
            labels.avoid(Area { left: x - MARK, right: x + MARK, top: y - MARK, bottom: y + MARK });
            if series.spread == Spread::Bars {
                labels.avoid_line(self.place(point.x, point.y.low), self.place(point.x, point.y.high));
            }
        }
        if series.joined {
            spots.windows(2).for_each(|pair| labels.avoid_line(pair[0], pair[1]));
        }
    }
}

/// A mark in the shape of its series.
fn mark(look: usize, (x, y): (f64, f64)) -> String {
    let (s, t) = (MARK, MARK * 1.25);
    match look % LOOKS {
        0 => format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{s}\"/>"),
        1 => path(&format!("M{:.1} {:.1}h{}v{}h{}Z", x - s, y - s, 2.0 * s, 2.0 * s, -2.0 * s)),
        2 => path(&format!("M{x:.1} {:.1}l{t} {t}l{m} {t}l{m} {m}Z", y - t, m = -t)),
        3 => path(&format!("M{x:.1} {:.1}l{t} {b}h{w}Z", y - t, b = 1.8 * t, w = -2.0 * t)),
        _ => path(&format!("M{x:.1} {:.1}l{t} {b}h{w}Z", y + t, b = -1.8 * t, w = -2.0 * t)),
    }
}

fn path(shape: &str) -> String {
    format!("<path class=\"mark\" d=\"{shape}\"/>")
}

/// A line with its mark, for the list of what a plot shows.
pub(super) fn key(look: usize) -> String {
    format!(
        "<svg class=\"key-line {}\" viewBox=\"0 0 34 14\" aria-hidden=\"true\"><path class=\"line\" d=\"M1 7H33\"/>{}</svg>",
        look_class(look),
        mark(look, (17.0, 7.0))
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::axis::Limits;
    use super::*;

    /// Every number in the coordinates of an SVG's marks, wherever `name` is the attribute.
    pub fn numbers(svg: &str, name: &str) -> Vec<f64> {
        let start = format!(" {name}=\"");
        let values = svg.split(&start).skip(1).filter_map(|rest| rest.split('"').next());
        values.filter_map(|value| value.parse().ok()).collect()
    }

    fn point(x: f64, value: f64) -> Point {
        let y = Interval { value, low: value - 5.0, high: value + 5.0 };
        Point { x, y, title: "a point".into(), label: "a run".into() }
    }

    fn plot(values: &[(f64, f64)], spread: Spread) -> String {
        let points: Vec<Point> = values.iter().map(|(x, y)| point(*x, *y)).collect();
        let xs: Vec<f64> = values.iter().map(|(x, _)| *x).collect();
        let ys: Vec<f64> = values.iter().flat_map(|(_, y)| [y - 5.0, y + 5.0]).collect();
        let plot = Plot {
            title: "right against cost".into(),
            x: Axis::over("tokens", &xs, Limits::MEAN),
            y: Axis::over("right, %", &ys, Limits::PERCENT),
        };
        plot.svg(&[], &[Series { look: 0, points, spread, joined: true }])
    }

    #[test]
    fn marks_stay_inside_their_frame() {
        for values in [
            &[(3.0, 50.0)][..],
            &[(0.0, 0.0), (1e6, 100.0)],
            &[(5.0, 120.0), (5.0, -40.0)],
            &[(f64::NAN, f64::NAN), (2.0, 50.0)],
        ] {
            for spread in [Spread::None, Spread::Bars, Spread::Band] {
                let svg = plot(values, spread);
                let (xs, ys) = (numbers(&svg, "cx"), numbers(&svg, "cy"));
                assert_eq!((xs.len(), ys.len()), (values.len(), values.len()), "{svg}");
                assert!(xs.iter().all(|x| (FRAME.left..=FRAME.right).contains(x)), "{svg}");
                assert!(ys.iter().all(|y| (FRAME.top..=FRAME.bottom).contains(y)), "{svg}");
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn a_band_needs_two_points_and_one_has_a_bar() {
        let one = plot(&[(1.0, 50.0)], Spread::Band);
        assert!(!one.contains("class=\"band\"") && !one.contains("class=\"line\"") && one.contains("class=\"bar\""));
        let two = plot(&[(1.0, 50.0), (2.0, 60.0)], Spread::Band);
        assert!(two.contains("class=\"band\"") && two.contains("class=\"line\"") && !two.contains("class=\"bar\""));
    }

    #[test]
    fn the_front_rises_in_stairs_to_the_right_edge() {
        let axis = |values: &[f64]| Axis::over("x", values, Limits::MEAN);
        let plot = Plot { title: String::new(), x: axis(&[0.0, 10.0]), y: axis(&[0.0, 10.0]) };
        let svg = plot.svg(&[(0.0, 0.0), (5.0, 10.0)], &[]);
        assert!(svg.contains("d=\"M40.0 254.0H243.0V30.0H446.0\""), "{svg}");
        assert!(!plot.svg(&[], &[]).contains("class=\"front\""));
    }

    #[test]
    fn a_plot_without_points_is_an_empty_frame() {
        let svg = plot(&[], Spread::Bars);
        assert!(svg.contains("class=\"base\"") && !svg.contains("NaN") && !svg.contains("class=\"mark\""), "{svg}");
    }

    #[test]
    fn titles_cannot_become_markup() {
        let points = vec![Point { title: "</title><script>\"".into(), ..point(1.0, 50.0) }];
        let axis = || Axis::over("<b>\"", &[1.0], Limits::MEAN);
        let plot = Plot { title: "\"><script>".into(), x: axis(), y: axis() };
        let svg = plot.svg(&[], &[Series { look: 0, points, spread: Spread::Bars, joined: false }]);
        assert!(!svg.contains("<script>") && !svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn every_look_has_a_shape_of_its_own() {
        let mut shapes: Vec<String> = (0..LOOKS).map(|look| mark(look, (10.0, 10.0))).collect();
        shapes.sort();
        shapes.dedup();
        assert_eq!(shapes.len(), LOOKS);
        assert_eq!(mark(LOOKS, (10.0, 10.0)), mark(0, (10.0, 10.0)));
    }
}
