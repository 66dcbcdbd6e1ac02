//! One latent step on the page: its look, and the notes beside it.

use std::fmt::Write as _;

use image::RgbImage;

use super::look::{Looks, named};
use super::markup::{Milliseconds, Text, number, png_uri, share};
use crate::{
    error::TraceError,
    measures::StepMeasures,
    schema::{Grid, SmallPicture, StepRecord, Word},
};

/// The card of one step.
pub(super) fn card(
    html: &mut String,
    looks: &Looks,
    step: &StepRecord,
    measured: &StepMeasures,
) -> Result<(), TraceError> {
    let _ = write!(
        html,
        r#"<li class="card">
<h3>Step {} <span class="quiet">{}</span></h3>
"#,
        step.index + 1,
        Milliseconds(step.time_ms)
    );
    html.push_str(&looks.look(step)?);
    html.push_str("<div class=\"notes\">\n");
    words(html, step);
    numbers(html, looks.grid(), step, measured);
    patches(html, looks.grid(), step);
    if let Some(thought) = &step.thought_picture {
        thought_picture(html, step, thought)?;
    }
    html.push_str("</div>\n</li>\n");
    Ok(())
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

fn visible(word: &str) -> String {
    let word = word.escape_debug().to_string();
    if word.trim().is_empty() { format!("“{word}”") } else { word }
}
