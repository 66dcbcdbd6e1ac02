//! `lare ask` with a Hugging Face folder or GGUF file: the model as it was published, which answers in text without latent
//! steps, or with an adapter, which thinks before.

use super::ask::{finish, options, refuse_looks_of_another_format, refuse_to_replace_the_picture, remove_older_traces};
use super::{Outcome, counted};
use crate::args::{Ask, StepCount};
use crate::failure::Failure;
use crate::files::{self, Source};
use crate::messages::{Messages, Report};
use crate::questions::{self, Questions};
use crate::shown::{Showing, Shown};
use lare_data::Size;
use lare_infer::generator::{Generator, Said, question};
use lare_infer::load::sha256;
use lare_infer::model::Speaking;
use lare_infer::record::{Asked, of_pretrained};
use lare_infer::{Adapter, Finish, Holding, LookReport, Options, Steps};
use lare_model::pretrained::gguf::is_gguf;
use lare_model::pretrained::{Architecture, Pretrained};
use lare_trace::ModelInfo;
use serde_json::{Value, json};
use std::path::Path;

/// Whether this is a Hugging Face folder, and not one of ours, or a GGUF file.
pub fn is_for(model: &Path) -> bool {
    is_gguf(model) || model.join("config.json").is_file() && !model.join("config.toml").is_file()
}

/// Answers.
pub fn run(ask: &Ask, folder: &Path, messages: &Messages) -> Result<Outcome, Failure> {
    refuse_what_needs_latents(ask)?;
    let sees = Architecture::from_folder(folder)?.image_token.is_some();
    let ask = &questions::as_taken(ask, sees)?;
    let questions = Questions::of(ask)?;
    refuse_to_replace_the_picture(ask)?;
    refuse_looks_of_another_format(ask)?;
    let source = ask.picture.as_deref().map(files::picture).transpose()?;
    for (source, note) in source.iter().flat_map(|source| source.opened.notes.iter().map(move |note| (source, note))) {
        messages.warning(&format!("{}: {note}", source.name));
    }
    let adapter = ask.adapter.as_deref().map(open_adapter).transpose()?;
    let generator = load(folder, ask.computing.holding(ask.dtype.map(Into::into))?, adapter.as_ref(), messages)?;
    let nearest_words = if ask.trace.is_some() { Options::default().nearest_words } else { 0 };
    let options = options(ask);
    let options = Options { nearest_words, steps: settled(&generator, options.steps, messages), ..options };
    let pictures: Vec<_> = source.iter().map(|source| &source.opened.picture).collect();
    for (place, text) in (1..).zip(questions.texts()) {
        let said = generator.answer(&[question(pictures.len(), text)], &pictures, &options, &mut |_| ())?;
        let place = (questions.len() > 1).then_some(place);
        let (generator, adapter, source) = (&generator, adapter.as_ref(), source.as_ref());
        let given = Given { adapter, source, question: text, options };
        Told { ask, generator, given, said: &said, place }.tell(messages)?;
    }
    if let Some(folder) = ask.trace.as_deref().filter(|_| questions.len() > 1) {
        remove_older_traces(folder, questions.len())?;
    }
    Ok(Outcome::Done)
}

/// An adapter that was never taught when to stop does not stop before it began.
pub(super) fn settled(generator: &Generator, steps: Steps, messages: &Messages) -> Steps {
    let settled = generator.settled(steps);
    if let (true, Steps::Fixed(own)) = (settled != steps, settled) {
        let own = counted(own, "latent step");
        messages.warning(&format!(
            "the adapter's halting head was not trained: `auto` takes {own}, as in training; a number of steps is taken as it is"
        ));
    }
    settled
}

/// Reads the folder of an adapter.
pub(super) fn open_adapter(folder: &Path) -> Result<Adapter, Failure> {
    Ok(Adapter::open(folder).map_err(lare_infer::Error::from)?)
}

/// Loads a model, and warns of what it leaves unused.
pub(super) fn load(
    folder: &Path,
    holding: Holding,
    adapter: Option<&Adapter>,
    messages: &Messages,
) -> Result<Generator, Failure> {
    let generator = Generator::from_folder(folder, holding, adapter)?;
    if let Some(first) = generator.base().unused.first() {
        let count = counted(generator.base().unused.len(), "tensor");
        messages.warning(&format!("{count} of the folder are used by nothing, the first is {first}"));
    }
    Ok(generator)
}

/// A model as published takes no latent step: there is nothing to count, and no look to draw.
fn refuse_what_needs_latents(ask: &Ask) -> Result<(), Failure> {
    let wanted = [
        (matches!(ask.steps, StepCount::Fixed(steps) if steps > 0), "--steps"),
        (ask.looks.is_some(), "--looks"),
        (ask.trace.is_some(), "--trace"),
    ];
    match wanted.into_iter().find(|(wanted, _)| *wanted && ask.adapter.is_none()) {
        None => Ok(()),
        Some((_, flag)) => Err(Failure::new(format!("`{flag}` needs a model that thinks in latent steps"))
            .part("expected", "a model trained by `lare train`, or `--adapter DIR`")
            .part("got", "a model as it was published, which answers at once")
            .hint(format!("leave {flag} out"))),
    }
}

fn cost(said: &Said) -> String {
    let rate = said.usage.text_tokens.saturating_sub(1) as f64 / said.rest.as_secs_f64().max(1e-9);
    format!(
        "{}, {} of them of the picture, {}, {}, first after {:.0} ms, then {rate:.1} tokens/s",
        counted(said.prompt_tokens, "prompt token"),
        said.image_tokens,
        counted(said.looks.len(), "latent step"),
        counted(said.usage.text_tokens, "text token"),
        said.first_token.as_secs_f64() * 1e3,
    )
}

fn step(look: &LookReport) -> Value {
    json!({
        "scores": look.scores,
        "chosen": look.chosen,
        "nearest_words": look.nearest,
        "gate_mean": look.gate_mean,
        "halt_probability": look.halt_probability,
        "latent_norm": look.latent_norm,
        "time_ms": look.time_ms,
    })
}

/// What was asked, of what, and how.
struct Given<'a> {
    adapter: Option<&'a Adapter>,
    source: Option<&'a Source>,
    question: &'a str,
    options: Options,
}

struct Told<'a> {
    ask: &'a Ask,
    generator: &'a Generator,
    given: Given<'a>,
    said: &'a Said,
    place: Option<usize>,
}

impl Told<'_> {
    /// The answer comes first, so that a person need not wait for the pictures; in JSON it names them.
    fn tell(&self, messages: &Messages) -> Result<(), Failure> {
        let mut shown = Shown::default();
        if messages.wants_json() {
            // Files that cannot be written do not take the answer with them.
            let showing = self.show(messages, &mut shown);
            messages.report(&Object { told: self, shown: &shown })?;
            self.warn_of_the_end(messages);
            return showing;
        }
        messages.result(&self.said.text)?;
        if self.place.is_none() {
            messages.note(&cost(self.said));
        }
        self.warn_of_the_end(messages);
        self.show(messages, &mut shown)?;
        shown.note(messages);
        Ok(())
    }

    fn warn_of_the_end(&self, messages: &Messages) {
        if self.said.finish != Finish::End {
            messages.warning("the answer was cut off: allow more tokens with --max-tokens");
        }
    }

    fn show(&self, messages: &Messages, shown: &mut Shown) -> Result<(), Failure> {
        let (Some(source), Some(adapter)) = (self.given.source, self.given.adapter) else { return Ok(()) };
        let picture = &source.opened.picture;
        let showing = Showing { ask: self.ask, picture, place: self.place };
        if !showing.is_wanted() {
            return Ok(());
        }
        let places = self.generator.places(Size::of(picture))?;
        let (picture_hash, question) = (&source.hash[..], self.given.question);
        let asked = Asked { picture, picture_hash, question, options: self.given.options };
        let record = of_pretrained(identity(adapter), &asked, self.said, &places);
        showing.write(&record, messages, shown)
    }
}

/// A model as it was published, as an evaluation knows it.
pub(super) fn identity_as_published(folder: &Path, generator: &Generator) -> Result<ModelInfo, Failure> {
    let file = folder.join("config.json");
    let config = std::fs::read(&file).map_err(|e| Failure::new(format!("cannot read {}: {e}", file.display())))?;
    let weights_hash = Pretrained::fingerprint(folder).map_err(lare_infer::Error::from)?;
    Ok(ModelInfo { name: generator.name.clone(), config_hash: sha256(&config), weights_hash })
}

/// A base with an adapter, as a trace names it.
pub(super) fn identity(adapter: &Adapter) -> ModelInfo {
    let base = &adapter.settings.base;
    ModelInfo {
        name: base.name.clone(),
        config_hash: sha256(json!(adapter.settings).to_string().as_bytes()),
        weights_hash: sha256(format!("{} {}", base.fingerprint, adapter.hash()).as_bytes()),
    }
}

/// The answer as one object.
struct Object<'a> {
    told: &'a Told<'a>,
    shown: &'a Shown,
}

impl Report for Object<'_> {
    fn text(&self) -> String {
        self.told.said.text.clone()
    }

    fn json(&self) -> Value {
        let Told { said, generator, given: Given { question, source, .. }, .. } = self.told;
        let picture = source.map(|source| {
            let picture = &source.opened.picture;
            json!({ "name": source.name, "width": picture.width, "height": picture.height, "hash": source.hash })
        });
        json!({
            "question": question,
            "answer": said.text,
            "finish": finish(said.finish),
            "usage": {
                "prompt_tokens": said.prompt_tokens,
                "image_tokens": said.image_tokens,
                "text_tokens": said.usage.text_tokens,
                "latent_steps": said.usage.latent_steps,
            },
            "steps": said.looks.iter().map(step).collect::<Vec<_>>(),
            "timing_ms": {
                "first_token": said.first_token.as_secs_f64() * 1e3,
                "rest": said.rest.as_secs_f64() * 1e3,
            },
            "model": { "family": generator.base().architecture.family },
            "picture": picture,
            "files": { "looks": self.shown.looks, "trace": self.shown.trace },
        })
    }
}
