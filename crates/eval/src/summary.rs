//! What a run's results come to: shares with intervals, costs, and what replaced thoughts and looks take away.

use crate::grade::Outcome;
use crate::intervene::Intervention;
use crate::record::Record;
use crate::rules;
use crate::settings::Settings;
use crate::stats::{Interval, Pairs, wilson};
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything a run found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// All items.
    pub all: Group,
    /// By task or category, in the order of the items.
    pub tasks: Vec<(String, Group)>,
    /// By task and the number of looks its items need, where that is known.
    pub looks: Vec<(String, usize, Group)>,
    /// What each intervention costs, over all items.
    pub causal: Vec<Effect>,
    /// The same by task.
    pub causal_by_task: Vec<(String, Vec<Effect>)>,
    /// Interventions that were asked for and tried on no item: no answer has what they replace. They show nothing.
    pub untried: Vec<Intervention>,
    /// Mean cosine similarity between thoughts of the same step about different questions of a task; 1 means that the
    /// thoughts do not depend on what was asked.
    pub likeness: Vec<f64>,
}

/// Items of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Items.
    pub items: usize,
    /// Share right, with Wilson's interval.
    pub right: Interval,
    /// Answers that name nothing of what was asked for.
    pub unparsed: usize,
    /// Questions that the model cannot be asked, because they are too long for it; among the unparsed.
    pub refused: usize,
    /// Items with at least one latent step.
    pub thought: usize,
    /// Mean latent steps; this mean and those below are over the items that were asked.
    pub latent_steps: f64,
    /// Mean text tokens.
    pub text_tokens: f64,
    /// Mean text tokens, latent steps and appended visual tokens together.
    pub inference_tokens: f64,
    /// Mean positions that the language model computed.
    pub processed_positions: f64,
    /// Steps whose true region is known.
    #[serde(rename = "steps_with_region")]
    pub looks: usize,
    /// Of these, steps that read the cell with most of it.
    pub hits: usize,
    /// Mean milliseconds of an item.
    pub time_ms: f64,
}

/// What one intervention does to the share right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// What was replaced.
    pub what: Intervention,
    /// Items that it was tried on; in circular evaluation questions, right only in every order of their options.
    pub items: usize,
    /// Share right under it.
    pub right: Interval,
    /// Share right without it minus share right under it, paired item by item.
    pub cost: Interval,
    /// McNemar's exact test of no difference.
    pub p: f64,
}

impl Group {
    /// Items that were asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.items - self.refused
    }

    /// `None` of nothing.
    fn of<'a>(records: impl Iterator<Item = &'a Record> + Clone) -> Option<Self> {
        let count = |keep: &dyn Fn(&Record) -> bool| records.clone().filter(|record| keep(record)).count();
        let items = records.clone().count();
        let right = wilson(count(&Record::right), items)?;
        // What was not asked cost nothing, and would make the rest look cheaper.
        let asked = records.clone().filter(|record| record.refused.is_none());
        let mean =
            |of: &dyn Fn(&Record) -> f64| asked.clone().map(of).sum::<f64>() / asked.clone().count().max(1) as f64;
        Some(Self {
            items,
            right,
            unparsed: count(&|r| r.outcome == Outcome::Unparsed),
            refused: count(&|r| r.refused.is_some()),
            thought: count(&|r| r.usage.latent_steps > 0),
            latent_steps: mean(&|r| r.usage.latent_steps as f64),
            text_tokens: mean(&|r| r.usage.text_tokens as f64),
            inference_tokens: mean(&|r| {
                (r.usage.text_tokens + r.usage.latent_steps + r.usage.appended_visual_tokens) as f64
            }),
            processed_positions: mean(&|r| r.usage.processed_positions as f64),
            looks: records.clone().map(|r| r.hits.len()).sum(),
            hits: records.clone().flat_map(|r| &r.hits).filter(|hit| **hit).count(),
            time_ms: mean(&|r| r.time_ms),
        })
    }

    /// Share of the steps with a known region that read it.
    #[must_use]
    pub fn hit_rate(&self) -> Option<Interval> {
        wilson(self.hits, self.looks)
    }
}

impl Effect {
    /// `questions`: the records of each, one or all orders of its options. `None` where it was tried on none of them.
    fn of<'a>(what: Intervention, questions: impl Iterator<Item = &'a Vec<&'a Record>>) -> Option<Self> {
        let under = |record: &Record| record.under(what).map_or(record.right(), |outcome| outcome == Outcome::Correct);
        let tried = questions.filter(|records| records.iter().any(|record| record.under(what).is_some()));
        let right = |records: &Vec<&Record>| {
            (records.iter().all(|record| record.right()), records.iter().all(|record| under(record)))
        };
        let pairs = Pairs::of(tried.map(right));
        let right = wilson(pairs.both + pairs.second, pairs.all())?;
        Some(Self { what, items: pairs.all(), right, cost: pairs.difference()?, p: pairs.mcnemar() })
    }

    /// Whether there is a difference by both measures: with few uneven pairs the interval alone is too sure.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.cost.leaves_zero_out() && self.p < 0.05
    }

    /// A sentence to quote.
    #[must_use]
    pub fn verdict(&self) -> String {
        let [value, low, high] = [self.cost.value, self.cost.low, self.cost.high].map(|share| 100.0 * share);
        let says = self.what.says();
        if !self.is_sure() {
            return format!(
                "{says} changes nothing that {} items can show: {value:+.1} points [{low:.1}, {high:.1}]",
                self.items
            );
        }
        let (verb, [value, low, high]) =
            if value > 0.0 { ("costs", [value, low, high]) } else { ("gains", [-value, -high, -low]) };
        format!("{says} {verb} {value:.1} points [{low:.1}, {high:.1}]")
    }
}

impl Summary {
    /// Whether every answer came without a latent step: then its accuracy is that of the plain model.
    #[must_use]
    pub fn never_thought(&self) -> bool {
        self.all.thought == 0 && self.all.asked() > 0
    }

    /// A sentence about interventions that were tried on nothing; `None` where all were tried.
    #[must_use]
    pub fn says_untried(&self) -> Option<String> {
        let names: Vec<&str> = self.untried.iter().map(|what| what.name()).collect();
        (!names.is_empty())
            .then(|| format!("tried on no question, since no answer has what is replaced: {}", names.join(", ")))
    }

    /// `None` where there are no results.
    #[must_use]
    pub fn of(settings: &Settings, records: &[Record]) -> Option<Self> {
        let mut tasks: Vec<&str> = Vec::new();
        for record in records {
            if !tasks.contains(&record.task.as_str()) {
                tasks.push(&record.task);
            }
        }
        let of = |task: &str| records.iter().filter(move |r| r.task == task).collect::<Vec<_>>();
        let mut looks = Vec::new();
        for task in &tasks {
            let mut by_looks: BTreeMap<usize, Vec<&Record>> = BTreeMap::new();
            for record in of(task) {
                if let Some(looks) = record.looks {
                    by_looks.entry(looks).or_default().push(record);
                }
            }
            let group = |(looks, records): (usize, Vec<&Record>)| {
                Some(((*task).to_owned(), looks, Group::of(records.iter().copied())?))
            };
            looks.extend(by_looks.into_iter().filter_map(group));
        }
        let questions = rules::questions(&settings.items, records);
        let effects = |task: Option<&str>| -> Vec<Effect> {
            let of_task = |records: &&Vec<&Record>| task.is_none_or(|task| records[0].task == task);
            let effect = |what: &Intervention| Effect::of(*what, questions.iter().filter(of_task));
            settings.interventions.iter().filter_map(effect).collect()
        };
        let group = |task: &&str| Some(((*task).to_owned(), Group::of(of(task).into_iter())?));
        let causal = effects(None);
        let is_untried = |what: &Intervention| causal.iter().all(|effect| effect.what != *what);
        Some(Self {
            untried: settings.interventions.iter().copied().filter(is_untried).collect(),
            all: Group::of(records.iter())?,
            tasks: tasks.iter().filter_map(group).collect(),
            looks,
            causal,
            causal_by_task: tasks.iter().map(|task| ((*task).to_owned(), effects(Some(task)))).collect(),
            likeness: likeness(records),
        })
    }
}

/// Mean over the items of each step's similarity.
fn likeness(records: &[Record]) -> Vec<f64> {
    let steps = records.iter().map(|r| r.likeness.len()).max().unwrap_or(0);
    let mean = |k: usize| {
        let of_step: Vec<f64> = records.iter().filter_map(|r| r.likeness.get(k)).map(|x| f64::from(*x)).collect();
        of_step.iter().sum::<f64>() / of_step.len().max(1) as f64
    };
    (0..steps).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Origin;
    use crate::record::Replacement;
    use lare_data::Split;
    use lare_trace::Usage;

    fn record(task: &str, looks: usize, right: bool, under_noise: bool) -> Record {
        let outcome = |right| if right { Outcome::Correct } else { Outcome::Wrong };
        Record {
            id: String::new(),
            task: task.into(),
            looks: Some(looks),
            prompt: String::new(),
            expected: "1".into(),
            said: "1".into(),
            steps: String::new(),
            outcome: outcome(right),
            refused: None,
            usage: Usage { latent_steps: looks, text_tokens: 3, processed_positions: 60, ..Usage::default() },
            hits: vec![right; looks],
            time_ms: 4.0,
            likeness: vec![0.5; looks],
            replaced: vec![Replacement { what: Intervention::Noise, said: "2".into(), outcome: outcome(under_noise) }],
        }
    }

    fn settings() -> Settings {
        Settings {
            model: "tiny".into(),
            weights_hash: "0".into(),
            config_hash: "1".into(),
            items: Origin::Suite { version: 3, split: Split::Val, tasks: vec![], per_task: 2 },
            steps: None,
            halt_threshold: 0.5,
            interventions: vec![Intervention::Noise],
            seed: 1,
            batch: 4,
            bf16: false,
            dtype: None,
            device: None,
            max_tokens: None,
        }
    }

    #[test]
    fn results_are_grouped_and_paired() {
        let mut records = vec![record("read", 1, true, true), record("hop", 3, true, false)];
        records.extend((0..98).map(|i| record("hop", 2 + i % 2, i % 4 != 0, i % 8 == 1)));
        let summary = Summary::of(&settings(), &records).unwrap();
        let names: Vec<&str> = summary.tasks.iter().map(|(task, _)| task.as_str()).collect();
        assert_eq!(names, ["read", "hop"]);
        assert_eq!(summary.all.items, 100);
        let groups: Vec<(&str, usize, usize)> =
            summary.looks.iter().map(|(task, looks, group)| (task.as_str(), *looks, group.items)).collect();
        assert_eq!(groups, [("read", 1, 1), ("hop", 2, 49), ("hop", 3, 50)]);
        assert_eq!(summary.all.inference_tokens, 3.0 + summary.all.latent_steps);
        let effect = &summary.causal[0];
        let right = records.iter().filter(|r| r.right()).count() as f64 / 100.0;
        let under = records.iter().filter(|r| r.under(Intervention::Noise) == Some(Outcome::Correct)).count() as f64;
        assert!((effect.cost.value - (right - under / 100.0)).abs() < 1e-12);
        assert!(effect.cost.low < effect.cost.value && effect.cost.value < effect.cost.high);
        assert!(effect.p < 1e-6);
        assert!(effect.verdict().starts_with("replacing the thoughts with noise of equal norm costs 6"));
        assert_eq!(summary.likeness, [0.5, 0.5, 0.5]);
    }

    #[test]
    fn a_verdict_says_when_nothing_can_be_seen() {
        let verdict = |records: &[Record]| Summary::of(&settings(), records).unwrap().causal[0].verdict();
        let nothing = verdict(&(0..40).map(|i| record("read", 1, i % 2 == 0, i % 2 == 0)).collect::<Vec<_>>());
        assert!(nothing.contains("changes nothing that 40 items can show"), "{nothing}");
        let gain = verdict(&(0..40).map(|i| record("read", 1, i % 4 == 0, i % 2 == 0)).collect::<Vec<_>>());
        assert!(gain.contains(" gains 25.0 points ["), "{gain}");
        // Four uneven pairs, all one way, happen by chance in one of eight.
        let few = verdict(&(0..200).map(|i| record("read", 1, i < 100, (4..100).contains(&i))).collect::<Vec<_>>());
        assert!(few.contains("changes nothing that 200 items can show"), "{few}");
        assert!(Summary::of(&settings(), &[]).is_none());
    }

    #[test]
    fn what_nothing_was_replaced_by_is_named_and_has_no_verdict() {
        let mut records = vec![record("read", 1, true, false), record("read", 1, false, false)];
        let interventions = vec![Intervention::Noise, Intervention::Shuffle];
        let settings = Settings { interventions, ..settings() };
        let found = Summary::of(&settings, &records).unwrap();
        assert_eq!((found.causal.len(), &found.untried[..]), (1, &[Intervention::Shuffle][..]));
        assert!(!found.never_thought());
        assert!(found.says_untried().unwrap().ends_with("what is replaced: shuffle"));
        for record in &mut records {
            (record.replaced, record.usage) = (Vec::new(), Usage::default());
        }
        let found = Summary::of(&settings, &records).unwrap();
        assert!(found.never_thought() && found.causal.is_empty());
        assert_eq!(found.untried, settings.interventions);
    }

    #[test]
    fn the_orders_of_one_question_are_one_pair() {
        let mut records: Vec<Record> = (0..8).map(|_| record("read", 1, true, false)).collect();
        records.iter_mut().zip(0..).for_each(|(record, n)| record.id = format!("mmbench/{}/r{}", n / 4, n % 4));
        // The second question is wrong in one order, and so not right with its thoughts or without: nothing is lost.
        records[5].outcome = Outcome::Wrong;
        let items = Origin::Benchmark {
            layout: crate::benchmark::Layout::Mmbench,
            sha256: Vec::new(),
            circular: true,
            items: 8,
            left_out: BTreeMap::new(),
        };
        let effect = Summary::of(&Settings { items, ..settings() }, &records).unwrap().causal[0];
        assert_eq!((effect.items, effect.cost.value), (2, 0.5));
        assert!((effect.p - 1.0).abs() < 1e-9, "{}", effect.p);
    }

    #[test]
    fn what_was_not_asked_costs_nothing_and_is_not_counted_as_cheap() {
        let mut records = vec![record("read", 2, true, true), record("read", 2, true, true)];
        records[1] = Record { refused: Some("too long".into()), usage: Usage::default(), ..records[1].clone() };
        let all = Summary::of(&settings(), &records).unwrap().all;
        assert_eq!((all.items, all.asked(), all.thought), (2, 1, 1));
        assert_eq!((all.latent_steps, all.processed_positions), (2.0, 60.0));
    }
}
