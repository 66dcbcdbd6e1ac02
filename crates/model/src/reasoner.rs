//! Backbone and refocusing together: encode, first look, prompt, K latent steps, answer.
//!
//! ```text
//! pixels ─ encode ─► Views ─ look ─► Scene ─ prompt ─► Thread ─ step × K ─► Thread ─ say ─► logits
//! ```

use crate::backbone::nano::Nano;
pub use crate::backbone::nano::{Grid, Views};
use crate::cache::Cache;
use crate::config::{Config, Context, Scorer, Thinking};
use crate::decoder::{Prefix, Rows};
use crate::refocus::{Focus, Look, Present, Refocus, Spliced};
use crate::semantic::Semantic;
use crate::weights::Path;
use crate::{Error, Result};
use candle_core::{D, DType, IndexOp, Tensor};
use std::sync::Arc;

/// Pictures that have been looked at once and can be asked about.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What the decoder remembers of them.
    pub prefix: Prefix,
    /// What refocusing reads.
    pub look: Look,
    /// `[S]`.
    pub grids: Vec<Grid>,
}

/// Prompts of a batch.
#[derive(Clone, Debug)]
pub struct Prompts {
    /// `[B]` lists of token ids, any lengths, none empty.
    pub ids: Vec<Vec<u32>>,
    /// `[B]`, the picture that each prompt asks about.
    pub picture_of_row: Arc<[u32]>,
}

/// A batch of conversations on their way.
#[derive(Clone, Debug)]
pub struct Thread {
    /// What the decoder remembers of the rows.
    pub cache: Cache,
    /// `h`, the normalised hidden state of each row's current position, `[B, D]`.
    pub hidden: Tensor,
    /// What each step saw and thought; a row that had stopped has a meaningless entry.
    pub steps: Vec<Focus>,
    /// What the decoder was given for each step, `[B, D]`: the thought at the scale of its embeddings.
    pub latents: Vec<Tensor>,
    /// Latent steps that each row took, `[B]`.
    pub steps_of_row: Vec<usize>,
    rows: Vec<Tensor>,
    chosen_before: Vec<Vec<u32>>,
    looked: Option<Tensor>, // [B, P]
    speaks: bool,
}

/// Replaces thoughts: step, thoughts `[B, D]` of mean square 1.
pub type ReplaceThought<'a> = &'a dyn Fn(usize, &Tensor) -> Result<Tensor>;

/// Replaces parts of a step, for causal tests. The default replaces nothing.
#[derive(Clone, Copy, Default)]
pub struct Intervention<'a> {
    /// Replaces the thought.
    pub thought: Option<ReplaceThought<'a>>,
    /// What each row reads again in place of what it chooses, `[B]`; a row with `None` chooses. Empty: all choose.
    pub patches: &'a [Option<Vec<u32>>],
}

/// The whole model.
#[derive(Clone, Debug)]
pub struct Reasoner {
    /// Encoders and decoder.
    pub backbone: Nano,
    /// The latent step.
    pub refocus: Refocus,
    /// Alignment and drawing.
    pub semantic: Semantic,
    config: Config,
}

impl Reasoner {
    /// Builds the model, asking for each parameter by name.
    pub fn new(config: &Config, path: Path) -> Result<Self> {
        Ok(Self {
            backbone: Nano::new(path, config)?,
            refocus: path.at("refocus", |p| Refocus::new(p, config))?,
            semantic: path.at("semantic", |p| Semantic::new(p, config))?,
            config: config.clone(),
        })
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Encodes pictures of one shape, `[S, height, width, 3]` in 0..1.
    pub fn encode(&self, pixels: &Tensor) -> Result<Views> {
        self.backbone.encode(pixels)
    }

    /// The first look: the decoder reads the coarse tokens, and refocusing prepares its memory.
    pub fn look(&self, views: &Views) -> Result<Scene> {
        let coarse = self.backbone.coarse_tokens(views)?;
        let fine = self.backbone.fine_features(views)?;
        let prefix = self.backbone.first_look(views, &coarse, &fine)?;
        let (_, p, _) = coarse.dims3()?;
        let hidden = prefix.hidden.narrow(1, 0, p)?.contiguous()?;
        let memory = match self.config.refocus.thinking {
            Thinking::Splice => self.backbone.merged(&fine)?,
            _ => fine,
        };
        let look = self.refocus.prepare([&coarse, &hidden, &memory], views.visible()?, &views.grids)?;
        Ok(Scene { prefix, look, grids: views.grids.clone() })
    }

    /// Reads the prompts. Shorter prompts get holes in front, which nobody sees.
    pub fn prompt(&self, scene: &Scene, prompts: &Prompts) -> Result<Thread> {
        let longest = prompts.ids.iter().map(Vec::len).max().unwrap_or(0);
        if longest == 0 || prompts.ids.iter().any(Vec::is_empty) || prompts.ids.len() != prompts.picture_of_row.len() {
            return Err(Error::Arguments {
                what: "prompts",
                expected: "at least one token, and a picture for each".into(),
                got: format!("{} prompts, {} pictures", prompts.ids.len(), prompts.picture_of_row.len()),
            });
        }
        let holes = |ids: &Vec<u32>| longest - ids.len();
        let real: Vec<Vec<bool>> =
            prompts.ids.iter().map(|ids| (0..longest).map(|i| i >= holes(ids)).collect()).collect();
        let padded: Vec<u32> =
            prompts.ids.iter().flat_map(|ids| std::iter::repeat_n(0, holes(ids)).chain(ids.iter().copied())).collect();
        let ids = Tensor::from_vec(padded, (prompts.ids.len(), longest), scene.prefix.hidden.device())?;

        let mut cache = scene.prefix.begin(prompts.picture_of_row.clone());
        let language = &self.backbone.language;
        let run = language.over_slots(&language.embed(&ids)?, &real, &mut cache, self.rows_of_a_step(), &())?;
        let hidden = run.hidden.i((.., longest - 1))?.contiguous()?;
        let rows = self.over_cells(run.rows, scene.look.patches())?;
        let b = prompts.ids.len();
        Ok(Thread {
            cache,
            hidden,
            steps: Vec::new(),
            latents: Vec::new(),
            steps_of_row: vec![0; b],
            rows,
            chosen_before: vec![Vec::new(); b],
            looked: None,
            speaks: false,
        })
    }

    /// One latent step of the rows that are still thinking; the others stay as they are. `thinking`: `[B]`; a row
    /// that has stopped cannot go on.
    pub fn step(&self, scene: &Scene, thread: &mut Thread, thinking: &[bool], change: Intervention) -> Result<()> {
        let taken = thread.steps.len();
        let goes_on = |(thinking, steps): (&bool, &usize)| !thinking || *steps == taken;
        if thread.speaks
            || thinking.len() != thread.steps_of_row.len()
            || !thinking.iter().zip(&thread.steps_of_row).all(goes_on)
        {
            return Err(Error::Arguments {
                what: "rows that think",
                expected: format!("{} rows, none that has stopped or speaks", thread.steps_of_row.len()),
                got: format!("{thinking:?} after {:?} steps", thread.steps_of_row),
            });
        }
        let earlier: Vec<Tensor> = thread.steps.iter().map(|s| s.thought.clone()).collect();
        let now = Present {
            hidden: &thread.hidden,
            earlier: &earlier,
            rows: &thread.rows,
            picture_of_row: &thread.cache.slots.shared_of_row().clone(),
            chosen_before: &thread.chosen_before,
            looked: thread.looked.as_ref(),
        };
        let mut focus = self.refocus.forward(&now, &scene.look, change.patches)?;
        if let Some(replace) = change.thought {
            focus.thought = replace(thread.steps.len(), &focus.thought)?;
        }
        let language = &self.backbone.language;
        let latent = (&focus.thought * language.embedding_rms()?)?;
        let (x, real) = in_context(&latent, focus.spliced.as_ref(), thinking)?;
        let run = language.over_slots(&x, &real, &mut thread.cache, self.rows_of_a_step(), &())?;
        let next = run.hidden.i((.., x.dim(1)? - 1))?.contiguous()?;
        thread.hidden = keep_stopped(thinking, &next, &thread.hidden)?;
        if self.config.refocus.thinking == Thinking::Splice {
            focus.after = Some(thread.hidden.clone());
        }
        thread.rows = self.over_cells(run.rows, scene.look.patches())?;
        for (row, _) in thinking.iter().enumerate().filter(|(_, t)| **t) {
            thread.steps_of_row[row] += 1;
            thread.chosen_before[row].extend(&focus.chosen[row]);
        }
        if self.config.refocus.revisit {
            let scores = what_was_read(&focus.log_scores.exp()?, change.patches)?;
            thread.looked = Some(match &thread.looked {
                None => scores,
                Some(earlier) => (earlier + scores)?,
            });
        }
        thread.steps.push(focus);
        thread.latents.push(latent);
        Ok(())
    }

    /// Takes as many steps as each row is given, `[B]`.
    pub fn think(&self, scene: &Scene, thread: &mut Thread, steps: &[usize]) -> Result<()> {
        for k in 0..steps.iter().copied().max().unwrap_or(0) {
            let thinking: Vec<bool> = steps.iter().map(|most| k < *most).collect();
            self.step(scene, thread, &thinking, Intervention::default())?;
        }
        Ok(())
    }

    /// Appends tokens to each row, `[B]` lists (shorter ones are padded behind), and gives the logits after each,
    /// `[B, T, V]`. Nobody thinks after that: `h` stays at the last thought.
    pub fn say(&self, thread: &mut Thread, ids: &[Vec<u32>]) -> Result<Tensor> {
        Ok(self.append(thread, ids, Rows::None)?.0)
    }

    /// The same, and where each of these positions attended in the picture, as the scorer weighs it: `log s`, `[B, T, P]`.
    ///
    /// # Errors
    /// [`Error::Arguments`] for the scorer `dot_product`, which has no attention.
    pub fn say_attending(&self, scene: &Scene, thread: &mut Thread, ids: &[Vec<u32>]) -> Result<(Tensor, Tensor)> {
        if !self.attends() {
            let (expected, got) = ("those of a scorer that attends".into(), "none with `dot_product`".into());
            return Err(Error::Arguments { what: "attention rows", expected, got });
        }
        let (logits, rows) = self.append(thread, ids, Rows::OverPicture)?;
        Ok((logits, self.refocus.log_attended(&self.over_cells(rows, scene.look.patches())?)?))
    }

    /// Whether the scores of a step are the decoder's own attention.
    pub fn attends(&self) -> bool {
        self.config.refocus.scorer != Scorer::DotProduct
    }

    fn append(&self, thread: &mut Thread, ids: &[Vec<u32>], rows: Rows) -> Result<(Tensor, Vec<Tensor>)> {
        let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
        let real: Vec<Vec<bool>> = ids.iter().map(|row| (0..longest).map(|i| i < row.len()).collect()).collect();
        let padded: Vec<u32> =
            ids.iter().flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0, longest - row.len()))).collect();
        let ids = Tensor::from_vec(padded, (ids.len(), longest), thread.hidden.device())?;
        let language = &self.backbone.language;
        let run = language.over_slots(&language.embed(&ids)?, &real, &mut thread.cache, rows, &())?;
        thread.speaks = true;
        Ok((language.logits(&run.hidden)?, run.rows))
    }

    /// Logits of stopping now, `[B]`; positive to stop.
    pub fn halt_logits(&self, thread: &Thread) -> Result<Tensor> {
        self.refocus.halt_logits(&thread.hidden)
    }

    /// The vocabulary words nearest to thoughts `[B, D]`: cosine similarities `[B, V]`.
    pub fn nearest_words(&self, thoughts: &Tensor) -> Result<Tensor> {
        let unit = |x: &Tensor| -> Result<Tensor> {
            let norm = (x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()? + 1e-12)?;
            Ok(x.broadcast_div(&norm)?)
        };
        let words = unit(&self.backbone.language.embedding().to_tensor(thoughts.device())?.detach())?;
        Ok(unit(thoughts)?.matmul(&words.t()?)?)
    }

    fn rows_of_a_step(&self) -> Rows {
        if self.attends() { Rows::Last } else { Rows::None }
    }

    /// Attention rows `[.., all of a picture's tokens]` to rows over its `p` cells: what their fine features got where the
    /// context has them, for details are what a look is for, and else what the coarse tokens got.
    fn over_cells(&self, rows: Vec<Tensor>, p: usize) -> Result<Vec<Tensor>> {
        let over = |row: Tensor| -> Result<Tensor> {
            let all = row.dim(D::Minus1)?;
            Ok(match self.config.language.context {
                Context::Coarse => row,
                Context::CoarseAndFine => {
                    let mut shape = row.dims().to_vec();
                    shape.pop();
                    shape.extend([p, all / p.max(1) - 1]);
                    row.narrow(D::Minus1, p, all - p)?.contiguous()?.reshape(shape)?.sum(D::Minus1)?
                }
            })
        };
        rows.into_iter().map(over).collect()
    }
}

/// What a step appends to the context, `[B, N + 1, D]`, and which slots are real: what was spliced in, then the latent.
fn in_context(latent: &Tensor, spliced: Option<&Spliced>, thinking: &[bool]) -> Result<(Tensor, Vec<Vec<bool>>)> {
    let latent = latent.unsqueeze(1)?;
    let Some(Spliced { tokens, real }) = spliced else {
        return Ok((latent, thinking.iter().map(|thinks| vec![*thinks]).collect()));
    };
    let all = real.iter().zip(thinking).map(|(real, thinks)| {
        let slots = real.iter().copied().chain([true]);
        slots.map(|slot| slot && *thinks).collect()
    });
    Ok((Tensor::cat(&[tokens, &latent], 1)?, all.collect()))
}

/// The scores `[B, P]`, but shared evenly among the patches of rows that were given some: what was read, not what was
/// wanted.
fn what_was_read(scores: &Tensor, patches: &[Option<Vec<u32>>]) -> Result<Tensor> {
    if patches.iter().all(Option::is_none) {
        return Ok(scores.clone());
    }
    let (b, p) = scores.dims2()?;
    let own: Vec<f32> = patches.iter().map(|given| if given.is_none() { 1.0 } else { 0.0 }).collect();
    let mut even = vec![0f32; b * p];
    for (even, given) in even.chunks_mut(p).zip(patches) {
        let given = given.as_deref().unwrap_or_default();
        given.iter().for_each(|patch| even[*patch as usize] += 1.0 / given.len() as f32);
    }
    let own = Tensor::from_vec(own, (b, 1), scores.device())?;
    Ok((scores.broadcast_mul(&own)? + Tensor::from_vec(even, (b, p), scores.device())?)?)
}

/// `next` where a row is thinking, `old` where it has stopped, `[B, D]`.
fn keep_stopped(thinking: &[bool], next: &Tensor, old: &Tensor) -> Result<Tensor> {
    if thinking.iter().all(|t| *t) {
        return Ok(next.clone());
    }
    let mask: Vec<u8> = thinking.iter().map(|t| u8::from(*t)).collect();
    let mask = Tensor::from_vec(mask, (thinking.len(), 1), next.device())?.to_dtype(DType::U8)?;
    Ok(mask.broadcast_as(next.shape())?.where_cond(next, old)?)
}
