//! What replaced thoughts and looks cost.

use super::{Figure, Part, Section, share};
use crate::Intervention;
use crate::report::bars::{Bar, bars};
use crate::report::number::{NONE, in_percent, p, points, points_range};
use crate::report::table::{Cell, Column, Row, Table};
use crate::report::{Report, Run};
use crate::summary::Effect;

pub(super) fn section(report: &Report) -> Section {
    let tried: Vec<&Run> = report.runs.iter().filter(|run| !run.summary.causal.is_empty()).collect();
    let mut parts = Vec::new();
    if !tried.is_empty() {
        parts.push(Part::Figures(tried.iter().map(|run| figure(run)).collect()));
    }
    for run in tried {
        parts.extend([Part::Table(table(run)), Part::Table(by_task(run))]);
    }
    let untried = report.runs.iter().filter_map(|run| Some((run, run.summary.says_untried()?)));
    parts.extend(untried.map(|(run, says)| Part::Says(format!("{}: {says}.", run.label))));
    Section { id: "causal", title: "Do the thoughts matter?", parts }
}

fn figure(run: &Run) -> Figure {
    let bar = |effect: &Effect| Bar {
        name: effect.what.name().to_owned(),
        value: in_percent(&effect.cost),
        is_sure: effect.is_sure(),
        title: effect.verdict(),
    };
    let all: Vec<Bar> = run.summary.causal.iter().map(bar).collect();
    let title = format!("{}: what each replacement costs", run.label);
    Figure {
        svg: bars(&title, "cost in right answers, points", &all),
        keys: Vec::new(),
        caption: format!(
            "{}: right answers lost when something else takes the place of the thoughts, or of the patches read, with 95 % intervals. Pale where nothing is shown: the interval has zero in it, or p is 0.05 or more.",
            run.label
        ),
    }
}

fn table(run: &Run) -> Table {
    let row = |effect: &Effect| {
        Row::of(vec![
            Cell::of(effect.what.name()),
            Cell::of(effect.items.to_string()),
            share(&effect.right),
            cost(effect),
            Cell::of(p(effect.p)),
            Cell::of(sentence(&effect.verdict())),
        ])
    };
    let numbers = ["questions", "right, %", "cost, points", "p"].map(Column::numbers);
    let columns = [Column::words("replaced by")].into_iter().chain(numbers).chain([Column::words("verdict")]);
    Table {
        caption: format!(
            "{}: the same questions answered again, each with as many steps (markers-only: none). A question that a replacement leaves as it was, such as one of a single step where steps are shuffled, is not among its questions. Cost is the share right without the replacement minus that with it, with Newcombe's 95 % interval for pairs; p is McNemar's exact test.",
            run.label
        ),
        columns: columns.collect(),
        rows: run.summary.causal.iter().map(row).collect(),
    }
}

fn by_task(run: &Run) -> Table {
    let tried = &run.settings.interventions;
    let row = |(task, effects): &(String, Vec<Effect>)| {
        let of = |what: Intervention| effects.iter().find(|effect| effect.what == what).map_or(Cell::of(NONE), cost);
        Row::of([Cell::of(task)].into_iter().chain(tried.iter().copied().map(of)).collect())
    };
    let columns = [Column::words("task")].into_iter().chain(tried.iter().map(|what| Column::numbers(what.name())));
    Table {
        caption: format!("{}: the cost by task, in points with 95 % intervals.", run.label),
        columns: columns.collect(),
        rows: run.summary.causal_by_task.iter().map(row).collect(),
    }
}

fn cost(effect: &Effect) -> Cell {
    Cell::of(points(effect.cost.value)).note(points_range(&effect.cost)).strong(effect.is_sure())
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
