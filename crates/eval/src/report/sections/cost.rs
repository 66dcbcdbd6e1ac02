//! Share right against what an answer costs.

use super::{Figure, Part, Section, share};
use crate::report::axis::{Axis, Limits};
use crate::report::compare::{front, groups};
use crate::report::number::{NONE, fixed, in_percent, percent, range};
use crate::report::plot::{LOOKS, Plot, Point, Series, Spread};
use crate::report::table::{Cell, Column, Row, Table};
use crate::report::{Report, Run};
use crate::summary::Group;

/// What an answer costs, in two ways.
const COSTS: [Cost; 2] = [
    Cost { name: "inference tokens", of: |group| group.inference_tokens },
    Cost { name: "processed positions", of: |group| group.processed_positions },
];

/// A mean over the questions.
struct Cost {
    name: &'static str,
    of: fn(&Group) -> f64,
}

pub(super) fn section(report: &Report) -> Section {
    let runs = &report.runs;
    let mut parts = Vec::new();
    if !runs.is_empty() {
        for group in groups(runs).iter().filter(|group| group.len() > 1) {
            parts.push(Part::Figures(COSTS.iter().map(|cost| figure(runs, group, cost)).collect()));
        }
        parts.push(Part::Table(table(runs)));
    }
    Section { id: "cost", title: "Accuracy and cost", parts }
}

/// Share right and cost of each run of a group.
fn places(runs: &[Run], group: &[usize], cost: &Cost) -> Vec<(f64, f64)> {
    let place = |run: &usize| ((cost.of)(&runs[*run].summary.all), 100.0 * runs[*run].right().0.value);
    group.iter().map(place).collect()
}

fn figure(runs: &[Run], group: &[usize], cost: &Cost) -> Figure {
    let places = places(runs, group, cost);
    let rights: Vec<_> = group.iter().map(|run| runs[*run].right().0).collect();
    let plot = Plot {
        title: format!("Share right against {}, one point a run", cost.name),
        x: Axis::over(format!("{}, mean of a question", cost.name), &firsts(&places), Limits::MEAN),
        y: Axis::over(
            "right, %",
            &rights.iter().map(in_percent).flat_map(|right| [right.low, right.high]).collect::<Vec<_>>(),
            Limits::PERCENT,
        ),
    };
    let series = group.iter().zip(&places).zip(rights).map(|((run, (x, _)), right)| {
        let label = &runs[*run].label;
        let shown = format!("{} % {}", percent(right.value), range(&right));
        let title = format!("{label}: {shown}, {} {}", fixed(*x, 2), cost.name);
        // Long names of many runs would lie over one another: their numbers stand before them in every table.
        let short = if runs.len() > LOOKS { (run + 1).to_string() } else { label.clone() };
        let point = Point { x: *x, y: in_percent(&right), title, label: short };
        Series { look: *run, points: vec![point], spread: Spread::Bars, joined: false }
    });
    let best: Vec<(f64, f64)> = front(&places).into_iter().map(|at| places[at]).collect();
    let asked = runs[group[0]].questions();
    Figure {
        svg: plot.svg(&best, &series.collect::<Vec<_>>()),
        keys: Vec::new(),
        caption: format!(
            "Share right against {}, with 95 % intervals ({asked}). Along the line nothing is both cheaper and as right.",
            cost.name
        ),
    }
}

fn firsts(places: &[(f64, f64)]) -> Vec<f64> {
    places.iter().map(|(x, _)| *x).collect()
}

fn table(runs: &[Run]) -> Table {
    let mut on_front = vec![Vec::new(); runs.len()];
    for group in groups(runs).into_iter().filter(|group| group.len() > 1) {
        for cost in &COSTS {
            for at in front(&places(runs, &group, cost)) {
                on_front[group[at]].push(cost.name);
            }
        }
    }
    let row = |(run, on_front): (&Run, &Vec<&str>)| {
        let all = &run.summary.all;
        let means = [all.latent_steps, all.text_tokens, all.inference_tokens, all.processed_positions];
        let means = means.map(|mean| Cell::of(fixed(mean, 2)));
        let nothing_beats = if on_front.is_empty() { NONE.to_owned() } else { on_front.join(", ") };
        let entered = all.thought as f64 / all.asked().max(1) as f64;
        let named = [Cell::of(&run.label), share(&run.right().0), Cell::of(percent(entered))];
        Row::of(named.into_iter().chain(means).chain([Cell::of(nothing_beats)]).collect())
    };
    let numbers =
        ["right, %", "with a latent step, %", "latent steps", "text tokens", "inference tokens", "processed positions"];
    let columns = [Column::words("run")].into_iter().chain(numbers.map(Column::numbers));
    Table {
        caption: "Means of a question. Inference tokens are text tokens, latent steps and appended visual tokens together; processed positions are all that the language model computed, the prompt among them. With a latent step: the share of the answers that entered latent mode. The front is that of runs on the same questions.".to_owned(),
        columns: columns.chain([Column::words("on the front of")]).collect(),
        rows: runs.iter().zip(&on_front).map(row).collect(),
    }
}
