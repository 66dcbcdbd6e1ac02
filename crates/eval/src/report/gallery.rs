//! Right and wrong answers with their looks: what was asked, what was said, and what each step saw and thought.

use super::number::{counted, fixed};
use super::page::Gallery;
use super::run::Run;
use crate::{Kept, Outcome, Record, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use lare_trace::render::html::{Looks, Text, legend};
use lare_trace::{PictureRef, StepRecord, Word};

/// Longest side of a picture in the gallery, in pixels: cards are small, and there are many.
const PICTURE_PX: u32 = 448;

/// The kept answers of all runs; nothing where none kept any.
pub(super) fn html(runs: &[Run]) -> Result<Gallery> {
    let kept = || runs.iter().flat_map(|run| &run.kept);
    let mut html = String::new();
    if kept().next().is_none() {
        return Ok(Gallery { html });
    }
    html += "<p class=\"says\">The first answers of each task, right ones and others, as they came: none was chosen for its looks. A small picture is what the denoiser draws from a thought alone; beside it is the part of the picture that the look should have fallen on.</p>\n";
    html += &legend(kept().flat_map(|kept| &kept.trace.steps).any(|step| step.region.is_some()));
    for (number, run) in runs.iter().enumerate().filter(|(_, run)| !run.kept.is_empty()) {
        if runs.len() > 1 {
            html += &format!("\n<h3>{}</h3>\n", Text(&run.label));
        }
        html += "<div class=\"cards\">\n";
        for kept in &run.kept {
            html += &card(kept, &run.records[kept.item], number)?;
        }
        html += "</div>\n";
    }
    Ok(Gallery { html })
}

/// One answer; `run` tells its picture from those of other runs.
fn card(kept: &Kept, record: &Record, run: usize) -> Result<String> {
    let picture = kept.picture()?;
    let picture = PictureRef { width: picture.width as u32, height: picture.height as u32, rgb: &picture.rgb };
    let id = format!("picture-{run}-{}", kept.item + 1);
    let looks = Looks::new(&kept.trace, picture, &id)?;
    let (mark, outcome) = match record.outcome {
        Outcome::Correct => ("✓", "right"),
        Outcome::Wrong => ("✗", "wrong"),
        Outcome::Unparsed => ("?", "unparsed"),
    };
    let mut html = format!(
        "<article class=\"card {outcome}\" aria-label=\"{name}\">\n<p class=\"head\"><span>{task}</span> <span class=\"note\">{name}</span> <b class=\"outcome\"><span aria-hidden=\"true\">{mark}</span> {outcome}</b></p>\n<p class=\"question\">{question}</p>\n<dl class=\"said\"><div><dt>said</dt><dd>{said}</dd></div><div><dt>right answer</dt><dd>{right}</dd></div></dl>\n{store}<ol class=\"steps\">\n<li>{plain}<p class=\"note\">{steps}</p></li>\n",
        name = Text(&record.id),
        task = Text(&record.task),
        question = Text(&record.prompt),
        said = Text(if record.said.trim().is_empty() { "(nothing)" } else { &record.said }),
        right = Text(&record.expected),
        store = looks.store(PICTURE_PX)?,
        plain = looks.plain(),
        steps = counted(kept.trace.steps.len(), "latent step"),
    );
    for step in &kept.trace.steps {
        html += &format!(
            "<li>{}<p class=\"note\">step {}{}</p>\n{}{}</li>\n",
            looks.look(step)?,
            step.index + 1,
            found(record, step.index),
            names(step),
            glimpses(kept, step.index)
        );
    }
    Ok(html + "</ol>\n</article>\n")
}

/// Whether the true region was read, where it is known.
fn found(record: &Record, step: usize) -> &'static str {
    match record.hits.get(step) {
        Some(true) => ", on the region",
        Some(false) => ", beside the region",
        None => "",
    }
}

/// The words that a thought names.
fn names(step: &StepRecord) -> String {
    let word = |Word { text, score }: &Word| {
        let shown = text.escape_debug().to_string();
        format!("<li>{} <span class=\"note\">{}</span></li>", Text(&shown), fixed(f64::from(*score), 2))
    };
    let words: String = step.named_words.iter().map(word).collect();
    if words.is_empty() { words } else { format!("<ul class=\"words\" aria-label=\"names\">{words}</ul>\n") }
}

/// What was drawn from a thought, and what should have been.
fn glimpses(kept: &Kept, step: usize) -> String {
    let shown = [(kept.thought(step), "drawn from the thought"), (kept.region(step), "the true region")];
    let figure = |(png, says): (Option<Vec<u8>>, &str)| {
        png.map(|png| {
            format!(
                "<figure><img src=\"data:image/png;base64,{}\" alt=\"\"><figcaption>{says}</figcaption></figure>",
                STANDARD.encode(png)
            )
        })
    };
    let figures: String = shown.into_iter().filter_map(figure).collect();
    if figures.is_empty() { figures } else { format!("<div class=\"glimpses\">{figures}</div>\n") }
}
