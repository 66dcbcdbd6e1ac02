//! A made-up answer: for tests, and to look at the renderers without a model.

use crate::schema::{
    Grid, InputInfo, ModelInfo, OptionsInfo, Record, Region, SCHEMA, SmallPicture, StepRecord, Timing, Usage, Word,
};

/// An answer about a wide picture, 640 x 384, whose last look is in the bottom-right corner; and the picture.
pub fn wide() -> (Record, Vec<u8>) {
    let grid = Grid { rows: 6, cols: 10, cell_px_x: 64.0, cell_px_y: 64.0, fine_per_cell: 16 };
    let steps = vec![looking_at(&grid, 12, "cat"), looking_at(&grid, 34, "left"), looking_at(&grid, 59, "cup")];
    (record((640, 384), grid, steps), painting(640, 384))
}

/// An answer about a square picture, 448 x 448, with thought pictures and true regions; and the picture.
pub fn square() -> (Record, Vec<u8>) {
    let grid = Grid { rows: 7, cols: 7, cell_px_x: 64.0, cell_px_y: 64.0, fine_per_cell: 16 };
    let steps = [(30, "cat"), (29, "cup"), (36, "7B"), (36, "7")].map(|(patch, word)| StepRecord {
        region: Some(around(&grid, patch)),
        thought_picture: Some(SmallPicture { width: 32, height: 32, rgb: painting(32, 32) }),
        ..looking_at(&grid, patch, word)
    });
    (record((448, 448), grid, steps.to_vec()), painting(448, 448))
}

/// An answer of the plain model, which takes no steps; and its square picture.
pub fn without_steps() -> (Record, Vec<u8>) {
    let (Record { grid, .. }, picture) = square();
    (record((448, 448), grid, vec![]), picture)
}

/// A record around the given steps; their indices are set to their places.
pub fn record((width, height): (u32, u32), grid: Grid, mut steps: Vec<StepRecord>) -> Record {
    for (index, step) in steps.iter_mut().enumerate() {
        step.index = index;
    }
    let usage = Usage {
        text_tokens: 3,
        latent_steps: steps.len(),
        refocused_visual_tokens: steps.iter().map(|step| step.selected.len() * grid.fine_per_cell).sum(),
        appended_visual_tokens: 0,
        processed_positions: grid.cells() + 14 + steps.len() + 3,
    };
    Record {
        schema: SCHEMA,
        program: "lare 0.1.0".to_owned(),
        model: ModelInfo {
            name: "nano".to_owned(),
            config_hash: "1f0c9a52".repeat(8),
            weights_hash: "8be27d04".repeat(8),
        },
        input: InputInfo {
            picture_hash: "c41d7763".repeat(8),
            width,
            height,
            question: "What is written on the object left of the cat?".to_owned(),
            seed: 7,
            options: OptionsInfo {
                steps: None,
                halt_threshold: Some(0.5),
                temperature: 0.0,
                top_p: 1.0,
                max_tokens: 64,
            },
        },
        grid,
        steps,
        answer: "7B".to_owned(),
        usage,
        timing_ms: Timing { prepare: 3.1, encode: 14.8, prefill: 9.6, think: 21.4, answer: 6.2, total: 55.3 },
    }
}

/// A step that looks at one patch alone and selects it.
pub fn step_on(grid: &Grid, patch: usize) -> StepRecord {
    let mut weights = vec![0.0; grid.cells()];
    weights[patch] = 1.0;
    StepRecord {
        index: 0,
        weights,
        selected: vec![patch],
        named_words: vec![],
        nearest_words: vec![],
        gate_mean: 0.5,
        halt_probability: 0.1,
        latent_norm: 1.0,
        time_ms: 5.0,
        region: None,
        thought_picture: None,
    }
}

/// A step whose attention falls off around a patch, with the four heaviest patches selected.
fn looking_at(grid: &Grid, patch: usize, word: &str) -> StepRecord {
    let place = |patch: usize| ((patch / grid.cols) as f32, (patch % grid.cols) as f32);
    let (row, col) = place(patch);
    let heat = |other: usize| {
        let (other_row, other_col) = place(other);
        0.004 + (-((other_row - row).powi(2) + (other_col - col).powi(2)) / 0.7).exp()
    };
    let mut weights: Vec<f32> = (0..grid.cells()).map(heat).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    let mut selected: Vec<usize> = (0..grid.cells()).collect();
    selected.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    selected.truncate(4);
    let words = [(word, 9.31), ("mug", 7.02), ("left", 5.5), ("A", 3.84), ("the", 1.2)];
    StepRecord {
        weights,
        selected,
        named_words: [("K", 0.98), ("7", 0.61)].map(|(text, score)| Word { text: text.to_owned(), score }).to_vec(),
        nearest_words: words.map(|(text, score)| Word { text: text.to_owned(), score }).to_vec(),
        gate_mean: 0.3 + 0.008 * patch as f32,
        halt_probability: 0.015 * patch as f32,
        latent_norm: 11.3,
        time_ms: 5.1,
        ..step_on(grid, patch)
    }
}

/// A region a little smaller than the patch, off its centre.
fn around(grid: &Grid, patch: usize) -> Region {
    let cell = grid.cell(patch);
    Region { x: cell.x + 8.0, y: cell.y + 20.0, width: cell.width * 0.8, height: cell.height * 0.6 }
}

/// A table with things on it: enough light, dark and colour to judge an overlay by.
fn painting(width: u32, height: u32) -> Vec<u8> {
    const THINGS: [(f32, f32, f32, [u8; 3]); 6] = [
        (0.18, 0.27, 0.09, [222, 92, 66]),
        (0.44, 0.60, 0.12, [46, 120, 176]),
        (0.93, 0.90, 0.08, [250, 250, 246]),
        (0.70, 0.30, 0.10, [64, 150, 96]),
        (0.16, 0.78, 0.11, [40, 40, 48]),
        (0.66, 0.80, 0.06, [240, 190, 60]),
    ];
    let pixel = |at: u32| {
        let (x, y) = ((at % width) as f32 / width as f32, (at / width) as f32 / height as f32);
        let aspect = width as f32 / height as f32;
        let inside = |(cx, cy, radius, _): &&(f32, f32, f32, [u8; 3])| {
            ((x - cx) * aspect).hypot(y - cy) < radius * aspect.max(1.0)
        };
        let grain = ((y * 40.0 + (x * 9.0).sin()).sin() * 7.0) as i16;
        let table = [206, 178, 142].map(|channel: i16| (channel + grain - (y * 30.0) as i16) as u8);
        THINGS.iter().find(inside).map_or(table, |thing| thing.3)
    };
    (0..width * height).flat_map(pixel).collect()
}
