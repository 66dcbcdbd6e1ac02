//! Conversations that stand apart, each at its own place, taken further together: in one pass of the decoder some read their
//! prompts, others take a latent step, each its own, and others say their answers.
//!
//! ```text
//! Ground ─ Conversation ─┐          ┌─ words of a prompt ───────────────┐
//! Ground ─ Conversation ─┼─ Turn ───┼─ a latent step: Refocus::forward ─┼─ one pass ─► hidden states, looks
//! Ground ─ Conversation ─┘          └─ words of an answer ──────────────┘
//! ```
//!
//! [`crate::Thread`] moves the rows of a training batch in step, with holes where one is shorter. Here are none, and with
//! frozen weights a conversation has the same bits in any company: whatever is computed for several at once treats each row
//! by itself, and rows whose steps or pictures differ in size are not padded but computed in groups.

use crate::cache::Slab;
use crate::config::Thinking;
use crate::context::Own;
use crate::decoder::{Decoder, Prefix};
use crate::mask::Line;
use crate::reasoning::{Intervention, ReplaceThought, Scene, attends, in_context, looked_by_now, next_thought};
use crate::refocus::{Focus, Look, Present, Refocus};
use crate::{Error, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a conversation goes on from: one prefix, without padding.
#[derive(Clone, Debug)]
pub enum Ground {
    /// Pictures that can be looked at again.
    Scene(Scene),
    /// Something that was read, pictures included.
    Prefix(Prefix),
}

impl Ground {
    /// What the decoder remembers.
    pub fn prefix(&self) -> &Prefix {
        match self {
            Self::Scene(scene) => &scene.prefix,
            Self::Prefix(prefix) => prefix,
        }
    }

    /// What can be looked at again.
    pub fn scene(&self) -> Option<&Scene> {
        match self {
            Self::Scene(scene) => Some(scene),
            Self::Prefix(_) => None,
        }
    }

    /// Bytes of its tensors, those of the memory included.
    pub fn bytes(&self) -> usize {
        let of = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        let prefix = self.prefix();
        let look = self.scene().map_or(0, |scene| scene.look.bytes());
        prefix.kv.iter().map(of).sum::<usize>() + of(&prefix.hidden) + look
    }
}

/// One conversation on its way.
#[derive(Debug)]
pub struct Conversation {
    ground: Arc<Ground>,
    slab: Slab,
    line: Line,
    hidden: Option<Tensor>, // [1, D]
    thoughts: Vec<Tensor>,  // each [1, D]
    rows: Vec<Tensor>,      // per layer [1, H, P]
    chosen_before: Vec<u32>,
    looked: Option<Tensor>, // [1, P]
}

/// What one conversation does in a pass.
pub enum Given<'a> {
    /// Reads or says these tokens, at least one.
    Words(&'a [u32]),
    /// Takes a latent step.
    Step(Change<'a>),
}

/// Replaces one thought, `[D]` of mean square 1, where it lies.
pub type ReplaceInPlace<'a> = Box<dyn Fn(&mut [f32]) + 'a>;

/// What a causal test puts in the place of parts of one conversation's step. The default changes nothing.
#[derive(Default)]
pub struct Change<'a> {
    /// Replaces the thought.
    pub thought: Option<ReplaceInPlace<'a>>,
    /// What it reads again in place of what it chooses.
    pub patches: Option<Vec<u32>>,
}

/// A conversation and what it does in a pass.
pub struct Turn<'a> {
    /// The conversation.
    pub of: &'a mut Conversation,
    /// What it does.
    pub given: Given<'a>,
}

impl Conversation {
    /// Begins on a ground, with room for as many slots of its own as the slab has.
    ///
    /// # Errors
    /// [`Error::Arguments`] for a ground of several prefixes, or a padded one.
    pub fn new(ground: Arc<Ground>, slab: Slab) -> Result<Self> {
        let prefix = ground.prefix();
        let ([next], true) = (&prefix.next_position[..], prefix.visible.iter().all(|visible| *visible)) else {
            let got = format!("{}, or one that is padded", prefix.next_position.len());
            return Err(Error::Arguments { what: "prefixes of a conversation", expected: "1, whole".into(), got });
        };
        let line = Line::new(*next);
        let (thoughts, rows, chosen_before) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { ground, slab, line, hidden: None, thoughts, rows, chosen_before, looked: None })
    }

    /// What it goes on from.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Latent steps it has taken.
    pub fn steps(&self) -> usize {
        self.thoughts.len()
    }

    /// The normalised hidden state of its last slot, `[1, D]`; none before it was given anything.
    pub fn hidden(&self) -> Option<&Tensor> {
        self.hidden.as_ref()
    }

    /// The thought of its first step, `[1, D]`.
    pub fn first_thought(&self) -> Option<&Tensor> {
        self.thoughts.first()
    }

    /// Ends it and gives its slab back, to be used again.
    pub fn into_slab(self) -> Slab {
        self.slab
    }

    /// Its context in a pass that gives it `new` slots.
    fn own(&self, new: usize, attends: bool) -> Own<'_> {
        let row = attends && self.ground.scene().is_some();
        Own { prefix: self.ground.prefix(), slab: &self.slab, line: self.line, new, row }
    }

    fn scene(&self) -> Result<&Scene> {
        self.ground.scene().ok_or_else(|| Error::Arguments {
            what: "latent steps",
            expected: "none: there is nothing to look at again".into(),
            got: "one".into(),
        })
    }
}

/// The hidden states of conversations that have one, one behind the other, `[B, D]`.
pub fn hidden_of<'a>(all: impl Iterator<Item = &'a Conversation>) -> Result<Tensor> {
    let hidden: Vec<&Tensor> = all.filter_map(Conversation::hidden).collect();
    Ok(Tensor::cat(&hidden, 0)?)
}

/// A step that was computed and is to go through the decoder.
struct Taken {
    focus: Focus,
    /// What enters the context, `[n, D]`.
    slots: Tensor,
    looked: Option<Tensor>,
}

/// Takes conversations further, all in one pass of the decoder. Each then stands behind what it was given; of those that took
/// a step comes what they saw and thought, tensors of one row each.
///
/// After an error none of them has moved.
///
/// # Errors
/// [`Error::Arguments`] for no words, for steps of a model or on a ground without them, more steps than there may be, and
/// conversations that outgrow their slab or `max_positions`.
pub fn pass(language: &Decoder, refocus: Option<&Refocus>, turns: &mut [Turn]) -> Result<Vec<Option<Focus>>> {
    let mut taken = take_steps(language, refocus, turns)?;
    let mut slots = words(language, turns)?;
    for (slots, taken) in slots.iter_mut().zip(&taken) {
        if let Some(taken) = taken {
            *slots = Some(taken.slots.clone());
        }
    }
    let slots: Vec<Tensor> = slots.into_iter().flatten().collect();
    let counts = slots.iter().map(|slots| Ok(slots.dims2()?.0)).collect::<Result<Vec<usize>>>()?;
    let attends = refocus.is_some_and(attends);
    let all: Vec<Own> = turns.iter().zip(&counts).map(|(turn, new)| turn.of.own(*new, attends)).collect();
    if let Some(full) = all.iter().find(|own| own.line.slots() + own.new > own.slab.slots()) {
        let (expected, got) = (format!("at most {}", full.slab.slots()), full.line.slots() + full.new);
        return Err(Error::Arguments { what: "slots of a conversation", expected, got: got.to_string() });
    }
    let (hidden, rows) = language.over_apart(&Tensor::cat(&slots, 0)?, &all)?;
    let mut last = 0;
    let ends = counts.iter().map(|new| {
        last += new;
        Ok(hidden.narrow(0, last - 1, 1)?.copy()?)
    });
    let ends = ends.collect::<Result<Vec<Tensor>>>()?;
    let over_cells = turns.iter().zip(rows).map(|(turn, rows)| match turn.of.ground.scene() {
        Some(scene) if !rows.is_empty() => scene.over_cells(rows, &[0]),
        _ => Ok(Vec::new()),
    });
    let over_cells = over_cells.collect::<Result<Vec<_>>>()?;
    // From here on nothing fails.
    for (((turn, rows), hidden), (taken, new)) in
        turns.iter_mut().zip(over_cells).zip(ends).zip(taken.iter_mut().zip(&counts))
    {
        let of = &mut *turn.of;
        of.line.append(*new);
        if let Some(taken) = taken {
            if refocus.is_some_and(|refocus| refocus.settings().thinking == Thinking::Splice) {
                taken.focus.after = Some(hidden.clone());
            }
            of.thoughts.push(taken.focus.thought.clone());
            of.chosen_before.extend(taken.focus.chosen.iter().flatten());
            of.looked = taken.looked.take();
        }
        (of.hidden, of.rows) = (Some(hidden), rows);
    }
    Ok(taken.into_iter().map(|taken| taken.map(|taken| taken.focus)).collect())
}

/// Embeddings of the words that turns are given, `[t, D]` each.
fn words(language: &Decoder, turns: &[Turn]) -> Result<Vec<Option<Tensor>>> {
    let given = |turn: &Turn| match turn.given {
        Given::Words(ids) => ids.to_vec(),
        Given::Step(_) => Vec::new(),
    };
    let ids: Vec<Vec<u32>> = turns.iter().map(given).collect();
    let empty = |(turn, ids): (&Turn, &Vec<u32>)| matches!(turn.given, Given::Words(_)) && ids.is_empty();
    if turns.is_empty() || turns.iter().zip(&ids).any(empty) {
        let (expected, got) = ("at least one turn, and a word in each".into(), format!("{} turns", turns.len()));
        return Err(Error::Arguments { what: "words", expected, got });
    }
    let all = ids.concat();
    if all.is_empty() {
        return Ok(turns.iter().map(|_| None).collect());
    }
    let device = turns[0].of.ground.prefix().hidden.device();
    let embedded = language.embed(&Tensor::from_slice(&all, (1, all.len()), device)?)?.squeeze(0)?;
    let mut first = 0;
    let own = ids.iter().map(|ids| {
        let own = (!ids.is_empty()).then(|| embedded.narrow(0, first, ids.len())).transpose()?;
        first += ids.len();
        Ok(own)
    });
    own.collect()
}

/// Computes the steps of all turns that take one: in groups of equally many steps before and cells to look at.
fn take_steps(language: &Decoder, refocus: Option<&Refocus>, turns: &[Turn]) -> Result<Vec<Option<Taken>>> {
    let mut taken: Vec<Option<Taken>> = turns.iter().map(|_| None).collect();
    let mut groups: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (number, turn) in turns.iter().enumerate() {
        if let Given::Step(_) = turn.given {
            groups.entry((turn.of.steps(), turn.of.scene()?.look.patches())).or_default().push(number);
        }
    }
    for ((steps, _), group) in groups {
        let Some(refocus) = refocus else {
            let (expected, got) = ("none of a model that was not taught them".into(), "one".into());
            return Err(Error::Arguments { what: "latent steps", expected, got });
        };
        let members: Vec<&Turn> = group.iter().map(|number| &turns[*number]).collect();
        let new = together(language, refocus, &members, steps)?;
        for (number, new) in group.into_iter().zip(new) {
            taken[number] = Some(new);
        }
    }
    Ok(taken)
}

/// The steps of turns that stand at the same step before as many cells.
fn together(language: &Decoder, refocus: &Refocus, turns: &[&Turn], steps: usize) -> Result<Vec<Taken>> {
    let of: Vec<&Conversation> = turns.iter().map(|turn| &*turn.of).collect();
    let beside = |pick: &dyn Fn(&Conversation) -> Option<&Tensor>| -> Result<Option<Tensor>> {
        let own: Vec<&Tensor> = of.iter().filter_map(|of| pick(of)).collect();
        Ok(if own.len() == of.len() { Some(Tensor::cat(&own, 0)?) } else { None })
    };
    let Some(hidden) = beside(&Conversation::hidden)? else {
        let (expected, got) = ("after a prompt".into(), "a conversation that was given nothing yet".into());
        return Err(Error::Arguments { what: "latent steps", expected, got });
    };
    let earlier = (0..steps).map(|step| beside(&|of| of.thoughts.get(step)));
    let earlier: Vec<Tensor> = earlier.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    let layers = of.first().map_or(0, |of| of.rows.len());
    let rows = (0..layers).map(|layer| beside(&|of| of.rows.get(layer)));
    let rows: Vec<Tensor> = rows.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    let looked = beside(&|of| of.looked.as_ref())?;
    let looks = of.iter().map(|of| Ok(&of.scene()?.look)).collect::<Result<Vec<&Look>>>()?;
    let look = Look::beside(&looks)?;
    let chosen_before: Vec<Vec<u32>> = of.iter().map(|of| of.chosen_before.clone()).collect();
    let now = Present {
        hidden: &hidden,
        earlier: &earlier,
        rows: &rows,
        picture_of_row: &(0..of.len() as u32).collect(),
        chosen_before: &chosen_before,
        looked: looked.as_ref(),
    };
    let changes: Vec<&Change> = turns.iter().filter_map(|turn| turn.change()).collect();
    let patches: Vec<Option<Vec<u32>>> = changes.iter().map(|change| change.patches.clone()).collect();
    let replace = |_: usize, own: &Tensor| replaced(own, &changes);
    let thought: Option<ReplaceThought> =
        if changes.iter().any(|change| change.thought.is_some()) { Some(&replace) } else { None };
    let change = Intervention { thought, patches: &patches };
    let (focus, latent) = next_thought(language, refocus, &now, &look, change)?;
    let looked = looked_by_now(refocus, looked.as_ref(), &focus, &patches)?;
    let (slots, real) = in_context(&latent, focus.spliced.as_ref(), &vec![true; of.len()])?;
    let row = |(row, real): (usize, Vec<bool>)| {
        let slots = slots.get(row)?; // [n, D]
        let slots = if real.iter().all(|real| *real) {
            slots
        } else {
            let places: Vec<u32> = (0..).zip(&real).filter(|(_, real)| **real).map(|(place, _)| place).collect();
            slots.index_select(&Tensor::new(places, slots.device())?, 0)?
        };
        let looked = looked.as_ref().map(|looked| looked.narrow(0, row, 1)).transpose()?;
        Ok(Taken { focus: focus.of_row(row)?, slots, looked })
    };
    real.into_iter().enumerate().map(row).collect()
}

impl Turn<'_> {
    fn change(&self) -> Option<&Change<'_>> {
        match &self.given {
            Given::Step(change) => Some(change),
            Given::Words(_) => None,
        }
    }
}

/// Thoughts `[B, D]` with those of some rows replaced.
fn replaced(own: &Tensor, changes: &[&Change]) -> Result<Tensor> {
    let mut thoughts = own.to_vec2::<f32>()?;
    for (thought, change) in thoughts.iter_mut().zip(changes) {
        if let Some(replace) = &change.thought {
            replace(thought);
        }
    }
    Ok(Tensor::from_vec(thoughts.concat(), own.shape(), own.device())?)
}
