//! Share right, and how runs differ.

use super::{Part, Section, share, tasks};
use crate::report::compare::Gap;
use crate::report::number::{NONE, p, percent, points, points_range, range};
use crate::report::table::{Cell, Column, Row, Table};
use crate::report::{Difference, Report, Run};
use crate::rules::{BothRight, Circular, YesNo};
use crate::summary::Group;

pub(super) fn section(report: &Report) -> Section {
    let runs = &report.runs;
    let mut parts = match &runs[..] {
        [] => Vec::new(),
        [run] => vec![Part::Table(alone(run))],
        _ => vec![Part::Table(side_by_side(runs))],
    };
    if !report.differences.is_empty() {
        parts.push(Part::Table(differences(report)));
    } else if runs.len() > 1 {
        parts.push(Part::Says("No two runs answered the same questions, so none can be paired.".to_owned()));
    }
    parts.extend([circular(runs), yes_no(runs), pairs(runs)].into_iter().flatten().map(Part::Table));
    let plain: Vec<&str> =
        runs.iter().filter(|run| run.summary.never_thought()).map(|run| run.label.as_str()).collect();
    if !plain.is_empty() {
        let says = format!(
            "Latent mode was never entered: no answer took a latent step, so this is the accuracy of the plain model ({}).",
            plain.join(", ")
        );
        parts.insert(0, Part::Says(says));
    }
    Section { id: "results", title: "Results", parts }
}

const CAPTION: &str = "Share right in percent, with Wilson's 95 % interval. What names nothing of what was asked for (unparsed) and what does not fit the model's context (refused, among the unparsed) is not right.";

/// One run: a column for each number.
fn alone(run: &Run) -> Table {
    let row = |name: &str, group: &Group| {
        let hits = group.hit_rate().map_or(NONE.to_owned(), |hits| percent(hits.value));
        vec![
            Cell::of(name),
            Cell::of(group.items.to_string()),
            Cell::of(percent(group.right.value)),
            Cell::of(range(&group.right)),
            Cell::of(group.unparsed.to_string()),
            Cell::of(group.refused.to_string()),
            Cell::of(hits),
        ]
    };
    let tasks = run.summary.tasks.iter().map(|(task, group)| Row::of(row(task, group)));
    let rows = tasks.chain([Row::apart(row("all", &run.summary.all))]).collect();
    let numbers = ["questions", "right", "95 %", "unparsed", "refused", "regions read, %"];
    let columns = [Column::words("task")].into_iter().chain(numbers.map(Column::numbers)).collect();
    Table { caption: caption(std::slice::from_ref(run)), columns, rows }
}

/// Several runs: a row each.
fn side_by_side(runs: &[Run]) -> Table {
    let tasks = tasks(runs);
    let cell = |run: &Run, task: &str| {
        let found = run.summary.tasks.iter().find(|(name, _)| name == task);
        found.map_or(Cell::of(NONE), |(_, group)| share(&group.right))
    };
    let row = |run: &Run| {
        let all = &run.summary.all;
        let counts = [all.items, all.unparsed, all.refused].map(|count| Cell::of(count.to_string()));
        let sum = [Cell::of(&run.label), share(&all.right).strong(true)];
        Row::of(sum.into_iter().chain(tasks.iter().map(|task| cell(run, task))).chain(counts).collect())
    };
    let numbers = ["all"].into_iter().chain(tasks.iter().copied()).chain(["questions", "unparsed", "refused"]);
    let columns = [Column::words("run")].into_iter().chain(numbers.map(Column::numbers)).collect();
    Table { caption: caption(runs), columns, rows: runs.iter().map(row).collect() }
}

fn caption(runs: &[Run]) -> String {
    let circular = if runs.iter().any(|run| run.settings.items.is_circular()) {
        " In circular evaluation the orders of a question count one by one here; below, questions are right in every order."
    } else {
        ""
    };
    format!("{CAPTION}{circular}")
}

fn differences(report: &Report) -> Table {
    let all = &report.differences;
    let label = |run: usize| &report.runs[run].label;
    let tasks = tasks(&report.runs);
    let of_task = |difference: &Difference, task: &str| {
        gap_cell(difference.tasks.iter().find(|(name, _)| name == task).map(|(_, gap)| gap))
    };
    let row = |difference: &Difference| {
        let named = Cell::of(format!("{} − {}", label(difference.run), label(difference.to)));
        let of_tasks = tasks.iter().map(|task| of_task(difference, task));
        Row::of([named, gap_cell(Some(&difference.all))].into_iter().chain(of_tasks).collect())
    };
    let rows = all.iter().map(row).collect();
    let numbers = ["all"].into_iter().chain(tasks.iter().copied()).map(Column::numbers);
    let columns = [Column::words("runs")].into_iter().chain(numbers).collect();
    let circular = if all.iter().any(|difference| difference.of == "questions") {
        " In circular evaluation whole questions are paired, right in every order of their options."
    } else {
        ""
    };
    let caption = format!(
        "Difference in points on the same questions, with Newcombe's 95 % interval for pairs and McNemar's exact p; bold where the interval leaves zero out and p is below 0.05.{circular}"
    );
    Table { caption, columns, rows }
}

/// A difference in points with its interval and p.
pub(super) fn gap_cell(gap: Option<&Gap>) -> Cell {
    match gap {
        Some(gap) => Cell::of(points(gap.by.value))
            .note(format!("{} p {}", points_range(&gap.by), equals(&p(gap.p))))
            .strong(gap.is_sure()),
        None => Cell::of(NONE),
    }
}

/// `= 0.012`, or `< 0.001` as it is.
fn equals(p: &str) -> String {
    if p.starts_with('<') { p.to_owned() } else { format!("= {p}") }
}

fn circular(runs: &[Run]) -> Option<Table> {
    let row = |(run, found): (&Run, &Circular)| {
        let counted = [Cell::of(&run.label), Cell::of("all"), Cell::of(found.questions.to_string())];
        let all = Row::apart(counted.into_iter().chain([share(&found.right), share(&found.first)]).collect());
        let tasks = found.tasks.iter().map(|(task, questions, right)| {
            let named = [Cell::of(&run.label), Cell::of(task), Cell::of(questions.to_string())];
            Row::of(named.into_iter().chain([share(right), Cell::of(NONE)]).collect())
        });
        tasks.chain([all]).collect::<Vec<_>>()
    };
    let found = runs.iter().filter_map(|run| Some((run, run.rules.circular.as_ref()?)));
    let rows: Vec<Row> = found.flat_map(row).collect();
    let numbers = ["questions", "right in every order, %", "right in the first, %"].map(Column::numbers);
    let columns = [Column::words("run"), Column::words("task")].into_iter().chain(numbers).collect();
    let caption = "Circular evaluation: a question is right only where it is right in every order of its options.";
    (!rows.is_empty()).then(|| Table { caption: caption.to_owned(), columns, rows })
}

fn yes_no(runs: &[Run]) -> Option<Table> {
    let row = |run: &Run, found: &YesNo| {
        let shares = [Some(found.accuracy), found.precision, found.recall, found.f1, Some(found.yes_rate)];
        let shares = shares.map(|share| Cell::of(share.map_or(NONE.to_owned(), percent)));
        let named = [Cell::of(&run.label), Cell::of(&found.category), Cell::of(found.items.to_string())];
        Row::of(named.into_iter().chain(shares).chain([Cell::of(found.unparsed.to_string())]).collect())
    };
    let rows: Vec<Row> =
        runs.iter().flat_map(|run| run.rules.yes_no.iter().map(move |found| row(run, found))).collect();
    let numbers = ["questions", "accuracy", "precision", "recall", "F1", "says yes", "unparsed"].map(Column::numbers);
    let columns = [Column::words("run"), Column::words("category")].into_iter().chain(numbers).collect();
    let caption = "Questions of yes or no, in percent: how often a yes is one, and how often yes is said.";
    (!rows.is_empty()).then(|| Table { caption: caption.to_owned(), columns, rows })
}

fn pairs(runs: &[Run]) -> Option<Table> {
    let row = |run: &Run| {
        let BothRight { pairs, right, alone } = run.rules.pairs?;
        let cells = [Cell::of(&run.label), Cell::of(pairs.to_string()), share(&right), Cell::of(alone.to_string())];
        Some(Row::of(cells.into_iter().collect()))
    };
    let rows: Vec<Row> = runs.iter().filter_map(row).collect();
    let numbers = ["pairs", "both right, %", "without their pair"].map(Column::numbers);
    let columns = [Column::words("run")].into_iter().chain(numbers).collect();
    let caption = "Pairs of questions that ask the same about two pictures: both are right or it is not.";
    (!rows.is_empty()).then(|| Table { caption: caption.to_owned(), columns, rows })
}
