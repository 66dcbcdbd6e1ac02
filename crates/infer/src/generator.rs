//! A pretrained model from a Hugging Face folder or a GGUF file: as it was published it answers in text; with an adapter it thinks in latent steps
//! before.
//!
//! ```text
//! messages ─ template, placeholders ─► ids ──────────────┐
//! pictures ─ processor ─► pixels ─ vision tower ─► tokens ┴─ open ─► prefix ─ go on, or think ─► logits ─ sampler ─► text
//! ```

use crate::look::LookReport;
use crate::model::{LaidOut, Model, Speaking};
use crate::options::Options;
use crate::places::Places;
use crate::session::{Clock, Event, Finish, converse};
use crate::talk::{Draft, Talk};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use lare_data::chat::{Chat, Content, Message, Part, PictureTokens, Role};
use lare_data::processor::{Layout, Processor};
use lare_data::{Picture, Size};
use lare_model::decoder::Rows;
use lare_model::pretrained::gguf::{Gguf, is_gguf};
use lare_model::pretrained::{self, Holding, PatchGrid, Pixels, Pretrained, Text};
use lare_model::tap::{Kept, Tap};
use lare_model::{Adapter, Conversation, Refocused};
use lare_trace::{Timing, Usage};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A model, its text side and its image processor.
pub struct Generator {
    weights: Weights,
    /// Tokenizer, template and defaults of generation.
    pub chat: Chat,
    /// What it is called: by default its folder.
    pub name: String,
    processor: Option<Processor>,
    /// Of an adapter whose halting head was not trained.
    pub(crate) auto_steps: Option<usize>,
}

/// A model as it was published, or with an adapter.
pub(crate) enum Weights {
    Published(Box<Pretrained>),
    Refocused(Box<Refocused>),
}

impl Weights {
    fn load(folder: &Path, holding: Holding, adapter: Option<&Adapter>) -> Result<Self> {
        Ok(match adapter {
            None => Self::Published(Box::new(Pretrained::from_folder(folder, holding)?)),
            Some(adapter) => Self::Refocused(Box::new(Refocused::from_folder(folder, holding, adapter)?)),
        })
    }

    fn base(&self) -> &Pretrained {
        match self {
            Self::Published(base) => base,
            Self::Refocused(refocused) => &refocused.base,
        }
    }

    fn into_base(self) -> Pretrained {
        match self {
            Self::Published(base) => *base,
            Self::Refocused(refocused) => refocused.base,
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its latent steps; their cells are the image tokens of all pictures.
    pub looks: Vec<LookReport>,
    /// Its text.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// What it cost, in tokens and positions.
    pub usage: Usage,
    /// Tokens of the prompt, image tokens included.
    pub prompt_tokens: usize,
    /// Image tokens among them.
    pub image_tokens: usize,
    /// From the pictures' bytes to the first token.
    pub first_token: Duration,
    /// From the first token to the last.
    pub rest: Duration,
    /// Where the time went.
    pub timing: Timing,
}

/// Pixels of a picture as the family's processor makes them.
fn pixels_of(processor: &Processor, picture: &Picture) -> Result<Pixels> {
    let processed = processor.process(picture)?;
    let values = Tensor::from_vec(processed.pixel_values, &processed.shape[..], &Device::Cpu)?;
    Ok(match processed.layout {
        Layout::Grid { rows, cols } => Pixels::Patches { values, grid: PatchGrid { rows, cols } },
        Layout::Tiles { .. } => Pixels::Tiles { values },
    })
}

/// The latent steps that `auto` takes with an adapter that was not taught when to stop.
fn auto_steps(refocused: &Refocused, adapter: &Adapter) -> Result<Option<usize>> {
    match adapter.settings.auto_steps {
        Some(steps) => Ok(Some(steps)),
        // Older adapters do not say it.
        None => Ok((!refocused.refocus.halts()?).then_some(refocused.refocus.settings().max_steps)),
    }
}

/// The text side of a folder or GGUF file.
///
/// # Errors
/// Names the file, and the field or token that does not fit.
pub fn chat(folder: &Path) -> Result<Chat> {
    if !is_gguf(folder) {
        return Ok(Chat::from_folder(folder)?);
    }
    Ok(Chat::from_gguf(folder, Gguf::open(folder)?.metadata())?)
}

/// A question on pictures as one message of a user.
#[must_use]
pub fn question(pictures: usize, text: &str) -> Message {
    let parts = std::iter::repeat_n(Part::Picture, pictures).chain([Part::Text(text.to_owned())]);
    Message { role: Role::User, content: Content::Parts(parts.collect()) }
}

impl Generator {
    /// Loads a folder or GGUF file, with what training added to it; `holding` as for [`Pretrained::from_folder`].
    ///
    /// # Errors
    /// Names the file, and the field, tensor or token that does not fit; for an adapter of another base.
    pub fn from_folder(folder: &Path, holding: impl Into<Holding>, adapter: Option<&Adapter>) -> Result<Self> {
        let weights = Weights::load(folder, holding.into(), adapter)?;
        let auto_steps = match (&weights, adapter) {
            (Weights::Refocused(refocused), Some(adapter)) => auto_steps(refocused, adapter)?,
            _ => None,
        };
        Ok(Self { auto_steps, ..Self::of(folder, weights)? })
    }

    pub(crate) fn of(folder: &Path, weights: Weights) -> Result<Self> {
        let chat = chat(folder)?;
        let processor = weights.base().fine().map(|_| Processor::open(folder)).transpose()?;
        // `.` and `..` have no name of their own; a file of the hub's cache is a link to one with another name.
        let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let name = if is_gguf(folder) { folder.file_stem() } else { whole.file_name() };
        let name =
            name.map_or_else(|| weights.base().architecture.family.clone(), |n| n.to_string_lossy().into_owned());
        Ok(Self { weights, chat, name, processor, auto_steps: None })
    }

    /// The model, or the base of its adapter.
    #[must_use]
    pub fn base(&self) -> &Pretrained {
        self.weights.base()
    }

    /// The model with the latent step that an adapter added.
    #[must_use]
    pub fn refocused(&self) -> Option<&Refocused> {
        match &self.weights {
            Weights::Published(_) => None,
            Weights::Refocused(refocused) => Some(refocused),
        }
    }

    /// The processor of a model that sees.
    fn eyes(&self) -> Result<&Processor> {
        self.processor.as_ref().ok_or_else(|| {
            let got = format!("a picture for {}, which reads text alone", self.base().architecture.family);
            Error::Conversation { expected: "text without pictures", got }
        })
    }

    pub(crate) fn pixels_of(&self, picture: &Picture) -> Result<Pixels> {
        pixels_of(self.eyes()?, picture)
    }

    /// What a prompt must say of a picture of this size.
    pub(crate) fn tokens_of(&self, picture: Size) -> Result<PictureTokens> {
        Ok(match self.eyes()?.layout(picture)? {
            Layout::Grid { rows, cols } => {
                let per_token = self.base().fine().map_or(1, |(_, per_token)| per_token);
                PictureTokens::Run(rows * cols / per_token)
            }
            Layout::Tiles { rows, cols } => {
                let tokens_per_tile = self.base().tile().map_or(0, |(tokens, _)| tokens);
                PictureTokens::Tiles { rows, cols, tokens_per_tile }
            }
        })
    }

    /// Where the image tokens of a picture of this size lie on it.
    ///
    /// # Errors
    /// For a language model alone, and for sizes that the processor refuses.
    pub fn places(&self, picture: Size) -> Result<Places> {
        let per_token = self.base().fine().map_or(1, |(_, per_token)| per_token);
        let side = self.base().tile().map_or(per_token, |(tokens, _)| tokens).isqrt();
        let fine = self.refocused().map_or(1, |refocused| refocused.refocus.entries_per_patch());
        Ok(Places::new(self.eyes()?.layout(picture)?, side, fine, picture))
    }

    /// Answers; `on_text` hears the text as it comes. Of the folder's `generation_config.json`, the end tokens and the
    /// repetition penalty hold.
    ///
    /// # Errors
    /// For messages or pictures that the folder's template or processor refuses, prompts longer than the context, and options
    /// that cannot be.
    pub fn answer(
        &self,
        messages: &[Message],
        pictures: &[&Picture],
        options: &Options,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Said> {
        let started = Instant::now();
        let mut clock = Clock::from(started);
        let sizes: Vec<Size> = pictures.iter().map(|picture| Size::of(picture)).collect();
        let draft = Draft::new(self, messages, &sizes, *options)?;
        let image_tokens = self.base().image_tokens(&draft.first).len();
        let prepared = pictures.iter().map(|picture| self.prepare(picture)).collect::<Result<Vec<_>>>()?;
        let mut timing = Timing { prepare: clock.lap(), ..Timing::default() };
        let seen = prepared.iter().map(|prepared| Ok(Arc::new(self.see(&prepared.form)?)));
        let seen = seen.collect::<Result<Vec<_>>>()?;
        timing.encode = clock.lap();
        let ground = Arc::new(self.ground(&draft.first, &seen)?);
        let slab = self.decoder().slab(draft.most_slots(self), self.device())?;
        let mut talks = [Talk::new(self, draft, Conversation::new(ground, slab)?)];
        timing.prefill = clock.lap();
        converse(self, &mut talks, &mut timing, &mut |event| {
            if let Event::Token { text, .. } = event {
                on_text(text);
            }
        })?;
        let total = started.elapsed();
        timing.total = total.as_secs_f64() * 1e3;
        // The pass that ends the prompt or the last thought says the first token.
        let first_token = total.saturating_sub(Duration::from_secs_f64(timing.answer / 1e3));
        let [talk] = talks;
        let (usage, prompt_tokens) = (talk.usage(self), talk.prompt_positions());
        let finish = talk.finish.unwrap_or(Finish::Context);
        let Talk { said: text, looks, .. } = talk;
        let rest = total.saturating_sub(first_token);
        Ok(Said { looks, text, finish, usage, prompt_tokens, image_tokens, first_token, rest, timing })
    }
}

/// A prompt with its pictures, as it is dumped.
struct Given {
    ids: Vec<u32>,
    pictures: Vec<pretrained::Picture>,
    pixels: Vec<Pixels>,
}

/// What is dumped: a prompt to be rendered, or ids as they are.
#[derive(Clone, Copy, Debug)]
pub enum Prompt<'a> {
    /// One message of a user, with the pictures before the text.
    Question(&'a str),
    /// Ids, a placeholder for each image token.
    Ids(&'a [u32]),
}

/// Everything between a prompt and its logits, by the names of `docs/debugging.md`; with an adapter, of the base with its
/// low-rank changes, before any latent step.
///
/// # Errors
/// As [`Generator::answer`].
pub fn dump(
    folder: &Path,
    holding: impl Into<Holding>,
    adapter: Option<&Adapter>,
    pictures: &[&Picture],
    prompt: Prompt,
) -> Result<BTreeMap<String, Tensor>> {
    let kept = Kept::default();
    let weights = Weights::load(folder, holding.into(), adapter)?;
    let (model, ids) = match prompt {
        Prompt::Question(text) => {
            let generator = Generator::of(folder, weights)?;
            let sizes: Vec<Size> = pictures.iter().map(|picture| Size::of(picture)).collect();
            let LaidOut { first, own, .. } = generator.lay_out(&[question(pictures.len(), text)], &sizes)?;
            (generator.weights.into_base(), [first, own].concat())
        }
        Prompt::Ids(ids) => (weights.into_base(), ids.to_vec()),
    };
    let processor = if pictures.is_empty() { None } else { Some(Processor::open(folder)?) };
    let processed = pictures.iter().zip(processor.iter().cycle());
    let pixels = processed.map(|(picture, processor)| pixels_of(processor, picture)).collect::<Result<Vec<_>>>()?;
    let encoded = pixels.iter().map(|pixels| model.encode(pixels, &kept)).collect::<lare_model::Result<_>>()?;
    let given = Given { ids, pictures: encoded, pixels };
    let mut named = intermediates(&model, &given, &kept)?;
    for ((name, layer), runs) in kept.into_inner() {
        // A run of the tower for each picture; the prefix and what follows it of the decoder.
        let joined = if name == "hidden" { Tensor::cat(&runs, 1)?.squeeze(0)? } else { Tensor::cat(&runs, 0)? };
        named.insert(format!("{name}.{layer}"), joined);
    }
    Ok(named)
}

/// The tensors as the bytes of a safetensors file.
///
/// # Errors
/// Only for what cannot be: tensors on another device.
pub fn archive(named: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let views: Vec<(&String, &Tensor)> = named.iter().collect();
    let serialized = safetensors::serialize(views, None);
    serialized.map_err(|error| candle_core::Error::wrap(error).into())
}

fn intermediates(model: &Pretrained, given: &Given, tap: &dyn Tap) -> Result<BTreeMap<String, Tensor>> {
    let mut named = BTreeMap::new();
    let mut put = |name: String, tensor: Tensor| _ = named.insert(name, tensor);
    let text = Text { ids: &given.ids, pictures: &given.pictures };
    let values: Vec<&Tensor> = given.pixels.iter().map(Pixels::values).collect();
    let grids: Vec<i64> =
        given.pixels.iter().filter_map(Pixels::grid).flat_map(|g| [1, g.rows as i64, g.cols as i64]).collect();
    if !values.is_empty() {
        put("pixel_values".into(), Tensor::cat(&values, 0)?);
        let seen: Vec<&Tensor> = given.pictures.iter().map(|p| &p.seen.tokens).collect();
        put("vision".into(), Tensor::cat(&seen, 0)?);
        for layer in 0..given.pictures[0].seen.added.len() {
            let added: Vec<&Tensor> = given.pictures.iter().map(|p| &p.seen.added[layer]).collect();
            put(format!("deepstack.{layer}"), Tensor::cat(&added, 0)?);
        }
    }
    if !grids.is_empty() {
        let pictures = grids.len() / 3;
        put("image_grid_thw".into(), Tensor::from_vec(grids, (pictures, 3), &Device::Cpu)?);
    }
    let ids: Vec<i64> = given.ids.iter().map(|id| i64::from(*id)).collect();
    let places = model.places(text)?;
    let positions: Vec<i64> = (0..3).flat_map(|axis| places.iter().map(move |p| i64::from(p[axis]))).collect();
    put("positions".into(), Tensor::from_vec(positions, (3, ids.len()), &Device::Cpu)?);
    put("input_ids".into(), Tensor::new(ids, &Device::Cpu)?);

    let Some((last, first)) = given.ids.split_last() else {
        let (expected, got) = ("at least one".into(), "none".into());
        return Err(lare_model::Error::Arguments { what: "ids", expected, got }.into());
    };
    let prefix = model.open(&[Text { ids: first, pictures: &given.pictures }], tap)?;
    let run = model.go_on(&mut prefix.begin(vec![0].into()), &[vec![*last]], Rows::Last, tap)?;
    for (layer, row) in run.rows.iter().enumerate() {
        let row = row.squeeze(0)?; // [H, T - 1]; the rest of each head's attention went to the token itself
        let own = (1.0 - row.sum_keepdim(1)?)?;
        put(format!("attention_row.{layer}"), Tensor::cat(&[row, own], 1)?);
    }
    let hidden = Tensor::cat(&[&prefix.hidden, &run.hidden], 1)?.squeeze(0)?;
    put("logits".into(), model.language.logits(&hidden)?);
    Ok(named)
}
