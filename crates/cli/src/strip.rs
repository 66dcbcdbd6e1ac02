//! All looks of one answer in one picture: a panel a step, in reading order.

use crate::failure::Failure;
use lare_data::Picture;
use lare_trace::{PictureRef, Record, render};

/// Panels side by side, at most.
const COLUMNS: usize = 4;
/// Longest side of a panel in pixels, about.
const PANEL_PX: usize = 560;
/// Space between panels in pixels.
const GAP_PX: usize = 8;

/// The strip as PNG; `None` for an answer without looks.
pub fn png(record: &Record, picture: &Picture) -> Result<Option<Vec<u8>>, Failure> {
    let shown = PictureRef { width: picture.width as u32, height: picture.height as u32, rgb: &picture.rgb };
    let mut panels = Vec::with_capacity(record.steps.len());
    for png in render::heatmap::pngs(record, shown)? {
        panels.push(shrunk(&lare_data::image::decode(&png, "panel")?));
    }
    let Some(strip) = side_by_side(&panels) else {
        return Ok(None);
    };
    Ok(Some(lare_data::export::png(&strip)?))
}

/// Smaller by a whole factor, averaging, so that no line of the drawing is lost.
fn shrunk(panel: &Picture) -> Picture {
    let factor = panel.width.max(panel.height).div_ceil(PANEL_PX).max(1);
    if factor == 1 {
        return panel.clone();
    }
    let (width, height) = ((panel.width / factor).max(1), (panel.height / factor).max(1));
    let mut rgb = Vec::with_capacity(width * height * 3);
    for (row, col, channel) in places(height, width) {
        let at = |y: usize, x: usize| {
            let (y, x) = ((row * factor + y).min(panel.height - 1), (col * factor + x).min(panel.width - 1));
            usize::from(panel.rgb[(y * panel.width + x) * 3 + channel])
        };
        let sum: usize = (0..factor).flat_map(|y| (0..factor).map(move |x| (y, x))).map(|(y, x)| at(y, x)).sum();
        rgb.push((sum / (factor * factor)) as u8);
    }
    Picture { width, height, rgb }
}

fn places(height: usize, width: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..height).flat_map(move |row| (0..width).flat_map(move |col| (0..3).map(move |channel| (row, col, channel))))
}

/// Panels of one size on white.
fn side_by_side(panels: &[Picture]) -> Option<Picture> {
    let first = panels.first()?;
    let columns = panels.len().min(COLUMNS);
    let rows = panels.len().div_ceil(COLUMNS);
    let width = columns * (first.width + GAP_PX) - GAP_PX;
    let height = rows * (first.height + GAP_PX) - GAP_PX;
    let mut strip = Picture { width, height, rgb: vec![255; width * height * 3] };
    for (place, panel) in panels.iter().enumerate() {
        let left = place % COLUMNS * (first.width + GAP_PX);
        let top = place / COLUMNS * (first.height + GAP_PX);
        for (row, pixels) in panel.rgb.chunks(panel.width * 3).enumerate() {
            let start = ((top + row) * width + left) * 3;
            strip.rgb[start..start + pixels.len()].copy_from_slice(pixels);
        }
    }
    Some(strip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strip_has_a_panel_for_each_look_in_the_pictures_shape() {
        let (record, rgb) = lare_trace::example::wide();
        let picture = Picture { width: 640, height: 384, rgb };
        let strip = png(&record, &picture).unwrap().unwrap();
        let strip = lare_data::image::decode(&strip, "strip").unwrap();
        let panel = (strip.width - 2 * GAP_PX) / 3;
        assert_eq!((panel as f32 / strip.height as f32 * 100.0).round(), 167.0);
    }

    #[test]
    fn more_than_four_looks_go_on_below() {
        let panel = Picture { width: 10, height: 6, rgb: vec![1; 180] };
        let strip = side_by_side(&vec![panel; 6]).unwrap();
        assert_eq!((strip.width, strip.height), (4 * 18 - 8, 2 * 14 - 8));
    }

    #[test]
    fn an_answer_without_looks_has_no_strip() {
        let (record, rgb) = lare_trace::example::without_steps();
        assert_eq!(png(&record, &Picture { width: 448, height: 448, rgb }).unwrap(), None);
    }
}
