//! What a report shows, section by section.

mod causal;
mod cost;
mod halting;
mod likeness;
mod looks;
mod results;
mod what;

use super::Report;
use super::number::{percent, range};
use super::plot::{LOOKS, key};
use super::run::Run;
use super::table::{Cell, Column, Table, unbroken};
use crate::stats::Interval;
use lare_trace::render::html::Text;

/// A heading with what stands below it.
pub(super) struct Section {
    /// Its name in links.
    pub id: &'static str,
    /// The heading.
    pub title: &'static str,
    /// In order.
    pub parts: Vec<Part>,
}

/// A part of a section.
pub(super) enum Part {
    /// A sentence or two.
    Says(String),
    /// A table; the Markdown has these alone.
    Table(Table),
    /// Plots side by side.
    Figures(Vec<Figure>),
}

/// A plot with its caption.
pub(super) struct Figure {
    /// The drawing.
    pub svg: String,
    /// Which line is whose, by number of its shape and tone; empty where labels say so.
    pub keys: Vec<(usize, String)>,
    /// What it shows.
    pub caption: String,
}

/// All sections that there is something to show in.
pub(super) fn all(report: &Report) -> Vec<Section> {
    let all = [
        results::section(report),
        cost::section(report),
        looks::section(report),
        causal::section(report),
        likeness::section(report),
        halting::section(report),
        what::section(report), // last: who asks how it was done has seen what was found
    ];
    all.into_iter().filter(|section| !section.parts.is_empty()).collect()
}

impl Section {
    /// As HTML, with its heading.
    pub fn html(&self) -> String {
        let parts: String = self.parts.iter().map(Part::html).collect();
        let (id, title) = (self.id, Text(self.title));
        format!(
            "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{title}</h2>\n{parts}</section>\n"
        )
    }

    /// Its tables as Markdown, with its heading; nothing where it has none.
    pub fn markdown(&self) -> Option<String> {
        let tables = self.parts.iter().filter_map(|part| match part {
            Part::Table(table) => Some(table.markdown()),
            _ => None,
        });
        let tables: Vec<String> = tables.collect();
        (!tables.is_empty()).then(|| format!("## {}\n\n{}", self.title, tables.join("\n")))
    }
}

impl Part {
    fn html(&self) -> String {
        match self {
            Self::Says(text) => format!("<p class=\"says\">{}</p>\n", Text(text)),
            Self::Table(table) => table.html(),
            Self::Figures(figures) => {
                let figures: String = figures.iter().map(Figure::html).collect();
                format!("<div class=\"charts\">\n{figures}</div>\n")
            }
        }
    }
}

impl Figure {
    fn html(&self) -> String {
        let keys = self.keys.iter().map(|(look, name)| format!("<li>{} {}</li>", key(*look), Text(name)));
        let keys: String = keys.collect();
        let keys = if keys.is_empty() { keys } else { format!("<ul class=\"keys\">{keys}</ul>\n") };
        format!(
            "<figure class=\"chart\">\n{}{keys}<figcaption>{}</figcaption>\n</figure>\n",
            self.svg,
            Text(&unbroken(&self.caption))
        )
    }
}

/// A figure of the runs that have what it shows, by their numbers, with a table of all; nothing where none has it. Of more runs than
/// lines can be told apart the first are drawn.
fn figure_and_table(
    report: &Report,
    has: impl Fn(&Run) -> bool,
    figure: impl Fn(&[(usize, &Run)]) -> Figure,
    table: impl Fn(&[Run]) -> Table,
) -> Vec<Part> {
    let known: Vec<(usize, &Run)> = report.runs.iter().enumerate().filter(|(_, run)| has(run)).collect();
    if known.is_empty() {
        return Vec::new();
    }
    let mut drawn = figure(&told_apart(&known[..known.len().min(LOOKS)]));
    if known.len() > LOOKS {
        drawn.caption += &format!(" Drawn are the first {LOOKS} runs; the table has all.");
    }
    vec![Part::Figures(vec![drawn]), Part::Table(table(&report.runs))]
}

/// Runs whose numbers are past the last look take one that no other of these runs has.
fn told_apart<'a>(known: &[(usize, &'a Run)]) -> Vec<(usize, &'a Run)> {
    let mut free = (0..LOOKS).filter(|look| known.iter().all(|(own, _)| own != look));
    known.iter().map(|(own, run)| (if *own < LOOKS { *own } else { free.next().unwrap_or(*own) }, *run)).collect()
}

/// Which line is whose; nothing to tell apart of one.
fn keys(runs: &[(usize, &Run)]) -> Vec<(usize, String)> {
    if runs.len() < 2 { Vec::new() } else { runs.iter().map(|(look, run)| (*look, run.label.clone())).collect() }
}

/// A share with its interval.
fn share(right: &Interval) -> Cell {
    Cell::of(percent(right.value)).note(range(right))
}

/// A column of numbers for each run.
fn columns(runs: &[Run]) -> impl Iterator<Item = Column> + '_ {
    runs.iter().map(|run| Column::numbers(&run.label))
}

/// The names that any run has results under, in the order of the runs.
fn tasks(runs: &[Run]) -> Vec<&str> {
    let mut tasks: Vec<&str> = Vec::new();
    for (task, _) in runs.iter().flat_map(|run| &run.summary.tasks) {
        if !tasks.contains(&task.as_str()) {
            tasks.push(task);
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made;

    #[test]
    fn no_two_lines_of_a_figure_look_alike() {
        let run = made::run(8, 2);
        // Run 1 has nothing to draw, and so a later one is drawn.
        let known: Vec<(usize, &Run)> = [0, 2, 3, 4, 5].map(|number| (number, &run)).to_vec();
        let looks: Vec<usize> = told_apart(&known).iter().map(|(look, _)| *look).collect();
        assert_eq!(looks, [0, 2, 3, 4, 1]);
    }
}
