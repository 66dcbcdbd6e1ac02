//! Softmax attention over a shared segment and a row's own slots, without storing probabilities.
//!
//! Forward keeps one log-sum-exp a query; backward computes the probabilities of a block again and
//! uses them while they are in cache. Heads are strided matrices inside the packed tensors, so nothing
//! is transposed or copied, grouped key/value heads are not repeated, and a prefix shared by several
//! rows is stored once. Work is split over (row, key/value head); a row's bits do not depend on the
//! batch it is in.
//!
//! Shapes: `q` `[B, T, H, Dh]`, `own` `[B, C, 2, G, Dh]`, `shared` `[S, P, 2, G, Dh]`, result
//! `[B, T, H * Dh]`.

use crate::buffer::{Shared, as_gradient, elements, filled, for_units, require_f32, with_all};
use crate::fused::is_fused;
use crate::gradients::{Into, Scratch, families};
use crate::product::{Matrix, Target};
use crate::segments::{Block, Half, Inputs, softmax};
use crate::sight::{Sight, Sizes, composed};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::OnceLock;

/// Queries handled at once: two blocks of probabilities fit the second-level cache, and causal
/// attention skips the keys after each block.
const BLOCK: usize = 64;

/// Softmax attention over up to two key segments: one that several rows share, and the row's own.
///
/// - `q`: `[B, T, H, Dh]`
/// - `own`: `[B, C, 2, G, Dh]`, keys at index 0 of axis 2 and values at 1; query head `h` reads
///   key/value head `h / (H / G)`
/// - `shared`: `[S, P, 2, G, Dh]`, laid out alike
/// - `sight`: who may see whom
///
/// Scores are scaled by `1 / sqrt(Dh)`. Returns `[B, T, H * Dh]`; a query that sees nothing gives zeros.
///
/// # Errors
/// When shapes or `sight` disagree or, on the CPU, a tensor is not f32.
pub fn attention(q: &Tensor, own: &Tensor, shared: Option<&Tensor>, sight: &Sight) -> Result<Tensor> {
    let sizes = Sizes::of("attention", q, own, shared, sight)?;
    if !is_fused(q) {
        return composed(q, own, shared, sight, sizes);
    }
    require_f32("attention", &[q, own])?;
    let op = Attention { sizes, sight: sight.clone(), log_sums: OnceLock::new() };
    let (q, own) = (q.contiguous()?, own.contiguous()?);
    match shared {
        None => q.apply_op2(&own, op),
        Some(shared) => {
            require_f32("attention", &[shared])?;
            q.apply_op3(&own, &shared.contiguous()?, op)
        }
    }
}

struct Attention {
    sizes: Sizes,
    sight: Sight,
    /// `[B, H, T]`, from the forward pass.
    log_sums: OnceLock<Vec<f32>>,
}

impl Attention {
    fn inputs<'a>(&'a self, q: &'a [f32], own: &'a [f32], shared: &'a [f32]) -> Inputs<'a> {
        Inputs { q, own, shared, sizes: self.sizes, sight: &self.sight }
    }

    fn forward(&self, inputs: &Inputs) -> (CpuStorage, Shape) {
        let Sizes { rows, queries, heads, width, groups, .. } = self.sizes;
        let mut log_sums = vec![0f32; rows * heads * queries];
        let sums = Shared::new(&mut log_sums);
        let out = filled(rows * queries * heads * width, |out| {
            let out = Shared::new(out);
            for_units(rows * groups, operations(self.sizes), |unit| {
                let (row, group) = (unit / groups, unit % groups);
                let penalty = inputs.penalty(row);
                let per_group = self.sizes.heads_per_group();
                let mut scores = vec![0f32; queries.min(BLOCK) * penalty.len()];
                for head in group * per_group..(group + 1) * per_group {
                    for block in inputs.blocks(row, head, BLOCK) {
                        // SAFETY: the sums of (row, head) belong to this unit alone.
                        let sums = unsafe { sums.slice(self.sum_place(block), block.count) };
                        let (start, stride) = inputs.query_place(block);
                        // SAFETY: so do the result's rows of (row, head).
                        let out = unsafe { Target::within(out, start, [block.count, width, stride]) };
                        let scores = &mut scores[..block.count * inputs.keys_of(block)];
                        forward_block(inputs, block, &penalty, scores, (sums, out));
                    }
                }
            });
        });
        let _ = self.log_sums.set(log_sums);
        (CpuStorage::F32(out), Shape::from((rows, queries, heads * width)))
    }

    fn sum_place(&self, block: Block) -> usize {
        (block.row * self.sizes.heads + block.head) * self.sizes.queries + block.start
    }

    /// Gradients of q, own and shared; the latter two only where wanted.
    fn backward(&self, inputs: &Inputs, out: &[f32], grad: &[f32], wanted: [bool; 2]) -> Result<Gradients> {
        let Sizes { groups, .. } = self.sizes;
        let Some(log_sums) = self.log_sums.get() else { bail!("attention: backward before forward") };
        let mut own = if wanted[0] { vec![0f32; inputs.own.len()] } else { Vec::new() };
        let mut shared = if wanted[1] { vec![0f32; inputs.shared.len()] } else { Vec::new() };
        let families = families(&self.sight, self.sizes);
        let q = filled(inputs.q.len(), |q| {
            let into = Into {
                q: Shared::new(q),
                own: wanted[0].then(|| Shared::new(&mut own)),
                shared: wanted[1].then(|| Shared::new(&mut shared)),
            };
            // A family's rows add into one shared segment: one task takes them in order.
            for_units(families.len() * groups, operations(self.sizes), |unit| {
                let (family, group) = (&families[unit / groups], unit % groups);
                let mut scratch = Scratch::default();
                for &row in family {
                    let penalty = inputs.penalty(row);
                    let per_group = self.sizes.heads_per_group();
                    for head in group * per_group..(group + 1) * per_group {
                        for block in inputs.blocks(row, head, BLOCK) {
                            let sums = &log_sums[self.sum_place(block)..][..block.count];
                            scratch.probabilities(inputs, block, &penalty, sums);
                            scratch.score_gradients(inputs, block, out, grad);
                            // SAFETY: this task alone writes this group of these rows and of
                            // the segment they share.
                            unsafe { scratch.spread(inputs, block, Some(grad), into) };
                        }
                    }
                }
            });
        });
        Ok(Gradients { q, own, shared })
    }
}

/// Multiply-adds of a call, for deciding whether to wake other threads.
fn operations(sizes: Sizes) -> usize {
    let Sizes { rows, queries, heads, width, slots, places, .. } = sizes;
    rows * queries * heads * width * (slots + places)
}

fn forward_block(
    inputs: &Inputs,
    block: Block,
    penalty: &[f32],
    scores: &mut [f32],
    (sums, mut out): (&mut [f32], Target),
) {
    inputs.scores(block, penalty, scores);
    let keys = inputs.keys_of(block);
    for (t, sum) in sums.iter_mut().enumerate() {
        *sum = softmax(&mut scores[t * keys..][..keys]);
    }
    let mut add = false;
    for (values, at) in inputs.segments(block, Half::Values) {
        let weights = Matrix::new(&scores[at..], block.count, values.rows, keys);
        out.a_b(weights, values, 1.0, add);
        add = true;
    }
    if !add {
        out.clear();
    }
}

struct Gradients {
    q: Vec<f32>,
    own: Vec<f32>,
    shared: Vec<f32>,
}

impl CustomOp2 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        own: &CpuStorage,
        own_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let q = elements("attention", q, q_layout)?;
        let own = elements("attention", own, own_layout)?;
        Ok(self.forward(&self.inputs(q, own, &[])))
    }

    fn bwd(&self, q: &Tensor, own: &Tensor, out: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradients =
            with_all("attention", [q, own, out, &grad.contiguous()?], |[q_elements, own_elements, out, grad]| {
                let inputs = self.inputs(q_elements, own_elements, &[]);
                self.backward(&inputs, out, grad, [own.track_op(), false])
            })?;
        Ok((as_gradient(|| gradients.q, q)?, as_gradient(|| gradients.own, own)?))
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        own: &CpuStorage,
        own_layout: &Layout,
        shared: &CpuStorage,
        shared_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let q = elements("attention", q, q_layout)?;
        let own = elements("attention", own, own_layout)?;
        let shared = elements("attention", shared, shared_layout)?;
        Ok(self.forward(&self.inputs(q, own, shared)))
    }

    fn bwd(
        &self,
        q: &Tensor,
        own: &Tensor,
        shared: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = with_all(
            "attention",
            [q, own, shared, out, &grad.contiguous()?],
            |[q_elements, own_elements, shared_elements, out, grad]| {
                let inputs = self.inputs(q_elements, own_elements, shared_elements);
                self.backward(&inputs, out, grad, [own.track_op(), shared.track_op()])
            },
        )?;
        Ok((
            as_gradient(|| gradients.q, q)?,
            as_gradient(|| gradients.own, own)?,
            as_gradient(|| gradients.shared, shared)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;
    use candle_core::Var;

    /// Sizes of a case: B, T, H, Dh, G, C, S, P.
    type Case = [usize; 8];

    const CASES: [Case; 7] = [
        [1, 1, 1, 4, 1, 1, 1, 1],
        [3, 1, 6, 8, 2, 5, 2, 7],    // a latent step, grouped heads
        [4, 5, 4, 32, 4, 9, 3, 49],  // a few queries
        [2, 12, 4, 8, 2, 14, 1, 6],  // enough queries for GEMM
        [2, 70, 2, 16, 1, 72, 2, 5], // two blocks of queries
        [3, 20, 2, 8, 2, 20, 0, 0],  // no shared segment
        [2, 3, 2, 8, 2, 4, 2, 0],    // an empty one
    ];

    /// Ragged visibility: places drop out by a pattern, and row 0 sees nothing at all when `blind`.
    fn sight([rows, queries, _, _, _, slots, segments, places]: Case, causal: bool, blind: bool) -> Sight {
        let segment = |row: usize| (row * 2 + 1) % segments.max(1);
        Sight {
            shared_of_row: (0..rows).map(|row| segment(row) as u32).collect(),
            shared_visible: (0..segments * places)
                .map(|i| i % 5 != 3 && !(blind && i / places == segment(0)))
                .collect(),
            own_visible: (0..rows * slots).map(|i| i % 7 != 2 && !(blind && i < slots)).collect(),
            first_slot: slots - queries,
            causal,
        }
    }

    fn inputs([rows, queries, heads, width, groups, slots, segments, places]: Case) -> Vec<Tensor> {
        let mut inputs = vec![random((rows, queries, heads, width), 30), random((rows, slots, 2, groups, width), 31)];
        if segments > 0 {
            inputs.push(random((segments, places, 2, groups, width), 32));
        }
        inputs
    }

    fn agree(check: fn(Op, Op, &[Tensor]), case: Case, causal: bool, blind: bool) {
        let sight = sight(case, causal, blind);
        let fused = |t: &[Tensor]| attention(&t[0], &t[1], t.get(2), &sight);
        let reference = |t: &[Tensor]| {
            let sizes = Sizes::of("test", &t[0], &t[1], t.get(2), &sight)?;
            composed(&t[0], &t[1], t.get(2), &sight, sizes)
        };
        check(&fused, &reference, &inputs(case));
    }

    #[test]
    fn attention_equals_the_composed_form() {
        for case in CASES.into_iter().filter(|case| case[6] == 0 || case[7] > 0) {
            for (causal, blind) in [(true, false), (false, false), (true, true), (false, true)] {
                agree(equals_composed, case, causal, blind);
            }
        }
    }

    #[test]
    fn attention_gradient_matches_finite_differences() {
        for case in [CASES[1], CASES[3], CASES[5]] {
            agree(matches_finite_differences, case, true, false);
            agree(matches_finite_differences, case, false, true);
        }
    }

    #[test]
    fn an_empty_shared_segment_changes_nothing() {
        let case = CASES[6];
        let (sight, inputs) = (sight(case, true, false), inputs(case));
        let with = attention(&inputs[0], &inputs[1], Some(&inputs[2]), &sight).unwrap();
        let without = attention(&inputs[0], &inputs[1], None, &sight).unwrap();
        assert_eq!(bits(&with), bits(&without));
    }

    #[test]
    fn attention_has_the_same_bits_on_any_number_of_threads() {
        for case in [CASES[2], CASES[4], CASES[5], [16, 1, 6, 32, 6, 20, 4, 49]] {
            let sight = sight(case, true, false);
            let op = |t: &[Tensor]| attention(&t[0], &t[1], t.get(2), &sight);
            same_bits_on_any_number_of_threads(&op, &inputs(case));
        }
    }

    #[test]
    fn a_row_in_a_batch_equals_the_row_alone() {
        for case in [CASES[1], CASES[3], CASES[4]] {
            let (row, sight, inputs) = (1, sight(case, true, false), inputs(case));
            let slots = case[5];
            let alone = Sight {
                shared_of_row: sight.shared_of_row[row..=row].into(),
                own_visible: sight.own_visible[row * slots..][..slots].into(),
                ..sight.clone()
            };
            let run = |q: Tensor, own: Tensor, sight: &Sight| {
                let (q, own) = (Var::from_tensor(&q).unwrap(), Var::from_tensor(&own).unwrap());
                let out = attention(&q, &own, Some(&inputs[2]), sight).unwrap();
                let grads = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                [out, grads.get(&q).unwrap().clone(), grads.get(&own).unwrap().clone()]
            };
            let one = |t: &Tensor| t.narrow(0, row, 1).unwrap();
            let batch = run(inputs[0].clone(), inputs[1].clone(), &sight);
            let single = run(one(&inputs[0]), one(&inputs[1]), &alone);
            for (batch, single) in batch.iter().zip(&single) {
                assert_eq!(bits(&one(batch)), bits(single));
            }
        }
    }

    #[test]
    fn a_query_that_sees_nothing_gives_zeros_and_gets_no_gradient() {
        let case = CASES[1];
        let (sight, inputs) = (sight(case, true, true), inputs(case));
        let q = Var::from_tensor(&inputs[0]).unwrap();
        let out = attention(&q, &inputs[1], Some(&inputs[2]), &sight).unwrap();
        let grads = out.sum_all().unwrap().backward().unwrap();
        for t in [&out, grads.get(&q).unwrap()] {
            assert!(values(&t.narrow(0, 0, 1).unwrap()).iter().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn future_slots_do_not_change_past_queries() {
        let case = [1, 6, 2, 8, 2, 6, 0, 0];
        let (sight, inputs) = (sight(case, true, false), inputs(case));
        let last = inputs[1].narrow(1, 5, 1).unwrap().affine(3.0, 1.0).unwrap();
        let changed = Tensor::cat(&[inputs[1].narrow(1, 0, 5).unwrap(), last], 1).unwrap();
        let past = |own: &Tensor| bits(&attention(&inputs[0], own, None, &sight).unwrap().narrow(1, 0, 5).unwrap());
        assert_eq!(past(&inputs[1]), past(&changed));
    }

    /// Which queries of which rows change when one key or value changes, `[B][T]`.
    fn touched(case: Case, sight: &Sight, input: usize, at: usize) -> Vec<Vec<bool>> {
        let before = inputs(case);
        let mut after = before.clone();
        let (_, _, pair, groups, width) = before[input].dims5().unwrap();
        let stride = pair * groups * width;
        let mut moved = before[input].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        moved[at * stride..][..stride].iter_mut().for_each(|x| *x += 1.0);
        after[input] = Tensor::from_vec(moved, before[input].shape(), before[input].device()).unwrap();
        let [before, after] = [before, after].map(|t| attention(&t[0], &t[1], t.get(2), sight).unwrap());
        let width = case[2] * case[3]; // H * Dh
        let changed: Vec<bool> = bits(&before)
            .chunks(width)
            .zip(bits(&after).chunks(width))
            .map(|(before, after)| before != after)
            .collect();
        changed.chunks(case[1]).map(<[bool]>::to_vec).collect()
    }

    #[test]
    fn a_query_sees_its_own_slot_and_those_before_that_are_visible() {
        for (case, causal) in [(CASES[2], true), (CASES[2], false), (CASES[3], true), (CASES[5], true)] {
            let [rows, queries, _, _, _, slots, ..] = case;
            let sight = sight(case, causal, false);
            for (row, slot) in (0..rows).flat_map(|row| (0..slots).map(move |slot| (row, slot))) {
                let touched = touched(case, &sight, 1, row * slots + slot);
                for (r, t) in (0..rows).flat_map(|r| (0..queries).map(move |t| (r, t))) {
                    let in_time = !causal || slot <= slots - queries + t;
                    let expected = r == row && in_time && sight.own_visible[row * slots + slot];
                    assert_eq!(touched[r][t], expected, "slot {slot} of row {row}, query {t} of row {r}");
                }
            }
        }
    }

    #[test]
    fn a_row_sees_the_visible_places_of_its_segment_and_no_other() {
        for case in [CASES[1], CASES[3]] {
            let [rows, queries, _, _, _, _, segments, places] = case;
            let sight = sight(case, true, false);
            for at in 0..segments * places {
                let touched = touched(case, &sight, 2, at);
                for (r, t) in (0..rows).flat_map(|r| (0..queries).map(move |t| (r, t))) {
                    let mine = sight.shared_of_row[r] as usize == at / places;
                    assert_eq!(touched[r][t], mine && sight.shared_visible[at], "place {at}, row {r}");
                }
            }
        }
    }

    #[test]
    fn sight_of_another_size_is_refused() {
        let case = CASES[1];
        let inputs = inputs(case);
        let mut sight = sight(case, true, false);
        sight.own_visible = [true; 3].into();
        let error = attention(&inputs[0], &inputs[1], Some(&inputs[2]), &sight).unwrap_err().to_string();
        assert!(error.contains("own_visible [3 * 5], got 3"), "{error}");
    }
}
