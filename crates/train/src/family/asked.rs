//! Questions and answers as ids of a pretrained model, by its own template and tokenizer.

use super::lessons::Lesson;
use super::sight::{Shape, Sight, Sights};
use crate::batch::{Row, Target, coverage_of};
use crate::config::{Config, Stage};
use crate::{Error, Result};
use lare_data::chat::{Chat, Message, Part, PictureTokens, RenderOptions, Role};
use lare_data::lint::Length;
use lare_data::{Processor, Question, Region};
use lare_model::config::{Refocus, Thinking};
use lare_model::pretrained::Pretrained;
use std::path::Path;
use std::sync::Arc;

/// Memory for what was seen in pictures where the config says nothing, in MiB.
const FEATURES_MIB: usize = 1024;

/// A look that leads to an answer.
#[derive(Clone, Debug)]
pub struct Step {
    says: String,
    reads: String,
    region: Option<Region>,
}

/// A question on pictures that were seen.
pub struct Asked {
    group: Arc<str>,
    any_order: bool,
    messages: Vec<Message>,
    answer: String,
    steps: Vec<Step>,
    /// What was seen in its pictures.
    pub sights: Vec<Arc<Sight>>,
}

impl Asked {
    /// A question of the suite.
    pub fn of_question(question: &Question, sight: &Arc<Sight>) -> Self {
        let step = |step: &lare_data::Step| Step {
            says: step.says.clone(),
            reads: step.reads.clone(),
            region: Some(step.region),
        };
        Self {
            group: question.task.name().into(),
            any_order: question.task.any_order(),
            messages: vec![Message::new(Role::User, vec![Part::Picture, Part::Text(question.text.clone())])],
            answer: question.answer.clone(),
            steps: question.steps.iter().map(step).collect(),
            sights: vec![sight.clone()],
        }
    }

    /// A sample of a file; where nothing else is known, a look reads what is said of it.
    pub fn of_lesson(lesson: &Lesson, sights: Vec<Arc<Sight>>) -> Self {
        let looks = lesson.example.looks.iter();
        let first = sights.first().map(|sight| sight.size);
        let step = |look: &lare_data::examples::Look| Step {
            says: look.says.clone(),
            reads: if look.reads.is_empty() { look.says.clone() } else { look.reads.clone() },
            region: look.region.zip(first).map(|(spot, size)| spot.in_pixels(size)),
        };
        Self {
            group: lesson.group.clone(),
            any_order: false,
            messages: lesson.example.messages.clone(),
            answer: lesson.example.answer.clone(),
            steps: looks.map(step).collect(),
            sights,
        }
    }
}

/// The text side of a model, and its eyes.
pub struct Teller {
    chat: Chat,
    /// What was seen in pictures.
    pub sights: Sights,
    image_token: u32,
    read_slots: usize,
    positions_per_step: usize,
    max_tokens: usize,
}

/// What a run asks for beside the model.
pub struct Needs {
    /// Bytes for what was seen in pictures.
    pub features: usize,
    /// Words that a thought names.
    pub read_slots: usize,
    /// Positions that a latent step takes.
    pub positions_per_step: usize,
    /// The most tokens of a sample, where it is less than what the model was made for.
    pub max_tokens: Option<usize>,
}

impl Needs {
    /// Of a run.
    pub fn of(config: &Config, refocus: &Refocus) -> Self {
        // What is spliced in is one token a patch, however many features were merged to it.
        let spliced = if refocus.thinking == Thinking::Splice { refocus.patches } else { 0 };
        Self {
            features: config.data.features_mib.unwrap_or(FEATURES_MIB) << 20,
            read_slots: config.semantic.as_ref().map_or(0, |heads| heads.read_slots),
            positions_per_step: 1 + spliced,
            max_tokens: config.data.max_tokens,
        }
    }
}

/// Ids of a prompt and of what follows its thoughts.
pub struct Told {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// The answer, with the token that ends it.
    pub answer: Vec<u32>,
}

impl Teller {
    /// Reads the text files of a model's folder.
    ///
    /// # Errors
    /// For a language model alone, and files that do not fit.
    pub fn open(model: &Pretrained, folder: &Path, needs: &Needs) -> Result<Self> {
        let Some(image_token) = model.architecture.image_token else {
            let (expected, got) = ("one that sees pictures".into(), model.architecture.family.clone());
            return Err(lare_model::Error::Arguments { what: "model to refocus", expected, got }.into());
        };
        let room = model.architecture.language.max_positions;
        Ok(Self {
            chat: Chat::from_folder(folder)?,
            sights: Sights::new(Processor::open(folder)?, Shape::of(model), needs.features),
            image_token,
            read_slots: needs.read_slots,
            positions_per_step: needs.positions_per_step,
            max_tokens: needs.max_tokens.unwrap_or(room).min(room),
        })
    }

    fn ids(&self, messages: &[Message], tokens: &[PictureTokens], to_answer: bool) -> Result<Vec<u32>> {
        let options = RenderOptions { add_generation_prompt: to_answer, ..RenderOptions::default() };
        let rendered = self.chat.render(messages, &options)?;
        Ok(self.chat.encode(&rendered, tokens)?.ids)
    }

    /// A prompt, and `said` as its answer: as the folder's template writes it, up to the token that ends the turn.
    ///
    /// # Errors
    /// For messages that the template refuses, and a folder that names no token that ends an answer.
    pub fn told(&self, messages: &[Message], tokens: &[PictureTokens], said: &str) -> Result<Told> {
        let ends = &self.chat.generation().eos;
        let Some(end) = ends.first() else {
            return Err(Error::NoEnd);
        };
        let prompt = self.ids(messages, tokens, true)?;
        let answered = [messages, &[Message::new(Role::Assistant, said)]].concat();
        let whole = self.ids(&answered, tokens, false)?;
        let rest = whole.strip_prefix(&prompt[..]).unwrap_or_default();
        let last = rest.iter().position(|id| ends.contains(id));
        let answer = match last.filter(|last| *last > 0) {
            Some(last) => rest[..=last].to_vec(),
            // A template that writes answers in another way than it asks for them, or does not end them.
            None => [self.chat.tokenizer().encode_plain(said)?, vec![*end]].concat(),
        };
        Ok(Told { prompt, answer })
    }

    /// How many tokens a sample takes with so many latent steps.
    pub fn length(&self, told: &Told, tokens: &[PictureTokens], steps: usize) -> Length {
        Length {
            prompt: told.prompt.len(),
            pictures: tokens.iter().map(PictureTokens::total).collect(),
            thoughts: steps * self.positions_per_step,
            answer: told.answer.len(),
            most: self.max_tokens,
        }
    }

    /// The ids up to the last picture, and the row behind them.
    ///
    /// # Errors
    /// As [`Teller::told`], and for a prompt without a picture.
    pub fn row(&self, stage: &Stage, asked: &Asked) -> Result<(Vec<u32>, Row)> {
        let tokens: Vec<PictureTokens> = asked.sights.iter().map(|sight| sight.tokens).collect();
        let said = said(stage, &asked.steps, &asked.answer);
        let told = self.told(&asked.messages, &tokens, &said)?;
        let Some(last) = told.prompt.iter().rposition(|id| *id == self.image_token) else {
            let (expected, got) = ("at least one picture in each".into(), "none".into());
            return Err(lare_model::Error::Arguments { what: "prompts", expected, got }.into());
        };
        let (first, own) = told.prompt.split_at(last + 1);
        // What is not known to take a number of looks takes as many as the stage has.
        let looks = if asked.steps.is_empty() { stage.latent_steps } else { asked.steps.len() };
        let mut targets = asked.steps.iter().map(|step| self.target(step, asked)).collect::<Result<Vec<_>>>()?;
        targets.resize_with(looks.max(targets.len()), Target::default);
        let gaze = self.gaze(stage, &asked.steps, &told.answer);
        let words = told.answer[..told.answer.len() - 1].to_vec();
        let row = Row {
            group: asked.group.clone(),
            any_order: asked.any_order,
            looks,
            prompt: own.to_vec(),
            answer: told.answer,
            words,
            targets,
            gaze,
        };
        Ok((first.to_vec(), row))
    }

    fn target(&self, step: &Step, asked: &Asked) -> Result<Target> {
        let cells: Vec<Region> = asked.sights.iter().flat_map(|sight| sight.cells.iter().copied()).collect();
        let first = asked.sights.first().map_or(0, |sight| sight.cells.len());
        let coverage = step.region.map(|region| {
            // Regions are of the first picture; the cells of others come behind its own.
            let mut shares = coverage_of(&region, &cells[..first]);
            shares.resize(cells.len(), 0.0);
            shares
        });
        let mut words = self.chat.tokenizer().encode_plain(&step.reads)?;
        words.truncate(self.read_slots);
        let coverage = coverage.filter(|shares| shares.iter().any(|share| *share > 0.0)).unwrap_or_default();
        Ok(Target { coverage, words, centre: (0.0, 0.0) })
    }

    /// As for the nano model: while a step is said, up to the words that it reads, attention is held to its region; an answer
    /// without steps before it is held to the last.
    fn gaze(&self, stage: &Stage, steps: &[Step], answer: &[u32]) -> Vec<(usize, usize)> {
        let seen = |k: &usize| steps[*k].region.is_some();
        if stage.loss.focus == 0.0 {
            return Vec::new();
        }
        let mut spans = Vec::new(); // characters of each sentence, up to what it reads
        let mut at = 0;
        for (k, step) in said_of(stage, steps) {
            let end = step.says.find(&step.reads).map_or(step.says.len(), |place| place + step.reads.len());
            spans.push((at..at + end, k));
            at += step.says.len() + 1;
        }
        if spans.is_empty() {
            let last = (stage.latent_steps..steps.len()).rfind(seen);
            return last.map_or_else(Vec::new, |last| (0..answer.len() - 1).map(|place| (place, last)).collect());
        }
        let tokenizer = self.chat.tokenizer();
        let characters = |tokens: usize| tokenizer.decode(&answer[..tokens]).trim_start().len();
        // A token can begin before a sentence or end behind it.
        let held = |place: usize| {
            let (start, end) = (characters(place + 1), characters(place + 2));
            let (_, k) = spans.iter().find(|(span, k)| start < span.end && end > span.start && seen(k))?;
            Some((place, *k))
        };
        (0..answer.len() - 1).filter_map(held).collect()
    }
}

/// The steps that a stage lets a model say, with their numbers: those that are not latent.
fn said_of<'a>(stage: &Stage, steps: &'a [Step]) -> impl Iterator<Item = (usize, &'a Step)> {
    let says = stage.say_rest;
    steps.iter().enumerate().skip(stage.latent_steps).filter(move |(_, step)| says && !step.says.is_empty())
}

/// What a stage lets a model say: steps on a line, and the answer.
fn said(stage: &Stage, steps: &[Step], answer: &str) -> String {
    let said = said_of(stage, steps).map(|(_, step)| step.says.as_str()).collect::<Vec<_>>().join(" ");
    if said.is_empty() { answer.to_owned() } else { format!("{said}\n{answer}") }
}
