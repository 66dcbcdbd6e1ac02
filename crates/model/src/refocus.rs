//! One latent step: the model looks at the picture again and turns what it sees into its next thought.
//!
//! Multimodal reasoning via latent refocusing (Ma et al., arXiv 2511.02360). At step `k`, with the hidden state
//! `h` of the current position:
//!
//! ```text
//! s = where the model would look, one weight per patch             [P] look again; [ours] the form of the score
//! I = the R patches with the largest s, or the best square of R    [ours]
//! u = LQFormer(queries = [h; z_1 .. z_{k-1}], memory at I, bias = log s[I])     [P] the name; [ours] its inside
//! g = sigmoid(W [h; u] + b)                                        [P] gated fusion; form [ours]
//! z = (g * u + (1 - g) * h), scaled to the norm of a token embedding            [ours]
//! ```
//!
//! and `z` is the next input of the decoder. The baselines that the method is compared with differ in what is fed back
//! ([`Thinking`]) and in which patches are read ([`Choice`]), and in nothing else.
//!
//! Earlier thoughts enter the queries at the scale of hidden states, mean
//! square 1: at an embedding's norm the step embedding would drown them. `u` starts from `h` and has seen earlier
//! thoughts too, so an open gate alone does not say that a thought comes from the picture.
//!
//! Choosing the best patches has no gradient; the bias has: it lets the answer's loss rank the chosen patches. A
//! softmax over the chosen ones is blind to what they have in common, so it brings in no other patch: with
//! `dot_product` what is chosen is learned from the focus loss, that is, from regions; the attention scorers are
//! trained by whatever trains the decoder's attention. Training, inference and evaluation all call
//! [`Refocus::forward`].

use crate::config::{Choice, Memory, Scorer, Thinking};
pub use crate::look::Look;
use crate::mask;
use crate::nn::{Linear, sigmoid};
use crate::qformer::{QFormer, Reading};
use crate::weights::{Init, Path};
use crate::{Error, Result};
use candle_core::{D, Tensor};
use lare_kernels as kernels;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The grid of cells of one picture, or of one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Cells from top to bottom.
    pub rows: usize,
    /// Cells from left to right.
    pub cols: usize,
}

impl Grid {
    /// `P`.
    pub fn cells(self) -> usize {
        self.rows * self.cols
    }
}

/// What refocusing must know of the model around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Around {
    /// `D`.
    pub width: usize,
    /// `L * H`, the decoder's attention maps.
    pub maps: usize,
    /// Added to the mean square inside norms.
    pub norm_eps: f64,
    /// `Dv`, the width of a memory entry, or of what a splice makes a token of.
    pub memory_width: usize,
    /// Memory entries at one patch.
    pub per_patch: usize,
}

/// Where one conversation batch stands before a step.
pub struct Present<'a> {
    /// `h`, the normalised hidden state of the current position, `[B, D]`.
    pub hidden: &'a Tensor,
    /// The thoughts so far, each `[B, D]`.
    pub earlier: &'a [Tensor],
    /// Attention rows of the current position over the picture's cells per layer, each `[B, H, P]`; empty for `DotProduct`.
    pub rows: &'a [Tensor],
    /// `[B]`, the picture that each row is about.
    pub picture_of_row: &'a Arc<[u32]>,
    /// `[B]`, patches chosen at earlier steps.
    pub chosen_before: &'a [Vec<u32>],
    /// The sum of the scores of all earlier steps, `[B, P]`; `None` before the first.
    pub looked: Option<&'a Tensor>,
}

/// What one step saw and thought.
#[derive(Clone, Debug)]
pub struct Focus {
    /// `log s`, `[B, P]`; the exponentials of each row sum to 1.
    pub log_scores: Tensor,
    /// `I`, `[B]` lists of at most `R` patches, best first.
    pub chosen: Vec<Vec<u32>>,
    /// `z` before it is scaled down to an embedding's norm: mean square 1, `[B, D]`.
    pub thought: Tensor,
    /// For [`Thinking::Splice`], whose `z` is from before the look, the hidden state after it, `[B, D]`.
    pub after: Option<Tensor>,
    /// Mean of `g`, `[B]`: 0 is all `h`, 1 is all `u`.
    pub gate_mean: Tensor,
    /// What enters the context before the thought.
    pub spliced: Option<Spliced>,
}

/// Tokens that a look appends to the context.
#[derive(Clone, Debug)]
pub struct Spliced {
    /// `[B, N, D]`.
    pub tokens: Tensor,
    /// `[B][N]`; false where a row has fewer.
    pub real: Vec<Vec<bool>>,
}

/// What turns a look into a thought.
#[derive(Clone, Debug)]
enum Thinker {
    Refocus { qformer: QFormer, gate: Option<Linear> },
    Hidden,
    Constant(Tensor), // [max_steps, D]
    Splice(Linear),   // the memory's width to D
}

impl Focus {
    /// What is to hold what the step read: the thought, or the state after a look that came behind it. `[B, D]`.
    pub fn holds(&self) -> &Tensor {
        self.after.as_ref().unwrap_or(&self.thought)
    }
}

impl Focus {
    /// That of one row.
    pub(crate) fn of_row(&self, row: usize) -> Result<Self> {
        let one = |all: &Tensor| all.narrow(0, row, 1);
        let spliced = |spliced: &Spliced| -> Result<Spliced> {
            Ok(Spliced { tokens: one(&spliced.tokens)?, real: vec![spliced.real[row].clone()] })
        };
        Ok(Self {
            log_scores: one(&self.log_scores)?,
            chosen: vec![self.chosen[row].clone()],
            thought: one(&self.thought)?,
            after: self.after.as_ref().map(one).transpose()?,
            gate_mean: one(&self.gate_mean)?,
            spliced: self.spliced.as_ref().map(spliced).transpose()?,
        })
    }
}

/// Scorer, LQ-Former and gate.
#[derive(Clone, Debug)]
pub struct Refocus {
    query: Option<Linear>,
    key: Option<Linear>,
    head_weights: Option<Tensor>, // [L * H]
    revisit: Option<Linear>,      // D to 1
    thinker: Thinker,
    halt: Linear,
    settings: crate::config::Refocus,
    per_cell: usize,
    norm_eps: f64,
}

/// Refuses patches that a caller chose for some rows, unless each list has some and all are cells of its row's picture.
fn check_patches(given: &[Option<Vec<u32>>], now: &Present, look: &Look) -> Result<()> {
    let (rows, most) = (now.picture_of_row.len(), look.patches());
    let is_real = |row: usize, p: &u32| {
        (*p as usize) < most && look.visible[now.picture_of_row[row] as usize * most + *p as usize]
    };
    let fits = |(row, list): (usize, &Option<Vec<u32>>)| {
        list.as_ref().is_none_or(|list| !list.is_empty() && list.iter().all(|p| is_real(row, p)))
    };
    if (given.is_empty() || given.len() == rows) && given.iter().enumerate().all(fits) {
        return Ok(());
    }
    Err(Error::Arguments {
        what: "patches of a look",
        expected: format!("for each of {rows} rows none, or at least one cell of its picture"),
        got: format!("{given:?}"),
    })
}

/// A number from a hidden state of width `d`, 0 for every state before it is trained.
fn nothing_yet(path: Path, d: usize) -> Result<Linear> {
    Linear::with_std(path, d, 1, 0.0)?.biased(path, 0.0)
}

/// Below this a score counts as nothing: keeps the logarithm finite where softmax underflows.
const LEAST_SCORE: f64 = 1e-9;

/// Logarithms of the shares of `exp(x)` in its row, `[B, P]`.
fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let most = x.detach().max_keepdim(1)?;
    let sum = x.broadcast_sub(&most)?.exp()?.sum_keepdim(1)?.log()?;
    Ok(x.broadcast_sub(&(sum + most)?)?)
}

/// What takes padding out of a softmax over `[B, P]`: added to it, 0 for real cells.
fn padding_out(now: &Present, look: &Look) -> Result<Tensor> {
    let (b, patches) = (now.picture_of_row.len(), look.patches());
    let of_row = |picture: &u32| &look.visible[*picture as usize * patches..][..patches];
    let added = now.picture_of_row.iter().flat_map(of_row).map(|real| if *real { 0.0 } else { -1e9f32 });
    Ok(Tensor::from_vec(added.collect::<Vec<f32>>(), (b, patches), now.hidden.device())?)
}

impl Refocus {
    /// Builds the step at `path`.
    pub fn new(path: Path, around: Around, settings: &crate::config::Refocus) -> Result<Self> {
        let (d, r) = (around.width, settings);
        let looks = r.thinking.looks();
        let dot = looks && r.scorer == Scorer::DotProduct;
        let linear = |name, wanted: bool| wanted.then(|| path.at(name, |p| Linear::new(p, d, d))).transpose();
        Ok(Self {
            query: linear("query", dot)?,
            key: linear("key", dot)?,
            head_weights: (r.scorer == Scorer::WeightedAttention)
                .then(|| path.get("head_weights", &[around.maps], Init::Zeros))
                .transpose()?,
            revisit: (looks && r.revisit).then(|| path.at("revisit", |p| nothing_yet(p, d))).transpose()?,
            thinker: match r.thinking {
                Thinking::Refocus => Thinker::Refocus {
                    qformer: path.at("qformer", |p| QFormer::new(p, around, r))?,
                    gate: r.gate.then(|| path.at("gate", |p| Linear::new(p, 2 * d, d)?.biased(p, 0.0))).transpose()?,
                },
                Thinking::Hidden => Thinker::Hidden,
                Thinking::Constant => Thinker::Constant(path.get("constant", &[r.max_steps, d], Init::Normal(1.0))?),
                Thinking::Splice => Thinker::Splice(path.at("splice", |p| Linear::new(p, around.memory_width, d))?),
            },
            halt: path.at("halt", |p| nothing_yet(p, d))?,
            settings: r.clone(),
            per_cell: around.per_patch,
            norm_eps: around.norm_eps,
        })
    }

    /// What the config says of it.
    pub fn settings(&self) -> &crate::config::Refocus {
        &self.settings
    }

    /// Prepares pictures for being looked at.
    ///
    /// - `coarse`: `[S, P, D]`, the coarse tokens; `hidden`: their last hidden states
    /// - `fine`: `[S, P * E, Dv]`, for [`Thinking::Splice`] merged
    /// - `visible`: `[S * P]`, the real cells; `grids`: `[S]`, how they lie
    pub fn prepare(
        &self,
        [coarse, hidden, fine]: [&Tensor; 3],
        visible: Arc<[bool]>,
        grids: Vec<Vec<Grid>>,
    ) -> Result<Look> {
        let (pictures, patches, d) = hidden.dims3()?;
        let with_values = |key: &Linear| -> Result<Tensor> {
            let keys = key.forward(hidden)?.reshape(&[pictures, patches, 1, 1, d][..])?;
            Ok(Tensor::cat(&[&keys, &keys.zeros_like()?], 2)?)
        };
        let keys = self.key.as_ref().map(with_values).transpose()?;
        let seen = match self.settings.memory {
            Memory::Projected => coarse,
            Memory::Fine => fine,
        };
        let memory = match &self.thinker {
            Thinker::Refocus { qformer, .. } => qformer.remember(seen)?,
            _ => Vec::new(),
        };
        let tokens = match &self.thinker {
            Thinker::Splice(project) => Some(project.forward(seen)?),
            _ => None,
        };
        Ok(Look { keys, memory, tokens, grids, visible, pictures, apart: Vec::new() })
    }

    /// Takes one latent step. `given` replaces what rows choose, for causal tests: `[B]`, or empty.
    pub fn forward(&self, now: &Present, look: &Look, given: &[Option<Vec<u32>>]) -> Result<Focus> {
        let (step, most) = (now.earlier.len(), self.settings.max_steps);
        if step >= most {
            return Err(Error::Arguments {
                what: "latent steps",
                expected: format!("at most {most}, refocus.max_steps"),
                got: (step + 1).to_string(),
            });
        }
        check_patches(given, now, look)?;
        if !self.settings.thinking.looks() {
            return self.without_a_look(now, look);
        }
        let log_scores = self.log_scores(now, look)?; // [B, P]
        let mut chosen = self.choose(&log_scores, now, look)?;
        for (chosen, given) in chosen.iter_mut().zip(given) {
            if let Some(given) = given {
                chosen.clone_from(given);
            }
        }
        let (memory, tokens, reading) = look.read(self.reading(&log_scores, &chosen, now)?)?;
        let (mixed, gate_mean, spliced) = match &self.thinker {
            Thinker::Refocus { qformer, gate } => {
                let seen = qformer.forward(now.hidden, now.earlier, &memory, &reading)?; // u, [B, D]
                let (mixed, gate_mean) = fuse(gate.as_ref(), now.hidden, &seen)?;
                (mixed, gate_mean, None)
            }
            _ => (now.hidden.clone(), nothing(now)?, splice(tokens.as_ref(), &reading)?),
        };
        Ok(Focus { log_scores, chosen, thought: self.scaled(&mixed)?, after: None, gate_mean, spliced })
    }

    /// Where positions that said something attended, over the picture alone: `log s`, `[B, T, P]`.
    ///
    /// - `rows`: per layer `[B, T, H, P]`, at least one
    pub fn log_attended(&self, rows: &[Tensor]) -> Result<Tensor> {
        let all = Tensor::cat(rows, 2)?;
        let (b, t, maps, p) = all.dims4()?;
        let scores = self.mean_attention(&[all.reshape((b * t, maps, p))?])?;
        Ok((scores + LEAST_SCORE)?.log()?.reshape((b, t, p))?)
    }

    /// A step that reads nothing and chooses no patch: its scores are where it attends, or even.
    fn without_a_look(&self, now: &Present, look: &Look) -> Result<Focus> {
        let b = now.picture_of_row.len();
        let thought = match &self.thinker {
            Thinker::Constant(constant) => {
                let (_, d) = constant.dims2()?;
                constant.narrow(0, now.earlier.len(), 1)?.broadcast_as((b, d))?.contiguous()?
            }
            _ => now.hidden.clone(),
        };
        let log_scores = match self.settings.scorer {
            Scorer::DotProduct => {
                let zeros = Tensor::zeros((b, look.patches()), now.hidden.dtype(), now.hidden.device())?;
                log_softmax(&(zeros + padding_out(now, look)?)?)?
            }
            Scorer::MeanAttention | Scorer::WeightedAttention => {
                (self.mean_attention(now.rows)? + LEAST_SCORE)?.log()?
            }
        };
        Ok(Focus {
            log_scores,
            chosen: vec![Vec::new(); b],
            thought: self.scaled(&thought)?,
            after: None,
            gate_mean: nothing(now)?,
            spliced: None,
        })
    }

    /// Memory entries that a step reads at one patch.
    pub fn entries_per_patch(&self) -> usize {
        self.per_cell
    }

    /// Positions of the context that one step takes at most.
    pub fn positions_per_step(&self) -> usize {
        self.settings.positions_per_step(self.per_cell)
    }

    /// `[B, D]` at mean square 1.
    fn scaled(&self, x: &Tensor) -> Result<Tensor> {
        let ones = Tensor::ones(x.dim(D::Minus1)?, x.dtype(), x.device())?;
        Ok(kernels::rms_norm(x, &ones, self.norm_eps)?)
    }

    /// How many patches a look reads again at pictures whose cells lie like that.
    pub fn patches_of_a_look(&self, grids: &[Grid]) -> usize {
        let cells = grids.iter().map(|grid| grid.cells()).sum::<usize>();
        match self.settings.choice {
            _ if !self.settings.thinking.looks() => 0,
            Choice::Window | Choice::Random => self.squares(grids).map(|cells| cells.len()).max().unwrap_or(0),
            Choice::Best | Choice::First => self.settings.patches.min(cells),
        }
    }

    /// Whether the halting head was trained: it begins as zeros, and is that until then.
    pub fn halts(&self) -> Result<bool> {
        Ok(!self.halt.is_nothing()?)
    }

    /// The halting head on `h` `[B, D]`: logits `[B]`, positive to stop thinking and answer.
    pub fn halt_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self.halt.forward(hidden)?.squeeze(1)?)
    }

    fn log_scores(&self, now: &Present, look: &Look) -> Result<Tensor> {
        let scores = match self.settings.scorer {
            Scorer::DotProduct => self.dot_product(now, look)?,
            Scorer::MeanAttention | Scorer::WeightedAttention => self.mean_attention(now.rows)?,
        };
        // Added, not a floor: under a floor a score that is confidently wrong would get no gradient.
        let log_scores = (scores + LEAST_SCORE)?.log()?;
        match (&self.revisit, now.looked) {
            (Some(revisit), Some(looked)) => {
                let pull = revisit.forward(now.hidden)?; // [B, 1], positive to look there again
                let pulled = (log_scores + looked.broadcast_mul(&pull)?)?;
                log_softmax(&pulled.broadcast_add(&padding_out(now, look)?)?)
            }
            _ => Ok(log_scores),
        }
    }

    /// One head of attention from `h` to the pictures' keys, `[B, P]`.
    fn dot_product(&self, now: &Present, look: &Look) -> Result<Tensor> {
        let (b, d) = now.hidden.dims2()?;
        let (Some(query), Some(keys)) = (&self.query, &look.keys) else {
            let (expected, got) = ("those of the scorer `dot_product`".into(), "none".into());
            return Err(Error::Arguments { what: "keys of a look", expected, got });
        };
        let query = query.forward(now.hidden)?.reshape((b, 1, d))?;
        let nothing = Tensor::zeros(&[b, 1, 2, 1, d][..], query.dtype(), query.device())?;
        let sight = mask::picture_alone(now.picture_of_row.clone(), look.visible.clone());
        Ok(kernels::attention_row(&query, &nothing, keys, &sight)?.squeeze(1)?)
    }

    /// Mean of the attention rows over layers and heads, plain or weighted, renormalised over the picture, `[B, P]`.
    fn mean_attention(&self, rows: &[Tensor]) -> Result<Tensor> {
        let rows = Tensor::cat(rows, 1)?; // [B, L * H, P]
        let row = match &self.head_weights {
            None => rows.mean(1)?,
            Some(weights) => {
                let exp = weights.exp()?;
                let weights = exp.broadcast_div(&exp.sum_all()?)?.reshape((1, (), 1))?;
                rows.broadcast_mul(&weights)?.sum(1)?
            }
        };
        let sum = (row.sum_keepdim(1)? + LEAST_SCORE)?;
        Ok(row.broadcast_div(&sum)?)
    }

    /// The patches that each row reads, best first; ties go to the earlier patch.
    fn choose(&self, log_scores: &Tensor, now: &Present, look: &Look) -> Result<Vec<Vec<u32>>> {
        let (_, patches) = log_scores.dims2()?;
        let scores = log_scores.detach().to_vec2::<f32>()?;
        let mut all = Vec::with_capacity(scores.len());
        for (row, score) in scores.iter().enumerate() {
            let picture = now.picture_of_row.get(row).map_or(0, |p| *p as usize);
            let before = now.chosen_before.get(row).map_or(&[][..], Vec::as_slice);
            let mut order: Vec<u32> = match self.settings.choice {
                Choice::First if !before.is_empty() => {
                    // Earlier looks, one after the other, are all the first: it ends where its first patch comes again.
                    let again = before.iter().skip(1).position(|p| *p == before[0]);
                    all.push(before[..again.map_or(before.len(), |place| place + 1)].to_vec());
                    continue;
                }
                Choice::Window => look.grids.get(picture).map_or_else(Vec::new, |grids| self.window(score, grids)),
                Choice::Random => {
                    let anywhere = |grids: &Vec<Grid>| self.anywhere(score, now.earlier.len(), grids);
                    look.grids.get(picture).map_or_else(Vec::new, anywhere)
                }
                Choice::Best | Choice::First => {
                    let visible = &look.visible[picture * patches..][..patches];
                    (0..patches as u32).filter(|p| visible[*p as usize]).collect()
                }
            };
            let seen = |p: u32| self.settings.exclude_earlier && before.contains(&p);
            let of = |p: u32| score.get(p as usize).copied().unwrap_or(f32::NEG_INFINITY);
            // What has not been seen comes first; where it does not fill a look, the best of the rest does.
            order.sort_by(|a, b| seen(*a).cmp(&seen(*b)).then(of(*b).total_cmp(&of(*a))));
            order.truncate(self.settings.patches);
            all.push(order);
        }
        Ok(all)
    }

    /// The cells of every square, as large as `patches` allow and its grid is, row by row.
    fn squares(&self, grids: &[Grid]) -> impl Iterator<Item = Vec<u32>> {
        let most = self.settings.patches.isqrt().max(1);
        let squares_of = move |(first, grid): (usize, Grid)| {
            let (height, width) = (most.min(grid.rows), most.min(grid.cols));
            let across = grid.cols - width + 1;
            let corners = if grid.cells() == 0 { 0 } else { (grid.rows - height + 1) * across };
            (0..corners).map(move |corner| {
                let (top, left) = (corner / across, corner % across);
                let row = move |y: usize| (left..left + width).map(move |x| (first + y * grid.cols + x) as u32);
                (top..top + height).flat_map(row).collect()
            })
        };
        let behind = |first: &mut usize, grid: &Grid| {
            let own = *first;
            *first += grid.cells();
            Some((own, *grid))
        };
        grids.iter().scan(0, behind).flat_map(squares_of)
    }

    /// The square with the highest sum of scores, the first of equals.
    fn window(&self, log_scores: &[f32], grids: &[Grid]) -> Vec<u32> {
        let sum = |cells: &[u32]| cells.iter().map(|c| log_scores[*c as usize].exp()).sum::<f32>();
        let windows = self.squares(grids).map(|cells| (sum(&cells), cells));
        windows.reduce(|a, b| if b.0 > a.0 { b } else { a }).map_or_else(Vec::new, |(_, cells)| cells)
    }

    /// A square that need not hold anything that the scores are high for: drawn by a hash of the step and of where the
    /// three best lie, so that a run repeats without a state, and a row alone as in a batch.
    fn anywhere(&self, log_scores: &[f32], step: usize, grids: &[Grid]) -> Vec<u32> {
        let cells = grids.iter().map(|grid| grid.cells()).sum::<usize>();
        let mut best: Vec<usize> = (0..cells.min(log_scores.len())).collect();
        best.sort_by(|a, b| log_scores[*b].total_cmp(&log_scores[*a]));
        let mut hasher = DefaultHasher::new();
        step.hash(&mut hasher);
        best.iter().take(3).for_each(|cell| cell.hash(&mut hasher));
        let drawn = hasher.finish() % self.squares(grids).count().max(1) as u64;
        self.squares(grids).nth(drawn as usize).unwrap_or_default()
    }

    /// The memory entries behind the chosen patches, each with its patch's log-score.
    fn reading(&self, log_scores: &Tensor, chosen: &[Vec<u32>], now: &Present) -> Result<Reading> {
        let (b, _) = log_scores.dims2()?;
        let width = chosen.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let per_cell = self.per_cell as u32;
        let mut entries = Vec::with_capacity(b * width * self.per_cell);
        let mut patch_of = Vec::with_capacity(entries.capacity());
        for patches in chosen {
            for place in 0..width {
                let patch = patches.get(place);
                patch_of.extend(std::iter::repeat_n(patch.copied().unwrap_or(0), self.per_cell));
                entries.extend((0..per_cell).map(|e| patch.map_or(u32::MAX, |p| p * per_cell + e)));
            }
        }
        let patch_of = Tensor::from_vec(patch_of, (b, width * self.per_cell), log_scores.device())?;
        let bias = log_scores.gather(&patch_of, 1)?;
        let bias = if self.settings.bias { bias } else { bias.zeros_like()? };
        Ok(Reading { entries: entries.into(), bias, memory_of_row: now.picture_of_row.clone() })
    }
}

/// The gated mixture of `u` and `h`, `[B, D]`, and the gate's mean, `[B]`.
fn fuse(gate: Option<&Linear>, hidden: &Tensor, seen: &Tensor) -> Result<(Tensor, Tensor)> {
    let Some(gate) = gate else {
        let (b, _) = seen.dims2()?;
        return Ok((seen.clone(), Tensor::ones(b, seen.dtype(), seen.device())?));
    };
    let gate = sigmoid(&gate.forward(&Tensor::cat(&[hidden, seen], 1)?)?)?;
    let mixed = (hidden + (&gate * (seen - hidden)?)?)?;
    Ok((mixed, gate.detach().mean(1)?))
}

/// The gate of a step that blends nothing in, `[B]`.
fn nothing(now: &Present) -> Result<Tensor> {
    Ok(Tensor::zeros(now.picture_of_row.len(), now.hidden.dtype(), now.hidden.device())?)
}

/// The entries that a look reads, as tokens; `None` where the memory has none.
fn splice(tokens: Option<&Tensor>, reading: &Reading) -> Result<Option<Spliced>> {
    let Some(tokens) = tokens else {
        return Ok(None);
    };
    let ((_, m, d), (b, n)) = (tokens.dims3()?, reading.bias.dims2()?);
    let real: Vec<Vec<bool>> =
        reading.entries.chunks(n).map(|row| row.iter().map(|e| *e != u32::MAX).collect()).collect();
    let place = |(at, entry): (usize, &u32)| match *entry {
        u32::MAX => 0,
        entry => reading.memory_of_row[at / n] * m as u32 + entry,
    };
    let index: Vec<u32> = reading.entries.iter().enumerate().map(place).collect();
    let index = Tensor::from_vec(index, b * n, tokens.device())?;
    let tokens = tokens.reshape(((), d))?.index_select(&index, 0)?.reshape((b, n, d))?;
    Ok(Some(Spliced { tokens, real }))
}
