//! A sheet of samples to look at: each picture with the regions of its looks, below it question and answer.

use std::path::Path;

use super::{ExportError, Selection, Temporary, Written, doing};
use crate::image::Picture;
use crate::sample::{Region, Sample};
use crate::scenes::Text;
use crate::scenes::draw::{Canvas, Rgb, Shape};
use crate::scenes::sprites::Glyphs;
use crate::suite::Suite;

/// Most rows of pixels of text below a picture.
const CAPTION_PX: usize = 84;
const LINE_PX: i32 = 16;
const MARGIN_PX: usize = 8;
/// Height index of captions and of the numbers in the regions.
const SMALL: usize = 0;
/// The colours of the first, second, ... look.
const LOOKS: [Rgb; 6] = [[220, 0, 40], [0, 90, 220], [0, 140, 60], [220, 110, 0], [140, 0, 180], [0, 130, 140]];

/// Samples on a sheet, at most. More cannot be told apart, and few programs open the picture.
pub const MOST_SAMPLES: u64 = 100;

/// Draws the selected samples side by side, `columns` to a row, into one PNG: of each task the first, where there are
/// more than [`MOST_SAMPLES`] in all.
///
/// # Errors
/// If the file exists, nothing was selected, or the disk refuses.
pub fn contact_sheet(
    suite: &Suite,
    selection: &Selection,
    columns: usize,
    path: &Path,
) -> Result<Written, ExportError> {
    selection.check(path)?;
    let each = (MOST_SAMPLES / selection.tasks.len() as u64).max(1);
    let selection = &Selection { count: selection.count.min(each), ..selection.clone() };
    let mut samples = Vec::new();
    for &task in &selection.tasks {
        let numbers = selection.first..selection.first + selection.count;
        samples.extend(numbers.map(|index| suite.sample(selection.split, task, index)));
    }
    let picture = sheet(&samples, columns.max(1), suite.glyphs());
    let failed = |reason: ::image::ImageError| ExportError::Encode {
        id: "contact sheet".to_owned(),
        format: "PNG",
        reason: reason.to_string(),
    };
    let bytes = super::png(&picture).map_err(failed)?;
    let place = Temporary::file(path);
    std::fs::write(&place.path, bytes).map_err(doing("write", &place.path))?;
    place.keep(selection)
}

fn sheet(samples: &[Sample], columns: usize, glyphs: &Glyphs) -> Picture {
    let widest = samples.iter().map(|sample| sample.picture.width).max().unwrap_or(1);
    let tallest = samples.iter().map(|sample| sample.picture.height).max().unwrap_or(1);
    let (cell_width, cell_height) = (widest + MARGIN_PX, tallest + CAPTION_PX + MARGIN_PX);
    let columns = columns.min(samples.len().max(1));
    let rows = samples.len().div_ceil(columns);
    let mut canvas = Canvas::new(cell_width * columns + MARGIN_PX, cell_height * rows + MARGIN_PX);
    let (width, height) = (canvas.picture.width as i32, canvas.picture.height as i32);
    canvas.shape(&Shape::bar(0, 0, width, height, [255; 3]));
    for (number, sample) in samples.iter().enumerate() {
        let left = MARGIN_PX + number % columns * cell_width;
        let top = MARGIN_PX + number / columns * cell_height;
        cell(&mut canvas, sample, (left, top), widest, glyphs);
    }
    canvas.picture
}

fn cell(canvas: &mut Canvas, sample: &Sample, at: (usize, usize), width: usize, glyphs: &Glyphs) {
    paste(canvas, &sample.picture, at);
    for (number, step) in sample.question.steps.iter().enumerate() {
        look(canvas, number, &step.region, at, glyphs);
    }
    let question = &sample.question;
    let reads: Vec<&str> = question.steps.iter().map(|step| step.reads.as_str()).collect();
    let caption = format!("{} = {} [{}]", question.text, question.answer, reads.join(" > "));
    let mut baseline = (at.1 + sample.picture.height) as i32 + LINE_PX;
    for line in wrap(&caption, width, glyphs) {
        canvas.text(&text(line, at.0 as i32, baseline, [20; 3]), glyphs);
        baseline += LINE_PX;
    }
}

fn paste(canvas: &mut Canvas, picture: &Picture, at: (usize, usize)) {
    let line = canvas.picture.width * 3;
    for (row, source) in picture.rgb.chunks_exact(picture.width * 3).enumerate() {
        let start = (at.1 + row) * line + at.0 * 3;
        canvas.picture.rgb[start..start + source.len()].copy_from_slice(source);
    }
}

/// The outline of a region and the number of its look.
fn look(canvas: &mut Canvas, number: usize, region: &Region, at: (usize, usize), glyphs: &Glyphs) {
    let colour = LOOKS[number % LOOKS.len()];
    let (x, y) = (at.0 as i32 + region.left as i32 - 1, at.1 as i32 + region.top as i32 - 1);
    let (width, height) = ((region.right - region.left) as i32 + 2, (region.bottom - region.top) as i32 + 2);
    canvas.outline(x, y, width, height, 1, colour);
    canvas.text(&text((number + 1).to_string(), x + width + 1, y + 9, colour), glyphs);
}

fn text(content: String, left: i32, baseline: i32, colour: Rgb) -> Text {
    Text { content, font: 0, cap: SMALL, left, baseline, colour, spacing: 0 }
}

/// Lines of words no wider than `width`.
fn wrap(caption: &str, width: usize, glyphs: &Glyphs) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in caption.split(' ') {
        let longer = lines.last().map(|line| format!("{line} {word}"));
        match longer {
            Some(longer) if glyphs.extent(0, SMALL, &longer, 0).width <= width => {
                lines.pop();
                lines.push(longer);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
