//! Numbers about a focus: how wide it is, how it moves, whether it lies where it should.
//!
//! Pure functions. Geometry is that of the original picture, through [`Grid::cell`], so nothing here
//! assumes square pictures, square cells or a grid that ends where the picture does.
//! Weights are `[rows * cols]` as in [`StepRecord::weights`]: not negative, summing to 1.

use crate::schema::{Grid, Record, Region, StepRecord};

/// Share of a region that one selected patch must cover to count as having found it.
///
/// A small object on the border of two cells is half in each, so "most of it" would miss true finds.
pub const HIT_SHARE: f64 = 0.5;

/// The measures of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepMeasures {
    /// How wide the focus is; see [`focus_entropy_nats`].
    pub focus_entropy_nats: f64,
    /// How it moved since the step before; `None` for the first.
    pub drift: Option<Drift>,
    /// How it lies on the true region, when the record has one.
    pub on_region: Option<OnRegion>,
}

/// How a focus moved from one step to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// Half the summed absolute difference: 0 for the same focus, 1 for disjoint ones.
    pub total_variation: f64,
    /// Distance between the centres of mass, in pixels of the original picture.
    pub shift_px: f64,
}

/// How a focus lies on the region it should lie on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OnRegion {
    /// Attention inside the region; see [`mass_on_region`].
    pub mass: f64,
    /// Whether a selected patch covers it; see [`hit`], with [`HIT_SHARE`].
    pub hit: bool,
    /// Whether the heaviest patch points at it; see [`pointing`].
    pub pointing: bool,
}

/// The measures of every step of a record, in order.
pub fn of(record: &Record) -> Vec<StepMeasures> {
    let before = std::iter::once(None).chain(record.steps.iter().map(Some));
    let steps = record.steps.iter().zip(before);
    steps.map(|(step, before)| of_step(&record.grid, step, before)).collect()
}

fn of_step(grid: &Grid, step: &StepRecord, before: Option<&StepRecord>) -> StepMeasures {
    StepMeasures {
        focus_entropy_nats: focus_entropy_nats(&step.weights),
        drift: before.map(|before| drift(grid, &before.weights, &step.weights)),
        on_region: step.region.map(|region| OnRegion {
            mass: mass_on_region(grid, &step.weights, &region),
            hit: hit(grid, &step.selected, &region, HIT_SHARE),
            pointing: pointing(grid, &step.weights, &region),
        }),
    }
}

/// Entropy of the focus, in nats: 0 on one patch, `ln P` spread evenly over all.
pub fn focus_entropy_nats(weights: &[f32]) -> f64 {
    let term = |&weight: &f32| {
        let weight = f64::from(weight);
        // The limit of -w ln w at 0 is 0; computed, it would be NaN.
        if weight > 0.0 { -weight * weight.ln() } else { 0.0 }
    };
    weights.iter().map(term).sum()
}

/// How the focus moved from `before` to `after`, both over the same grid.
pub fn drift(grid: &Grid, before: &[f32], after: &[f32]) -> Drift {
    let difference: f64 = before.iter().zip(after).map(|(&before, &after)| f64::from(before - after).abs()).sum();
    let (x_before, y_before) = centre_of_mass_px(grid, before);
    let (x_after, y_after) = centre_of_mass_px(grid, after);
    Drift { total_variation: difference / 2.0, shift_px: (x_after - x_before).hypot(y_after - y_before) }
}

/// Mean of the cell centres weighted by attention, as `(x, y)` in pixels of the original picture.
pub fn centre_of_mass_px(grid: &Grid, weights: &[f32]) -> (f64, f64) {
    weights.iter().enumerate().fold((0.0, 0.0), |(x, y), (patch, &weight)| {
        let (centre_x, centre_y) = centre(&grid.cell(patch));
        (x + f64::from(weight) * centre_x, y + f64::from(weight) * centre_y)
    })
}

/// Attention that falls on the region: a cell counts with the share of its area inside it.
///
/// An even focus therefore scores the region's share of the grid's area, which is the chance level.
pub fn mass_on_region(grid: &Grid, weights: &[f32], region: &Region) -> f64 {
    let inside = |(patch, &weight): (usize, &f32)| {
        let cell = grid.cell(patch);
        f64::from(weight) * overlap_px2(&cell, region) / area_px2(&cell)
    };
    weights.iter().enumerate().map(inside).sum()
}

/// Whether any selected patch covers at least `share` of the region (0 to 1) by itself.
///
/// A region wider than a cell cannot be covered by one; the most that a cell of this grid can cover
/// then stands for the whole region.
pub fn hit(grid: &Grid, selected: &[usize], region: &Region, share: f64) -> bool {
    let widest = f64::from(grid.cell_px_x.min(region.width));
    let tallest = f64::from(grid.cell_px_y.min(region.height));
    let needed_px2 = share * widest * tallest;
    selected.iter().any(|&patch| overlap_px2(&grid.cell(patch), region) >= needed_px2)
}

/// The pointing game: whether the heaviest patch and the region mean the same place.
///
/// They do when the centre of either lies inside the other: the region's inside the cell for small
/// objects, the cell's inside the region for large ones. Of equally heavy patches the first counts.
pub fn pointing(grid: &Grid, weights: &[f32], region: &Region) -> bool {
    let heavier = |best: (usize, f32), (patch, &weight): (usize, &f32)| {
        if weight > best.1 { (patch, weight) } else { best }
    };
    let (heaviest, _) = weights.iter().enumerate().fold((0, f32::NEG_INFINITY), heavier);
    let cell = grid.cell(heaviest);
    contains(&cell, centre(region)) || contains(region, centre(&cell))
}

/// Area shared by two rectangles, in square pixels.
fn overlap_px2(a: &Region, b: &Region) -> f64 {
    let shared = |start_a: f32, extent_a: f32, start_b: f32, extent_b: f32| {
        let start = f64::from(start_a).max(f64::from(start_b));
        let end = (f64::from(start_a) + f64::from(extent_a)).min(f64::from(start_b) + f64::from(extent_b));
        (end - start).max(0.0)
    };
    shared(a.x, a.width, b.x, b.width) * shared(a.y, a.height, b.y, b.height)
}

fn area_px2(region: &Region) -> f64 {
    f64::from(region.width) * f64::from(region.height)
}

fn centre(region: &Region) -> (f64, f64) {
    (f64::from(region.x) + f64::from(region.width) / 2.0, f64::from(region.y) + f64::from(region.height) / 2.0)
}

fn contains(region: &Region, (x, y): (f64, f64)) -> bool {
    let (left, top) = (f64::from(region.x), f64::from(region.y));
    let (right, bottom) = (left + f64::from(region.width), top + f64::from(region.height));
    (left..right).contains(&x) && (top..bottom).contains(&y)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wide picture, 600 x 200, in 2 rows of 3 cells.
    const WIDE: Grid = Grid { rows: 2, cols: 3, cell_px_x: 200.0, cell_px_y: 100.0, fine_per_cell: 4 };

    fn region(x: f32, y: f32, width: f32, height: f32) -> Region {
        Region { x, y, width, height }
    }

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-6, "expected {expected}, got {got}");
    }

    #[test]
    fn entropy_is_zero_on_one_patch_and_ln_p_on_all() {
        near(focus_entropy_nats(&[0.0, 1.0, 0.0]), 0.0);
        near(focus_entropy_nats(&[0.25; 4]), 4.0_f64.ln());
    }

    #[test]
    fn drift_is_zero_for_the_same_focus_and_one_for_disjoint_ones() {
        let left = [0.5, 0.0, 0.0, 0.5, 0.0, 0.0];
        let right = [0.0, 0.0, 0.5, 0.0, 0.0, 0.5];
        assert_eq!(drift(&WIDE, &left, &left), Drift { total_variation: 0.0, shift_px: 0.0 });
        let moved = drift(&WIDE, &left, &right);
        near(moved.total_variation, 1.0);
        near(moved.shift_px, 400.0);
    }

    #[test]
    fn a_shift_counts_pixels_and_not_cells() {
        let mut focus = [[0.0; 6]; 3];
        focus[0][0] = 1.0;
        focus[1][1] = 1.0; // one cell to the right, 200 px
        focus[2][3] = 1.0; // one cell down, 100 px
        near(drift(&WIDE, &focus[0], &focus[1]).shift_px, 200.0);
        near(drift(&WIDE, &focus[0], &focus[2]).shift_px, 100.0);
    }

    #[test]
    fn the_mass_of_an_even_focus_is_the_regions_share_of_the_area() {
        let even = [1.0 / 6.0; 6];
        near(mass_on_region(&WIDE, &even, &region(0.0, 0.0, 600.0, 200.0)), 1.0);
        near(mass_on_region(&WIDE, &even, &region(150.0, 50.0, 100.0, 60.0)), 6_000.0 / 120_000.0);
    }

    #[test]
    fn mass_counts_a_cell_by_the_share_inside_the_region() {
        let last = [0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        near(mass_on_region(&WIDE, &last, &region(500.0, 100.0, 100.0, 100.0)), 0.5);
        near(mass_on_region(&WIDE, &last, &region(0.0, 0.0, 100.0, 100.0)), 0.0);
    }

    #[test]
    fn a_hit_needs_one_patch_that_covers_enough_alone() {
        let between = region(180.0, 10.0, 40.0, 40.0); // half in patch 0, half in patch 1
        for (selected, share, expected) in [
            (&[0][..], 0.5, true),
            (&[0], 0.6, false),
            (&[0, 1], 0.6, false),
            (&[2, 1], 0.5, true),
            (&[3, 4, 5], 0.1, false),
            (&[], 0.1, false),
        ] {
            assert_eq!(hit(&WIDE, selected, &between, share), expected, "{selected:?} at {share}");
        }
    }

    #[test]
    fn a_region_larger_than_a_cell_can_be_hit() {
        let everything = region(0.0, 0.0, 600.0, 200.0);
        assert!(hit(&WIDE, &[4], &everything, 1.0));
    }

    #[test]
    fn pointing_is_right_for_small_and_for_large_regions() {
        let focus = [0.1, 0.1, 0.1, 0.1, 0.1, 0.5]; // heaviest: 400..600 by 100..200
        for (aim, expected) in [
            (region(410.0, 110.0, 10.0, 10.0), true),
            (region(300.0, 50.0, 300.0, 150.0), true),
            (region(390.0, 110.0, 10.0, 10.0), false),
            (region(0.0, 0.0, 300.0, 200.0), false),
        ] {
            assert_eq!(pointing(&WIDE, &focus, &aim), expected, "{aim:?}");
        }
    }
}
