//! All numbers as CSV, as they are: shares from 0 to 1, nothing rounded.

use super::compare::Gap;
use super::run::Run;
use super::{Difference, Report};
use crate::stats::Interval;
use crate::summary::{Effect, Group};

/// Columns that say which run a row is of.
const RUN: [&str; 7] = ["run", "model", "weights", "config", "items", "steps", "halt_threshold"];
/// Columns of a group of questions.
const GROUP: [&str; 16] = [
    "task",
    "looks",
    "questions",
    "right",
    "right_low",
    "right_high",
    "unparsed",
    "refused",
    "latent_steps",
    "text_tokens",
    "inference_tokens",
    "processed_positions",
    "regions",
    "regions_read",
    "time_ms",
    "thought",
];
/// Columns of a difference.
const GAP: [&str; 6] = ["against", "paired", "difference", "difference_low", "difference_high", "p"];
/// Columns of an intervention.
const EFFECT: [&str; 10] =
    ["task", "replaced_by", "questions", "right", "right_low", "right_high", "cost", "cost_low", "cost_high", "p"];

pub(super) fn results(report: &Report) -> String {
    let mut text = line(RUN.iter().chain(&GROUP).chain(&GAP).map(|name| (*name).to_owned()));
    for (place, run) in report.runs.iter().enumerate() {
        let gaps = report.differences.iter().find(|difference| difference.run == place);
        let against = |gap: Option<&Gap>| match (gaps, gap) {
            (Some(gaps), Some(gap)) => gap_cells(&report.runs[gaps.to].label, gap),
            _ => vec![String::new(); GAP.len()],
        };
        let of_task = |task: &str| {
            let of = |gaps: &'_ Difference| gaps.tasks.iter().find(|(name, _)| name == task).map(|(_, gap)| *gap);
            gaps.and_then(of)
        };
        let of_looks = |task: &str, looks: usize| {
            let is_it = |(name, number, _): &&(String, usize, Gap)| (name.as_str(), *number) == (task, looks);
            gaps.and_then(|gaps| gaps.looks.iter().find(is_it)).map(|(.., gap)| *gap)
        };
        let summary = &run.summary;
        let mut add = |task: &str, looks: Option<usize>, group: &Group, gap: Option<&Gap>| {
            text += &line(named(run).into_iter().chain(group_cells(task, looks, group)).chain(against(gap)));
        };
        add("all", None, &summary.all, gaps.map(|gaps| &gaps.all));
        for (task, group) in &summary.tasks {
            add(task, None, group, of_task(task).as_ref());
        }
        for (task, looks, group) in &summary.looks {
            add(task, Some(*looks), group, of_looks(task, *looks).as_ref());
        }
    }
    text
}

pub(super) fn causal(report: &Report) -> String {
    let mut text = line(RUN.iter().chain(&EFFECT).map(|name| (*name).to_owned()));
    for run in &report.runs {
        let summary = &run.summary;
        let all = summary.causal.iter().map(|effect| ("all", effect));
        let tasks = summary.causal_by_task.iter();
        let tasks = tasks.flat_map(|(task, effects)| effects.iter().map(move |effect| (task.as_str(), effect)));
        for (task, effect) in all.chain(tasks) {
            text += &line(named(run).into_iter().chain(effect_cells(task, effect)));
        }
    }
    text
}

fn named(run: &Run) -> [String; 7] {
    let settings = &run.settings;
    [
        run.label.clone(),
        settings.model.clone(),
        settings.weights_hash.clone(),
        settings.config_hash.clone(),
        settings.items.name().to_owned(),
        settings.steps.map_or("auto".to_owned(), |steps| steps.to_string()),
        settings.steps.map_or(settings.halt_threshold.to_string(), |_| String::new()),
    ]
}

fn group_cells(task: &str, looks: Option<usize>, group: &Group) -> Vec<String> {
    let mut cells = vec![task.to_owned(), looks.map_or(String::new(), |looks| looks.to_string())];
    cells.push(group.items.to_string());
    cells.extend(interval(&group.right));
    cells.extend([group.unparsed, group.refused].map(|count| count.to_string()));
    let means = [group.latent_steps, group.text_tokens, group.inference_tokens, group.processed_positions];
    cells.extend(means.map(|mean| mean.to_string()));
    cells.extend([group.looks.to_string(), group.hits.to_string()]);
    cells.extend([group.time_ms.to_string(), group.thought.to_string()]);
    cells
}

fn gap_cells(against: &str, gap: &Gap) -> Vec<String> {
    let mut cells = vec![against.to_owned(), gap.pairs.all().to_string()];
    cells.extend(interval(&gap.by));
    cells.push(gap.p.to_string());
    cells
}

fn effect_cells(task: &str, effect: &Effect) -> Vec<String> {
    let mut cells = vec![task.to_owned(), effect.what.name().to_owned(), effect.items.to_string()];
    cells.extend(interval(&effect.right));
    cells.extend(interval(&effect.cost));
    cells.push(effect.p.to_string());
    cells
}

fn interval(Interval { value, low, high }: &Interval) -> [String; 3] {
    [value, low, high].map(f64::to_string)
}

/// A line of cells, in quotes where they hold a comma, a quote or an end of line.
fn line(cells: impl Iterator<Item = String>) -> String {
    let quoted = |cell: String| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    };
    cells.map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::made;
    use super::*;

    /// The rows of a sheet, as another program reads them.
    fn rows(text: &str) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
    }

    #[test]
    fn every_row_has_a_cell_for_every_column() {
        let (first, mut second) = (made::run(40, 2), made::run(40, 4));
        second.settings.steps = Some(2);
        second.settings.model = "a, \"b\"\nc".into();
        let report = Report::new(vec![first, second], "");
        let found = rows(&report.results());
        assert!(found.iter().all(|row| row.len() == RUN.len() + GROUP.len() + GAP.len()), "{found:?}");
        // For each run all, two tasks, and one, then two numbers of looks.
        assert_eq!(found.len(), 1 + 2 * (1 + 2 + 3));
        assert_eq!(found[7][1], "a, \"b\"\nc");
        let difference = GROUP.len() + RUN.len() + 2;
        assert_eq!((found[1][difference].as_str(), found[7][difference].as_str()), ("", "-0.25"));
        let found = rows(&report.causal());
        assert!(found.iter().all(|row| row.len() == RUN.len() + EFFECT.len()), "{found:?}");
        assert_eq!(found.len(), 1 + 2 * (1 + 2));
        assert_eq!(&found[1][7..10], ["all", "noise", "40"]);
    }

    #[test]
    fn no_runs_are_a_line_of_names() {
        let report = Report::new(Vec::new(), "");
        assert_eq!(report.results().lines().count(), 1);
        assert_eq!(report.causal().lines().count(), 1);
    }
}
