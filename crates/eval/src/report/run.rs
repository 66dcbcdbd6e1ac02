//! One evaluated run as a report shows it: its name, what it was asked, and the command that repeats it.

use super::number::{counted, short};
use super::plot::LOOKS;
use crate::keep::{self, Kept};
use crate::stats::Interval;
use crate::{Error, Intervention, Origin, Record, Result, Rules, Settings, Summary, rules};
use lare_data::Task;
use std::path::{Component, Path, PathBuf};

/// A run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What tells it from the other runs of its report.
    pub label: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What it was asked to do.
    pub settings: Settings,
    /// What came of every item.
    pub records: Vec<Record>,
    /// What they come to.
    pub summary: Summary,
    /// What they come to by the rules of their benchmark.
    pub rules: Rules,
    /// The traces it kept.
    pub kept: Vec<Kept>,
}

impl Run {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Line`] and [`Error::Kept`] for what cannot be read, [`Error::NoResults`] where there
    /// is nothing yet.
    pub fn read(folder: &Path) -> Result<Self> {
        let (settings, records) = crate::run::read(folder)?;
        let kept = keep::read(folder, &records)?;
        Ok(Self { kept, ..Self::new(folder, settings, records)? })
    }

    /// A run of results, without traces.
    ///
    /// # Errors
    /// [`Error::NoResults`] of none.
    pub fn new(folder: &Path, settings: Settings, records: Vec<Record>) -> Result<Self> {
        let Some(summary) = Summary::of(&settings, &records) else {
            return Err(Error::NoResults { folder: folder.into() });
        };
        let rules = Rules::of(&settings.items, &records);
        let label = settings.model.clone();
        Ok(Self { label, folder: folder.into(), settings, records, summary, rules, kept: Vec::new() })
    }

    /// How many items it was to answer; it has fewer results where it was stopped.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.settings.items.count()
    }

    /// Share right, and of how many questions: in circular evaluation of those that are right in every order of their
    /// options, as it is scored, else of all items.
    #[must_use]
    pub fn right(&self) -> (Interval, usize) {
        let all = &self.summary.all;
        self.rules.circular.as_ref().map_or((all.right, all.items), |found| (found.right, found.questions))
    }

    /// How many latent steps it took, or when it stopped.
    pub(super) fn steps(&self) -> String {
        match self.settings.steps {
            Some(steps) => counted(steps, "step"),
            None => format!("halts at {}", self.settings.halt_threshold),
        }
    }

    /// What it was asked, for people.
    pub(super) fn questions(&self) -> String {
        match &self.settings.items {
            Origin::Suite { version, split, tasks, per_task } => {
                let names: Vec<&str> = tasks.iter().map(|task| task.name()).collect();
                let of = if tasks[..] == Task::ALL { "all tasks".to_owned() } else { names.join(", ") };
                format!("refocus suite {version}, split {split}: {per_task} of each of {of}")
            }
            Origin::Benchmark { layout, circular, items, .. } => {
                let turns = if *circular { ", in every order of the options" } else { "" };
                format!("{layout}: {}{turns}", counted(*items, "item"))
            }
        }
    }

    /// The command that repeats it. Its paths are not known: `MODEL` stands for the model's folder, which is left out
    /// where the program holds weights of the hash `own`, and `FILE` for the benchmark's.
    #[must_use]
    pub fn command(&self, own: &str) -> String {
        let settings = &self.settings;
        let mut words = vec!["lare eval".to_owned()];
        if settings.weights_hash != own {
            words.push("--model MODEL".to_owned());
        }
        match &settings.items {
            Origin::Suite { split, tasks, per_task, .. } => {
                words.push(format!("--split {split}"));
                if tasks[..] != Task::ALL {
                    let names: Vec<&str> = tasks.iter().map(|task| task.name()).collect();
                    words.push(format!("--tasks {}", names.join(",")));
                }
                words.push(format!("--count {per_task}"));
            }
            Origin::Benchmark { circular, items, .. } => {
                words.push("--data FILE".to_owned());
                words.extend(circular.then(|| "--circular".to_owned()));
                // Of how many questions the items of a run that was stopped are cannot be told from those it answered.
                let questions = if *circular { rules::questions(&settings.items, &self.records).len() } else { *items };
                let is_known = !circular || self.records.len() == *items;
                words.extend(is_known.then(|| format!("--count {questions}")));
            }
        }
        words.push(match settings.steps {
            Some(steps) => format!("--steps {steps}"),
            None => format!("--steps auto --halt-threshold {}", settings.halt_threshold),
        });
        words.extend(self.replaced());
        words.push(format!("--seed {} --batch {}", settings.seed, settings.batch));
        words.extend(settings.bf16.then(|| "--bf16".to_owned()));
        words.join(" ")
    }

    /// The flag of its interventions.
    fn replaced(&self) -> Option<String> {
        let tried = &self.settings.interventions;
        let knows_regions = matches!(self.settings.items, Origin::Suite { .. });
        let is_possible = |what: &Intervention| knows_regions || *what != Intervention::OraclePatches;
        if Intervention::ALL.into_iter().filter(is_possible).eq(tried.iter().copied()) {
            return Some("--causal".to_owned());
        }
        let names: Vec<&str> = tried.iter().map(|what| what.name()).collect();
        (!names.is_empty()).then(|| format!("--replace {}", names.join(",")))
    }
}

/// Names runs by what tells them apart: model, items, and steps where these two do not; else by their folders. Of more runs than a
/// plot can tell apart each has its number before its name.
pub(super) fn name(runs: &mut [Run]) {
    let models = models(runs);
    let items: Vec<String> = runs.iter().map(|run| run.settings.items.name().to_owned()).collect();
    let steps: Vec<String> = runs.iter().map(Run::steps).collect();
    let varies = |all: &&Vec<String>| all.iter().any(|one| Some(one) != all.first());
    let repeats =
        |(place, one): (usize, (&String, &String))| models.iter().zip(&items).skip(place + 1).any(|other| other == one);
    let needs_steps = models.iter().zip(&items).enumerate().any(repeats);
    let parts = [Some(&models), Some(&items), needs_steps.then_some(&steps)];
    let telling: Vec<&Vec<String>> = parts.into_iter().flatten().filter(varies).collect();
    let mut labels = if telling.is_empty() { models.clone() } else { vec![String::new(); runs.len()] };
    for part in telling {
        for (label, part) in labels.iter_mut().zip(part) {
            *label = if label.is_empty() { part.clone() } else { format!("{label}, {part}") };
        }
    }
    let repeated = |labels: &[String], label: &String| labels.iter().filter(|other| *other == label).count() > 1;
    let folder = |run: &Run| run.folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let with_folders = labels.iter().zip(runs.iter()).map(|(label, run)| match folder(run) {
        Some(folder) if repeated(&labels, label) => format!("{label} ({folder})"),
        _ => label.clone(),
    });
    let labels: Vec<String> = with_folders.collect();
    let is_numbered = runs.len() > LOOKS;
    for (place, run) in runs.iter_mut().enumerate() {
        let (label, number) = (&labels[place], place + 1);
        run.label = match (is_numbered, repeated(&labels, label)) {
            (true, _) => format!("{number} {label}"),
            (_, true) => format!("{label} #{number}"),
            _ => label.clone(),
        };
    }
}

/// Names of the models; where one name stands for several, those of their folders or the beginnings of their weights' hashes.
fn models(runs: &[Run]) -> Vec<String> {
    let is_one_name = runs.iter().all(|run| run.settings.model == runs[0].settings.model);
    let folders = folders(runs).filter(|folders| is_one_name && folders.iter().any(|name| *name != folders[0]));
    if let Some(folders) = folders {
        return folders;
    }
    let shares_its_name = |run: &Run| {
        let same = |other: &&Run| other.settings.model == run.settings.model;
        runs.iter().filter(same).any(|other| other.settings.weights_hash != run.settings.weights_hash)
    };
    let name = |run: &Run| match shares_its_name(run) {
        true => format!("{} {}", run.settings.model, short(&run.settings.weights_hash)),
        false => run.settings.model.clone(),
    };
    runs.iter().map(name).collect()
}

/// How many folders up a run's name may stand.
const LEVELS: usize = 3;

/// The lowest folders that tell weights apart and nothing else: `lare-1` of `runs/lare-1/iid` and `runs/lare-1/style` beside
/// `runs/splice-1/iid`. Nothing where there are none.
fn folders(runs: &[Run]) -> Option<Vec<String>> {
    let at = |level: usize| -> Option<Vec<String>> {
        let name = |run: &Run| match run.folder.components().nth_back(level)? {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        };
        runs.iter().map(name).collect()
    };
    let tells = |names: &Vec<String>| {
        let known: Vec<_> = runs.iter().map(|run| &run.settings.weights_hash).zip(names).collect();
        known.iter().all(|(hash, name)| known.iter().all(|(other, its)| (hash == other) == (name == its)))
    };
    (0..LEVELS).filter_map(at).find(tells)
}

#[cfg(test)]
mod tests {
    use super::super::made;
    use super::*;
    use crate::benchmark::Layout;
    use lare_data::Split;
    use std::collections::BTreeMap;

    fn labels(mut runs: Vec<Run>) -> Vec<String> {
        name(&mut runs);
        runs.into_iter().map(|run| run.label).collect()
    }

    #[test]
    fn runs_are_named_by_what_tells_them_apart() {
        let run = |change: &dyn Fn(&mut Settings)| {
            let mut run = made::run(8, 3);
            change(&mut run.settings);
            run
        };
        assert_eq!(labels(vec![run(&|_| ())]), ["tiny"]);
        assert_eq!(labels(vec![run(&|s| s.steps = Some(1)), run(&|s| s.steps = None)]), ["1 step", "halts at 0.5"]);
        assert_eq!(
            labels(vec![run(&|s| s.weights_hash = "aaaaaaaaaa".into()), run(&|s| s.weights_hash = "b".into())]),
            ["tiny aaaaaaaa", "tiny b"]
        );
        let renamed = |s: &mut Settings| (s.model, s.steps) = ("other".into(), Some(2));
        assert_eq!(labels(vec![run(&|_| ()), run(&renamed)]), ["tiny", "other"]);
        assert_eq!(labels(vec![run(&|_| ()), run(&|s| s.seed = 9)]), ["tiny (made) #1", "tiny (made) #2"]);
        assert!(labels(Vec::new()).is_empty());
        let several: Vec<Run> = (0..6).map(|seed| run(&|s| s.seed = seed)).collect();
        assert_eq!(labels(several)[5], "6 tiny (made)");
    }

    #[test]
    fn models_of_one_name_are_called_by_the_folders_that_tell_them_apart() {
        let run = |folder: &str, hash: &str, split: Split| {
            let mut run = made::run(8, 3);
            (run.folder, run.settings.weights_hash) = (folder.into(), hash.into());
            let Origin::Suite { split: of, .. } = &mut run.settings.items else { unreachable!() };
            *of = split;
            run
        };
        let (iid, style) = (Split::Iid, Split::Style);
        let (lare, splice) = (run("runs/lare-1/iid", "a", iid), run("runs/splice-1/iid", "b", iid));
        assert_eq!(labels(vec![lare.clone(), splice.clone()]), ["lare-1", "splice-1"]);
        let names = labels(vec![lare.clone(), run("runs/lare-1/style", "a", style), splice]);
        assert_eq!(names, ["lare-1, iid", "lare-1, style", "splice-1, iid"]);
        // A folder name that does not follow the weights says nothing of them.
        let mixed = vec![lare, run("runs/other/style", "a", iid), run("runs/splice-1/iid", "b", iid)];
        assert_eq!(labels(mixed)[2], "tiny b");
    }

    #[test]
    fn a_circular_run_is_worth_what_is_right_in_every_order() {
        let mut run = made::run(8, 2);
        assert_eq!((run.right().0.value, run.right().1), (0.5, 8));
        let questions: Vec<Vec<&Record>> = run.records[1..4].iter().map(|record| vec![record]).collect();
        run.rules.circular = rules::circular(&questions);
        assert_eq!((run.right().0.value, run.right().1), (1.0 / 3.0, 3));
    }

    #[test]
    fn a_run_without_results_is_refused_by_name() {
        let settings = made::run(1, 1).settings;
        let refused = Run::new("runs/empty".as_ref(), settings, Vec::new()).err().unwrap().to_string();
        assert!(refused.contains("`runs/empty` has no results yet") && refused.contains("hint: "), "{refused}");
    }

    #[test]
    fn the_command_says_everything_that_decides_the_results() {
        let mut run = made::run(8, 3);
        run.settings.interventions = Intervention::ALL.to_vec();
        assert_eq!(
            run.command("other weights"),
            "lare eval --model MODEL --split val --tasks read,hop --count 4 --steps auto --halt-threshold 0.5 --causal --seed 1 --batch 4"
        );
        let own = run.settings.weights_hash.clone();
        run.settings.steps = Some(2);
        run.settings.interventions = vec![Intervention::Mean, Intervention::Zero];
        assert_eq!(
            run.command(&own),
            "lare eval --split val --tasks read,hop --count 4 --steps 2 --replace mean,zero --seed 1 --batch 4"
        );
        let sha256 = vec!["00".into()];
        let items =
            Origin::Benchmark { layout: Layout::Mmbench, sha256, circular: true, items: 8, left_out: BTreeMap::new() };
        run.settings.items = items;
        run.settings.interventions = Intervention::ALL[..9].to_vec();
        run.records.iter_mut().zip(0..).for_each(|(record, n)| record.id = format!("mmbench/{}/r{}", n / 4, n % 4));
        assert_eq!(
            run.command(&own),
            "lare eval --data FILE --circular --count 2 --steps 2 --causal --seed 1 --batch 4"
        );
        run.records.pop();
        assert_eq!(run.command(&own), "lare eval --data FILE --circular --steps 2 --causal --seed 1 --batch 4");
    }
}
