//! Regions of pictures and the cells that a model looks at.

use crate::item::Rationale;
use lare_data::{Region, order_taken};
use lare_infer::Answer;
use lare_trace::Grid;

/// Area of a region in each cell, in square pixels, `[rows * cols]`.
#[must_use]
pub fn areas(region: &Region, grid: &Grid) -> Vec<f32> {
    let overlap = |from: f32, to: f32, at: usize, cell: f32| {
        (to.min((at + 1) as f32 * cell) - from.max(at as f32 * cell)).max(0.0)
    };
    let area = |i: usize| {
        overlap(region.top, region.bottom, i / grid.cols, grid.cell_px_y)
            * overlap(region.left, region.right, i % grid.cols, grid.cell_px_x)
    };
    (0..grid.cells()).map(area).collect()
}

/// At most `count` cells with the most of a region, most first; at least one.
#[must_use]
pub fn best_cells(region: &Region, grid: &Grid, count: usize) -> Vec<usize> {
    let areas = areas(region, grid);
    let mut order: Vec<usize> = (0..areas.len()).collect();
    order.sort_by(|a, b| areas[*b].total_cmp(&areas[*a]));
    let touched = areas.iter().filter(|area| **area > 0.0).count();
    order.truncate(count.min(touched).max(1));
    order
}

/// Which region each look should fall on, look by look: in their order, or, where that does not matter, the one that it
/// took.
#[must_use]
pub fn order(rationale: &Rationale, answer: &Answer) -> Vec<usize> {
    if !rationale.any_order {
        return (0..rationale.regions.len()).collect();
    }
    let shares: Vec<Vec<f32>> = rationale.regions.iter().map(|region| shares(region, &answer.grid)).collect();
    let shares: Vec<&[f32]> = shares.iter().map(Vec::as_slice).collect();
    let looks = answer.looks_on_cells();
    let looks: Vec<&[f32]> = looks.iter().map(|look| &look.scores[..]).collect();
    order_taken(&looks, &shares)
}

/// For each look that the rationale has a region for: whether the cell with most of the region was read. Nothing for a
/// model that reads no cells.
#[must_use]
pub fn hits(rationale: &Rationale, answer: &Answer) -> Vec<bool> {
    let hit = |(region, look): (&usize, &lare_infer::LookReport)| {
        let main = best_cells(&rationale.regions[*region], &answer.grid, 1);
        look.chosen.contains(&main[0])
    };
    if answer.looks.iter().all(|look| look.chosen.is_empty()) {
        return Vec::new();
    }
    order(rationale, answer).iter().zip(&answer.looks_on_cells()).map(hit).collect()
}

fn shares(region: &Region, grid: &Grid) -> Vec<f32> {
    let areas = areas(region, grid);
    let sum: f32 = areas.iter().sum();
    areas.iter().map(|area| area / sum.max(1e-6)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        Grid { rows: 2, cols: 3, cell_px_x: 10.0, cell_px_y: 20.0, fine_per_cell: 16 }
    }

    #[test]
    fn a_region_lies_in_the_cells_it_covers() {
        let region = Region { left: 8.0, top: 15.0, right: 25.0, bottom: 30.0 };
        assert_eq!(areas(&region, &grid()), [10.0, 50.0, 25.0, 20.0, 100.0, 50.0]);
        assert_eq!(best_cells(&region, &grid(), 3), [4, 1, 5]);
        assert_eq!(best_cells(&Region::at(0, 0, 5, 5), &grid(), 3), [0], "cells without any of it are left out");
        assert_eq!(best_cells(&Region::at(100, 100, 5, 5), &grid(), 3).len(), 1, "never none");
    }
}
