//! What two runs can be held against each other for: the same questions, the same model.

use super::run::Run;
use crate::stats::{Interval, Pairs};
use crate::{Record, rules};
use serde::Serialize;
use std::collections::BTreeMap;

/// The name of all tasks together.
pub(super) const ALL: &str = "all";

/// One run against the first of those that answered the same questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Index of the run.
    pub run: usize,
    /// Index of the one it is held against.
    pub to: usize,
    /// What is paired: `items`, or the `questions` of a circular evaluation, right only in every order of their
    /// options.
    pub of: &'static str,
    /// Over all.
    pub all: Gap,
    /// By task.
    pub tasks: Vec<(String, Gap)>,
    /// By task and the number of looks its questions need, where that is known; `all` stands for all tasks together.
    pub looks: Vec<(String, usize, Gap)>,
}

/// How much more of the same questions one run got right than another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gap {
    /// Who was right; `first` is the run, `second` the one it is held against.
    pub pairs: Pairs,
    /// Share right of the run minus that of the other, with its interval for pairs.
    pub by: Interval,
    /// McNemar's exact test of no difference.
    pub p: f64,
}

impl Gap {
    fn of(pairs: impl Iterator<Item = (bool, bool)>) -> Option<Self> {
        let pairs = Pairs::of(pairs);
        Some(Self { pairs, by: pairs.difference()?, p: pairs.mcnemar() })
    }

    /// Whether there is a difference by both measures: with few uneven pairs the interval alone is too sure.
    pub(super) fn is_sure(&self) -> bool {
        self.by.leaves_zero_out() && self.p < 0.05
    }
}

/// Whether two runs answered the same questions, one for one.
pub(super) fn same_questions(a: &Run, b: &Run) -> bool {
    let mut pairs = a.records.iter().zip(&b.records);
    a.settings.items == b.settings.items && a.records.len() == b.records.len() && pairs.all(|(a, b)| a.id == b.id)
}

/// Indices of runs that answered the same questions, in the order of the runs.
pub(super) fn groups(runs: &[Run]) -> Vec<Vec<usize>> {
    grouped(runs, same_questions)
}

/// Indices of runs of one model on the same questions, where they differ in how long it thought.
pub(super) fn halting_groups(runs: &[Run]) -> Vec<Vec<usize>> {
    let model = |run: &Run| (run.settings.weights_hash.clone(), run.settings.config_hash.clone());
    let mut groups = grouped(runs, |a, b| model(a) == model(b) && same_questions(a, b));
    groups.retain(|group| group.iter().any(|place| runs[*place].steps() != runs[group[0]].steps()));
    groups
}

fn grouped(runs: &[Run], belong: impl Fn(&Run, &Run) -> bool) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (place, run) in runs.iter().enumerate() {
        match groups.iter_mut().find(|group| belong(&runs[group[0]], run)) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    groups
}

/// Each run against the first on the same questions.
pub(super) fn differences(runs: &[Run]) -> Vec<Difference> {
    let mut found = Vec::new();
    for group in groups(runs) {
        let to = group[0];
        found.extend(group[1..].iter().filter_map(|run| difference(runs, *run, to)));
    }
    found.sort_by_key(|difference| difference.run);
    found
}

fn difference(runs: &[Run], run: usize, to: usize) -> Option<Difference> {
    let (own, other) = (units(&runs[run]), units(&runs[to]));
    let of_task = |task: &str| {
        let pairs = own.iter().zip(&other).filter(|(a, _)| a.task == task).map(|(a, b)| (a.right, b.right));
        Some((task.to_owned(), Gap::of(pairs)?))
    };
    let mut tasks: Vec<&str> = Vec::new();
    for unit in &own {
        if !tasks.contains(&unit.task) {
            tasks.push(unit.task);
        }
    }
    Some(Difference {
        run,
        to,
        of: if runs[run].settings.items.is_circular() { "questions" } else { "items" },
        all: Gap::of(own.iter().zip(&other).map(|(a, b)| (a.right, b.right)))?,
        looks: tasks.iter().copied().map(Some).chain([None]).flat_map(|task| by_looks(&own, &other, task)).collect(),
        tasks: tasks.into_iter().filter_map(of_task).collect(),
    })
}

/// The difference by looks, of one task or of all.
fn by_looks(own: &[Unit], other: &[Unit], task: Option<&str>) -> Vec<(String, usize, Gap)> {
    let mut pairs: BTreeMap<usize, Vec<(bool, bool)>> = BTreeMap::new();
    for (a, b) in own.iter().zip(other).filter(|(a, _)| task.is_none_or(|task| task == a.task)) {
        if let Some(looks) = a.looks {
            pairs.entry(looks).or_default().push((a.right, b.right));
        }
    }
    let name = task.unwrap_or(ALL);
    pairs.into_iter().filter_map(|(looks, pairs)| Some((name.to_owned(), looks, Gap::of(pairs.into_iter())?))).collect()
}

/// What is right or not as one.
struct Unit<'a> {
    task: &'a str,
    looks: Option<usize>,
    right: bool,
}

/// A run's items; in circular evaluation its questions, because the orders of one question are no independent items.
fn units<'a>(run: &'a Run) -> Vec<Unit<'a>> {
    let questions = rules::questions(&run.settings.items, &run.records);
    let unit = |records: &Vec<&'a Record>| {
        let first = records[0];
        Unit { task: &first.task, looks: first.looks, right: rules::right_in_all(records) }
    };
    questions.iter().map(unit).collect()
}

/// Places of the points that no other beats: cheaper and at least as right, or as cheap and more right. Points at one place
/// beat neither. From left to right.
pub(super) fn front(points: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).filter(|at| points[*at].0.is_finite()).collect();
    // Of equally cheap points, the best comes first.
    order.sort_by(|a, b| points[*a].0.total_cmp(&points[*b].0).then(points[*b].1.total_cmp(&points[*a].1)));
    let mut best = (f64::NAN, f64::NEG_INFINITY);
    order.retain(|at| {
        let is_kept = points[*at].1 > best.1 || points[*at] == best;
        if is_kept {
            best = points[*at];
        }
        is_kept
    });
    order
}

#[cfg(test)]
mod tests {
    use super::super::made;
    use super::*;
    use crate::{Origin, benchmark::Layout};
    use std::collections::BTreeMap;

    #[test]
    fn runs_on_the_same_questions_are_paired_over_all_and_by_task() {
        let (first, second) = (made::run(40, 2), made::run(40, 4));
        let found = differences(&[first, second]);
        assert_eq!((found.len(), found[0].run, found[0].to, found[0].of), (1, 1, 0, "items"));
        // The first got every second item right, the other every fourth.
        let all = &found[0].all;
        assert_eq!(all.pairs, Pairs { both: 10, first: 0, second: 10, neither: 20 });
        assert_eq!(all.by.value, -0.25);
        assert!(all.by.high < 0.0 && all.p < 0.01 && all.is_sure());
        let tasks: Vec<(&str, usize)> =
            found[0].tasks.iter().map(|(task, gap)| (task.as_str(), gap.pairs.all())).collect();
        assert_eq!(tasks, [("read", 20), ("hop", 20)]);
        let looks: Vec<(&str, usize, usize)> =
            found[0].looks.iter().map(|(task, looks, gap)| (task.as_str(), *looks, gap.pairs.all())).collect();
        assert_eq!(
            looks,
            [("read", 1, 20), ("hop", 2, 10), ("hop", 3, 10), ("all", 1, 20), ("all", 2, 10), ("all", 3, 10)]
        );
    }

    #[test]
    fn runs_on_different_items_are_not_paired() {
        let (first, fewer) = (made::run(40, 2), made::run(8, 2));
        let mut stopped = made::run(40, 2);
        stopped.records.truncate(36);
        let mut renamed = made::run(40, 2);
        renamed.records[3].id = "val/read/other".into();
        let runs = [first, fewer, stopped, renamed];
        assert!(differences(&runs).is_empty());
        assert_eq!(groups(&runs).len(), 4);
        assert!(halting_groups(&runs).is_empty());
    }

    #[test]
    fn the_orders_of_one_question_are_one_pair() {
        let circular = |right: [bool; 4]| {
            let mut run = made::run(4, 1);
            run.settings.items = Origin::Benchmark {
                layout: Layout::Mmbench,
                sha256: Vec::new(),
                circular: true,
                items: 4,
                left_out: BTreeMap::new(),
            };
            for ((record, right), n) in run.records.iter_mut().zip(right).zip(0..) {
                (record.id, record.outcome) = (format!("mmbench/{}/r{}", n / 2, n % 2), made::outcome(right));
            }
            run
        };
        let found = differences(&[circular([true, false, true, true]), circular([true, true, true, true])]);
        assert_eq!(found[0].of, "questions");
        assert_eq!(found[0].all.pairs, Pairs { both: 1, first: 1, second: 0, neither: 0 });
    }

    #[test]
    fn halting_is_shown_where_one_model_thought_for_different_times() {
        let mut runs = [made::run(8, 1), made::run(8, 1), made::run(8, 1)];
        assert!(halting_groups(&runs).is_empty(), "all the same");
        runs[1].settings.steps = Some(2);
        runs[2].settings.steps = Some(1);
        runs[2].settings.weights_hash = "another model".into();
        assert_eq!(halting_groups(&runs), [[0, 1]]);
    }

    #[test]
    fn the_front_is_what_nothing_beats() {
        let points = [(3.0, 0.5), (1.0, 0.2), (2.0, 0.6), (2.0, 0.4), (4.0, 0.6), (5.0, 0.7)];
        assert_eq!(front(&points), [1, 2, 5]);
        assert_eq!(front(&[(1.0, 0.3), (2.0, 0.3), (1.0, 0.3), (1.0, 0.2)]), [0, 2]);
        assert_eq!(front(&[(f64::NAN, 0.9), (1.0, 0.3)]), [1]);
        assert!(front(&[]).is_empty());
    }
}
