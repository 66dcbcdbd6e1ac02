//! What was run, and how to run it again.

use super::{Part, Section};
use crate::Origin;
use crate::report::number::{NONE, short};
use crate::report::table::{Cell, Column, Row, Table};
use crate::report::{Report, Run};

pub(super) fn section(report: &Report) -> Section {
    let runs = &report.runs;
    let parts = if runs.is_empty() {
        vec![Part::Says("There are no runs to show.".to_owned())]
    } else {
        vec![Part::Table(settings(runs)), Part::Table(commands(report))]
    };
    Section { id: "what", title: "What was run", parts }
}

fn settings(runs: &[Run]) -> Table {
    let columns = vec![
        Column::words("run"),
        Column::words("model"),
        Column::words("weights"),
        Column::words("questions"),
        Column::words("left out"),
        Column::numbers("answered"),
        Column::numbers("latent steps"),
        Column::numbers("halts at"),
        Column::words("replaced"),
    ];
    let caption = "One row a run. Dates are not recorded: the same command gives the same results on any day.";
    Table { caption: caption.to_owned(), columns, rows: runs.iter().map(row).collect() }
}

fn row(run: &Run) -> Row {
    let settings = &run.settings;
    let (done, asked) = (run.records.len(), run.asked());
    let left_out = settings.items.left_out();
    let replaced: Vec<&str> = settings.interventions.iter().map(|what| what.name()).collect();
    let replaced = if replaced.len() > 3 { format!("{} kinds", replaced.len()) } else { replaced.join(", ") };
    let or_none = |text: String| if text.is_empty() { NONE.to_owned() } else { text };
    Row::of(vec![
        Cell::of(&run.label),
        Cell::of(&settings.model),
        Cell::code(short(&settings.weights_hash)),
        Cell::of(run.questions()),
        Cell::of(or_none(left_out.join("; "))),
        Cell::of(if done == asked { done.to_string() } else { format!("{done} of {asked}") }),
        Cell::of(settings.steps.map_or("auto".to_owned(), |steps| steps.to_string())),
        Cell::of(settings.steps.map_or(settings.halt_threshold.to_string(), |_| NONE.to_owned())),
        Cell::of(or_none(replaced)),
    ])
}

fn commands(report: &Report) -> Table {
    let runs = &report.runs;
    let has_data = runs.iter().any(|run| matches!(run.settings.items, Origin::Benchmark { .. }));
    let row = |run: &Run| {
        let settings = &run.settings;
        let hashes = [&settings.weights_hash, &settings.config_hash].map(Cell::code);
        let data = has_data.then(|| Cell::code(data(run)));
        let named = [Cell::of(&run.label), Cell::code(report.command(run))];
        Row::of(named.into_iter().chain(hashes).chain(data).collect())
    };
    let mut names = vec!["run", "command", "SHA-256 of weights", "of config"];
    names.extend(has_data.then_some("of data"));
    let mut caption = "The command that repeats each run.".to_owned();
    let any = |word: &str| runs.iter().any(|run| report.command(run).contains(word));
    if any("--model MODEL") {
        caption += " MODEL is the folder whose weights and config have these hashes.";
    }
    if any("--data FILE") {
        caption += " FILE is the benchmark whose files have these hashes.";
    }
    Table { caption, columns: names.into_iter().map(Column::words).collect(), rows: runs.iter().map(row).collect() }
}

/// The hashes of a benchmark's files.
fn data(run: &Run) -> String {
    match &run.settings.items {
        Origin::Suite { .. } => NONE.to_owned(),
        Origin::Benchmark { sha256, .. } => sha256.join(" "),
    }
}
