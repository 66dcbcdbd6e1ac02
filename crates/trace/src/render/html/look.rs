//! One look as SVG: the picture with its layer and marks, for any page that takes [`LOOK_STYLE`] among its rules.

use std::fmt::Write as _;

use base64::{Engine, engine::general_purpose::STANDARD};
use image::{ExtendedColorType, ImageEncoder, RgbImage, codecs::jpeg::JpegEncoder};

use super::markup::{Text, png_uri};
use crate::{
    error::TraceError,
    picture::PictureRef,
    render::{heatmap, overlay},
    schema::{Grid, Record, Region, StepRecord},
};

/// The rules that looks and their legend are drawn by.
pub const LOOK_STYLE: &str = include_str!("../look.css");

/// Quality of the picture in the page, 1 to 100: above it files grow and the eye sees no gain.
const JPEG_QUALITY: u8 = 90;
/// Pixels of the layer per cell; the browser smooths between them.
const LAYER_PX_PER_CELL: usize = 8;
/// With more selected patches than this their numbers would cover the picture.
const MOST_NUMBERED: usize = 12;

/// What the colours and lines mean; the true region only where some step has one.
pub fn legend(has_regions: bool) -> String {
    let stops: Vec<String> = (0..=8)
        .map(|stop| {
            let [red, green, blue] = overlay::colour(stop as f32 / 8.0);
            format!("rgb({red} {green} {blue})")
        })
        .collect();
    let region = if has_regions { r#"<span><i class="key region"></i> true region</span>"# } else { "" };
    format!(
        r#"<p class="legend"><span><i class="key scale" style="background:linear-gradient(90deg,{})"></i> attention, none to the step's most</span><span><i class="key selected"></i> patch looked at again, best first</span>{region}</p>"#,
        stops.join(",")
    )
}

/// The looks of a record, on a picture that the page holds once.
#[derive(Debug, Clone, Copy)]
pub struct Looks<'a> {
    record: &'a Record,
    picture: PictureRef<'a>,
    id: &'a str,
}

impl<'a> Looks<'a> {
    /// The looks of a record on its picture; `id` names the picture in the page, where nothing else may have that name.
    ///
    /// Fails with [`TraceError::Invalid`] for another picture than the record's.
    pub fn new(record: &'a Record, picture: PictureRef<'a>, id: &'a str) -> Result<Self, TraceError> {
        picture.check(record)?;
        Ok(Self { record, picture, id })
    }

    /// The picture for the page to hold, its longest side at most so many pixels; it stands before the looks and shows
    /// nothing by itself.
    pub fn store(&self, longest_side_px: u32) -> Result<String, TraceError> {
        let drawn = heatmap::resized(self.picture, longest_side_px);
        Ok(format!(
            r#"<svg class="store" aria-hidden="true"><defs><image id="{}" width="{}" height="{}" preserveAspectRatio="none" href="data:image/jpeg;base64,{}"/></defs></svg>
"#,
            Text(self.id),
            self.picture.width,
            self.picture.height,
            STANDARD.encode(jpeg(&drawn)?)
        ))
    }

    /// The picture without a look.
    #[must_use]
    pub fn plain(&self) -> String {
        let PictureRef { width, height, .. } = self.picture;
        format!(
            r##"<svg class="look" viewBox="0 0 {width} {height}" role="img" aria-label="The picture"><use href="#{}"/></svg>
"##,
            Text(self.id)
        )
    }

    /// The picture with the layer of a step and the outlines on it.
    pub fn look(&self, step: &StepRecord) -> Result<String, TraceError> {
        let (width, height) = (self.picture.width as f32, self.picture.height as f32);
        let grid = self.grid();
        let layer_px = ((grid.cols * LAYER_PX_PER_CELL) as u32, (grid.rows * LAYER_PX_PER_CELL) as u32);
        let layer = overlay::layer(grid, &step.weights, (width, height), layer_px);
        let mut svg = format!(
            r##"<svg class="look" viewBox="0 0 {width} {height}" role="img" aria-label="{}"><use href="#{}"/><g class="focus"><image width="{width}" height="{height}" preserveAspectRatio="none" href="{}"/>"##,
            Text(&spoken(grid, step)),
            Text(self.id),
            png_uri(layer.into())?
        );
        if let Some(region) = &step.region {
            self.rectangle(&mut svg, "region", region, "true region");
        }
        for (rank, &patch) in step.selected.iter().enumerate().rev() {
            let cell = grid.cell(patch);
            let class = if rank == 0 { "selected best" } else { "selected" };
            self.rectangle(&mut svg, class, &cell, &named(grid, step, patch));
            if step.selected.len() <= MOST_NUMBERED {
                let size = (cell.width.min(cell.height) * 0.3).min(width.max(height) / 20.0);
                let _ = write!(
                    svg,
                    r#"<text class="rank" x="{}" y="{}" font-size="{size}">{}</text>"#,
                    cell.x + size * 0.5,
                    cell.y + size * 1.2,
                    rank + 1
                );
            }
        }
        svg.push_str("</g></svg>\n");
        Ok(svg)
    }

    /// How the patches lie on the picture.
    pub(super) fn grid(&self) -> &'a Grid {
        &self.record.grid
    }

    fn rectangle(&self, svg: &mut String, class: &str, region: &Region, title: &str) {
        let (width, height) = (self.picture.width as f32, self.picture.height as f32);
        // Lines lie inside the cells they mark, or those on the picture's edge would be cut in half.
        let inset = width.max(height) / 300.0;
        let (left, top) = (region.x.max(0.0) + inset, region.y.max(0.0) + inset);
        let right = (region.x + region.width).min(width) - inset;
        let bottom = (region.y + region.height).min(height) - inset;
        let _ = write!(svg, r#"<g class="{class}"><title>{}</title>"#, Text(title));
        for line in ["shadow", "line"] {
            let _ = write!(
                svg,
                r#"<rect class="{line}" x="{left:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"/>"#,
                (right - left).max(1.0),
                (bottom - top).max(1.0)
            );
        }
        svg.push_str("</g>");
    }
}

/// What a reader who does not see the picture is told about a look.
fn spoken(grid: &Grid, step: &StepRecord) -> String {
    let places: Vec<String> = step.selected.iter().take(4).map(|&patch| named(grid, step, patch)).collect();
    format!(
        "Step {}: looked at {}",
        step.index + 1,
        if places.is_empty() { "no patch again".to_owned() } else { places.join("; ") }
    )
}

/// A patch, for people.
pub(super) fn named(grid: &Grid, step: &StepRecord, patch: usize) -> String {
    let (row, col) = (patch / grid.cols + 1, patch % grid.cols + 1);
    format!("row {row}, column {col}: {:.1} %", 100.0 * step.weights[patch])
}

fn jpeg(picture: &RgbImage) -> Result<Vec<u8>, TraceError> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(|source| TraceError::Draw { what: "the page's picture", source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    #[test]
    fn looks_of_two_records_in_one_page_keep_to_their_own_pictures() {
        let (record, rgb) = example::square();
        let picture = PictureRef { width: 448, height: 448, rgb: &rgb };
        let drawn = |id: &str| {
            let looks = Looks::new(&record, picture, id).unwrap();
            looks.store(480).unwrap() + &looks.plain() + &looks.look(&record.steps[0]).unwrap()
        };
        let (first, second) = (drawn("one"), drawn("two"));
        assert!(first.contains("id=\"one\"") && first.matches("href=\"#one\"").count() == 2);
        assert!(
            !second.contains("\"one\"") && !second.contains("#one") && second.matches("href=\"#two\"").count() == 2
        );
    }

    #[test]
    fn the_legend_explains_regions_only_where_there_are_some() {
        assert!(legend(true).contains("true region") && !legend(false).contains("region"));
    }
}
