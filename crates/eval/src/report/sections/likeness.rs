//! Whether thoughts are all alike.

use super::{Figure, Section, columns, figure_and_table, keys};
use crate::report::axis::{Axis, Limits};
use crate::report::number::{NONE, fixed};
use crate::report::plot::{Plot, Point, Series, Spread};
use crate::report::table::{Cell, Column, Row, Table};
use crate::report::{Report, Run};
use crate::stats::Interval;

pub(super) fn section(report: &Report) -> Section {
    let parts = figure_and_table(report, |run| !run.summary.likeness.is_empty(), figure, table);
    Section { id: "likeness", title: "Are the thoughts all alike?", parts }
}

fn figure(known: &[(usize, &Run)]) -> Figure {
    let series: Vec<Series> = known.iter().map(|(look, run)| line(*look, run)).collect();
    let points = || series.iter().flat_map(|one| &one.points);
    let plot = Plot {
        title: "Similarity of thoughts about different questions, by step".to_owned(),
        x: Axis::over("latent step", &points().map(|point| point.x).collect::<Vec<_>>(), Limits::COUNT),
        // Up to 1, which is collapse: how far away from it a line is should be seen.
        y: Axis::over(
            "cosine similarity",
            &points().map(|point| point.y.value).chain([0.0, 1.0]).collect::<Vec<_>>(),
            Limits::COSINE,
        ),
    };
    Figure {
        svg: plot.svg(&[], &series),
        keys: keys(known),
        caption: "Mean cosine similarity of thoughts of the same step about two questions of a task. At 1 the thoughts do not depend on what was asked.".to_owned(),
    }
}

fn line(look: usize, run: &Run) -> Series {
    let point = |(step, value): (usize, &f64)| Point {
        x: step as f64,
        y: Interval { value: *value, low: *value, high: *value },
        title: format!("{}, step {step}: {}", run.label, fixed(*value, 2)),
        label: String::new(),
    };
    let points = (1..).zip(&run.summary.likeness).map(point).collect();
    Series { look, points, spread: Spread::None, joined: true }
}

fn table(runs: &[Run]) -> Table {
    let steps = runs.iter().map(|run| run.summary.likeness.len()).max().unwrap_or(0);
    let row = |step: usize| {
        let value = |run: &Run| run.summary.likeness.get(step).map_or(NONE.to_owned(), |value| fixed(*value, 3));
        Row::of([Cell::of((step + 1).to_string())].into_iter().chain(runs.iter().map(value).map(Cell::of)).collect())
    };
    Table {
        caption: "Mean cosine similarity of thoughts about two questions of a task, by step.".to_owned(),
        columns: [Column::words("step")].into_iter().chain(columns(runs)).collect(),
        rows: (0..steps).map(row).collect(),
    }
}
