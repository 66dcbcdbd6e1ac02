//! A pretrained model from a Hugging Face folder or a GGUF file: as it was published it answers in text; with an adapter it thinks in latent steps
//! before.
//!
//! ```text
//! messages ─ template, placeholders ─► ids ──────────────┐
//! pictures ─ processor ─► pixels ─ vision tower ─► tokens ┴─ open ─► prefix ─ go on, or think ─► logits ─ sampler ─► text
//! ```

use crate::look::finite;
use crate::options::Steps;
use crate::places::Places;
use crate::sampler::{Sampler, Sampling, penalize};
use crate::{Error, Result};
use candle_core::{Device, IndexOp, Tensor};
use lare_data::chat::{Chat, Content, Message, Part, PictureTokens, RenderOptions, Role};
use lare_data::processor::{Layout, Processor};
use lare_data::{Picture, Size};
use lare_model::cache::Cache;
use lare_model::config::{Memory, Refocus, Thinking};
use lare_model::decoder::Rows;
use lare_model::pretrained::gguf::{Gguf, is_gguf};
use lare_model::pretrained::{self, PatchGrid, Pixels, Pretrained, Text};
use lare_model::reasoning::Intervention;
use lare_model::tap::{Kept, Tap};
use lare_model::{Adapter, Format, Prompts, Reasoning, Refocused, Thread};
use lare_trace::{Timing, Word};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// A model, its text side and its image processor.
pub struct Generator {
    model: Model,
    /// Tokenizer, template and defaults of generation.
    pub chat: Chat,
    processor: Option<Processor>,
    /// Of an adapter whose halting head was not trained.
    auto_steps: Option<usize>,
}

/// A model as it was published, or with an adapter.
enum Model {
    Published(Box<Pretrained>),
    Refocused(Box<Refocused>),
}

impl Model {
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

/// How an answer is generated.
#[derive(Clone, Copy, Debug)]
pub struct Generation {
    /// When it stops thinking. Without an adapter, or without a picture, there is nothing to think about.
    pub steps: Steps,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// How many of the words nearest to each thought are told; for each, the thought is compared with the whole vocabulary.
    pub nearest_words: usize,
}

/// One latent step of a pretrained model.
#[derive(Clone, Debug, PartialEq)]
pub struct Thought {
    /// Where it looked: a weight for each image token of all pictures, one behind the other; sums to 1.
    pub scores: Vec<f32>,
    /// The image tokens whose features it read again, best first.
    pub chosen: Vec<u32>,
    /// Mean of the gate: 0 keeps the decoder's hidden state, 1 takes the LQ-Former's output.
    pub gate_mean: f32,
    /// The halting head after the step.
    pub halt_probability: f32,
    /// The words nearest to the thought, nearest first.
    pub nearest: Vec<Word>,
    /// Euclidean norm of what the decoder was given for it.
    pub latent_norm: f32,
    /// Time of the step, in milliseconds.
    pub time_ms: f64,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its latent steps.
    pub thoughts: Vec<Thought>,
    /// Its text.
    pub text: String,
    /// Its tokens, an end token included.
    pub tokens: Vec<u32>,
    /// Whether it came to its end.
    pub ended: bool,
    /// Tokens of the prompt, image tokens included.
    pub prompt_tokens: usize,
    /// Image tokens among them.
    pub image_tokens: usize,
    /// Tokens of the picture that latent steps appended to the context.
    pub appended_tokens: usize,
    /// From the pictures' bytes to the first token.
    pub first_token: Duration,
    /// From the first token to the last.
    pub rest: Duration,
    /// Where the time went.
    pub timing: Timing,
}

/// Everything a model is given to read: ids, and what its tower sees in the pictures.
struct Given {
    ids: Vec<u32>,
    pictures: Vec<pretrained::Picture>,
    pixels: Vec<Pixels>,
    /// Time of the vision tower.
    encoding: Duration,
}

/// Pixels of a picture as the family's processor makes them, and what the prompt must say of it.
fn process(processor: &Processor, model: &Pretrained, picture: &Picture) -> Result<(Pixels, PictureTokens)> {
    let processed = processor.process(picture)?;
    let values = Tensor::from_vec(processed.pixel_values, &processed.shape[..], &Device::Cpu)?;
    Ok(match processed.layout {
        Layout::Grid { rows, cols } => {
            let per_token = model.fine().map_or(1, |(_, per_token)| per_token);
            (Pixels::Patches { values, grid: PatchGrid { rows, cols } }, PictureTokens::Run(rows * cols / per_token))
        }
        Layout::Tiles { rows, cols } => {
            let tokens_per_tile = model.tile().map_or(0, |(tokens, _)| tokens);
            (Pixels::Tiles { values }, PictureTokens::Tiles { rows, cols, tokens_per_tile })
        }
    })
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
    /// Loads a folder onto the CPU; `format` as for [`Pretrained::from_folder`].
    ///
    /// # Errors
    /// Names the file, and the field, tensor or token that does not fit.
    pub fn from_folder(folder: &Path, format: Option<Format>) -> Result<Self> {
        Self::of(folder, Model::Published(Box::new(Pretrained::from_folder(folder, format)?)))
    }

    /// The same, with what training added to it.
    ///
    /// # Errors
    /// Also for an adapter of another base.
    pub fn adapted(folder: &Path, format: Option<Format>, adapter: &Adapter) -> Result<Self> {
        let refocused = Refocused::from_folder(folder, format, adapter)?;
        // Older adapters do not say it.
        let unsaid = || Ok::<_, Error>((!refocused.refocus.halts()?).then_some(refocused.refocus.settings().max_steps));
        let auto_steps = adapter.settings.auto_steps.map_or_else(unsaid, |steps| Ok(Some(steps)))?;
        Ok(Self { auto_steps, ..Self::of(folder, Model::Refocused(Box::new(refocused)))? })
    }

    /// When it stops thinking: as it is told to. `Auto` with an adapter whose halting head was not trained takes the latent steps
    /// that it was trained with: such a head says one half to everything, and would stop it before the first.
    #[must_use]
    pub fn settled(&self, steps: Steps) -> Steps {
        match (steps, self.auto_steps) {
            (Steps::Auto { .. }, Some(own)) => Steps::Fixed(own),
            _ => steps,
        }
    }

    fn of(folder: &Path, model: Model) -> Result<Self> {
        let chat = chat(folder)?;
        let processor = model.base().fine().map(|_| Processor::open(folder)).transpose()?;
        Ok(Self { model, chat, processor, auto_steps: None })
    }

    /// The model, or the base of its adapter.
    #[must_use]
    pub fn base(&self) -> &Pretrained {
        self.model.base()
    }

    /// The latent step that an adapter added.
    #[must_use]
    pub fn refocus(&self) -> Option<&Refocus> {
        match &self.model {
            Model::Published(_) => None,
            Model::Refocused(refocused) => Some(refocused.refocus.settings()),
        }
    }

    /// Where the image tokens of a picture lie on it; `None` for a language model alone.
    ///
    /// # Errors
    /// For pictures that the processor refuses.
    pub fn places(&self, picture: &Picture) -> Result<Option<Places>> {
        let (Some(processor), Some((_, per_token))) = (&self.processor, self.base().fine()) else { return Ok(None) };
        let side = self.base().tile().map_or(per_token, |(tokens, _)| tokens).isqrt();
        let size = Size::of(picture);
        let fine = match self.refocus() {
            Some(refocus) if refocus.memory == Memory::Fine && refocus.thinking != Thinking::Splice => per_token,
            _ => 1,
        };
        Ok(Some(Places::new(processor.layout(size)?, side, fine, size)))
    }

    /// Renders messages, processes and encodes their pictures.
    fn given(&self, messages: &[Message], pictures: &[&Picture], tap: &dyn Tap) -> Result<Given> {
        let Some(processor) = self.processor.as_ref().filter(|_| !pictures.is_empty()) else {
            let rendered = self.chat.render(messages, &RenderOptions::default())?;
            let ids = self.chat.encode(&rendered, &[])?.ids;
            return Ok(Given { ids, pictures: Vec::new(), pixels: Vec::new(), encoding: Duration::ZERO });
        };
        let processed = pictures.iter().map(|picture| process(processor, self.base(), picture));
        let (pixels, tokens): (Vec<_>, Vec<_>) = processed.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let rendered = self.chat.render(messages, &RenderOptions::default())?;
        let ids = self.chat.encode(&rendered, &tokens)?.ids;
        let begun = Instant::now();
        let pictures =
            pixels.iter().map(|pixels| self.base().encode(pixels, tap)).collect::<lare_model::Result<_>>()?;
        Ok(Given { ids, pictures, pixels, encoding: begun.elapsed() })
    }

    /// Answers; `on_text` hears the text as it comes. Of the folder's `generation_config.json`, the end tokens and the
    /// repetition penalty hold.
    ///
    /// # Errors
    /// For messages or pictures that the folder's template or processor refuses, and prompts longer than the context.
    pub fn answer(
        &self,
        messages: &[Message],
        pictures: &[&Picture],
        generation: &Generation,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Said> {
        let begun = Instant::now();
        let generation = &Generation { steps: self.taken(generation.steps)?, ..*generation };
        let model = self.base();
        let given = self.given(messages, pictures, &())?;
        let prepared = begun.elapsed().saturating_sub(given.encoding);
        let image_tokens = model.image_tokens(&given.ids).len();
        let Begun { mut cache, mut hidden, thoughts, prefill, think } = self.begin(&given, generation)?;
        let appended_tokens = self.appended(&thoughts);
        let taken = given.ids.len() + thoughts.len() + appended_tokens;
        let room = model.architecture.language.max_positions.saturating_sub(taken);
        let (mut sampler, mut decoder) = (Sampler::new(generation.sampling), self.chat.decoder());
        let eos = &self.chat.generation().eos;
        let penalty = self.chat.generation().repetition_penalty.map(|penalty| penalty as f32);
        let mut seen: BTreeSet<u32> = given.ids.iter().copied().collect();
        let (mut text, mut tokens, mut ended) = (String::new(), Vec::new(), false);
        let mut first_token = Duration::ZERO;
        while tokens.len() < generation.max_tokens.min(room) && !ended {
            if let Some(token) = tokens.last() {
                hidden = last(&model.go_on(&mut cache, &[vec![*token]], Rows::None, &())?.hidden)?;
            }
            let mut logits = finite_logits(model, &hidden)?;
            if let Some(penalty) = penalty {
                penalize(&mut logits, &seen, penalty);
            }
            let token = sampler.pick(&logits);
            seen.insert(token);
            first_token = if tokens.is_empty() { begun.elapsed() } else { first_token };
            tokens.push(token);
            ended = eos.contains(&token);
            let more = if ended { String::new() } else { decoder.push(token) };
            if !more.is_empty() {
                on_text(&more);
                text.push_str(&more);
            }
        }
        let more = decoder.finish();
        on_text(&more);
        text.push_str(&more);
        let timing = timing([prepared, given.encoding, prefill, think], begun.elapsed());
        let (prompt_tokens, rest) = (given.ids.len(), begun.elapsed().saturating_sub(first_token));
        Ok(Said {
            thoughts,
            text,
            tokens,
            ended,
            prompt_tokens,
            image_tokens,
            appended_tokens,
            first_token,
            rest,
            timing,
        })
    }
}

fn finite_logits(model: &Pretrained, hidden: &Tensor) -> Result<Vec<f32>> {
    let logits = model.language.logits(hidden)?.flatten_all()?.to_vec1::<f32>()?;
    match logits.iter().find(|logit| !logit.is_finite()) {
        None => Ok(logits),
        Some(got) => Err(Error::NotFinite { what: "a logit", got: *got }),
    }
}

/// Where the time went, from preparing, the vision tower, the prompt and the latent steps, and all of it.
fn timing(parts: [Duration; 4], total: Duration) -> Timing {
    let answer = total.saturating_sub(parts.iter().sum());
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let [prepare, encode, prefill, think] = parts.map(ms);
    Timing { prepare, encode, prefill, think, answer: ms(answer), total: ms(total) }
}

/// A prompt that was read, and thought about.
struct Begun {
    cache: Cache,
    /// Of its last position, `[1, D]`.
    hidden: Tensor,
    thoughts: Vec<Thought>,
    prefill: Duration,
    think: Duration,
}

impl Generator {
    /// Tokens of the picture that thoughts appended to the context.
    fn appended(&self, thoughts: &[Thought]) -> usize {
        match self.refocus() {
            Some(refocus) if refocus.thinking == Thinking::Splice => thoughts.iter().map(|t| t.chosen.len()).sum(),
            _ => 0,
        }
    }

    /// When it stops thinking, once that is something it can do.
    fn taken(&self, steps: Steps) -> Result<Steps> {
        self.refuse_steps(steps)?;
        Ok(self.settled(steps))
    }

    /// Refuses steps that the adapter was not trained for, and a threshold that is no probability.
    fn refuse_steps(&self, steps: Steps) -> Result<()> {
        let most = self.refocus().map_or(0, |refocus| refocus.max_steps);
        let fail = |field, expected: String, got: String, hint| Err(Error::Option { field, expected, got, hint });
        match steps {
            Steps::Fixed(steps) if steps > most => {
                let hint = "more steps than the adapter was trained for mean nothing";
                fail("steps", format!("0 to {most}, the adapter's refocus.max_steps"), steps.to_string(), hint)
            }
            Steps::Auto { threshold } if !(0.0..=1.0).contains(&threshold) => {
                fail("halt-threshold", "0 to 1".into(), threshold.to_string(), "0.5 is the usual threshold")
            }
            _ => Ok(()),
        }
    }

    /// Reads a prompt. With an adapter, what stands up to its last picture is looked at, and then it thinks.
    fn begin(&self, given: &Given, generation: &Generation) -> Result<Begun> {
        let begun = Instant::now();
        let places = self.base().image_tokens(&given.ids);
        match (&self.model, places.last()) {
            (Model::Refocused(model), Some(place)) => {
                let (first, own) = given.ids.split_at(place + 1);
                think(model, &Text { ids: first, pictures: &given.pictures }, own, generation, &self.chat)
            }
            _ => {
                let (first, own) = given.ids.split_at(given.ids.len().saturating_sub(1));
                let prefix = self.base().open(&[Text { ids: first, pictures: &given.pictures }], &())?;
                let mut cache = prefix.begin(vec![0].into());
                let run = self.base().go_on(&mut cache, &[own.to_vec()], Rows::None, &())?;
                let (hidden, prefill, think) = (last(&run.hidden)?, begun.elapsed(), Duration::ZERO);
                Ok(Begun { cache, hidden, thoughts: Vec::new(), prefill, think })
            }
        }
    }
}

/// Of hidden states `[B, T, D]` those of the last position, `[B, D]`.
fn last(hidden: &Tensor) -> Result<Tensor> {
    Ok(hidden.i((.., hidden.dim(1)? - 1))?.contiguous()?)
}

/// Reads `own` behind what was looked at, and takes latent steps.
fn think(model: &Refocused, looked_at: &Text, own: &[u32], generation: &Generation, chat: &Chat) -> Result<Begun> {
    let begun = Instant::now();
    let scene = model.look(std::slice::from_ref(looked_at))?;
    let prompts = Prompts { ids: vec![own.to_vec()], picture_of_row: vec![0].into() };
    let mut thread = model.prompt(&scene, &prompts)?;
    let (most, threshold) = match generation.steps {
        Steps::Fixed(steps) => (steps, f32::INFINITY),
        Steps::Auto { threshold } => (model.refocus.settings().max_steps, threshold),
    };
    let halt = |thread: &Thread| -> Result<f32> {
        let logit = model.halt_logits(thread)?.to_vec1::<f32>()?[0];
        finite("a halting probability", 1.0 / (1.0 + (-logit).exp()))
    };
    let prefill = begun.elapsed();
    let (mut thoughts, mut halt_probability) = (Vec::new(), halt(&thread)?);
    while thoughts.len() < most && halt_probability < threshold {
        let step = Instant::now();
        model.step(&scene, &mut thread, &[true], Intervention::default())?;
        halt_probability = halt(&thread)?;
        if let (Some(focus), Some(latent)) = (thread.steps.last(), thread.latents.last()) {
            let norm = latent.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?;
            let nearest = match generation.nearest_words {
                0 => Vec::new(),
                count => best_words(chat, &model.nearest_words(focus.holds())?.flatten_all()?.to_vec1()?, count),
            };
            thoughts.push(Thought {
                nearest,
                latent_norm: finite("a thought", norm)?,
                time_ms: step.elapsed().as_secs_f64() * 1e3,
                scores: focus.log_scores.exp()?.flatten_all()?.to_vec1()?,
                chosen: focus.chosen[0].clone(),
                gate_mean: finite("a gate", focus.gate_mean.to_vec1::<f32>()?[0])?,
                halt_probability,
            });
        }
    }
    let think = begun.elapsed().saturating_sub(prefill);
    Ok(Begun { cache: thread.cache, hidden: thread.hidden, thoughts, prefill, think })
}

/// The entries of the vocabulary with the highest scores; of tokens without a text of their own, their name.
fn best_words(chat: &Chat, scores: &[f32], count: usize) -> Vec<Word> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
    let text = |id: u32| match chat.tokenizer().decode(&[id]) {
        text if text.trim().is_empty() => chat.tokenizer().token(id).unwrap_or_default(),
        text => text.trim().to_owned(),
    };
    order.into_iter().take(count).map(|id| Word { text: text(id), score: scores[id as usize] }).collect()
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
    format: Option<Format>,
    adapter: Option<&Adapter>,
    pictures: &[&Picture],
    prompt: Prompt,
) -> Result<BTreeMap<String, Tensor>> {
    let kept = Kept::default();
    let loaded = || -> Result<Model> {
        Ok(match adapter {
            None => Model::Published(Box::new(Pretrained::from_folder(folder, format)?)),
            Some(adapter) => Model::Refocused(Box::new(Refocused::from_folder(folder, format, adapter)?)),
        })
    };
    let (model, given) = match prompt {
        Prompt::Question(text) => {
            let generator = Generator::of(folder, loaded()?)?;
            let given = generator.given(&[question(pictures.len(), text)], pictures, &kept)?;
            (generator.model.into_base(), given)
        }
        Prompt::Ids(ids) => {
            let model = loaded()?.into_base();
            let processor = if pictures.is_empty() { None } else { Some(Processor::open(folder)?) };
            let processed = pictures.iter().zip(processor.iter().cycle());
            let pixels = processed.map(|(picture, processor)| Ok(process(processor, &model, picture)?.0));
            let pixels = pixels.collect::<Result<Vec<_>>>()?;
            let pictures = pixels.iter().map(|p| model.encode(p, &kept)).collect::<lare_model::Result<_>>()?;
            (model, Given { ids: ids.to_vec(), pictures, pixels, encoding: Duration::ZERO })
        }
    };
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
