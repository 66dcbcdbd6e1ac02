//! One model that thinks for different times: a fixed number of steps, or until it is sure.

use super::{Figure, Part, Section, share};
use crate::report::axis::{Axis, Limits};
use crate::report::compare::halting_groups;
use crate::report::number::{NONE, counted, fixed, in_percent, percent, range};
use crate::report::plot::{Plot, Point, Series, Spread};
use crate::report::table::{Cell, Column, Row, Table};
use crate::report::{Report, Run};

/// Shape and tone of runs with a fixed number of steps, and of those that halt by themselves.
const FIXED: usize = 0;
const HALTING: usize = 1;

pub(super) fn section(report: &Report) -> Section {
    let groups = halting_groups(&report.runs);
    let runs_of = |group: &Vec<usize>| -> Vec<&Run> {
        let mut runs: Vec<&Run> = group.iter().map(|place| &report.runs[*place]).collect();
        runs.sort_by(|a, b| steps(a).total_cmp(&steps(b)));
        runs
    };
    let parts =
        groups.iter().map(runs_of).flat_map(|runs| [Part::Figures(vec![figure(&runs)]), Part::Table(table(&runs))]);
    Section { id: "halting", title: "How long to think", parts: parts.collect() }
}

fn steps(run: &Run) -> f64 {
    run.summary.all.latent_steps
}

fn figure(runs: &[&Run]) -> Figure {
    let (set, free): (Vec<&Run>, Vec<&Run>) = runs.iter().copied().partition(|run| run.settings.steps.is_some());
    let known = [(FIXED, "a fixed number of steps", set), (HALTING, "until the halting head is sure", free)];
    let known: Vec<_> = known.into_iter().filter(|(.., runs)| !runs.is_empty()).collect();
    let curve = |(look, _, runs): &(usize, &str, Vec<&Run>)| {
        let points = runs.iter().map(|run| point(run)).collect();
        Series { look: *look, points, spread: Spread::Bars, joined: true }
    };
    let series: Vec<Series> = known.iter().map(curve).collect();
    let points = || series.iter().flat_map(|one| &one.points);
    let ys: Vec<f64> = points().flat_map(|point| [point.y.low, point.y.high]).collect();
    let plot = Plot {
        title: "Share right against mean latent steps".to_owned(),
        x: Axis::over("latent steps, mean", &points().map(|point| point.x).collect::<Vec<_>>(), Limits::MEAN),
        y: Axis::over("right, %", &ys, Limits::PERCENT),
    };
    let asked = runs.first().map(|run| format!("{}, {}", run.settings.model, run.questions())).unwrap_or_default();
    Figure {
        svg: plot.svg(&[], &series),
        keys: known.iter().map(|(look, name, _)| (*look, (*name).to_owned())).collect(),
        caption: format!(
            "Share right against the mean number of latent steps, with 95 % intervals ({asked}). Labels give the number of steps K, or the probability at which the model stops."
        ),
    }
}

fn point(run: &Run) -> Point {
    let (right, _) = run.right();
    let shown = format!("{} % {}", percent(right.value), range(&right));
    let label =
        run.settings.steps.map_or(format!("p ≥ {}", run.settings.halt_threshold), |steps| format!("K = {steps}"));
    let title = format!("{label}: {shown} in {} steps", fixed(steps(run), 2));
    Point { x: steps(run), y: in_percent(&right), title, label }
}

fn table(runs: &[&Run]) -> Table {
    let row = |run: &&Run| {
        let settings = &run.settings;
        Row::of(vec![
            Cell::of(&run.label),
            Cell::of(settings.steps.map_or("auto".to_owned(), |steps| steps.to_string())),
            Cell::of(settings.steps.map_or(settings.halt_threshold.to_string(), |_| NONE.to_owned())),
            Cell::of(fixed(steps(run), 2)),
            share(&run.right().0),
        ])
    };
    let numbers = ["latent steps asked for", "halts at", "latent steps taken", "right, %"].map(Column::numbers);
    let questions = runs.first().map_or(0, |run| run.right().1);
    Table {
        caption: format!("One model on the same {}, by the steps it takes.", counted(questions, "question")),
        columns: [Column::words("run")].into_iter().chain(numbers).collect(),
        rows: runs.iter().map(row).collect(),
    }
}
