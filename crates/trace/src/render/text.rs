//! The looks in a terminal: a small grid of shades per step. Makes sense without colour and in a pipe.

use std::fmt::Write as _;

use crate::{
    measures::{self, StepMeasures},
    schema::{Grid, Record, StepRecord},
};

/// Lightest to heaviest. Each covers visibly more of its box than the one before, in any font.
const SHADES: [char; 6] = [' ', '·', '░', '▒', '▓', '█'];
/// Weights fall off steeply; the root lifts the lower ones into the visible.
const CONTRAST: f32 = 0.5;
/// Grids wider or taller than this are shown in blocks of cells.
const MOST_CELLS: usize = 24;

/// Draws the record as text: question, one grid per step, answer, what it cost.
///
/// A selected cell stands in brackets. On a large grid one sign stands for a block of cells.
pub fn text(record: &Record) -> String {
    let mut out = format!("question  {}\n", printable(&record.input.question));
    let all = measures::of(record);
    for (step, measured) in record.steps.iter().zip(&all) {
        let _ = writeln!(out, "\n{}", heading(record, step, measured)); // writing to a String cannot fail
        out.push_str(&grid(&record.grid, step));
        for line in remarks(step, measured) {
            let _ = writeln!(out, "  {line}");
        }
    }
    let usage = &record.usage;
    let _ = writeln!(out, "\nanswer    {}", printable(&record.answer));
    let _ = writeln!(
        out,
        "usage     {} text tokens, {} latent steps, {} refocused and {} appended visual tokens, {} positions",
        usage.text_tokens,
        usage.latent_steps,
        usage.refocused_visual_tokens,
        usage.appended_visual_tokens,
        usage.processed_positions
    );
    let _ = writeln!(out, "time      {:.1} ms", record.timing_ms.total);
    out
}

/// Control characters would steer the terminal; a record may come from anywhere.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn heading(record: &Record, step: &StepRecord, measured: &StepMeasures) -> String {
    format!(
        "step {} of {}   focus {:.2} nats   gate {:.2}   halt {:.2}   {:.1} ms",
        step.index + 1,
        record.steps.len(),
        measured.focus_entropy_nats,
        step.gate_mean,
        step.halt_probability,
        step.time_ms
    )
}

fn remarks(step: &StepRecord, measured: &StepMeasures) -> Vec<String> {
    let mut lines = Vec::new();
    for (title, words, digits) in [("names", &step.named_words, 2), ("nearest words", &step.nearest_words, 1)] {
        let words = words.iter().map(|word| format!("{} {:.digits$}", word.text.escape_debug(), word.score));
        let words: Vec<String> = words.collect();
        if !words.is_empty() {
            lines.push(format!("{title:<15}{}", words.join(", ")));
        }
    }
    if let Some(drift) = &measured.drift {
        lines.push(format!("moved          {:.2} of the focus, {:.0} px", drift.total_variation, drift.shift_px));
    }
    if let Some(region) = &measured.on_region {
        let found = if region.hit { "found" } else { "missed" };
        lines.push(format!("true region    {found}, {:.0} % of the focus on it", 100.0 * region.mass));
    }
    lines
}

/// The framed grid, three signs a block, which is about square in a terminal font.
fn grid(grid: &Grid, step: &StepRecord) -> String {
    let blocks = Blocks::of(grid);
    let heat = blocks.heat(step);
    let heaviest = heat.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let selected: Vec<usize> = step.selected.iter().map(|&patch| blocks.block_of(patch)).collect();
    let edge = "─".repeat(blocks.cols * 3);
    let mut out = format!("  ┌{edge}┐\n");
    for (row, heat) in heat.chunks(blocks.cols).enumerate() {
        out.push_str("  │");
        for (col, heat) in heat.iter().enumerate() {
            let marked = selected.contains(&(row * blocks.cols + col));
            let (open, close) = if marked { ('[', ']') } else { (' ', ' ') };
            out.extend([open, shade(heat / heaviest), close]);
        }
        out.push_str("│\n");
    }
    out + &format!("  └{edge}┘\n")
}

fn shade(value: f32) -> char {
    let place = (value.powf(CONTRAST) * SHADES.len() as f32) as usize;
    SHADES[place.min(SHADES.len() - 1)]
}

/// The grid seen in square blocks of `side` cells; a block of one cell is the cell.
struct Blocks {
    side: usize,
    rows: usize,
    cols: usize,
    grid_cols: usize,
}

impl Blocks {
    fn of(grid: &Grid) -> Self {
        let side = grid.rows.max(grid.cols).div_ceil(MOST_CELLS);
        Self { side, rows: grid.rows.div_ceil(side), cols: grid.cols.div_ceil(side), grid_cols: grid.cols }
    }

    fn block_of(&self, patch: usize) -> usize {
        let (row, col) = (patch / self.grid_cols, patch % self.grid_cols);
        row / self.side * self.cols + col / self.side
    }

    fn heat(&self, step: &StepRecord) -> Vec<f32> {
        let mut heat = vec![0.0; self.rows * self.cols];
        for (patch, &weight) in step.weights.iter().enumerate() {
            heat[self.block_of(patch)] += weight;
        }
        heat
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    #[test]
    fn a_wide_record_reads_well_in_a_terminal() {
        insta::assert_snapshot!(text(&example::wide().0));
    }

    #[test]
    fn true_regions_are_judged_in_the_text() {
        let text = text(&example::square().0);
        assert!(text.contains("true region    found, "), "{text}");
    }

    #[test]
    fn the_plain_model_has_an_answer_and_no_grids() {
        insta::assert_snapshot!(text(&example::without_steps().0));
    }

    #[test]
    fn a_large_grid_is_shown_in_blocks_and_the_corner_stays_the_corner() {
        let grid = Grid { rows: 30, cols: 64, cell_px_x: 10.0, cell_px_y: 10.0, fine_per_cell: 4 };
        let record = example::record((640, 300), grid, vec![example::step_on(&grid, 30 * 64 - 1)]);
        let text = text(&record);
        let last = text.lines().rfind(|line| line.starts_with("  │")).unwrap();
        assert!(last.ends_with("[█]│"), "{text}");
        assert_eq!(last.chars().count(), 3 + 3 * 22 + 1); // 64 columns in blocks of 3
    }
}
