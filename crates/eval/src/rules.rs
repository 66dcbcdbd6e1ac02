//! What benchmarks make of right and wrong: rules that need more than one answer. Pure.
//!
//! | rule | right is |
//! |---|---|
//! | [`circular`] | a question that is right in every order of its options |
//! | [`yes_no`] | a yes that is one: precision, recall and how often yes is said |
//! | [`pairs`] | a pair of questions that are both right |

use crate::benchmark::Layout;
use crate::grade::Outcome;
use crate::item::Origin;
use crate::record::Record;
use crate::stats::{Interval, wilson};
use serde::Serialize;
use std::collections::BTreeMap;

/// The name of all categories together.
const ALL: &str = "all";

/// What the rules of a benchmark give; what does not apply is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rules {
    /// Of a run in circular evaluation.
    pub circular: Option<Circular>,
    /// Where every question is one of yes or no: each category, then all together.
    pub yes_no: Vec<YesNo>,
    /// Of MMVP.
    pub pairs: Option<BothRight>,
}

/// Circular evaluation, as MMBench is scored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Circular {
    /// Questions.
    pub questions: usize,
    /// Share right in every order of their options.
    pub right: Interval,
    /// Share right in their first order, which is what plain accuracy would be.
    pub first: Interval,
    /// By task: questions, and the share right in every order.
    pub tasks: Vec<(String, usize, Interval)>,
}

/// How yes and no were said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct YesNo {
    /// The category.
    pub category: String,
    /// Questions.
    pub items: usize,
    /// Share right.
    pub accuracy: f64,
    /// Of what was answered with yes, the share that is yes; `None` where yes was never said.
    pub precision: Option<f64>,
    /// Of what is yes, the share that was answered with yes; `None` where nothing is.
    pub recall: Option<f64>,
    /// Harmonic mean of the two.
    pub f1: Option<f64>,
    /// Share of all answers that say yes.
    pub yes_rate: f64,
    /// Answers that say neither; they count as not right, and a yes that is missed is missed.
    pub unparsed: usize,
}

/// Pairs of questions that ask the same about two pictures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BothRight {
    /// Pairs whose questions were both asked.
    pub pairs: usize,
    /// Share of them with both right.
    pub right: Interval,
    /// Questions whose pair was not asked; they count for nothing here.
    pub alone: usize,
}

impl Rules {
    /// The rules that apply to a run's items.
    #[must_use]
    pub fn of(items: &Origin, records: &[Record]) -> Self {
        let Origin::Benchmark { layout, circular: in_circles, .. } = items else {
            return Self::default();
        };
        Self {
            circular: circular(&questions(items, records)).filter(|_| *in_circles),
            yes_no: yes_no(records),
            pairs: pairs(records).filter(|_| *layout == Layout::Mmvp && !in_circles),
        }
    }
}

/// The name of the question that an item asks: its own without a rotation such as `/r2` at its end.
#[must_use]
pub fn question(id: &str) -> &str {
    let is_turn = |turn: &str| !turn.is_empty() && turn.bytes().all(|byte| byte.is_ascii_digit());
    id.rsplit_once("/r").filter(|(_, turn)| is_turn(turn)).map_or(id, |(question, _)| question)
}

/// The records of each question, in their order: in circular evaluation one for each order of its options, else one. A
/// run that was stopped may lack orders of its last question, which is then left out.
#[must_use]
pub fn questions<'a>(items: &Origin, records: &'a [Record]) -> Vec<Vec<&'a Record>> {
    if !items.is_circular() {
        return records.iter().map(|record| vec![record]).collect();
    }
    let mut questions: Vec<Vec<&Record>> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records {
        let place = *places.entry(question(&record.id)).or_insert(questions.len());
        if place == questions.len() {
            questions.push(Vec::new());
        }
        questions[place].push(record);
    }
    if records.len() < items.count() {
        questions.pop();
    }
    questions
}

/// Whether a question is right in every order.
pub(crate) fn right_in_all(question: &[&Record]) -> bool {
    question.iter().all(|record| record.right())
}

/// A question is right only where it is right in every order of its options; `None` of nothing. `questions`: as
/// [`questions`] gives them.
#[must_use]
pub fn circular(questions: &[Vec<&Record>]) -> Option<Circular> {
    let share = |right: &dyn Fn(&[&Record]) -> bool| {
        wilson(questions.iter().filter(|question| right(question)).count(), questions.len())
    };
    let mut tasks: Vec<(String, usize, Interval)> = Vec::new();
    for task in questions.iter().map(|question| &question[0].task) {
        if tasks.iter().all(|(name, ..)| name != task) {
            let of_task: Vec<_> = questions.iter().filter(|question| question[0].task == *task).collect();
            let right = wilson(of_task.iter().filter(|question| right_in_all(question)).count(), of_task.len())?;
            tasks.push((task.clone(), of_task.len(), right));
        }
    }
    Some(Circular {
        questions: questions.len(),
        right: share(&right_in_all)?,
        first: share(&|question| question[0].right())?,
        tasks,
    })
}

/// POPE's measures, for each category and then for all. A question in several categories, separated by commas, counts in
/// each, and as often in all (VLMEvalKit's `POPE_rating` counts so, and so does the published file that has a row for each).
/// Empty where a question is not one of yes or no.
///
/// The yes-rate is that of the answers, as POPE's authors have it; lmms-eval's `pope_yes_ratio` is that of the questions.
#[must_use]
pub fn yes_no(records: &[Record]) -> Vec<YesNo> {
    if !records.iter().all(|record| matches!(record.expected.as_str(), "yes" | "no")) {
        return Vec::new();
    }
    let mut categories: Vec<(String, Vec<&Record>)> = Vec::new();
    for record in records {
        for category in record.task.split(',').map(str::trim) {
            match categories.iter_mut().find(|(name, _)| name == category) {
                Some((_, of_category)) => of_category.push(record),
                None => categories.push((category.to_owned(), vec![record])),
            }
        }
    }
    if categories.len() != 1 {
        let all = categories.iter().flat_map(|(_, of_category)| of_category.iter().copied()).collect();
        categories.push((ALL.to_owned(), all));
    }
    categories.retain(|(_, of_category)| !of_category.is_empty());
    categories.into_iter().map(|(category, records)| YesNo::of(category, &records)).collect()
}

impl YesNo {
    fn of(category: String, records: &[&Record]) -> Self {
        let is_yes = |record: &Record| record.expected == "yes";
        let says_yes = |record: &Record| match record.outcome {
            Outcome::Correct => is_yes(record),
            Outcome::Wrong => !is_yes(record),
            Outcome::Unparsed => false,
        };
        let count = |keep: &dyn Fn(&Record) -> bool| records.iter().filter(|record| keep(record)).count();
        let share = |part: usize, of: usize| (of > 0).then(|| part as f64 / of as f64);
        let (found, said, there) = (count(&|r| is_yes(r) && says_yes(r)), count(&says_yes), count(&is_yes));
        let items = records.len();
        Self {
            category,
            items,
            accuracy: share(count(&Record::right), items).unwrap_or(0.0),
            precision: share(found, said),
            recall: share(found, there),
            f1: share(2 * found, said + there),
            yes_rate: share(said, items).unwrap_or(0.0),
            unparsed: count(&|r| r.outcome == Outcome::Unparsed),
        }
    }
}

/// MMVP's pairs: items whose numbers are 2k + 1 and 2k + 2. `None` where no pair was asked.
#[must_use]
pub fn pairs(records: &[Record]) -> Option<BothRight> {
    let mut both: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
    for record in records {
        let number = question(&record.id).rsplit('/').next()?.parse::<u64>().ok()?;
        both.entry(number.checked_sub(1)? / 2).or_default().push(record.right());
    }
    let (whole, parts): (Vec<&Vec<bool>>, Vec<&Vec<bool>>) = both.values().partition(|right| right.len() == 2);
    let right = whole.iter().filter(|right| right.iter().all(|right| *right)).count();
    Some(BothRight { pairs: whole.len(), right: wilson(right, whole.len())?, alone: parts.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lare_trace::Usage;
    use std::collections::BTreeMap;

    fn record(id: &str, task: &str, expected: &str, outcome: Outcome) -> Record {
        Record {
            id: id.into(),
            task: task.into(),
            looks: None,
            prompt: String::new(),
            expected: expected.into(),
            said: String::new(),
            steps: String::new(),
            outcome,
            refused: None,
            usage: Usage::default(),
            hits: Vec::new(),
            time_ms: 1.0,
            likeness: Vec::new(),
            replaced: Vec::new(),
        }
    }

    fn outcome(right: bool) -> Outcome {
        if right { Outcome::Correct } else { Outcome::Wrong }
    }

    fn origin(layout: Layout, circular: bool) -> Origin {
        Origin::Benchmark { layout, sha256: Vec::new(), circular, items: 0, left_out: BTreeMap::new() }
    }

    #[test]
    fn a_question_is_right_in_circular_evaluation_only_where_every_order_is() {
        let orders =
            [("1", "a", &[true, true, true][..]), ("2", "a", &[true, false, true]), ("3", "b", &[false, true])];
        let mut records = Vec::new();
        for (name, task, rights) in orders {
            for (order, right) in rights.iter().enumerate() {
                records.push(record(&format!("mmbench/{name}/r{order}"), task, "A. x", outcome(*right)));
            }
        }
        let mmbench = origin(Layout::Mmbench, true);
        let found = circular(&questions(&mmbench, &records)).unwrap();
        assert_eq!(found.questions, 3);
        assert_eq!((found.right.value, found.first.value), (1.0 / 3.0, 2.0 / 3.0));
        let tasks: Vec<(&str, usize, f64)> =
            found.tasks.iter().map(|(task, count, right)| (task.as_str(), *count, right.value)).collect();
        assert_eq!(tasks, [("a", 2, 0.5), ("b", 1, 0.0)]);
        // The order of the records does not matter to what is right in all.
        records.reverse();
        assert_eq!(circular(&questions(&mmbench, &records)).unwrap().right, found.right);
        assert_eq!(circular(&[]), None);
    }

    #[test]
    fn a_question_whose_orders_were_not_all_asked_is_left_out() {
        let records: Vec<Record> = [("1", 0), ("1", 1), ("2", 0)]
            .map(|(name, order)| record(&format!("mmbench/{name}/r{order}"), "a", "A. x", Outcome::Correct))
            .into();
        let of = |items: usize| match origin(Layout::Mmbench, true) {
            Origin::Benchmark { layout, sha256, circular, left_out, .. } => {
                Origin::Benchmark { layout, sha256, circular, items, left_out }
            }
            suite => suite,
        };
        assert_eq!(Rules::of(&of(4), &records).circular.unwrap().questions, 1);
        assert_eq!(Rules::of(&of(3), &records).circular.unwrap().questions, 2);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_right_in_circular_evaluation() {
        let records =
            [record("x/1/r0", "a", "A. x", Outcome::Correct), record("x/1/r1", "a", "B. x", Outcome::Unparsed)];
        let questions = questions(&origin(Layout::Mmbench, true), &records);
        assert_eq!(circular(&questions).unwrap().right.value, 0.0);
    }

    #[test]
    fn a_rotation_at_the_end_of_a_name_is_taken_off_and_nothing_else() {
        for (id, name) in [
            ("mmbench/17/r3", "mmbench/17"),
            ("mmbench/17/r12", "mmbench/17"),
            ("val/read/17", "val/read/17"),
            ("x/r/r", "x/r/r"),
            ("pope/random/3", "pope/random/3"),
            ("x/r1/r0", "x/r1"),
        ] {
            assert_eq!(question(id), name);
        }
    }

    #[test]
    fn yes_and_no_are_counted_as_pope_counts_them() {
        use Outcome::{Correct, Unparsed, Wrong};
        let mut records = Vec::new();
        // 6 true yes, 2 missed by no, 1 missed by neither; 4 true no, 3 false yes.
        for (count, expected, outcome) in
            [(6, "yes", Correct), (2, "yes", Wrong), (1, "yes", Unparsed), (4, "no", Correct), (3, "no", Wrong)]
        {
            records.extend((0..count).map(|_| record("pope/random/1", "random", expected, outcome)));
        }
        let found = yes_no(&records);
        let expected = YesNo {
            category: "random".into(),
            items: 16,
            accuracy: 10.0 / 16.0,
            precision: Some(6.0 / 9.0),
            recall: Some(6.0 / 9.0),
            f1: Some(12.0 / 18.0),
            yes_rate: 9.0 / 16.0,
            unparsed: 1,
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_question_of_several_categories_counts_in_each() {
        let records = [
            record("pope/1", "adversarial,popular", "yes", Outcome::Correct),
            record("pope/2", "popular", "no", Outcome::Wrong),
        ];
        let found = yes_no(&records);
        let counts: Vec<(&str, usize, f64)> =
            found.iter().map(|one| (one.category.as_str(), one.items, one.accuracy)).collect();
        assert_eq!(counts, [("adversarial", 1, 1.0), ("popular", 2, 0.5), ("all", 3, 2.0 / 3.0)]);
    }

    #[test]
    fn shares_of_nothing_are_not_numbers() {
        let found = yes_no(&[record("pope/1", "random", "no", Outcome::Correct)]);
        assert_eq!((found[0].precision, found[0].recall, found[0].f1), (None, None, None));
        assert_eq!((found[0].accuracy, found[0].yes_rate), (1.0, 0.0));
        assert!(yes_no(&[record("x/1", "a", "A. yes", Outcome::Correct)]).is_empty());
        assert!(yes_no(&[]).is_empty());
    }

    #[test]
    fn a_pair_is_right_where_both_are_and_one_alone_counts_for_nothing() {
        let rights = [(1, true), (2, true), (3, true), (4, false), (5, false), (6, false), (8, true)];
        let records: Vec<Record> =
            rights.iter().map(|(n, right)| record(&format!("mmvp/{n}"), "all", "A. x", outcome(*right))).collect();
        let found = pairs(&records).unwrap();
        assert_eq!((found.pairs, found.right.value, found.alone), (3, 1.0 / 3.0, 1));
        // 2 and 3 are neighbours and no pair.
        assert_eq!(pairs(&records[1..3]), None);
    }

    #[test]
    fn rules_apply_to_the_benchmarks_they_are_of() {
        let records =
            [record("mmvp/1", "all", "A. x", Outcome::Correct), record("mmvp/2", "all", "B. y", Outcome::Correct)];
        let found = Rules::of(&origin(Layout::Mmvp, false), &records);
        assert!(found.pairs.is_some() && found.circular.is_none() && found.yes_no.is_empty());
        assert_eq!(Rules::of(&origin(Layout::Mmbench, false), &records), Rules::default());
        assert!(Rules::of(&origin(Layout::Mmbench, true), &records).circular.is_some());
        let suite = Origin::Suite { version: 1, split: lare_data::Split::Val, tasks: Vec::new(), per_task: 1 };
        assert_eq!(Rules::of(&suite, &records), Rules::default());
    }
}
