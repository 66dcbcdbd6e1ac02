//! One latent step on the page: the picture with its layer and marks, and the notes beside it.

use std::fmt::Write as _;

use image::RgbImage;

use super::markup::{Milliseconds, Text, number, png_uri, share};
use crate::{
    error::TraceError,
    measures::StepMeasures,
    picture::PictureRef,
    render::overlay,
    schema::{Grid, Record, Region, SmallPicture, StepRecord, Word},
};

/// Pixels of the layer per cell; the browser smooths between them.
const LAYER_PX_PER_CELL: usize = 8;
/// With more selected patches than this their numbers would cover the picture.
const MOST_NUMBERED: usize = 12;

/// What the colours and lines mean; the true region only where some step has one.
pub(super) fn legend(record: &Record) -> String {
    let stops: Vec<String> = (0..=8)
        .map(|stop| {
            let [red, green, blue] = overlay::colour(stop as f32 / 8.0);
            format!("rgb({red} {green} {blue})")
        })
        .collect();
    let region = if record.steps.iter().any(|step| step.region.is_some()) {
        r#"<span><i class="key region"></i> true region</span>"#
    } else {
        ""
    };
    format!(
        r#"<p class="legend"><span><i class="key scale" style="background:linear-gradient(90deg,{})"></i> attention, none to the step's most</span><span><i class="key selected"></i> patch looked at again, best first</span>{region}</p>"#,
        stops.join(",")
    )
}

/// The card of one step.
pub(super) fn card(
    html: &mut String,
    record: &Record,
    step: &StepRecord,
    measured: &StepMeasures,
    picture: PictureRef,
) -> Result<(), TraceError> {
    let _ = write!(
        html,
        r#"<li class="card">
<h3>Step {} <span class="quiet">{}</span></h3>
"#,
        step.index + 1,
        Milliseconds(step.time_ms)
    );
    look(html, record, step, picture)?;
    html.push_str("<div class=\"notes\">\n");
    words(html, step);
    numbers(html, &record.grid, step, measured);
    patches(html, &record.grid, step);
    if let Some(thought) = &step.thought_picture {
        thought_picture(html, step, thought)?;
    }
    html.push_str("</div>\n</li>\n");
    Ok(())
}

/// The picture with the layer of a step and the outlines on it.
fn look(html: &mut String, record: &Record, step: &StepRecord, picture: PictureRef) -> Result<(), TraceError> {
    let (width, height) = (picture.width as f32, picture.height as f32);
    let grid = &record.grid;
    let layer_px = ((grid.cols * LAYER_PX_PER_CELL) as u32, (grid.rows * LAYER_PX_PER_CELL) as u32);
    let layer = overlay::layer(grid, &step.weights, (width, height), layer_px);
    let _ = write!(
        html,
        r##"<svg class="look" viewBox="0 0 {width} {height}" role="img" aria-label="{}"><use href="#picture"/><g class="focus"><image width="{width}" height="{height}" preserveAspectRatio="none" href="{}"/>"##,
        Text(&spoken(grid, step)),
        png_uri(layer.into())?
    );
    // Lines lie inside the cells they mark, or those on the picture's edge would be cut in half.
    let inset = width.max(height) / 300.0;
    if let Some(region) = &step.region {
        rectangle(html, "region", region, inset, (width, height), "true region");
    }
    for (rank, &patch) in step.selected.iter().enumerate().rev() {
        let cell = grid.cell(patch);
        let class = if rank == 0 { "selected best" } else { "selected" };
        rectangle(html, class, &cell, inset, (width, height), &named(grid, step, patch));
        if step.selected.len() <= MOST_NUMBERED {
            let size = (cell.width.min(cell.height) * 0.3).min(width.max(height) / 20.0);
            let _ = write!(
                html,
                r#"<text class="rank" x="{}" y="{}" font-size="{size}">{}</text>"#,
                cell.x + size * 0.5,
                cell.y + size * 1.2,
                rank + 1
            );
        }
    }
    html.push_str("</g></svg>\n");
    Ok(())
}

fn rectangle(html: &mut String, class: &str, region: &Region, inset: f32, (width, height): (f32, f32), title: &str) {
    let (left, top) = (region.x.max(0.0) + inset, region.y.max(0.0) + inset);
    let right = (region.x + region.width).min(width) - inset;
    let bottom = (region.y + region.height).min(height) - inset;
    let _ = write!(html, r#"<g class="{class}"><title>{}</title>"#, Text(title));
    for line in ["shadow", "line"] {
        let _ = write!(
            html,
            r#"<rect class="{line}" x="{left:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"/>"#,
            (right - left).max(1.0),
            (bottom - top).max(1.0)
        );
    }
    html.push_str("</g>");
}

fn words(html: &mut String, step: &StepRecord) {
    for (title, words, digits) in [("Names", &step.named_words, 2), ("Nearest words", &step.nearest_words, 1)] {
        if words.is_empty() {
            continue;
        }
        let _ = writeln!(html, "<h4>{title}</h4>\n<ul class=\"words\">");
        for Word { text, score } in words {
            let text = visible(text);
            let _ = writeln!(html, "<li>{} <span class=\"quiet\">{score:.digits$}</span></li>", Text(&text));
        }
        html.push_str("</ul>\n");
    }
}

fn numbers(html: &mut String, grid: &Grid, step: &StepRecord, measured: &StepMeasures) {
    html.push_str("<dl class=\"numbers\">\n");
    let even = (grid.cells() as f64).ln();
    share(html, "Gate", "share taken from the LQ-Former", step.gate_mean.into());
    share(html, "Halting", "probability that this step is the last", step.halt_probability.into());
    number(
        html,
        "Entropy",
        "width of the focus: 0 on one patch, the second number when spread evenly",
        &format!("{:.2} of {even:.2} nats", measured.focus_entropy_nats),
    );
    if let Some(drift) = &measured.drift {
        let moved = format!("{:.0} %, {:.0} px", 100.0 * drift.total_variation, drift.shift_px);
        number(html, "Moved", "attention moved since the step before, and how far its centre went", &moved);
    }
    if let Some(region) = &measured.on_region {
        let found = if region.hit { "found" } else { "missed" };
        let judged = format!("{found}, {:.0} %", 100.0 * region.mass);
        number(html, "True region", "whether a selected patch covers it, and the attention inside it", &judged);
    }
    number(html, "Latent norm", "Euclidean norm of the thought", &format!("{:.2}", step.latent_norm));
    html.push_str("</dl>\n");
}

fn patches(html: &mut String, grid: &Grid, step: &StepRecord) {
    if step.selected.is_empty() {
        return;
    }
    let _ = write!(
        html,
        "<details><summary>{} selected patch{}</summary>\n<ol class=\"patches\">\n",
        step.selected.len(),
        if step.selected.len() == 1 { "" } else { "es" }
    );
    for &patch in &step.selected {
        let _ = writeln!(html, "<li>{}</li>", Text(&named(grid, step, patch)));
    }
    html.push_str("</ol>\n</details>\n");
}

fn thought_picture(html: &mut String, step: &StepRecord, thought: &SmallPicture) -> Result<(), TraceError> {
    let Some(pixels) = RgbImage::from_raw(thought.width, thought.height, thought.rgb.clone()) else {
        return Ok(()); // validation has refused such a record
    };
    let _ = writeln!(
        html,
        r#"<figure class="thought"><img src="{}" width="{}" height="{}" alt="Picture sampled back from the thought of step {}"><figcaption>Picture drawn from this thought</figcaption></figure>"#,
        png_uri(pixels.into())?,
        thought.width,
        thought.height,
        step.index + 1
    );
    Ok(())
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

fn named(grid: &Grid, step: &StepRecord, patch: usize) -> String {
    let (row, col) = (patch / grid.cols + 1, patch % grid.cols + 1);
    format!("row {row}, column {col}: {:.1} %", 100.0 * step.weights[patch])
}

fn visible(word: &str) -> String {
    let word = word.escape_debug().to_string();
    if word.trim().is_empty() { format!("“{word}”") } else { word }
}
