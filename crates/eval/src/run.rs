//! Asks every item and keeps what came of it, line by line, so that a run that was killed goes on where it stopped.
//!
//! A run's folder holds `settings.json`, `items.jsonl` and, where some are kept, `traces/`. Items are answered in
//! batches, and a batch's lines are written together: a resumed run has the same batches as one that was never stopped,
//! and so the same answers.

use crate::cells::hits;
use crate::intervene::{Material, Plan};
use crate::item::{Item, Source};
use crate::keep::Keeper;
use crate::record::{Record, Replacement};
use crate::settings::Settings;
use crate::{Error, Result, rules};
use lare_data::Size;
use lare_infer::session::Answers;
use lare_infer::{Answer, Batch, Options, Question, Replaced, Steps, session};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Called with the items done, before the first batch, after each, and while traces are made; `false` stops the run.
pub type Progress<'a> = &'a mut dyn FnMut(usize) -> bool;

/// Results of a run's folder.
const ITEMS: &str = "items.jsonl";
/// What it was asked to do.
const SETTINGS: &str = "settings.json";

/// A run that has ended, or was stopped.
pub struct Evaluation {
    /// One for each item answered so far, in their order.
    pub records: Vec<Record>,
    /// Whether all were.
    pub complete: bool,
}

/// What is asked, of whom, and where the results go.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// Who is asked.
    pub model: &'a dyn Answers,
    /// What.
    pub source: &'a dyn Source,
    /// How.
    pub settings: &'a Settings,
    /// The run's folder.
    pub folder: &'a Path,
    /// Of how many right answers of each task, and of how many others, the whole trace is kept; see [`crate::keep`].
    pub keep: usize,
}

/// Answers all items that `folder` has no result of yet, and keeps no traces.
///
/// # Errors
/// As [`Job::run`].
pub fn run(
    model: &dyn Answers,
    source: &dyn Source,
    settings: &Settings,
    folder: &Path,
    progress: Progress,
) -> Result<Evaluation> {
    Job { model, source, settings, folder, keep: 0 }.run(progress)
}

impl Job<'_> {
    /// Answers all items that the folder has no result of yet, and makes the traces that it should have and has not.
    ///
    /// # Errors
    /// [`Error::OtherSettings`] where the folder is another run's, [`Error::File`], and what makes a question
    /// unanswerable.
    pub fn run(&self, progress: Progress) -> Result<Evaluation> {
        let Self { model, source, settings, folder, .. } = *self;
        let mut results = Results::open(folder, settings, source.count())?;
        let mut keeper = Keeper::new(*self);
        let filled = keeper.fill(&results.records, progress)?;
        let mut judge = None;
        let mut go_on = filled && progress(results.records.len());
        while go_on && results.records.len() < source.count() {
            // Not before it is needed: results that are complete are shown at once.
            let judge = match &mut judge {
                Some(judge) => judge,
                none => none.insert(Judge { model, settings, others: Others::ask(model, source, settings)? }),
            };
            let first = results.records.len();
            let last = (first + settings.batch).min(source.count());
            let items: Vec<Item> = (first..last).map(|index| source.item(index)).collect::<Result<_>>()?;
            let (records, answers): (Vec<_>, Vec<_>) = judge.batch(&items, first)?.into_iter().unzip();
            results.append(records)?;
            // After the lines: the folder is now this run's, and a trace that is missing is made when the run goes on.
            keeper.keep(first, &items, &results.records[first..], &answers)?;
            go_on = progress(last);
        }
        let complete = filled && results.records.len() == source.count();
        Ok(Evaluation { records: results.records, complete })
    }
}

/// Reads the results of a run's folder.
///
/// # Errors
/// [`Error::File`] and [`Error::Line`].
pub fn read(folder: &Path) -> Result<(Settings, Vec<Record>)> {
    let path = folder.join(ITEMS);
    let (lines, _) = whole_lines(&path)?;
    Ok((settings_of(folder)?, parse(&lines, &path)?))
}

/// The whole lines of a file of results, and the length of the file: a kill may have cut its last line short, and in the
/// middle of a character.
fn whole_lines(path: &Path) -> Result<(String, u64)> {
    let mut bytes = fs::read(path).map_err(|e| Error::file("read", path, &e))?;
    let length = bytes.len() as u64;
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].split(|byte| *byte == b'\n').count();
        Error::Line { path: path.into(), line, reason: e.to_string() }
    })?;
    Ok((text, length))
}

fn settings_of(folder: &Path) -> Result<Settings> {
    let path = folder.join(SETTINGS);
    let text = fs::read_to_string(&path).map_err(|e| Error::file("read", &path, &e))?;
    serde_json::from_str(&text).map_err(|e| Error::Line { path, line: e.line(), reason: e.to_string() })
}

fn parse(text: &str, path: &Path) -> Result<Vec<Record>> {
    let read = |(line, text): (usize, &str)| {
        serde_json::from_str(text).map_err(|e| Error::Line { path: path.into(), line, reason: e.to_string() })
    };
    (1..).zip(text.lines()).map(read).collect()
}

/// The results so far, in memory and on disk.
struct Results<'a> {
    folder: &'a Path,
    settings: &'a Settings,
    file: Option<File>,
    records: Vec<Record>,
}

impl<'a> Results<'a> {
    /// Reads what is there, and keeps its whole batches: a kill may have cut the last one short. Nothing is written before
    /// there is a result.
    fn open(folder: &'a Path, settings: &'a Settings, count: usize) -> Result<Self> {
        let path = folder.join(ITEMS);
        if !folder.join(SETTINGS).exists() {
            return Ok(Self { folder, settings, file: None, records: Vec::new() });
        }
        let changes = settings_of(folder)?.changes(settings);
        if !changes.is_empty() {
            return Err(Error::OtherSettings { folder: folder.into(), changes: changes.join("\n  ") });
        }
        let failed = |e: std::io::Error| Error::file("write", &path, &e);
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        let (whole, length) = whole_lines(&path)?;
        let lines = whole.lines().count();
        let kept = if lines >= count { count } else { lines - lines % settings.batch.max(1) };
        let end: usize = whole.split_inclusive('\n').take(kept).map(str::len).sum();
        if (end as u64) < length {
            file.set_len(end as u64).map_err(failed)?;
        }
        let records = parse(&whole[..end], &path)?;
        Ok(Self { folder, settings, file: Some(file), records })
    }

    fn append(&mut self, records: Vec<Record>) -> Result<()> {
        let path = self.folder.join(ITEMS);
        let failed = |reason: String| Error::File { what: "write", path: path.clone(), reason };
        let mut text = String::new();
        for record in &records {
            text += &serde_json::to_string(record).map_err(|e| failed(e.to_string()))?;
            text.push('\n');
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(self.folder, self.settings)?),
        };
        file.write_all(text.as_bytes()).map_err(|e| failed(e.to_string()))?;
        self.records.extend(records);
        Ok(())
    }
}

/// Makes a run's folder: its settings, and a file for its results, which must not be there yet.
fn create(folder: &Path, settings: &Settings) -> Result<File> {
    let (path, items) = (folder.join(SETTINGS), folder.join(ITEMS));
    let partial = folder.join(".settings.json.partial");
    let made = fs::create_dir_all(folder)
        .and_then(|()| serde_json::to_vec_pretty(settings).map_err(std::io::Error::from))
        .and_then(|text| fs::write(&partial, text))
        .and_then(|()| fs::rename(&partial, &path));
    made.map_err(|e| Error::file("write", &path, &e))?;
    File::options().create_new(true).append(true).open(&items).map_err(|e| Error::file("write", &items, &e))
}

/// Answers to other questions, and the mean thought of each step over all of them.
struct Others {
    answers: Vec<Other>,
    means: Vec<Vec<f32>>,
}

struct Other {
    id: String,
    task: String,
    answer: Answer,
}

impl Others {
    fn ask(model: &dyn Answers, source: &dyn Source, settings: &Settings) -> Result<Self> {
        let fits = |item: &Item| check(model, item, settings).is_ok();
        let items: Vec<Item> = source.others()?.into_iter().filter(fits).collect();
        let mut answers = Vec::with_capacity(items.len());
        for items in items.chunks(settings.batch.max(1)) {
            let plans = vec![None; items.len()];
            let found = ask(model, items, &plans, settings)?;
            let other =
                |(item, answer): (&Item, Answer)| Other { id: item.id.clone(), task: item.task.clone(), answer };
            answers.extend(items.iter().zip(found).map(other));
        }
        let means = means(answers.iter().map(|other| &other.answer));
        Ok(Self { answers, means })
    }

    /// An answer of the same task, each item another; of any task where this one has none. One with thoughts, if there is
    /// any. Never one to the item's own question, which a benchmark without a second split may have among the others.
    fn for_item(&self, item: &Item, number: usize) -> Option<&Answer> {
        let own = rules::question(&item.id);
        let others = || self.answers.iter().filter(move |other| rules::question(&other.id) != own);
        let of_task = |other: &&Other| other.task == item.task;
        let thought = |other: &&Other| !other.answer.looks.is_empty();
        let choices = [
            others().filter(of_task).filter(thought).collect::<Vec<_>>(),
            others().filter(thought).collect(),
            others().collect(),
        ];
        let fit = choices.into_iter().find(|fit| !fit.is_empty())?;
        Some(&fit[number % fit.len()].answer)
    }
}

/// Mean thought of each step over the answers that took it.
fn means<'a>(answers: impl Iterator<Item = &'a Answer>) -> Vec<Vec<f32>> {
    let mut sums: Vec<(Vec<f32>, f32)> = Vec::new();
    for look in answers.flat_map(|answer| answer.looks.iter().enumerate()) {
        let (k, thought) = (look.0, &look.1.thought);
        if sums.len() <= k {
            sums.push((vec![0.0; thought.len()], 0.0));
        }
        let (sum, count) = &mut sums[k];
        sum.iter_mut().zip(thought).for_each(|(sum, x)| *sum += x);
        *count += 1.0;
    }
    sums.into_iter().map(|(sum, count)| sum.into_iter().map(|x| x / count).collect()).collect()
}

/// An item's record, and its answer where it was asked.
type Judged = (Record, Option<Answer>);

struct Judge<'a> {
    model: &'a dyn Answers,
    settings: &'a Settings,
    others: Others,
}

impl Judge<'_> {
    /// Answers and grades items; `first` is the number of the first. What the model cannot be asked is kept with the reason.
    fn batch(&self, items: &[Item], first: usize) -> Result<Vec<Judged>> {
        let refusals = items.iter().map(|item| self.refusal(item)).collect::<Result<Vec<_>>>()?;
        let asked = items.iter().zip(first..).zip(&refusals).filter(|(_, refusal)| refusal.is_none());
        let (asked, numbers): (Vec<Item>, Vec<usize>) = asked.map(|((item, number), _)| (item.clone(), number)).unzip();
        let mut answered = self.answered(&asked, &numbers)?.into_iter();
        let judged = |(item, refusal): (&Item, Option<String>)| match refusal {
            Some(_) => Some((Record { refused: refusal, ..Record::unasked(item) }, None)),
            None => answered.next().map(|(record, answer)| (record, Some(answer))),
        };
        Ok(items.iter().zip(refusals).filter_map(judged).collect())
    }

    /// Why the model cannot be asked an item: it is empty, or longer than the context.
    fn refusal(&self, item: &Item) -> Result<Option<String>> {
        match check(self.model, item, self.settings) {
            Ok(()) => Ok(None),
            Err(lare_infer::Error::LongQuestion { most, got, .. }) => {
                Ok(Some(format!("too long: {got} tokens, at most {most}")))
            }
            Err(lare_infer::Error::EmptyQuestion { .. }) => Ok(Some("empty".to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers and grades items that can be asked.
    fn answered(&self, items: &[Item], numbers: &[usize]) -> Result<Vec<(Record, Answer)>> {
        let untouched = ask(self.model, items, &vec![None; items.len()], self.settings)?;
        let of = items.iter().zip(&untouched).zip(numbers);
        let mut records: Vec<Record> = of.map(|((item, answer), number)| self.record(item, answer, *number)).collect();
        for what in &self.settings.interventions {
            let plan = |(row, item): (usize, &Item)| {
                let other = self.others.for_item(item, numbers[row]);
                let other = other.ok_or_else(|| Error::Alone { item: item.id.clone() })?;
                let seed = self.settings.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ numbers[row] as u64;
                let material = Material { other, means: &self.others.means, seed };
                Ok(what.plan(item, &untouched[row], &material))
            };
            let plans = items.iter().enumerate().map(plan).collect::<Result<Vec<Option<Plan>>>>()?;
            let rows: Vec<usize> = (0..items.len()).filter(|row| plans[*row].is_some()).collect();
            let tried: Vec<Item> = rows.iter().map(|row| items[*row].clone()).collect();
            let plans: Vec<Option<Plan>> = plans.into_iter().filter(Option::is_some).collect();
            let answers = ask(self.model, &tried, &plans, self.settings)?;
            for (row, answer) in rows.into_iter().zip(answers) {
                let outcome = items[row].expected.grade(&answer.text);
                records[row].replaced.push(Replacement { what: *what, said: answer.text, outcome });
            }
        }
        let share = items.len().max(1) as f64;
        records.iter_mut().for_each(|record| record.time_ms /= share);
        Ok(records.into_iter().zip(untouched).collect())
    }

    fn record(&self, item: &Item, answer: &Answer, number: usize) -> Record {
        let other = self.others.for_item(item, number);
        let likeness = other.map_or_else(Vec::new, |other| {
            let pairs = answer.looks.iter().zip(&other.looks);
            pairs.map(|(a, b)| cosine(&a.thought, &b.thought)).collect()
        });
        Record {
            said: answer.text.clone(),
            steps: answer.steps.clone(),
            outcome: item.expected.grade(&answer.text),
            usage: answer.usage,
            hits: item.rationale.as_ref().map_or_else(Vec::new, |rationale| hits(rationale, answer)),
            time_ms: answer.timing.total,
            likeness,
            ..Record::unasked(item)
        }
    }
}

/// How every item is asked.
pub(crate) fn options(settings: &Settings) -> Options {
    let steps = settings.steps.map_or(Steps::Auto { threshold: settings.halt_threshold }, Steps::Fixed);
    // Steps that are said as text take more words than an answer; the context is the limit.
    Options { steps, nearest_words: 0, max_tokens: settings.max_tokens.unwrap_or(1 << 12), ..Options::default() }
}

/// Refuses what cannot be asked.
fn check(model: &dyn Answers, item: &Item, settings: &Settings) -> lare_infer::Result<()> {
    let question = Question::new(0, &item.prompt, options(settings));
    session::check(model.speaking(), &question, Size::of(&item.picture))
}

/// Answers items, each as the model does or by a plan.
pub(crate) fn ask(
    model: &dyn Answers,
    items: &[Item],
    plans: &[Option<Plan>],
    settings: &Settings,
) -> Result<Vec<Answer>> {
    let options = options(settings);
    let pictures: Vec<_> = items.iter().map(|item| &*item.picture).collect();
    let mut questions = Vec::with_capacity(items.len());
    for (row, (item, plan)) in items.iter().zip(plans).enumerate() {
        let mut question = Question::new(row, &item.prompt, options);
        if let Some(plan) = plan {
            question.options.steps = Steps::Fixed(plan.steps);
            question.replaced = Replaced { thoughts: &plan.thoughts, patches: &plan.patches };
        }
        questions.push(question);
    }
    let batch = Batch { pictures: &pictures, questions: &questions };
    Ok(model.answer(&batch, &mut |_| ())?)
}

/// 0 where one of them is zero.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}
