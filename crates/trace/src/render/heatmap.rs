//! One picture per step: the original, dimmed, with the focus glowing on it and the selected cells outlined.

use image::{
    ExtendedColorType, ImageEncoder, Rgb, RgbImage,
    codecs::png::{CompressionType, FilterType, PngEncoder},
    imageops,
};

use super::overlay;
use crate::{
    error::TraceError,
    picture::PictureRef,
    schema::{Grid, Record, Region, StepRecord},
};

/// Longest side of a drawn step, in pixels: larger pictures are drawn smaller.
pub const LONGEST_SIDE_PX: u32 = 960;
/// Longest side below which a picture is enlarged, so that outlines do not cover what they mark.
const SHORTEST_USEFUL_PX: u32 = 448;

/// Outline of selected cells; the dark line around it keeps it visible on white.
const SELECTED: Rgb<u8> = Rgb([255, 255, 255]);
/// Dashed outline of the true region.
const TRUE_REGION: Rgb<u8> = Rgb([64, 224, 208]);
const SHADOW: Rgb<u8> = Rgb([0, 0, 0]);

/// Draws every step as PNG, in order. The picture must be the one the record speaks of.
pub fn pngs(record: &Record, picture: PictureRef) -> Result<Vec<Vec<u8>>, TraceError> {
    draw(record, picture, LONGEST_SIDE_PX)?.iter().map(encode_png).collect()
}

/// Draws every step, the longest side at most `longest_side_px`.
pub(crate) fn draw(record: &Record, picture: PictureRef, longest_side_px: u32) -> Result<Vec<RgbImage>, TraceError> {
    picture.check(record)?;
    let base = resized(picture, longest_side_px);
    Ok(record.steps.iter().map(|step| draw_on(base.clone(), step, &record.grid, picture)).collect())
}

fn draw_on(mut base: RgbImage, step: &StepRecord, grid: &Grid, picture: PictureRef) -> RgbImage {
    let shown_px = (picture.width as f32, picture.height as f32);
    let layer = overlay::layer(grid, &step.weights, shown_px, base.dimensions());
    for (below, above) in base.pixels_mut().zip(layer.pixels()) {
        blend(below, above.0);
    }
    let scale = (base.width() as f32 / shown_px.0, base.height() as f32 / shown_px.1);
    let line_px = (base.width().max(base.height()) / 200).max(1);
    if let Some(region) = &step.region {
        Outline::around(region, scale, &base).draw(&mut base, TRUE_REGION, line_px, Line::Dashed);
    }
    // Worst first, so that the best patch's outline ends on top; it is also the thickest.
    for (rank, &patch) in step.selected.iter().enumerate().rev() {
        let line_px = if rank == 0 { line_px * 2 } else { line_px };
        Outline::around(&grid.cell(patch), scale, &base).draw(&mut base, SELECTED, line_px, Line::Solid);
    }
    base
}

/// The picture at the size it is drawn in; exact copies of the sides' ratio up to rounding.
pub(crate) fn resized(picture: PictureRef, longest_side_px: u32) -> RgbImage {
    let longest = picture.width.max(picture.height);
    let target = longest.clamp(SHORTEST_USEFUL_PX.min(longest_side_px), longest_side_px);
    let scaled = |side: u32| (u64::from(side) * u64::from(target) / u64::from(longest)).max(1) as u32;
    let pixel = |x: u32, y: u32| {
        let at = (y as usize * picture.width as usize + x as usize) * 3;
        Rgb([picture.rgb[at], picture.rgb[at + 1], picture.rgb[at + 2]])
    };
    let original = RgbImage::from_fn(picture.width, picture.height, pixel);
    if target == longest {
        return original;
    }
    imageops::resize(&original, scaled(picture.width), scaled(picture.height), imageops::FilterType::Triangle)
}

pub(crate) fn encode_png(picture: &RgbImage) -> Result<Vec<u8>, TraceError> {
    let mut bytes = Vec::new();
    // Choosing a filter for each row takes three times as long and saves nothing.
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Paeth)
        .write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(|source| TraceError::Draw { what: "a step's picture", source })?;
    Ok(bytes)
}

fn blend(below: &mut Rgb<u8>, [red, green, blue, opacity]: [u8; 4]) {
    let opacity = u32::from(opacity);
    for (below, above) in below.0.iter_mut().zip([red, green, blue]) {
        let mixed = u32::from(*below) * (255 - opacity) + u32::from(above) * opacity;
        *below = ((mixed + 127) / 255) as u8;
    }
}

#[derive(Clone, Copy)]
enum Line {
    Solid,
    Dashed,
}

/// A rectangle in drawn pixels, clipped to the drawing; right and bottom are inside.
struct Outline {
    left: u32,
    top: u32,
    right: u32,
    bottom: u32,
}

impl Outline {
    fn around(region: &Region, (scale_x, scale_y): (f32, f32), drawing: &RgbImage) -> Self {
        let clip = |px: f32, side: u32| (px.max(0.0).round() as u32).min(side - 1);
        Self {
            left: clip(region.x * scale_x, drawing.width()),
            top: clip(region.y * scale_y, drawing.height()),
            right: clip((region.x + region.width) * scale_x - 1.0, drawing.width()),
            bottom: clip((region.y + region.height) * scale_y - 1.0, drawing.height()),
        }
    }

    /// Draws the line inside the rectangle, and a dark one of a pixel within it.
    fn draw(&self, drawing: &mut RgbImage, colour: Rgb<u8>, line_px: u32, line: Line) {
        let dash_px = match line {
            Line::Solid => u32::MAX,
            Line::Dashed => line_px * 5,
        };
        for y in self.top..=self.bottom {
            for x in self.left..=self.right {
                let depth = (x - self.left).min(self.right - x).min(y - self.top).min(self.bottom - y);
                let gap = ((x - self.left + y - self.top) / dash_px) % 2 == 1;
                if depth < line_px && !gap {
                    drawing.put_pixel(x, y, colour);
                } else if depth <= line_px {
                    drawing.put_pixel(x, y, SHADOW);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    /// Where the lightest pixels lie, as the box around all that come within 5 % of the lightest.
    fn lightest_box(picture: &RgbImage) -> (u32, u32, u32, u32) {
        let light = |pixel: &Rgb<u8>| pixel.0.iter().map(|&channel| u32::from(channel)).sum::<u32>();
        let most = picture.pixels().map(light).max().unwrap();
        let lit = picture.enumerate_pixels().filter(|(_, _, pixel)| light(pixel) * 20 >= most * 19);
        lit.fold((u32::MAX, u32::MAX, 0, 0), |(left, top, right, bottom), (x, y, _)| {
            (left.min(x), top.min(y), right.max(x), bottom.max(y))
        })
    }

    #[test]
    fn on_a_wide_picture_the_light_lies_in_the_corner_that_was_looked_at() {
        // 640 x 384 in 3 rows of 5 cells of 128 px; the answer lies in the last, bottom right.
        let grid = Grid { rows: 3, cols: 5, cell_px_x: 128.0, cell_px_y: 128.0, fine_per_cell: 4 };
        let step = StepRecord { selected: vec![], ..example::step_on(&grid, 14) };
        let rgb = vec![90; 640 * 384 * 3];
        let record = example::record((640, 384), grid, vec![step]);
        let drawn = draw(&record, PictureRef { width: 640, height: 384, rgb: &rgb }, 960).unwrap().remove(0);
        assert_eq!(drawn.dimensions(), (640, 384));
        let (left, top, right, bottom) = lightest_box(&drawn);
        assert!(left >= 512 && top >= 256, "light starts at {left}, {top}");
        assert_eq!((right, bottom), (639, 383));
    }

    #[test]
    fn on_a_tall_padded_picture_the_light_lies_in_the_corner_that_was_looked_at() {
        // 300 x 700 on 7 rows of 4 cells of 100 px: the fourth column is padding.
        let grid = Grid { rows: 7, cols: 4, cell_px_x: 100.0, cell_px_y: 100.0, fine_per_cell: 4 };
        let step = StepRecord { selected: vec![], ..example::step_on(&grid, 6 * 4 + 2) };
        let rgb = vec![90; 300 * 700 * 3];
        let record = example::record((300, 700), grid, vec![step]);
        let drawn = draw(&record, PictureRef { width: 300, height: 700, rgb: &rgb }, 960).unwrap().remove(0);
        let (left, top, right, bottom) = lightest_box(&drawn);
        assert!(left >= 200 && top >= 600 && right < 300 && bottom < 700);
    }

    #[test]
    fn the_outline_of_a_selected_cell_lies_on_that_cell() {
        let grid = Grid { rows: 3, cols: 5, cell_px_x: 128.0, cell_px_y: 128.0, fine_per_cell: 4 };
        let step = StepRecord { selected: vec![13], ..example::step_on(&grid, 0) };
        let rgb = vec![90; 640 * 384 * 3];
        let record = example::record((640, 384), grid, vec![step]);
        let drawn = draw(&record, PictureRef { width: 640, height: 384, rgb: &rgb }, 960).unwrap().remove(0);
        let white = drawn.enumerate_pixels().filter(|(_, _, pixel)| **pixel == SELECTED);
        let corners =
            white.fold((u32::MAX, u32::MAX, 0, 0), |(l, t, r, b), (x, y, _)| (l.min(x), t.min(y), r.max(x), b.max(y)));
        assert_eq!(corners, (384, 256, 511, 383));
    }

    #[test]
    fn huge_pictures_are_drawn_smaller_and_tiny_ones_larger_in_the_same_shape() {
        for ((width, height), expected) in
            [((4000, 1000), (960, 240)), ((64, 32), (448, 224)), ((1, 1), (448, 448)), ((500, 2), (500, 2))]
        {
            let rgb = vec![0; width as usize * height as usize * 3];
            assert_eq!(resized(PictureRef { width, height, rgb: &rgb }, 960).dimensions(), expected);
        }
    }

    #[test]
    fn another_picture_than_the_records_is_refused() {
        let (record, rgb) = example::wide();
        let turned = PictureRef { width: record.input.height, height: record.input.width, rgb: &rgb };
        insta::assert_snapshot!(pngs(&record, turned).unwrap_err(), @r"
        trace field `picture` is wrong
          expected  640 x 384 px, as input says
          got       384 x 640 px

        hint: pass the picture that was asked about, upright and before any resizing
        ");
    }
}
