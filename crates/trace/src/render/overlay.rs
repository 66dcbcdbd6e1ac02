//! The coloured layer that every picture of a focus shares: weights in, translucent pixels out.

use image::{Rgba, RgbaImage};

use crate::schema::Grid;

/// Inferno, sampled evenly from 0 to 1: lightness grows with the value, so the map also reads in grey
/// and for readers who do not tell red from green.
const INFERNO: [[u8; 3]; 10] = [
    [0, 0, 4],
    [27, 12, 65],
    [74, 12, 107],
    [120, 28, 109],
    [165, 44, 96],
    [207, 68, 70],
    [237, 105, 37],
    [251, 155, 6],
    [247, 209, 61],
    [252, 255, 164],
];

/// Opacity where nothing is attended: dark enough to set the focus off, the picture still readable.
const OPACITY_LOW: f32 = 0.56;
/// Opacity at the focus: what was looked at must stay recognisable under its colour.
const OPACITY_HIGH: f32 = 0.4;
/// Weights fall off steeply; below 1 the exponent lifts the lower ones into the visible.
const CONTRAST: f32 = 0.7;

/// Place of the last colour of the palette; finer than the eye, also where the root is steep.
const LAST_COLOUR: f32 = 1023.0;

/// Colour of a value from 0 to 1.
pub(crate) fn colour(value: f32) -> [u8; 3] {
    let place = value.clamp(0.0, 1.0) * (INFERNO.len() - 1) as f32;
    let below = (place as usize).min(INFERNO.len() - 2);
    let part = place - below as f32;
    let mix = |channel: usize| {
        let (low, high) = (INFERNO[below][channel], INFERNO[below + 1][channel]);
        (f32::from(low) + part * (f32::from(high) - f32::from(low))).round() as u8
    };
    [mix(0), mix(1), mix(2)]
}

/// The layer over the top-left `width_px` by `height_px` of the original picture, drawn `out` pixels large.
///
/// The heaviest patch gets the top of the colour scale. Between cell centres the weight is interpolated
/// linearly; where the grid is cut off by the picture's edge, so is the layer.
pub(crate) fn layer(grid: &Grid, weights: &[f32], (width_px, height_px): (f32, f32), out: (u32, u32)) -> RgbaImage {
    let heaviest = weights.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let palette = palette();
    let columns = taps(grid.cols, width_px / grid.cell_px_x, out.0);
    let rows = taps(grid.rows, height_px / grid.cell_px_y, out.1);
    RgbaImage::from_fn(out.0, out.1, |x, y| {
        let (column, row) = (&columns[x as usize], &rows[y as usize]);
        let across = |row: usize| {
            let left = weights[row * grid.cols + column.low];
            let right = weights[row * grid.cols + column.high];
            left + column.part * (right - left)
        };
        let weight = across(row.low) + row.part * (across(row.high) - across(row.low));
        palette[(weight / heaviest * LAST_COLOUR) as usize]
    })
}

/// Pixels for evenly spaced weights, heaviest last: a root for every pixel would cost more than all else.
fn palette() -> Vec<Rgba<u8>> {
    let pixel = |place: usize| {
        let value = (place as f32 / LAST_COLOUR).powf(CONTRAST);
        let [red, green, blue] = colour(value);
        let opacity = OPACITY_LOW + value * (OPACITY_HIGH - OPACITY_LOW);
        Rgba([red, green, blue, (opacity * 255.0).round() as u8])
    };
    (0..=LAST_COLOUR as usize).map(pixel).collect()
}

/// The two cells an output pixel lies between along one axis, and how far towards the second.
struct Tap {
    low: usize,
    high: usize,
    part: f32,
}

/// One tap for each of `out` pixels that together show `shown` cells of `cells`.
fn taps(cells: usize, shown: f32, out: u32) -> Vec<Tap> {
    let last = cells.saturating_sub(1) as f32;
    let tap = |pixel: u32| {
        // Cell i has its centre at i + 0.5; outside the first and last centre the weight stays level.
        let place = ((pixel as f32 + 0.5) / out as f32 * shown - 0.5).clamp(0.0, last);
        let low = place as usize;
        Tap { low, high: (low + 1).min(cells - 1), part: place - low as f32 }
    };
    (0..out).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_grow_lighter_with_the_value() {
        let lightness = |value: f32| {
            let [red, green, blue] = colour(value).map(f32::from);
            0.299 * red + 0.587 * green + 0.114 * blue
        };
        let steps: Vec<f32> = (0..=50).map(|step| lightness(step as f32 / 50.0)).collect();
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
    }

    #[test]
    fn the_heaviest_cell_is_lightest_at_its_centre() {
        let grid = Grid { rows: 2, cols: 4, cell_px_x: 10.0, cell_px_y: 20.0, fine_per_cell: 1 };
        let weights = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let layer = layer(&grid, &weights, (40.0, 40.0), (40, 40));
        let green = |x: u32, y: u32| layer.get_pixel(x, y).0[1];
        let lightest = (0..40 * 40).max_by_key(|&at| green(at % 40, at / 40)).map(|at| (at % 40, at / 40));
        assert!(lightest.is_some_and(|(x, y)| (24..=25).contains(&x) && y >= 30), "{lightest:?}");
        assert_eq!(layer.get_pixel(0, 0).0, [0, 0, 4, (OPACITY_LOW * 255.0).round() as u8]);
    }

    #[test]
    fn a_grid_past_the_edge_is_cut_off_and_not_squeezed() {
        // Two columns of 10 px over a picture 15 px wide: the seam lies at two thirds, not at half.
        let grid = Grid { rows: 1, cols: 2, cell_px_x: 10.0, cell_px_y: 10.0, fine_per_cell: 1 };
        let layer = layer(&grid, &[0.0, 1.0], (15.0, 10.0), (150, 1));
        let half_way = colour(0.5_f32.powf(CONTRAST));
        let seam = layer.get_pixel(100, 0).0;
        for channel in 0..3 {
            assert!(seam[channel].abs_diff(half_way[channel]) < 4, "{seam:?} against {half_way:?}");
        }
    }
}
