//! Share right by how many looks a question needs.

use super::results::gap_cell;
use super::{Figure, Part, Section, columns, figure_and_table, keys, share, tasks};
use crate::report::axis::{Axis, Limits};
use crate::report::compare::{ALL, Gap};
use crate::report::number::{NONE, counted, in_percent, percent, range};
use crate::report::plot::{Plot, Point, Series, Spread};
use crate::report::table::{Cell, Column, Row, Table};
use crate::report::{Difference, Report, Run};
use crate::stats::{Interval, wilson};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn section(report: &Report) -> Section {
    let mut parts = figure_and_table(report, |run| !run.summary.looks.is_empty(), figure, table);
    parts.extend(differences(report).map(Part::Table));
    Section { id: "looks", title: "Accuracy by the looks a question needs", parts }
}

/// Share right and questions, by looks.
fn by_looks(run: &Run) -> BTreeMap<usize, (Interval, usize)> {
    let mut counts: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for record in &run.records {
        if let Some(looks) = record.looks {
            let (right, all) = counts.entry(looks).or_default();
            (*right, *all) = (*right + usize::from(record.right()), *all + 1);
        }
    }
    counts.into_iter().filter_map(|(looks, (right, all))| Some((looks, (wilson(right, all)?, all)))).collect()
}

fn figure(known: &[(usize, &Run)]) -> Figure {
    let series: Vec<Series> = known.iter().map(|(look, run)| line(*look, run)).collect();
    let points = || series.iter().flat_map(|one| &one.points);
    let ys: Vec<f64> = points().flat_map(|point| [point.y.low, point.y.high]).collect();
    let plot = Plot {
        title: "Share right by the number of looks a question needs, one line a run".to_owned(),
        x: Axis::over("looks a question needs", &points().map(|point| point.x).collect::<Vec<_>>(), Limits::COUNT),
        y: Axis::over("right, %", &ys, Limits::PERCENT),
    };
    Figure {
        svg: plot.svg(&[], &series),
        keys: keys(known),
        caption: "Share right by the number of looks a question needs, over all tasks, with 95 % intervals. Not every task has questions of every number; the table tells them apart.".to_owned(),
    }
}

fn line(look: usize, run: &Run) -> Series {
    let point = |(looks, (right, all)): (usize, (Interval, usize))| {
        let shown = format!("{} % {}", percent(right.value), range(&right));
        let title = format!("{}, {}: {shown} of {}", run.label, counted(looks, "look"), counted(all, "question"));
        Point { x: looks as f64, y: in_percent(&right), title, label: String::new() }
    };
    Series { look, points: by_looks(run).into_iter().map(point).collect(), spread: Spread::Band, joined: true }
}

fn table(runs: &[Run]) -> Table {
    let mut rows = Vec::new();
    for task in tasks(runs) {
        let of_task = |run: &Run| -> BTreeMap<usize, Interval> {
            let looks = run.summary.looks.iter().filter(|(name, ..)| name == task);
            looks.map(|(_, looks, group)| (*looks, group.right)).collect()
        };
        rows.extend(rows_of(task, &runs.iter().map(of_task).collect::<Vec<_>>()).into_iter().map(Row::of));
    }
    let all = |run: &Run| -> BTreeMap<usize, Interval> {
        by_looks(run).into_iter().map(|(looks, (right, _))| (looks, right)).collect()
    };
    rows.extend(rows_of("all", &runs.iter().map(all).collect::<Vec<_>>()).into_iter().map(Row::apart));
    let named = [Column::words("task"), Column::numbers("looks")];
    Table {
        caption: "Share right in percent by task and looks, with 95 % intervals.".to_owned(),
        columns: named.into_iter().chain(columns(runs)).collect(),
        rows,
    }
}

/// How runs differ over all tasks, by looks; nothing where no two runs can be paired.
fn differences(report: &Report) -> Option<Table> {
    let of = |difference: &Difference| -> BTreeMap<usize, Gap> {
        difference.looks.iter().filter(|(task, ..)| task == ALL).map(|(_, looks, gap)| (*looks, *gap)).collect()
    };
    let found: Vec<(&Difference, BTreeMap<usize, Gap>)> =
        report.differences.iter().map(|difference| (difference, of(difference))).collect();
    let looks: BTreeSet<usize> = found.iter().flat_map(|(_, by_looks)| by_looks.keys()).copied().collect();
    let row = |(difference, by_looks): &(&Difference, BTreeMap<usize, Gap>)| {
        let label = |run: usize| &report.runs[run].label;
        let named = Cell::of(format!("{} − {}", label(difference.run), label(difference.to)));
        Row::of([named].into_iter().chain(looks.iter().map(|looks| gap_cell(by_looks.get(looks)))).collect())
    };
    let numbers = looks.iter().map(|looks| Column::numbers(counted(*looks, "look")));
    (!looks.is_empty()).then(|| Table {
        caption: "Difference in points by the looks a question needs, over all tasks, paired as above.".to_owned(),
        columns: [Column::words("runs")].into_iter().chain(numbers).collect(),
        rows: found.iter().map(row).collect(),
    })
}

/// A row for each number of looks that any run has.
fn rows_of(name: &str, runs: &[BTreeMap<usize, Interval>]) -> Vec<Vec<Cell>> {
    let looks: BTreeSet<usize> = runs.iter().flat_map(BTreeMap::keys).copied().collect();
    let row = |looks: usize| -> Vec<Cell> {
        let cells = runs.iter().map(|run| run.get(&looks).map_or(Cell::of(NONE), share));
        [Cell::of(name), Cell::of(looks.to_string())].into_iter().chain(cells).collect()
    };
    looks.into_iter().map(row).collect()
}
