//! Who may see whom: every attention mask of the model is made here.
//!
//! Every row of a batch has its own slots; all rows of one picture share the picture's slots. A row that has
//! fewer words or takes fewer latent steps than its neighbours has holes, which nobody sees:
//!
//! ```text
//!            shared (picture)   own slots of row 0             own slots of row 1
//!            p0 p1 p2 p3        What is left ? z1 z2 z3 </t>    .  . Read it z1  .  . </t>
//! z2, row 0   x  x  x  x         x   x   x   x  x  x  -  -
//! z1, row 1   x  x  x  x                                         -  -  x   x  x  -  -  -
//! </t>, row 1 x  x  x  x                                         -  -  x   x  x  -  -  x
//! ```
//!
//! A query sees the visible shared slots and the visible own slots up to its own. Inside the nano model's picture every
//! token sees every other; inside a pretrained model's prefix each sees those before it. Positions for the rotary embedding count real slots alone, so a row with holes has the same
//! positions as the row by itself.

use lare_kernels::Sight;
use std::sync::Arc;

/// The slots of a batch of conversations: which are real, and at which position the next one stands.
#[derive(Clone, Debug)]
pub struct Slots {
    shared_of_row: Arc<[u32]>,
    shared_visible: Arc<[bool]>,
    first_position: Vec<u32>, // [B]
    visible: Vec<Vec<bool>>,  // [B][C]
}

impl Slots {
    /// No own slots yet.
    ///
    /// - `shared_of_row`: `[B]`, the prefix that each row goes on from
    /// - `shared_visible`: `[S * P]`
    /// - `next_position`: `[S]`, where the first slot after each prefix stands
    pub fn new(shared_of_row: Arc<[u32]>, shared_visible: Arc<[bool]>, next_position: &[u32]) -> Self {
        let visible = vec![Vec::new(); shared_of_row.len()];
        let first_position = shared_of_row.iter().map(|s| next_position[*s as usize]).collect();
        Self { shared_of_row, shared_visible, first_position, visible }
    }

    /// `B`.
    pub fn rows(&self) -> usize {
        self.visible.len()
    }

    /// `[B]`, the picture that each row is about.
    pub fn shared_of_row(&self) -> &Arc<[u32]> {
        &self.shared_of_row
    }

    /// Appends one slot per entry of `real` (`[B][T]`) and returns what the new slots see, and their rotary
    /// positions `[B * T]`. A hole takes the position of the next real slot and moves nothing.
    pub fn append(&mut self, real: &[Vec<bool>]) -> (Sight, Vec<u32>) {
        let first_slot = self.visible.first().map_or(0, Vec::len);
        let mut positions = Vec::with_capacity(real.iter().map(Vec::len).sum());
        for ((row, new), first) in self.visible.iter_mut().zip(real).zip(&self.first_position) {
            let mut next = first + row.iter().filter(|seen| **seen).count() as u32;
            for seen in new {
                positions.push(next);
                next += u32::from(*seen);
                row.push(*seen);
            }
        }
        (self.sight(first_slot, true), positions)
    }

    /// What a query at `first_slot` and after sees now.
    pub fn sight(&self, first_slot: usize, causal: bool) -> Sight {
        Sight {
            shared_of_row: self.shared_of_row.clone(),
            shared_visible: self.shared_visible.clone(),
            own_visible: self.visible.iter().flatten().copied().collect(),
            first_slot,
            causal,
        }
    }

    /// Real slots of each row, the picture's not counted.
    pub fn lengths(&self) -> Vec<usize> {
        self.visible.iter().map(|row| row.iter().filter(|seen| **seen).count()).collect()
    }
}

/// The slots of one conversation that stands apart. It has no neighbours and so no holes: each of its slots sees all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    first_position: u32,
    slots: usize,
}

impl Line {
    /// No own slots yet; the first one will stand at `first_position`, behind the prefix.
    pub fn new(first_position: u32) -> Self {
        Self { first_position, slots: 0 }
    }

    /// Its slots so far, the prefix's not counted.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Rotary positions of the next `new` slots.
    pub fn next_positions(&self, new: usize) -> impl Iterator<Item = u32> + use<> {
        let next = self.first_position + self.slots as u32;
        next..next + new as u32
    }

    /// Goes on by `new` slots.
    pub fn append(&mut self, new: usize) {
        self.slots += new;
    }
}

/// One query a row that sees the picture its row is about and nothing else, not even its own slot.
/// `picture_of_row`: `[B]`; `visible`: `[S * P]`.
pub fn picture_alone(picture_of_row: Arc<[u32]>, visible: Arc<[bool]>) -> Sight {
    let own_visible = vec![false; picture_of_row.len()].into();
    Sight { shared_of_row: picture_of_row, shared_visible: visible, own_visible, first_slot: 0, causal: true }
}

/// Inside a picture, or a set of queries, every real entry sees every other. `visible`: `[B * C]`.
pub fn everyone(rows: usize, visible: Arc<[bool]>) -> Sight {
    Sight {
        shared_of_row: vec![0; rows].into(),
        shared_visible: Arc::from([]),
        own_visible: visible,
        first_slot: 0,
        causal: false,
    }
}

/// Inside a prefix every real entry sees those before it. `visible`: `[B * C]`.
pub fn in_order(rows: usize, visible: Arc<[bool]>) -> Sight {
    Sight { causal: true, ..everyone(rows, visible) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Slots {
        Slots::new(vec![0, 0].into(), vec![true; 4].into(), &[1])
    }

    #[test]
    fn a_hole_moves_no_position() {
        let mut slots = slots();
        let (_, positions) = slots.append(&[vec![true, true, true], vec![true, false, false]]);
        assert_eq!(positions, [1, 2, 3, 1, 2, 2]);
        let (sight, positions) = slots.append(&[vec![true], vec![true]]);
        assert_eq!(positions, [4, 2]);
        assert_eq!(sight.first_slot, 3);
        assert_eq!(&sight.own_visible[..], [true, true, true, true, true, false, false, true]);
    }

    #[test]
    fn a_line_stands_where_a_row_without_holes_does() {
        let (mut line, mut slots) = (Line::new(1), slots());
        for new in [3, 1, 2] {
            let (_, positions) = slots.append(&[vec![true; new], vec![true; new]]);
            assert!(line.next_positions(new).eq(positions[..new].iter().copied()));
            line.append(new);
        }
        assert_eq!(line.slots(), slots.lengths()[0]);
    }

    #[test]
    fn lengths_count_real_slots_alone() {
        let mut slots = slots();
        slots.append(&[vec![true, true], vec![true, false]]);
        assert_eq!(slots.lengths(), [2, 1]);
    }
}
