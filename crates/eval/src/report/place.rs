//! Where labels go in a plot: beside their mark, inside the frame, on nothing else where that is possible.

use lare_trace::render::html::Text;

/// Width of a letter at the size of a label, about: a little more than most fonts have.
const LETTER: f64 = 6.6;
/// Height of a label.
const LINE: f64 = 14.0;
/// Longest label, in letters.
const MOST_LETTERS: usize = 30;
/// Distance of the points on a line that labels avoid.
const SPACING: f64 = 5.0;

/// A rectangle in the plot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Area {
    fn shared(&self, other: &Self) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }

    fn size(&self) -> f64 {
        (self.right - self.left) * (self.bottom - self.top)
    }
}

/// The labels of a plot.
pub(super) struct Labels {
    frame: Area,
    taken: Vec<Area>,
}

/// Where a label may stand: its middle line, seen from the mark, and the side of it that is fixed.
const SEATS: [(f64, f64, Anchor); 14] = [
    (9.0, 0.0, Anchor::Start),
    (-9.0, 0.0, Anchor::End),
    (0.0, -15.0, Anchor::Middle),
    (0.0, 15.0, Anchor::Middle),
    (7.0, -12.0, Anchor::Start),
    (7.0, 12.0, Anchor::Start),
    (-7.0, -12.0, Anchor::End),
    (-7.0, 12.0, Anchor::End),
    (7.0, -29.0, Anchor::Start),
    (7.0, 29.0, Anchor::Start),
    (-7.0, -29.0, Anchor::End),
    (-7.0, 29.0, Anchor::End),
    (0.0, -44.0, Anchor::Middle),
    (0.0, 44.0, Anchor::Middle),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Anchor {
    Start,
    Middle,
    End,
}

impl Labels {
    /// None yet, in this frame.
    pub fn inside(frame: Area) -> Self {
        Self { frame, taken: Vec::new() }
    }

    /// Keeps an area free of labels.
    pub fn avoid(&mut self, area: Area) {
        self.taken.push(area);
    }

    /// Keeps labels off a line, as far as there is room elsewhere.
    pub fn avoid_line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let count = ((x2 - x1).hypot(y2 - y1) / SPACING).ceil() as usize;
        for part in 0..=count {
            let along = part as f64 / count.max(1) as f64;
            let (x, y) = (x1 + along * (x2 - x1), y1 + along * (y2 - y1));
            self.avoid(Area { left: x - 1.0, right: x + 1.0, top: y - 1.0, bottom: y + 1.0 });
        }
    }

    /// The label of a mark.
    pub fn beside(&mut self, text: &str, (x, y): (f64, f64)) -> String {
        let text = shortened(text);
        // With a space's room on each side.
        let width = (text.chars().count() + 1) as f64 * LETTER;
        let seats = SEATS.iter().map(|(dx, dy, anchor)| self.moved_in(seat((x + dx, y + dy), *anchor, width)));
        let worse = |a: &Area, b: &Area| self.cost(a).total_cmp(&self.cost(b));
        // Of equals, the first.
        let Some(area) = seats.min_by(worse) else {
            return String::new();
        };
        self.taken.push(area);
        let middle = (area.left + area.right) / 2.0;
        format!(
            "<text class=\"label\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            area.bottom - 3.5,
            Text(&text)
        )
    }

    /// What it covers.
    fn cost(&self, area: &Area) -> f64 {
        self.taken.iter().map(|other| area.shared(other)).sum::<f64>() + area.size() - area.shared(&self.frame)
    }

    /// The same area, moved into the frame as far as it is as wide.
    fn moved_in(&self, area: Area) -> Area {
        let Area { left, right, top, bottom } = area;
        let sideways = (self.frame.left - left).max(0.0) - (right - self.frame.right).max(0.0);
        let down = (self.frame.top - top).max(0.0) - (bottom - self.frame.bottom).max(0.0);
        Area { left: left + sideways, right: right + sideways, top: top + down, bottom: bottom + down }
    }
}

fn seat((x, y): (f64, f64), anchor: Anchor, width: f64) -> Area {
    let left = match anchor {
        Anchor::Start => x,
        Anchor::Middle => x - width / 2.0,
        Anchor::End => x - width,
    };
    Area { left, right: left + width, top: y - LINE / 2.0, bottom: y + LINE / 2.0 }
}

/// A text that fits; the whole one stands in the mark's title.
fn shortened(text: &str) -> String {
    if text.chars().count() <= MOST_LETTERS {
        return text.to_owned();
    }
    text.chars().take(MOST_LETTERS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Area = Area { left: 40.0, top: 20.0, right: 440.0, bottom: 250.0 };

    #[test]
    fn labels_stay_in_the_frame_wherever_their_mark_is() {
        for mark in [(40.0, 20.0), (440.0, 250.0), (440.0, 20.0), (240.0, 130.0)] {
            for text in ["a", "a name", &"long ".repeat(40)] {
                let mut labels = Labels::inside(FRAME);
                labels.beside(text, mark);
                let area = labels.taken[0];
                assert!((area.shared(&FRAME) - area.size()).abs() < 1e-6, "{text} at {mark:?}: {area:?}");
            }
        }
    }

    #[test]
    fn labels_of_marks_side_by_side_do_not_cover_each_other() {
        let mut labels = Labels::inside(FRAME);
        for place in 0..5 {
            labels.beside("nano, 2 steps", (200.0 + 8.0 * f64::from(place), 120.0));
        }
        for (place, one) in labels.taken.iter().enumerate() {
            assert!(labels.taken[..place].iter().all(|other| one.shared(other) == 0.0), "{:?}", labels.taken);
        }
    }

    #[test]
    fn a_label_leaves_a_line_free_where_it_can() {
        let mut labels = Labels::inside(FRAME);
        labels.avoid_line((40.0, 120.0), (440.0, 120.0));
        labels.beside("2 steps", (200.0, 120.0));
        let area = labels.taken.last().unwrap();
        assert!(area.bottom <= 119.0 || area.top >= 121.0, "{area:?}");
    }

    #[test]
    fn a_label_cannot_become_markup() {
        let label = Labels::inside(FRAME).beside("</text><script>", (100.0, 100.0));
        assert!(label.contains("&lt;/text&gt;&lt;script&gt;"), "{label}");
    }
}
