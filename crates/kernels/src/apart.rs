//! Attention of conversations that stand apart: each sees a prefix and its own slots, as many of both as it has.
//!
//! For answering many at once. [`crate::attention`] takes rows of equal length, and fills shorter ones with holes: they add
//! nothing to a sum, but decide on the order in which it is summed. Here a query sees exactly the slots that are there, and
//! is computed by itself: its bits depend on nothing else, neither on the queries beside it nor on other conversations.
//! Forward only; keys and values are not copied.
//!
//! Shapes: `q` `[N, H, Dh]`, the queries of all conversations one behind the other; result `[N, H * Dh]`.

use crate::buffer::{Shared, elements, filled, for_units, require_f32};
use crate::fused::is_fused;
use crate::lanes::{add_scaled, dot};
use crate::segments::{Half, softmax};
use crate::sight::Sight;
use candle_core::{Result, Storage, Tensor, bail};

/// Queries of one conversation that one task takes.
const BLOCK: usize = 16;

/// What one conversation's queries see.
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    /// Keys and values of the prefix that it goes on from, `[1, P, 2, G, Dh]`: all are seen.
    pub prefix: Option<&'a Tensor>,
    /// Keys and values of its own slots, `[1, C, 2, G, Dh]`; those behind `slots` are room for later.
    pub own: &'a Tensor,
    /// Own slots that are there, those of its queries included.
    pub slots: usize,
    /// Its queries: they stand at the last slots, and each sees those before it and its own.
    pub queries: usize,
    /// Whether the last query's probabilities over the prefix are wanted.
    pub row: bool,
}

/// What the queries of several conversations see.
#[derive(Clone, Debug)]
pub struct Apart {
    /// `[N, H * Dh]`.
    pub seen: Tensor,
    /// Of each conversation that wants it, its last query's probabilities over the prefix, `[1, H, P]`; what is missing to
    /// 1 went to own slots.
    pub rows: Vec<Option<Tensor>>,
}

/// Softmax attention of each conversation's queries. Scores are scaled by `1 / sqrt(Dh)`.
///
/// - `q`: `[N, H, Dh]`
///
/// # Errors
/// When the shapes disagree or, on the CPU, a tensor is not f32.
pub fn attention_apart(q: &Tensor, all: &[Conversation]) -> Result<Apart> {
    let (count, heads, width) = q.dims3()?;
    for conversation in all {
        conversation.check(heads, width)?;
    }
    let expected: usize = all.iter().map(|conversation| conversation.queries).sum();
    if expected != count {
        bail!("attention_apart: expected {expected} queries of {} conversations, got {:?}", all.len(), q.shape())
    }
    if !is_fused(q) {
        return composed(q, all);
    }
    require_f32("attention_apart", &[q])?;
    let q = q.contiguous()?;
    let mut guards = vec![q.storage_and_layout()];
    for conversation in all {
        guards.push(conversation.own.storage_and_layout());
        guards.extend(conversation.prefix.map(Tensor::storage_and_layout));
    }
    let mut slices = guards.iter().map(|(storage, layout)| match &**storage {
        Storage::Cpu(storage) => elements("attention_apart", storage, layout),
        _ => bail!("attention_apart: expected tensors on the CPU"),
    });
    let mut next = || slices.next().unwrap_or(Ok(&[]));
    let queries = next()?;
    let (mut parts, mut first) = (Vec::with_capacity(all.len()), 0);
    for conversation in all {
        let own = next()?;
        let prefix = if conversation.prefix.is_some() { next()? } else { &[] };
        parts.push(Part { prefix, own, first, ..Part::of(conversation)? });
        first += conversation.queries;
    }
    let (seen, rows) = forward(queries, &parts, [heads, width]);
    let on = |values: Vec<f32>, part: &Part| Tensor::from_vec(values, (1, heads, part.places), q.device());
    let rows = rows.into_iter().zip(&parts).map(|(row, part)| row.map(|row| on(row, part)).transpose());
    Ok(Apart { seen: Tensor::from_vec(seen, (count, heads * width), q.device())?, rows: rows.collect::<Result<_>>()? })
}

impl Conversation<'_> {
    fn check(&self, heads: usize, width: usize) -> Result<()> {
        let fits = |kv: &Tensor| -> Result<(bool, usize)> {
            let (one, places, pair, groups, kv_width) = kv.dims5()?;
            Ok((one == 1 && pair == 2 && kv_width == width && groups > 0 && heads.is_multiple_of(groups), places))
        };
        for (what, kv) in [("own", Some(self.own)), ("prefix", self.prefix)] {
            let Some(kv) = kv else { continue };
            if !fits(kv)?.0 {
                bail!(
                    "attention_apart: expected {what} keys and values [1, C, 2, G, {width}] with G dividing {heads}, got {:?}",
                    kv.shape()
                )
            }
        }
        let (_, room) = fits(self.own)?;
        if self.queries > self.slots || self.slots > room {
            bail!("attention_apart: {} queries at the end of {} slots, with room for {room}", self.queries, self.slots)
        }
        Ok(())
    }
}

/// One conversation as slices.
#[derive(Clone, Copy)]
struct Part<'a> {
    prefix: &'a [f32],
    own: &'a [f32],
    places: usize,
    groups: usize,
    slots: usize,
    queries: usize,
    /// Its first query among all.
    first: usize,
    row: bool,
}

impl<'a> Part<'a> {
    fn of(conversation: &Conversation) -> Result<Self> {
        let (_, _, _, groups, _) = conversation.own.dims5()?;
        let places = match conversation.prefix {
            None => 0,
            Some(prefix) => prefix.dims5()?.1,
        };
        let Conversation { slots, queries, row, .. } = *conversation;
        Ok(Self { prefix: &[], own: &[], places, groups, slots, queries, first: 0, row })
    }

    /// Keys or values of one head that the query `query` sees, in order.
    fn seen(&self, query: usize, group: usize, half: Half, width: usize) -> impl Iterator<Item = &'a [f32]> {
        let (start, stride) = ((half as usize * self.groups + group) * width, 2 * self.groups * width);
        let of = move |all: &'a [f32], count: usize| (0..count).map(move |at| &all[at * stride + start..][..width]);
        of(self.prefix, self.places).chain(of(self.own, self.sees(query)))
    }

    /// Own slots that a query sees.
    fn sees(&self, query: usize) -> usize {
        self.slots - self.queries + query + 1
    }
}

/// What all queries see, `[N, H * Dh]`, and the rows over prefixes that are wanted, `[H, P]`.
fn forward(q: &[f32], parts: &[Part], [heads, width]: [usize; 2]) -> (Vec<f32>, Vec<Option<Vec<f32>>>) {
    let mut rows: Vec<Option<Vec<f32>>> =
        parts.iter().map(|part| part.row.then(|| vec![0.0; heads * part.places])).collect();
    let targets: Vec<Option<Shared>> = rows.iter_mut().map(|row| row.as_mut().map(|row| Shared::new(row))).collect();
    let blocks = |number: usize| (0..parts[number].queries).step_by(BLOCK).map(move |start| (number, start));
    let blocks: Vec<(usize, usize)> = (0..parts.len()).flat_map(blocks).collect();
    let operations = parts.iter().map(|part| part.queries * (part.places + part.slots) * heads * width).sum();
    let scale = 1.0 / (width as f32).sqrt();
    let seen = filled(q.len(), |out| {
        let out = Shared::new(out);
        // One unit for each block of each head, so that a single conversation keeps several threads busy too.
        for_units(blocks.len() * heads, operations, |unit| {
            let ((number, start), head) = (blocks[unit / heads], unit % heads);
            let part = &parts[number];
            let group = head / (heads / part.groups);
            let mut scores = Vec::with_capacity(part.places + part.slots);
            for query in start..part.queries.min(start + BLOCK) {
                let at = ((part.first + query) * heads + head) * width;
                let own = &q[at..at + width];
                scores.clear();
                scores.extend(part.seen(query, group, Half::Keys, width).map(|key| scale * dot(own, key)));
                softmax(&mut scores);
                // SAFETY: a unit's queries and head are its own.
                let out = unsafe { out.slice(at, width) };
                out.fill(0.0);
                for (weight, value) in scores.iter().zip(part.seen(query, group, Half::Values, width)) {
                    add_scaled(out, *weight, value);
                }
                if let Some(row) = targets[number].filter(|_| query + 1 == part.queries) {
                    // SAFETY: the last query of a head belongs to one unit.
                    let row = unsafe { row.slice(head * part.places, part.places) };
                    row.copy_from_slice(&scores[..part.places]);
                }
            }
        });
    });
    (seen, rows)
}

/// The same by the operations for rows of equal length, one conversation after the other.
fn composed(q: &Tensor, all: &[Conversation]) -> Result<Apart> {
    let (_, heads, width) = q.dims3()?;
    let (mut seen, mut rows, mut first) = (Vec::new(), Vec::new(), 0);
    for conversation in all {
        let Conversation { prefix, slots, queries, row, .. } = *conversation;
        let places = prefix.map(|prefix| prefix.dims5()).transpose()?.map_or(0, |(_, places, ..)| places);
        let sight = Sight {
            shared_of_row: [0].into(),
            shared_visible: vec![true; places].into(),
            own_visible: vec![true; slots].into(),
            first_slot: slots - queries,
            causal: true,
        };
        let own = conversation.own.narrow(1, 0, slots)?.contiguous()?;
        let queries_of = q.narrow(0, first, queries)?.reshape((1, queries, heads, width))?;
        seen.push(crate::attention(&queries_of, &own, prefix, &sight)?.squeeze(0)?);
        rows.push(match prefix.filter(|_| row && queries > 0) {
            None => None,
            Some(prefix) => {
                let last = Sight { first_slot: slots - 1, ..sight };
                let query = queries_of.narrow(1, queries - 1, 1)?.squeeze(1)?;
                Some(crate::attention_row(&query, &own, prefix, &last)?)
            }
        });
        first += queries;
    }
    Ok(Apart { seen: Tensor::cat(&seen, 0)?, rows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    const HEADS: usize = 4;
    const WIDTH: usize = 24;

    /// Places of the prefix, slots, queries; groups.
    const CASES: [([usize; 3], usize); 5] =
        [([12, 5, 5], 2), ([0, 40, 1], 2), ([49, 21, 21], 4), ([7, 1, 1], 1), ([16, 33, 2], 4)];

    /// A prefix, own slots with room behind them, queries.
    fn inputs(([places, slots, queries], groups): ([usize; 3], usize), seed: u64) -> [Tensor; 3] {
        let kv = |places: usize, seed| random((1, places.max(1), 2, groups, WIDTH), seed);
        [kv(places, seed), kv(slots + 3, seed + 1), random((queries, HEADS, WIDTH), seed + 2)]
    }

    fn conversation<'a>(case: ([usize; 3], usize), [prefix, own, _]: &'a [Tensor; 3]) -> Conversation<'a> {
        let ([places, slots, queries], _) = case;
        Conversation { prefix: (places > 0).then_some(prefix), own, slots, queries, row: true }
    }

    fn alone(case: ([usize; 3], usize), inputs: &[Tensor; 3]) -> Apart {
        attention_apart(&inputs[2], &[conversation(case, inputs)]).unwrap()
    }

    #[test]
    fn attention_apart_is_attention() {
        for (case, seed) in CASES.into_iter().zip(1..) {
            let inputs = inputs(case, seed);
            let all = [conversation(case, &inputs)];
            let (got, expected) = (attention_apart(&inputs[2], &all).unwrap(), composed(&inputs[2], &all).unwrap());
            close("seen", &values(&got.seen), &values(&expected.seen), 2e-6);
            if let (Some(got), Some(expected)) = (&got.rows[0], &expected.rows[0]) {
                assert_eq!(got.dims(), expected.dims());
                close("row", &values(got), &values(expected), 2e-6);
            }
        }
    }

    #[test]
    fn a_conversation_has_the_same_bits_beside_others() {
        let inputs: Vec<[Tensor; 3]> = CASES.into_iter().zip(1..).map(|(case, seed)| inputs(case, seed)).collect();
        let all: Vec<Conversation> = CASES.into_iter().zip(&inputs).map(|(case, i)| conversation(case, i)).collect();
        let queries: Vec<&Tensor> = inputs.iter().map(|[_, _, q]| q).collect();
        let together = attention_apart(&Tensor::cat(&queries, 0).unwrap(), &all).unwrap();
        let (mut seen, mut first) = (bits(&together.seen).into_iter(), 0);
        for ((case, inputs), row) in CASES.into_iter().zip(&inputs).zip(&together.rows) {
            let alone = alone(case, inputs);
            let expected = bits(&alone.seen);
            assert_eq!(seen.by_ref().take(expected.len()).collect::<Vec<_>>(), expected, "from query {first}");
            assert_eq!(row.as_ref().map(bits), alone.rows[0].as_ref().map(bits));
            first += case.0[2];
        }
    }

    #[test]
    fn a_query_has_the_same_bits_whatever_comes_with_it() {
        let case = ([12, 30, 30], 2);
        let inputs = inputs(case, 9);
        let together = bits(&alone(case, &inputs).seen);
        for query in 0..30 {
            let one = [inputs[0].clone(), inputs[1].clone(), inputs[2].narrow(0, query, 1).unwrap()];
            let expected = bits(&alone(([12, query + 1, 1], 2), &one).seen);
            assert_eq!(together[query * expected.len()..][..expected.len()], expected, "query {query}");
        }
    }

    #[test]
    fn attention_apart_has_the_same_bits_on_any_number_of_threads() {
        let case = ([49, 80, 80], 4);
        let inputs = inputs(case, 3);
        same_bits_on_any_number_of_threads(
            &|t| Ok(alone(case, &[t[0].clone(), t[1].clone(), t[2].clone()]).seen),
            &inputs,
        );
    }

    #[test]
    fn slots_that_do_not_fit_are_refused() {
        let case = ([12, 5, 5], 2);
        let inputs = inputs(case, 3);
        let refused = |all: &[Conversation]| attention_apart(&inputs[2], all).unwrap_err().to_string();
        let one = conversation(case, &inputs);
        assert!(refused(&[]).contains("expected 0 queries"));
        assert!(refused(&[Conversation { slots: 9, ..one }]).contains("room for 8"));
        assert!(refused(&[Conversation { slots: 4, ..one }]).contains("5 queries"));
        assert!(refused(&[Conversation { own: &inputs[2], ..one }]).contains("expected rank"), "{}", refused(&[one]));
    }
}
