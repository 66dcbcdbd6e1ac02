//! The latent loop over any decoder: prompt, K latent steps, answer.
//!
//! ```text
//! Scene ─ prompt ─► Thread ─ step × K ─► Thread ─ say ─► logits
//! ```
//!
//! A latent step stands where a word would: its thought is the input of one slot, behind all slots so far, and its rotary
//! position counts on from the word before it. For M-RoPE that is all three positions, as for words [ours]; so a prompt's
//! pictures push latents as far as they push words, and with no step the model is the one that was published.

use crate::cache::Cache;
use crate::config::{Scorer, Thinking};
use crate::conversation::{self, Turn};
use crate::decoder::{Decoder, Prefix, Rows};
use crate::refocus::{Focus, Look, Present, Refocus, Spliced};
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
    /// Where its cells lie in the prefix.
    pub cells: Cells,
}

/// Where the cells that a step looks at lie among the slots of a prefix.
#[derive(Clone, Debug)]
pub enum Cells {
    /// Slot `p` is cell `p`.
    All,
    /// The cells' coarse tokens come first, and then their details, as many for each cell: what these got counts, for details
    /// are what a look is for.
    Details,
    /// Among other slots: `places` `[S, P]` (u32) and `real` `[S, P]`, 1 for a cell and 0 for padding.
    Among {
        /// The slot of each cell.
        places: Tensor,
        /// What attention there counts for.
        real: Tensor,
    },
}

impl Scene {
    /// Attention rows `[B, .., slots of the prefix]` to rows over its cells, `[B, .., P]`. `picture_of_row`: `[B]`.
    pub(crate) fn over_cells(&self, rows: Vec<Tensor>, picture_of_row: &[u32]) -> Result<Vec<Tensor>> {
        let p = self.look.patches();
        rows.into_iter().map(|row| self.cells.of(row, p, picture_of_row)).collect()
    }
}

impl Cells {
    fn of(&self, row: Tensor, p: usize, picture_of_row: &[u32]) -> Result<Tensor> {
        let (mut shape, slots) = (row.dims().to_vec(), row.dim(D::Minus1)?);
        shape.pop();
        Ok(match self {
            Self::All => row,
            Self::Details => {
                shape.extend([p, slots / p.max(1) - 1]);
                row.narrow(D::Minus1, p, slots - p)?.contiguous()?.reshape(shape)?.sum(D::Minus1)?
            }
            Self::Among { places, real } => {
                let (b, maps) = (picture_of_row.len(), shape.iter().skip(1).product::<usize>());
                let pictures = Tensor::from_slice(picture_of_row, b, row.device())?;
                let of_row = |x: &Tensor| -> Result<Tensor> { Ok(x.index_select(&pictures, 0)?.unsqueeze(1)?) };
                let places = of_row(places)?.broadcast_as((b, maps, p))?.contiguous()?;
                let cells = row.reshape((b, maps, slots))?.gather(&places, 2)?.broadcast_mul(&of_row(real)?)?;
                shape.push(p);
                cells.reshape(shape)?
            }
        })
    }
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

/// A model that takes latent steps: all of them take them in the same way.
pub trait Reasoning {
    /// The decoder.
    fn language(&self) -> &Decoder;

    /// The latent step.
    fn refocus(&self) -> &Refocus;

    /// Reads the prompts. Shorter prompts get holes in front, which nobody sees.
    fn prompt(&self, scene: &Scene, prompts: &Prompts) -> Result<Thread> {
        let longest = prompts.ids.iter().map(Vec::len).max().unwrap_or(0);
        if longest == 0 || prompts.ids.iter().any(Vec::is_empty) || prompts.ids.len() != prompts.picture_of_row.len() {
            return Err(Error::Arguments {
                what: "prompts",
                expected: "at least one token, and a picture for each".into(),
                got: format!("{} prompts, {} pictures", prompts.ids.len(), prompts.picture_of_row.len()),
            });
        }
        let mut cache = scene.prefix.begin(prompts.picture_of_row.clone());
        let run = self.language().over_words(&prompts.ids, true, &mut cache, rows_of_a_step(self.refocus()), &())?;
        let hidden = run.hidden.i((.., longest - 1))?.contiguous()?;
        let rows = scene.over_cells(run.rows, &prompts.picture_of_row)?;
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
    fn step(&self, scene: &Scene, thread: &mut Thread, thinking: &[bool], change: Intervention) -> Result<()> {
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
        let language = self.language();
        let (mut focus, latent) = next_thought(language, self.refocus(), &now, &scene.look, change)?;
        let (x, real) = in_context(&latent, focus.spliced.as_ref(), thinking)?;
        let run = language.over_slots(&x, &real, &mut thread.cache, rows_of_a_step(self.refocus()), &())?;
        let next = run.hidden.i((.., x.dim(1)? - 1))?.contiguous()?;
        thread.hidden = keep_stopped(thinking, &next, &thread.hidden)?;
        if self.refocus().settings().thinking == Thinking::Splice {
            focus.after = Some(thread.hidden.clone());
        }
        thread.rows = scene.over_cells(run.rows, thread.cache.slots.shared_of_row())?;
        for (row, _) in thinking.iter().enumerate().filter(|(_, t)| **t) {
            thread.steps_of_row[row] += 1;
            thread.chosen_before[row].extend(&focus.chosen[row]);
        }
        thread.looked = looked_by_now(self.refocus(), thread.looked.as_ref(), &focus, change.patches)?;
        thread.steps.push(focus);
        thread.latents.push(latent);
        Ok(())
    }

    /// Takes as many steps as each row is given, `[B]`.
    fn think(&self, scene: &Scene, thread: &mut Thread, steps: &[usize]) -> Result<()> {
        for k in 0..steps.iter().copied().max().unwrap_or(0) {
            let thinking: Vec<bool> = steps.iter().map(|most| k < *most).collect();
            self.step(scene, thread, &thinking, Intervention::default())?;
        }
        Ok(())
    }

    /// Appends tokens to each row, `[B]` lists (shorter ones are padded behind), and gives the logits after each,
    /// `[B, T, V]`. Nobody thinks after that: `h` stays at the last thought.
    fn say(&self, thread: &mut Thread, ids: &[Vec<u32>]) -> Result<Tensor> {
        Ok(append(self.language(), thread, ids, Rows::None)?.0)
    }

    /// The same, and where each of these positions attended in the picture, as the scorer weighs it: `log s`, `[B, T, P]`.
    ///
    /// # Errors
    /// [`Error::Arguments`] for the scorer `dot_product`, which has no attention.
    fn say_attending(&self, scene: &Scene, thread: &mut Thread, ids: &[Vec<u32>]) -> Result<(Tensor, Tensor)> {
        if !self.attends() {
            let (expected, got) = ("those of a scorer that attends".into(), "none with `dot_product`".into());
            return Err(Error::Arguments { what: "attention rows", expected, got });
        }
        let (logits, rows) = append(self.language(), thread, ids, Rows::OverPicture)?;
        let rows = scene.over_cells(rows, thread.cache.slots.shared_of_row())?;
        Ok((logits, self.refocus().log_attended(&rows)?))
    }

    /// Whether the scores of a step are the decoder's own attention.
    fn attends(&self) -> bool {
        attends(self.refocus())
    }

    /// Logits of stopping now, `[B]`; positive to stop.
    fn halt_logits(&self, thread: &Thread) -> Result<Tensor> {
        self.refocus().halt_logits(&thread.hidden)
    }

    /// Takes conversations that stand apart further, all in one pass of the decoder.
    ///
    /// # Errors
    /// As [`conversation::pass`].
    fn pass(&self, turns: &mut [Turn]) -> Result<Vec<Option<Focus>>> {
        conversation::pass(self.language(), Some(self.refocus()), turns)
    }
}

/// The next thought of rows at one step, and what the decoder is to be given of it: the thought at the scale of its
/// embeddings, `[B, D]`. The one place where a latent step is computed.
pub(crate) fn next_thought(
    language: &Decoder,
    refocus: &Refocus,
    now: &Present,
    look: &Look,
    change: Intervention,
) -> Result<(Focus, Tensor)> {
    let mut focus = refocus.forward(now, look, change.patches)?;
    if let Some(replace) = change.thought {
        focus.thought = replace(now.earlier.len(), &focus.thought)?;
    }
    let latent = (&focus.thought * language.embedding_rms()?)?;
    Ok((focus, latent))
}

/// The sum of the scores of all steps so far, `[B, P]`, for a model that heeds it.
pub(crate) fn looked_by_now(
    refocus: &Refocus,
    before: Option<&Tensor>,
    focus: &Focus,
    patches: &[Option<Vec<u32>>],
) -> Result<Option<Tensor>> {
    if !refocus.settings().revisit {
        return Ok(None);
    }
    let scores = what_was_read(&focus.log_scores.exp()?, patches)?;
    Ok(Some(match before {
        None => scores,
        Some(earlier) => (earlier + scores)?,
    }))
}

pub(crate) fn attends(refocus: &Refocus) -> bool {
    refocus.settings().scorer != Scorer::DotProduct
}

fn rows_of_a_step(refocus: &Refocus) -> Rows {
    if attends(refocus) { Rows::Last } else { Rows::None }
}

/// Logits `[B, T, V]` after tokens that each row is given, shorter lists padded behind.
fn append(language: &Decoder, thread: &mut Thread, ids: &[Vec<u32>], rows: Rows) -> Result<(Tensor, Vec<Tensor>)> {
    let run = language.over_words(ids, false, &mut thread.cache, rows, &())?;
    thread.speaks = true;
    Ok((language.logits(&run.hidden)?, run.rows))
}

/// What a step appends to the context, `[B, N + 1, D]`, and which slots are real: what was spliced in, then the latent.
pub(crate) fn in_context(
    latent: &Tensor,
    spliced: Option<&Spliced>,
    thinking: &[bool],
) -> Result<(Tensor, Vec<Vec<bool>>)> {
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
