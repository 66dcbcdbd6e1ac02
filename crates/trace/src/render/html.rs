//! One self-contained page: every look on the picture, what the thought was near, what the answer cost.
//!
//! The page fetches nothing (its own content security policy forbids it), works without scripts, and
//! puts the picture in once: each step draws it again by reference, under a layer of a few hundred pixels.
//! All geometry is in pixels of the original picture, in the coordinates of one SVG.

mod look;
mod markup;
mod step;

pub use look::{LOOK_STYLE, Looks, legend};
pub use markup::Text;

use std::fmt::Write as _;

use super::heatmap;
use crate::{
    error::TraceError,
    measures,
    picture::PictureRef,
    schema::{Record, Timing},
};
use markup::{Milliseconds, number, plural};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Draws the record as one HTML page.
pub fn page(record: &Record, picture: PictureRef) -> Result<String, TraceError> {
    let looks = Looks::new(record, picture, "picture")?;
    let mut html = head(&record.input.question, STYLE, !record.steps.is_empty());
    html.push_str(&looks.store(heatmap::LONGEST_SIDE_PX)?);
    header(&mut html, record);
    html.push_str("<main>\n");
    steps(&mut html, record, &looks)?;
    cost(&mut html, record);
    origin(&mut html, record)?;
    html.push_str("</main>\n");
    if !record.steps.is_empty() {
        let _ = writeln!(html, "<script>{SCRIPT}</script>"); // writing to a String cannot fail
    }
    html.push_str("</body>\n</html>\n");
    Ok(html)
}

/// The start of a page, up to its body: it may fetch nothing, and run scripts of its own only where it has some.
#[must_use]
pub fn head(title: &str, style: &str, has_script: bool) -> String {
    let script = if has_script { "; script-src 'unsafe-inline'" } else { "" };
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'{script}">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}{LOOK_STYLE}</style>
</head>
<body>
"#,
        title = Text(title)
    )
}

fn header(html: &mut String, record: &Record) {
    let steps = record.usage.latent_steps;
    let _ = write!(
        html,
        r#"<header>
<p class="kind">Trace of an answer</p>
<h1>{question}</h1>
<p class="answer"><span class="label">Answer</span> <strong>{answer}</strong></p>
<ul class="facts">
<li><b>{model}</b> <code title="SHA-256 of the weights">{hash}</code></li>
<li><b>{steps}</b> latent step{plural}</li>
<li><b>{tokens}</b> text token{token_plural}</li>
<li><b>{total}</b></li>
</ul>
</header>
"#,
        question = Text(&record.input.question),
        answer = Text(&record.answer),
        model = Text(&record.model.name),
        hash = Text(&short(&record.model.weights_hash)),
        plural = plural(steps),
        tokens = record.usage.text_tokens,
        token_plural = plural(record.usage.text_tokens),
        total = Milliseconds(record.timing_ms.total),
    );
}

fn steps(html: &mut String, record: &Record, looks: &Looks) -> Result<(), TraceError> {
    if record.steps.is_empty() {
        let _ = write!(
            html,
            r#"<section><h2>Where it looked</h2>
<p>The plain model answered: no latent steps, one look at the whole picture.</p>
<div class="alone">{}</div>
</section>
"#,
            looks.plain()
        );
        return Ok(());
    }
    let _ = write!(
        html,
        r#"<section>
<h2>Where it looked</h2>
<div id="viewer" hidden>
<div id="stage"></div>
<div class="side">
<div class="controls">
<button type="button" id="play" aria-pressed="false">Play</button>
<label for="place">Step <output id="shown" for="place">1</output> of {steps}</label>
<input type="range" id="place" min="1" max="{steps}" value="1" step="1">
<label class="toggle"><input type="checkbox" id="plain"> Picture only</label>
</div>
<div id="details"></div>
</div>
</div>
{LEGEND}
<ol class="cards" id="cards">
"#,
        steps = record.steps.len(),
        LEGEND = legend(record.steps.iter().any(|step| step.region.is_some())),
    );
    for (step, measured) in record.steps.iter().zip(measures::of(record)) {
        step::card(html, looks, step, &measured)?;
    }
    html.push_str("</ol>\n</section>\n");
    Ok(())
}

fn cost(html: &mut String, record: &Record) {
    let usage = &record.usage;
    html.push_str("<section>\n<h2>What it cost</h2>\n<div class=\"cost\">\n<dl class=\"numbers\">\n");
    for (name, meaning, count) in [
        ("Text tokens", "generated", usage.text_tokens),
        ("Latent steps", "thoughts fed back", usage.latent_steps),
        ("Refocused visual tokens", "memory entries read while refocusing", usage.refocused_visual_tokens),
        ("Appended visual tokens", "added to the context after the prompt", usage.appended_visual_tokens),
        ("Processed positions", "all that the language model computed", usage.processed_positions),
    ] {
        number(html, name, meaning, &count.to_string());
    }
    html.push_str("</dl>\n");
    timing(html, &record.timing_ms);
    html.push_str("</div>\n</section>\n");
}

/// One bar for the whole time, cut where the phases meet; what no phase accounts for is the rest.
fn timing(html: &mut String, timing: &Timing) {
    let phases = [
        ("prepare", timing.prepare),
        ("encode", timing.encode),
        ("prefill", timing.prefill),
        ("think", timing.think),
        ("answer", timing.answer),
    ];
    let known: f64 = phases.iter().map(|(_, ms)| ms).sum();
    let total = timing.total.max(known).max(f64::MIN_POSITIVE);
    let phases = phases.into_iter().chain([("other", total - known)]);
    let (mut bar, mut list) = (String::new(), String::new());
    for (place, (name, ms)) in phases.enumerate() {
        let _ = write!(bar, "<i class=\"phase-{place}\" style=\"width:{:.2}%\"></i>", 100.0 * ms / total);
        let _ = writeln!(
            list,
            "<div><dt><i class=\"dot phase-{place}\" aria-hidden=\"true\"></i>{name}</dt><dd>{}</dd></div>",
            Milliseconds(ms)
        );
    }
    let _ = write!(
        html,
        "<div>\n<div class=\"timing\" aria-hidden=\"true\">{bar}</div>\n<dl class=\"numbers\">\n{list}<div class=\"sum\"><dt>total</dt><dd>{}</dd></div>\n</dl>\n</div>\n",
        Milliseconds(timing.total)
    );
}

fn origin(html: &mut String, record: &Record) -> Result<(), TraceError> {
    let (input, grid, model) = (&record.input, &record.grid, &record.model);
    html.push_str("<section>\n<h2>How to get it again</h2>\n<dl class=\"origin\">\n");
    for (name, value) in [
        ("Model", model.name.clone()),
        ("Configuration", model.config_hash.clone()),
        ("Weights", model.weights_hash.clone()),
        ("Picture", input.picture_hash.clone()),
        ("Picture size", format!("{} x {} px", input.width, input.height)),
        ("Grid", format!("{} rows x {} columns of {} x {} px", grid.rows, grid.cols, grid.cell_px_x, grid.cell_px_y)),
        ("Seed", input.seed.to_string()),
    ] {
        let _ = writeln!(html, "<div><dt>{name}</dt><dd><code>{}</code></dd></div>", Text(&value));
    }
    let _ = write!(
        html,
        "</dl>\n<details class=\"raw\"><summary>The whole record as JSON</summary>\n<pre tabindex=\"0\">{}</pre>\n</details>\n</section>\n",
        Text(&record.to_json()?)
    );
    Ok(())
}

fn short(hash: &str) -> String {
    hash.chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    fn page_of((record, rgb): (Record, Vec<u8>)) -> String {
        let picture = PictureRef { width: record.input.width, height: record.input.height, rgb: &rgb };
        page(&record, picture).unwrap()
    }

    #[test]
    fn the_page_loads_nothing_from_anywhere() {
        let page = page_of(example::square());
        // What a data URI holds is content and not a reference: base64 may contain anything.
        let outside: String =
            page.split("base64,").map(|part| part.split_once('"').map_or(part, |(_, rest)| rest)).collect();
        for reference in ["http:", "https:", "src=\"/", "\"//", "url(", "@import", "fetch("] {
            assert!(!outside.contains(reference), "found {reference}");
        }
    }

    #[test]
    fn the_page_holds_the_picture_once_and_a_card_for_every_step() {
        let page = page_of(example::square());
        assert_eq!(page.matches("image/jpeg").count(), 1);
        assert_eq!(page.matches("<li class=\"card\">").count(), 4);
        assert_eq!(page.matches("class=\"thought\"").count(), 4);
    }

    #[test]
    fn text_from_the_record_cannot_become_markup() {
        let (mut record, rgb) = example::wide();
        let attack = "</title><script>alert('x')</script>\" onload=\"";
        record.input.question = attack.to_owned();
        record.answer = attack.to_owned();
        record.model.name = attack.to_owned();
        record.steps[0].nearest_words[0].text = attack.to_owned();
        let page = page_of((record, rgb));
        assert!(!page.contains("<script>alert"));
        assert!(!page.contains("onload=\""));
    }

    #[test]
    fn the_layer_covers_the_picture_and_cells_lie_where_the_grid_says() {
        let page = page_of(example::wide());
        assert!(page.contains("viewBox=\"0 0 640 384\""));
        // Patch 59 is the last of 6 rows of 10 cells of 64 px, inset by 640 / 300.
        assert!(page.contains("x=\"578.1\" y=\"322.1\" width=\"59.7\" height=\"59.7\""));
    }

    #[test]
    fn the_plain_models_page_says_that_there_were_no_steps() {
        let page = page_of(example::without_steps());
        assert!(page.contains("no latent steps"));
        assert!(!page.contains("<script>"));
    }
}
