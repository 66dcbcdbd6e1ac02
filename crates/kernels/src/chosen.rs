//! Cross-attention to chosen entries of a shared memory, with an additive bias that has a gradient.
//!
//! The chosen keys and values of a head are gathered into a few kilobytes and multiplied from there; the
//! composed form gathers all heads of all rows into a tensor several times the size of the memory, and
//! its backward pass scatters that tensor back.
//!
//! Shapes: `q` `[B, Q, H, Dh]`, `memory` `[S, M, 2, H, Dh]`, `bias` `[B, J]`, `chosen` `[B * J]`,
//! result `[B, Q, H * Dh]`.

use crate::backward::{Collected, collected_gradient};
use crate::buffer::{Shared, as_gradient, elements, filled, for_units, require_f32, with_all};
use crate::fused::is_fused;
use crate::lanes::{add_scaled, dot};
use crate::product::{Matrix, Target};
use crate::segments::{Half, again, softmax};
use crate::sight::masked_softmax;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, OnceLock};

/// Marks a place of `chosen` that holds no entry.
const ABSENT: u32 = u32::MAX;

/// The sizes of one call, checked against each other.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    queries: usize,
    heads: usize,
    width: usize,
    memories: usize,
    entries: usize,
    picks: usize,
}

impl Sizes {
    fn of(q: &Tensor, memory: &Tensor, bias: &Tensor, chosen: &[u32], memory_of_row: &[u32]) -> Result<Self> {
        let (rows, queries, heads, width) = q.dims4()?;
        let (memories, entries, pair, memory_heads, memory_width) = memory.dims5()?;
        if pair != 2 || memory_heads != heads || memory_width != width {
            bail!(
                "chosen_attention: expected a memory [S, M, 2, {heads}, {width}] for queries {:?}, got {:?}",
                q.shape(),
                memory.shape()
            )
        }
        let (bias_rows, picks) = bias.dims2()?;
        if bias_rows != rows || chosen.len() != rows * picks || memory_of_row.len() != rows {
            bail!(
                "chosen_attention: expected a bias [{rows}, J], {rows} * J chosen entries and {rows} memories, got {:?}, {} and {}",
                bias.shape(),
                chosen.len(),
                memory_of_row.len()
            )
        }
        if let Some(entry) = chosen.iter().find(|&&e| e != ABSENT && e as usize >= entries) {
            bail!("chosen_attention: entry {entry} chosen from a memory of {entries}")
        }
        if let Some(index) = memory_of_row.iter().find(|&&s| s as usize >= memories) {
            bail!("chosen_attention: a row reads memory {index} of {memories}")
        }
        Ok(Self { rows, queries, heads, width, memories, entries, picks })
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }
}

/// Attention of each row's queries to the entries of a memory chosen for the row.
///
/// - `q`: `[B, Q, H, Dh]`
/// - `memory`: `[S, M, 2, H, Dh]`, keys at index 0 of axis 2 and values at 1
/// - `bias`: `[B, J]`, added to the scores of every query and head of a row
/// - `chosen`: `[B * J]`, entries below `M`; `u32::MAX` for none
/// - `memory_of_row`: `[B]`, which memory each row reads
///
/// Scores are scaled by `1 / sqrt(Dh)`. Returns `[B, Q, H * Dh]`, zeros for a row without entries.
///
/// # Errors
/// When the shapes disagree, an entry is not in the memory or, on the CPU, a tensor is not f32.
pub fn chosen_attention(
    q: &Tensor,
    memory: &Collected,
    bias: &Tensor,
    chosen: &Arc<[u32]>,
    memory_of_row: &Arc<[u32]>,
) -> Result<Tensor> {
    let memory = memory.tensor();
    let sizes = Sizes::of(q, memory, bias, chosen, memory_of_row)?;
    if !is_fused(q) {
        return composed(q, memory, bias, [chosen, memory_of_row], sizes);
    }
    require_f32("chosen_attention", &[q, memory, bias])?;
    let (chosen, memory_of_row) = (chosen.clone(), memory_of_row.clone());
    let op = Chosen { sizes, chosen, memory_of_row, log_sums: OnceLock::new() };
    q.contiguous()?.apply_op3(&memory.contiguous()?, &bias.contiguous()?, op)
}

fn composed(
    q: &Tensor,
    memory: &Tensor,
    bias: &Tensor,
    [chosen, memory_of_row]: [&[u32]; 2],
    sizes: Sizes,
) -> Result<Tensor> {
    let Sizes { rows, queries, heads, width, memories, entries, picks } = sizes;
    let flat: Vec<u32> = chosen
        .iter()
        .enumerate()
        .map(|(i, &entry)| if entry == ABSENT { 0 } else { memory_of_row[i / picks] * entries as u32 + entry })
        .collect();
    let visible: Vec<f32> = chosen.iter().map(|&entry| f32::from(entry != ABSENT)).collect();
    let flat = Tensor::from_vec(flat, rows * picks, q.device())?;
    let visible = Tensor::from_vec(visible, (rows, 1, 1, picks), q.device())?.to_dtype(q.dtype())?;
    let picked = memory
        .reshape((memories * entries, 2, heads, width))?
        .contiguous()?
        .index_select(&flat, 0)? // [B * J, 2, H, Dh]
        .reshape((rows, picks, 2, heads, width))?;
    let part = |which: usize| picked.narrow(2, which, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let (keys, values) = (part(0)?, part(1)?); // [B, H, J, Dh]
    let q = q.transpose(1, 2)?.contiguous()?; // [B, H, Q, Dh]
    let scores = (q.matmul(&keys.t()?)? * f64::from(sizes.scale()))?; // [B, H, Q, J]
    let scores = scores.broadcast_add(&bias.reshape((rows, 1, 1, picks))?)?;
    let mixed = masked_softmax(&scores, &visible)?.matmul(&values)?; // [B, H, Q, Dh]
    mixed.transpose(1, 2)?.reshape((rows, queries, heads * width))
}

struct Chosen {
    sizes: Sizes,
    chosen: Arc<[u32]>,
    memory_of_row: Arc<[u32]>,
    /// `[B, H, Q]`, from the forward pass.
    log_sums: OnceLock<Vec<f32>>,
}

/// What one head of one row attends to, gathered.
#[derive(Default)]
struct Gathered {
    /// `(pick, entry)` of the picks that are present.
    present: Vec<(usize, usize)>,
    /// `[present, Dh]`
    keys: Vec<f32>,
    /// `[present, Dh]`
    values: Vec<f32>,
    /// `[Q, present]`
    weights: Vec<f32>,
}

impl Chosen {
    fn entry_place(&self, row: usize, entry: usize, half: Half, head: usize) -> usize {
        let Sizes { heads, width, entries, .. } = self.sizes;
        let memory = self.memory_of_row[row] as usize;
        (((memory * entries + entry) * 2 + half as usize) * heads + head) * width
    }

    /// The queries of one head (or results, laid out alike), `[Q, Dh]`.
    fn queries<'a>(&self, q: &'a [f32], row: usize, head: usize) -> Matrix<'a> {
        let Sizes { queries, heads, width, .. } = self.sizes;
        Matrix::new(&q[(row * queries * heads + head) * width..], queries, width, heads * width)
    }

    /// Fills `into` with the keys, values and biased scores of one head of one row.
    fn gather(&self, [q, memory, bias]: [&[f32]; 3], row: usize, head: usize, into: &mut Gathered) {
        let Sizes { queries, width, picks, .. } = self.sizes;
        let Gathered { present, keys, values, weights } = into;
        let chosen = self.chosen[row * picks..][..picks].iter().enumerate();
        present.clear();
        present.extend(chosen.filter(|(_, e)| **e != ABSENT).map(|(j, e)| (j, *e as usize)));
        for (half, rows) in [(Half::Keys, &mut *keys), (Half::Values, values)] {
            rows.clear();
            for &(_, entry) in present.iter() {
                rows.extend_from_slice(&memory[self.entry_place(row, entry, half, head)..][..width]);
            }
        }
        let count = present.len();
        weights.resize(queries * count, 0.0);
        if count == 0 {
            return;
        }
        Target::new(weights, queries, count, count).a_bt(
            self.queries(q, row, head),
            Matrix::new(keys, count, width, width),
            self.sizes.scale(),
            false,
        );
        for scores in weights.chunks_exact_mut(count) {
            for (score, (pick, _)) in scores.iter_mut().zip(present.iter()) {
                *score += bias[row * picks + pick];
            }
        }
    }

    fn operations(&self) -> usize {
        let Sizes { rows, queries, heads, width, picks, .. } = self.sizes;
        rows * queries * heads * width * picks
    }

    fn forward(&self, inputs: [&[f32]; 3]) -> Vec<f32> {
        let Sizes { rows, queries, heads, width, .. } = self.sizes;
        let mut log_sums = vec![f32::INFINITY; rows * heads * queries];
        let sums = Shared::new(&mut log_sums);
        let out = filled(rows * queries * heads * width, |out| {
            let out = Shared::new(out);
            for_units(rows, self.operations(), |row| {
                let mut gathered = Gathered::default();
                for head in 0..heads {
                    self.gather(inputs, row, head, &mut gathered);
                    let start = (row * queries * heads + head) * width;
                    // SAFETY: the sums and results of a row belong to its unit alone.
                    let (sums, mut out) = unsafe {
                        let out = Target::within(out, start, [queries, width, heads * width]);
                        (sums.slice((row * heads + head) * queries, queries), out)
                    };
                    let count = gathered.present.len();
                    if count == 0 {
                        out.clear();
                        continue;
                    }
                    for (sum, scores) in sums.iter_mut().zip(gathered.weights.chunks_exact_mut(count)) {
                        *sum = softmax(scores);
                    }
                    let weights = Matrix::new(&gathered.weights, queries, count, count);
                    out.a_b(weights, Matrix::new(&gathered.values, count, width, width), 1.0, false);
                }
            });
        });
        let _ = self.log_sums.set(log_sums);
        out
    }

    /// Gradients of q and bias; that of the memory is added to `memory`.
    fn backward(
        &self,
        inputs: [&[f32]; 3],
        [out, grad]: [&[f32]; 2],
        memory: Option<&mut [f32]>,
    ) -> Result<[Vec<f32>; 2]> {
        let Sizes { rows, heads, picks, memories, .. } = self.sizes;
        let Some(log_sums) = self.log_sums.get() else { bail!("chosen_attention: backward before forward") };
        let mut bias_by_head = vec![0f32; rows * heads * picks];
        let mut readers = vec![Vec::new(); memories];
        for row in 0..rows {
            readers[self.memory_of_row[row] as usize].push(row);
        }
        let q = filled(inputs[0].len(), |q| {
            let into = (Shared::new(q), memory.map(Shared::new), Shared::new(&mut bias_by_head));
            // The readers of a memory add into it: one task takes them in order.
            for_units(memories * heads, self.operations(), |unit| {
                let mut gathered = Gathered::default();
                for &row in &readers[unit / heads] {
                    let head = unit % heads;
                    self.gather(inputs, row, head, &mut gathered);
                    // SAFETY: this task alone writes this head of this memory and of its readers.
                    unsafe { self.head_gradients(&mut gathered, (row, head), [inputs[0], out, grad, log_sums], into) };
                }
            });
        });
        let mut bias = vec![0f32; rows * picks];
        for (row, bias) in bias.chunks_exact_mut(picks.max(1)).enumerate() {
            for head in 0..heads {
                let part = &bias_by_head[(row * heads + head) * picks..][..picks];
                bias.iter_mut().zip(part).for_each(|(bias, part)| *bias += part);
            }
        }
        Ok([q, bias])
    }

    /// One head of one row of the gradients `[q, memory, bias by head]`: written in `q`, added in the others.
    ///
    /// # Safety
    /// The calling task alone touches this head of the row and of the memory it reads.
    unsafe fn head_gradients(
        &self,
        gathered: &mut Gathered,
        (row, head): (usize, usize),
        [q, out, grad, log_sums]: [&[f32]; 4],
        (into_q, into_memory, into_bias): (Shared, Option<Shared>, Shared),
    ) {
        let Sizes { queries, heads, width, picks, .. } = self.sizes;
        let start = (row * queries * heads + head) * width;
        // SAFETY: by the caller's promise.
        let mut into_q = unsafe { Target::within(into_q, start, [queries, width, heads * width]) };
        let count = gathered.present.len();
        if count == 0 {
            return into_q.clear();
        }
        let [q, out, grad] = [q, out, grad].map(|t| self.queries(t, row, head));
        let keys = Matrix::new(&gathered.keys, count, width, width);
        let values = Matrix::new(&gathered.values, count, width, width);
        let mut scores = vec![0f32; queries * count];
        Target::new(&mut scores, queries, count, count).a_bt(grad, values, 1.0, false);
        // SAFETY: by the caller's promise.
        let bias = unsafe { into_bias.slice((row * heads + head) * picks, picks) };
        for query in 0..queries {
            let weights = &mut gathered.weights[query * count..][..count];
            again(weights, log_sums[(row * heads + head) * queries + query]);
            let mean = dot(grad.row(query), out.row(query));
            for (i, score) in scores[query * count..][..count].iter_mut().enumerate() {
                *score = weights[i] * (*score - mean);
                bias[gathered.present[i].0] += *score;
            }
        }
        let scale = self.sizes.scale();
        let scores = Matrix::new(&scores, queries, count, count);
        let weights = Matrix::new(&gathered.weights, queries, count, count);
        into_q.a_b(scores, keys, scale, false);
        let Some(into_memory) = into_memory else { return };
        for (half, weights, against, scale) in [(Half::Keys, scores, q, scale), (Half::Values, weights, grad, 1.0)] {
            let mut gradient = vec![0f32; count * width];
            Target::new(&mut gradient, count, width, width).at_b(weights, against, scale, false);
            for (&(_, entry), gradient) in gathered.present.iter().zip(gradient.chunks_exact(width)) {
                let place = self.entry_place(row, entry, half, head);
                // SAFETY: by the caller's promise.
                add_scaled(unsafe { into_memory.slice(place, width) }, 1.0, gradient);
            }
        }
    }
}

impl CustomOp3 for Chosen {
    fn name(&self) -> &'static str {
        "chosen_attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        memory: &CpuStorage,
        memory_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = self.forward([
            elements(self.name(), q, q_layout)?,
            elements(self.name(), memory, memory_layout)?,
            elements(self.name(), bias, bias_layout)?,
        ]);
        let Sizes { rows, queries, heads, width, .. } = self.sizes;
        Ok((CpuStorage::F32(out), Shape::from((rows, queries, heads * width))))
    }

    fn bwd(
        &self,
        q: &Tensor,
        memory: &Tensor,
        bias: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let tensors = [q, memory, bias, out, &grad.contiguous()?];
        with_all(self.name(), tensors, |[q_all, memory_all, bias_all, out, grad]| {
            let inputs = [q_all, memory_all, bias_all];
            let mut others = Ok([Vec::new(), Vec::new()]);
            let grad_memory = collected_gradient(memory, |memory| others = self.backward(inputs, [out, grad], memory))?;
            let [grad_q, grad_bias] = others?;
            Ok((as_gradient(|| grad_q, q)?, grad_memory, as_gradient(|| grad_bias, bias)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    fn attend(q: &Tensor, memory: &Tensor, bias: &Tensor, [chosen, of_row]: [&Arc<[u32]>; 2]) -> Result<Tensor> {
        // A memory that is a product with one: the readers take collected products.
        let one = Tensor::ones((1, 1), memory.dtype(), memory.device())?;
        let product = Collected::linear(&memory.reshape(((), 1))?, &one, memory.shape().clone())?;
        chosen_attention(q, &product, bias, chosen, of_row)
    }

    /// B, Q, H, Dh, S, M, J
    type Case = [usize; 7];

    const CASES: [Case; 4] =
        [[1, 1, 1, 4, 1, 1, 1], [3, 2, 2, 8, 2, 6, 4], [5, 12, 3, 16, 2, 20, 9], [24, 4, 6, 32, 6, 196, 16]];

    /// Chosen entries with some absent, row 1 without any, and some chosen twice.
    fn picks([rows, _, _, _, memories, entries, picks]: Case) -> [Arc<[u32]>; 2] {
        let chosen = (0..rows * picks)
            .map(|i| if i % 4 == 2 || i / picks == 1 { ABSENT } else { (i * 5 / 2 % entries) as u32 })
            .collect();
        [chosen, (0..rows).map(|row| ((row + 1) % memories) as u32).collect()]
    }

    fn inputs([rows, queries, heads, width, memories, entries, picks]: Case) -> Vec<Tensor> {
        vec![
            random((rows, queries, heads, width), 50),
            random((memories, entries, 2, heads, width), 51),
            random((rows, picks), 52),
        ]
    }

    fn agree(check: fn(Op, Op, &[Tensor]), case: Case) {
        let [chosen, memory_of_row] = picks(case);
        let fused = |t: &[Tensor]| attend(&t[0], &t[1], &t[2], [&chosen, &memory_of_row]);
        let reference = |t: &[Tensor]| {
            let sizes = Sizes::of(&t[0], &t[1], &t[2], &chosen, &memory_of_row)?;
            composed(&t[0], &t[1], &t[2], [&chosen, &memory_of_row], sizes)
        };
        check(&fused, &reference, &inputs(case));
    }

    #[test]
    fn chosen_attention_equals_the_composed_form() {
        for case in CASES {
            agree(equals_composed, case);
        }
    }

    #[test]
    fn chosen_attention_gradient_matches_finite_differences() {
        agree(matches_finite_differences, CASES[1]);
        agree(matches_finite_differences, CASES[2]);
    }

    #[test]
    fn chosen_attention_has_the_same_bits_on_any_number_of_threads() {
        let [chosen, memory_of_row] = picks(CASES[3]);
        let op = |t: &[Tensor]| attend(&t[0], &t[1], &t[2], [&chosen, &memory_of_row]);
        same_bits_on_any_number_of_threads(&op, &inputs(CASES[3]));
    }

    #[test]
    fn a_row_in_a_batch_equals_the_row_alone() {
        let ([chosen, memory_of_row], t) = (picks(CASES[3]), inputs(CASES[3]));
        let (row, picks) = (17, CASES[3][6]);
        let one = |t: &Tensor| t.narrow(0, row, 1).unwrap();
        let all = attend(&t[0], &t[1], &t[2], [&chosen, &memory_of_row]).unwrap();
        let its = [&chosen[row * picks..][..picks].into(), &memory_of_row[row..=row].into()];
        let alone = attend(&one(&t[0]), &t[1], &one(&t[2]), its);
        assert_eq!(bits(&one(&all)), bits(&alone.unwrap()));
    }

    #[test]
    fn a_row_without_entries_gives_zeros() {
        let ([chosen, memory_of_row], t) = (picks(CASES[1]), inputs(CASES[1]));
        let out = attend(&t[0], &t[1], &t[2], [&chosen, &memory_of_row]).unwrap();
        assert!(values(&out.narrow(0, 1, 1).unwrap()).iter().all(|x| *x == 0.0));
    }

    #[test]
    fn an_entry_outside_the_memory_is_refused() {
        let t = inputs(CASES[0]);
        let error = attend(&t[0], &t[1], &t[2], [&[7].into(), &[0].into()]).unwrap_err();
        assert!(error.to_string().contains("entry 7 chosen from a memory of 1"), "{error}");
    }
}
