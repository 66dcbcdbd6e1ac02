//! `lare ask`: a picture and questions in, answers out, and pictures of where the model looked.

use super::{Outcome, assistant, counted, generate};
use crate::args::{Ask, Dtype, StepCount};
use crate::failure::Failure;
use crate::files::{self, Source};
use crate::hub;
use crate::messages::{Messages, Report};
use crate::questions::{self, Questions};
use crate::shown::{Showing, Shown};
use lare_infer::record::{Asked, record};
use lare_infer::{Answer, Assistant, Batch, Finish, Options, Question, Sampling, Steps, draw, session};
use lare_trace::Record;
use serde_json::{Value, json};
use std::path::Path;

/// Questions answered together: enough to fill the cores, few enough to keep memory small.
const BATCH: usize = 32;

/// Answers.
pub fn run(ask: &Ask, messages: &Messages) -> Result<Outcome, Failure> {
    let model = ask.model.as_deref().map(hub::folder).transpose()?;
    if let Some(folder) = model.as_deref().filter(|folder| generate::is_for(folder)) {
        return generate::run(ask, folder, messages);
    }
    refuse_what_pretrained_models_have(ask.dtype, ask.adapter.as_deref())?;
    let ask = &questions::as_taken(ask, true)?;
    let questions = Questions::of(ask)?;
    refuse_to_replace_the_picture(ask)?;
    refuse_looks_of_another_format(ask)?;
    let source = files::picture(questions::picture(ask)?)?;
    for note in &source.opened.notes {
        messages.warning(&format!("{}: {note}", source.name));
    }
    let assistant = assistant(model.as_deref(), &ask.computing.open()?)?;
    let options = options(ask);
    let picture = &source.opened.picture;
    let all: Vec<Question> = questions.texts().map(|text| Question::new(0, text, options)).collect();
    let mut progress = (all.len() > BATCH).then(|| messages.progress("answering", Some(all.len() as u64)));
    let (mut place, mut empty) = (0, Vec::new());
    for part in all.chunks(BATCH) {
        let answers = session::answer(&assistant, &Batch { pictures: &[picture], questions: part }, &mut |_| ());
        let answers = answers.map_err(|error| questions.named(error, place))?;
        for (question, answer) in part.iter().zip(answers) {
            place += 1;
            let told = Told { ask, assistant: &assistant, source: &source, question: question.text, answer: &answer };
            told.tell(messages, (questions.len() > 1).then_some(place))?;
            empty.extend(answer.text.trim().is_empty().then_some(answer.usage.latent_steps));
        }
        if let Some(progress) = &mut progress {
            progress.at(place as u64, "answering");
        }
    }
    if let Some(progress) = progress {
        progress.finish();
    }
    if !empty.is_empty() {
        messages.warning(&why_empty(&empty, questions.len()));
    }
    if let Some(folder) = ask.trace.as_deref().filter(|_| questions.len() > 1) {
        remove_older_traces(folder, questions.len())?;
    }
    Ok(Outcome::Done)
}

/// Our own models are small and run in f32.
pub(super) fn refuse_what_pretrained_models_have(dtype: Option<Dtype>, adapter: Option<&Path>) -> Result<(), Failure> {
    let refused = |flag: &str, hint: &str| {
        let failure = Failure::new(format!("`{flag}` is for Hugging Face folders"));
        Err(failure.part("expected", "a folder with config.json").hint(hint))
    };
    match (dtype, adapter) {
        (Some(_), _) => refused("--dtype", "leave --dtype out; models of `lare train` run in f32"),
        (None, Some(_)) => refused("--adapter", "name its base with --model; a model of `lare train` needs none"),
        _ => Ok(()),
    }
}

/// Says that there are answers without words, and why; `empty` has the latent steps of each.
fn why_empty(empty: &[usize], of: usize) -> String {
    let what = match of {
        1 => "the answer is empty".to_owned(),
        _ => format!("{} of {of} answers are empty", empty.len()),
    };
    match empty.iter().all(|steps| *steps == 0) {
        true => format!("{what}: the model was trained to think before it answers; allow it latent steps with --steps"),
        false => format!("{what}: the model ended it before the first word"),
    }
}

/// The looks are written as PNG whatever the name says.
pub(super) fn refuse_looks_of_another_format(ask: &Ask) -> Result<(), Failure> {
    let Some(looks) = &ask.looks else {
        return Ok(());
    };
    match looks.extension() {
        Some(extension) if !extension.eq_ignore_ascii_case("png") => {
            let summary = format!("`--looks {}` names a file of another format", looks.display());
            Err(Failure::new(summary)
                .part("expected", "a name that ends in .png: the looks are written as PNG")
                .part("got", format!(".{}", extension.display()))
                .hint(format!("name it {}", looks.with_extension("png").display())))
        }
        _ => Ok(()),
    }
}

/// Removes the numbered traces that an earlier, longer list of questions left in the folder.
pub(super) fn remove_older_traces(folder: &Path, questions: usize) -> Result<(), Failure> {
    let older = (questions + 1..).map(|place| folder.join(place.to_string()));
    for path in older.take_while(|path| path.join("trace.json").is_file()) {
        std::fs::remove_dir_all(&path).map_err(|error| {
            Failure::new(format!("the trace `{}` of an earlier list of questions is in the way", path.display()))
                .part("got", error)
                .hint("remove it, or write to another folder")
        })?;
    }
    Ok(())
}

/// Neither the picture of the looks nor a file of the trace may take the place of the picture asked about.
pub(super) fn refuse_to_replace_the_picture(ask: &Ask) -> Result<(), Failure> {
    let whole = |path: &Path| path.canonicalize().ok();
    let Some(picture) = ask.picture.as_deref().and_then(whole) else {
        return Ok(()); // standard input, or missing and soon refused
    };
    let name = picture.file_name().unwrap_or_default().to_string_lossy();
    let of_a_trace = name == "looks.gif" || (name.starts_with("step-") && name.ends_with(".png"));
    let looks = ask.looks.as_deref().is_some_and(|looks| whole(looks).as_ref() == Some(&picture));
    let inside = ask.trace.as_deref().is_some_and(|trace| whole(trace).as_deref() == picture.parent());
    let trace = inside && of_a_trace;
    if !looks && !trace {
        return Ok(());
    }
    let (flag, place) = if looks { ("--looks", "another file") } else { ("--trace", "another folder") };
    let shown = ask.picture.as_deref().unwrap_or(&picture).display();
    Err(Failure::new(format!("`{flag}` would write over `{shown}`"))
        .part("expected", format!("{place} than the picture's"))
        .hint(format!("name {place} with `{flag}`")))
}

pub(super) fn options(ask: &Ask) -> Options {
    Options {
        steps: match ask.steps {
            StepCount::Auto => Steps::Auto { threshold: ask.halt_threshold },
            StepCount::Fixed(steps) => Steps::Fixed(steps),
        },
        sampling: Sampling { temperature: ask.temperature, top_p: ask.top_p, seed: ask.seed },
        max_tokens: ask.max_tokens,
        ..Options::default()
    }
}

/// Why an answer ended, in JSON.
pub(super) fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::End => "end",
        Finish::Length => "length",
        Finish::Context => "context",
    }
}

/// One answer on its way to the user.
struct Told<'a> {
    ask: &'a Ask,
    assistant: &'a Assistant,
    source: &'a Source,
    question: &'a str,
    answer: &'a Answer,
}

impl Told<'_> {
    /// The answer comes first, so that a person need not wait for the pictures; in JSON it names them.
    fn tell(&self, messages: &Messages, place: Option<usize>) -> Result<(), Failure> {
        let mut shown = Shown::default();
        if messages.wants_json() {
            // Files that cannot be written do not take the answer with them.
            let showing = self.show(messages, place, &mut shown);
            messages.report(&Object { told: self, shown: &shown })?;
            return showing;
        }
        if place.is_none() && !self.answer.steps.is_empty() {
            messages.note(&format!("steps: {}", self.answer.steps));
        }
        messages.result(&self.answer.text)?;
        if place.is_none() {
            messages.note(&cost(self.answer));
        }
        if self.answer.finish != Finish::End {
            messages.warning("the answer was cut off: allow more tokens with --max-tokens");
        }
        self.show(messages, place, &mut shown)?;
        shown.note(messages);
        Ok(())
    }

    /// Writes the pictures and the trace that were asked for, and notes what is there in `shown`.
    fn show(&self, messages: &Messages, place: Option<usize>, shown: &mut Shown) -> Result<(), Failure> {
        let showing = Showing { ask: self.ask, picture: &self.source.opened.picture, place };
        if !showing.is_wanted() {
            return Ok(());
        }
        showing.write(&self.record()?, messages, shown)
    }

    fn record(&self) -> Result<Record, Failure> {
        let seed = self.ask.seed;
        let thoughts: Vec<&[f32]> = self.answer.looks.iter().map(|look| &look.thought[..]).collect();
        // Only the trace shows drawings, and they take longer than the answer.
        let drawings = match self.ask.trace {
            Some(_) => draw::thoughts(self.assistant, &thoughts, seed)?,
            None => Vec::new(),
        };
        let (picture, picture_hash) = (&self.source.opened.picture, &self.source.hash[..]);
        let asked = Asked { picture, picture_hash, question: self.question, options: options(self.ask) };
        Ok(record(self.assistant.identity(), &asked, self.answer, &drawings))
    }
}

/// What the answer cost, under the names that every report uses.
fn cost(answer: &Answer) -> String {
    let usage = &answer.usage;
    let appended = match usage.appended_visual_tokens {
        0 => String::new(),
        more => format!(", {}", counted(more, "appended visual token")),
    };
    format!(
        "{}, {}, {}{appended}, {}, {:.0} ms",
        counted(usage.latent_steps, "latent step"),
        counted(usage.text_tokens, "text token"),
        counted(usage.refocused_visual_tokens, "refocused visual token"),
        counted(usage.processed_positions, "processed position"),
        answer.timing.total,
    )
}

/// The answer as one object.
struct Object<'a> {
    told: &'a Told<'a>,
    shown: &'a Shown,
}

impl Report for Object<'_> {
    fn text(&self) -> String {
        self.told.answer.text.clone()
    }

    fn json(&self) -> Value {
        let Told { assistant, source, question, answer, .. } = self.told;
        let picture = &source.opened.picture;
        let looks: Vec<Value> = answer
            .looks
            .iter()
            .map(|look| {
                json!({
                    "selected": look.chosen,
                    "halt_probability": look.halt_probability,
                    "gate_mean": look.gate_mean,
                    "latent_norm": look.latent_norm,
                    "nearest_words": look.nearest,
                    "named_words": look.named,
                    "time_ms": look.time_ms,
                })
            })
            .collect();
        json!({
            "question": question,
            "answer": answer.text,
            "steps": answer.steps,
            "finish": finish(answer.finish),
            "usage": answer.usage,
            "looks": looks,
            "grid": answer.grid,
            "time_ms": answer.timing.total,
            "timing_ms": answer.timing,
            "model": {
                "name": assistant.name(),
                "weights_hash": assistant.weights_hash,
                "config_hash": assistant.config_hash,
            },
            "picture": {
                "name": source.name,
                "width": picture.width,
                "height": picture.height,
                "hash": source.hash,
                "notes": source.opened.notes,
            },
            "files": { "looks": self.shown.looks, "trace": self.shown.trace },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_answer_says_why() {
        assert!(why_empty(&[0], 1).starts_with("the answer is empty: the model was trained to think"));
        assert!(why_empty(&[0, 0], 5).starts_with("2 of 5 answers are empty"));
        assert!(!why_empty(&[0, 2], 2).contains("--steps"));
    }
}
