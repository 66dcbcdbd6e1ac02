//! Runs with the shipped model: going on, and what replaced thoughts do.

#![allow(clippy::unwrap_used)]

use lare_data::{Split, Task};
use lare_eval::{Error, Intervention, Item, Job, Origin, Outcome, Record, Refocus, Settings, Source, Summary};
use lare_eval::{keep, read, run};
use lare_infer::Assistant;
use lare_trace::Timing;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn assistant() -> Assistant {
    Assistant::from_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/nano")).unwrap()
}

/// Results without times, which differ from run to run.
fn without_times(records: &[Record]) -> Vec<Record> {
    records.iter().cloned().map(|record| Record { time_ms: 0.0, ..record }).collect()
}

#[test]
fn a_stopped_run_goes_on_to_the_same_results() {
    let assistant = assistant();
    let source = Refocus::new(Split::Val, vec![Task::Hop, Task::Read], 5);
    let interventions = vec![Intervention::Noise, Intervention::Other, Intervention::RandomPatches];
    let settings = Settings { batch: 4, interventions, ..Settings::new(assistant.identity(), &source) };
    let place = tempfile::tempdir().unwrap();
    let (whole, parts) = (place.path().join("whole"), place.path().join("parts"));
    let all = run(&assistant, &source, &settings, &whole, &mut |_| true).unwrap();
    assert!(all.complete);
    assert_eq!(all.records.len(), 10);

    let stopped = run(&assistant, &source, &settings, &parts, &mut |done| done < 8).unwrap();
    assert!(!stopped.complete);
    // As if killed while the second batch was being written.
    let items = parts.join("items.jsonl");
    let text = fs::read_to_string(&items).unwrap();
    let cut = text.lines().take(6).map(|line| line.len() + 1).sum::<usize>() + 30;
    fs::write(&items, &text[..cut]).unwrap();
    let mut seen = Vec::new();
    let resumed = run(&assistant, &source, &settings, &parts, &mut |done| {
        seen.push(done);
        true
    });
    let resumed = resumed.unwrap();
    assert_eq!(seen, [4, 8, 10], "whole batches are kept");
    assert!(resumed.complete);
    assert_eq!(without_times(&resumed.records), without_times(&all.records));

    // Asked again, nothing is answered again: not even times differ.
    let again = run(&assistant, &source, &settings, &whole, &mut |_| true).unwrap();
    assert_eq!(again.records, all.records);
    let (kept, records) = read(&whole).unwrap();
    assert_eq!((kept, records), (settings.clone(), all.records));

    let other = Settings { steps: Some(2), ..settings };
    let refused = run(&assistant, &source, &other, &whole, &mut |_| true).err().unwrap();
    assert!(refused.to_string().contains("steps: null -> 2"), "{refused}");
    assert!(matches!(refused, Error::OtherSettings { .. }));
}

#[test]
fn what_replaces_thoughts_matters_and_no_thoughts_are_no_steps() {
    let assistant = assistant();
    let source = Refocus::new(Split::Val, vec![Task::Read], 16);
    let settings =
        Settings { interventions: Intervention::ALL.to_vec(), ..Settings::new(assistant.identity(), &source) };
    let place = tempfile::tempdir().unwrap();
    let found = run(&assistant, &source, &settings, place.path(), &mut |_| true).unwrap();
    let right =
        |what: Intervention| found.records.iter().filter(|record| record.under(what) == Some(Outcome::Correct)).count();
    let untouched = found.records.iter().filter(|record| record.right()).count();
    assert!(untouched >= 11, "{untouched} of 16");
    // Tags are guessed right once in 160.
    for what in [Intervention::Zero, Intervention::Noise, Intervention::Mean, Intervention::Other] {
        assert!(right(what) <= 3, "{what}: {} of 16", right(what));
    }
    assert!(right(Intervention::OraclePatches) >= 11, "the model's own patches are mostly these");
    assert!(right(Intervention::OtherPatches) <= 6);
    let summary = Summary::of(&settings, &found.records).unwrap();
    // Of one step there is none to repeat and no order to change.
    for record in &found.records {
        let of_one = [Intervention::RepeatFirst, Intervention::Shuffle].map(|what| record.under(what).is_some());
        assert_eq!(of_one, [record.usage.latent_steps > 1; 2]);
        assert!(record.under(Intervention::MarkersOnly).is_some());
    }
    assert!(summary.causal[1].cost.low > 0.2, "{}", summary.causal[1].verdict());
    assert_eq!(summary.all.thought, 16);
}

#[test]
fn a_model_that_takes_no_step_has_nothing_to_replace() {
    let assistant = assistant();
    let source = Refocus::new(Split::Val, vec![Task::Read], 2);
    let interventions = Intervention::ALL.to_vec();
    let settings = Settings { steps: Some(0), interventions, ..Settings::new(assistant.identity(), &source) };
    let place = tempfile::tempdir().unwrap();
    let found = run(&assistant, &source, &settings, place.path(), &mut |_| true).unwrap();
    assert!(found.records.iter().all(|record| record.replaced.is_empty()));
    assert!(Summary::of(&settings, &found.records).unwrap().causal.is_empty());
}

#[test]
fn a_line_cut_in_the_middle_of_a_character_is_answered_again_and_can_be_read_before() {
    let assistant = assistant();
    let source = Refocus::new(Split::Val, vec![Task::Read], 3);
    let settings = Settings { batch: 1, ..Settings::new(assistant.identity(), &source) };
    let place = tempfile::tempdir().unwrap();
    let all = run(&assistant, &source, &settings, place.path(), &mut |_| true).unwrap();
    let items = place.path().join("items.jsonl");
    let mut bytes = fs::read(&items).unwrap();
    bytes.truncate(bytes.len() - 20);
    bytes.push("°".as_bytes()[0]);
    fs::write(&items, bytes).unwrap();
    assert_eq!(read(place.path()).unwrap().1, all.records[..2]);
    let resumed = run(&assistant, &source, &settings, place.path(), &mut |_| true).unwrap();
    assert_eq!(without_times(&resumed.records), without_times(&all.records));
}

/// Two questions of the suite, and one between them that no context holds.
struct TooLong(Refocus);

impl Source for TooLong {
    fn count(&self) -> usize {
        3
    }

    fn item(&self, index: usize) -> lare_eval::Result<Item> {
        let item = self.0.item(index)?;
        Ok(if index == 1 { Item { prompt: "cat ".repeat(300), ..item } } else { item })
    }

    fn origin(&self) -> Origin {
        self.0.origin()
    }

    fn others(&self) -> lare_eval::Result<Vec<Item>> {
        self.0.others()
    }
}

#[test]
fn a_question_that_does_not_fit_is_kept_as_refused_and_ends_nothing() {
    let assistant = assistant();
    let source = TooLong(Refocus::new(Split::Val, vec![Task::Read], 3));
    let settings = Settings { interventions: vec![Intervention::Zero], ..Settings::new(assistant.identity(), &source) };
    let place = tempfile::tempdir().unwrap();
    let found = run(&assistant, &source, &settings, place.path(), &mut |_| true).unwrap();
    let ids: Vec<&str> = found.records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["val/read/0", "val/read/1", "val/read/2"]);
    let refused = &found.records[1];
    assert_eq!((refused.outcome, refused.said.as_str()), (Outcome::Unparsed, ""));
    assert!(
        refused.refused.as_ref().is_some_and(|why| why.starts_with("too long: 300 tokens, at most ")),
        "{refused:?}"
    );
    assert!(found.records[0].refused.is_none() && found.records[2].replaced.len() == 1);
    let all = Summary::of(&settings, &found.records).unwrap();
    assert_eq!((all.all.items, all.all.refused, all.causal[0].items), (3, 1, 2));
}

#[test]
fn a_line_that_is_no_result_is_named() {
    let assistant = assistant();
    let source = Refocus::new(Split::Val, vec![Task::Read], 2);
    let settings = Settings { batch: 1, ..Settings::new(assistant.identity(), &source) };
    let place = tempfile::tempdir().unwrap();
    run(&assistant, &source, &settings, place.path(), &mut |_| true).unwrap();
    let items = place.path().join("items.jsonl");
    let text = fs::read_to_string(&items).unwrap();
    fs::write(&items, text.replacen("\"outcome\"", "\"income\"", 1)).unwrap();
    let message = run(&assistant, &source, &settings, place.path(), &mut |_| true).err().unwrap().to_string();
    assert!(message.contains("line 1 of") && message.contains("income"), "{message}");
}

/// The files of the traces that a run kept, by name; without times, which differ from run to run.
fn traces(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let (_, records) = read(folder).unwrap();
    let mut files = BTreeMap::new();
    for mut kept in keep::read(folder, &records).unwrap() {
        for entry in fs::read_dir(&kept.folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{}/{}", kept.item + 1, entry.file_name().to_str().unwrap());
            files.insert(name, fs::read(entry.path()).unwrap());
        }
        kept.trace.timing_ms = Timing::default();
        kept.trace.steps.iter_mut().for_each(|step| step.time_ms = 0.0);
        files.insert(format!("{}/trace.json", kept.item + 1), kept.trace.to_json().unwrap().into_bytes());
    }
    files
}

#[test]
fn the_first_right_and_the_first_other_answers_are_kept_however_a_run_came_about() {
    let assistant = assistant();
    let source = Refocus::new(Split::Val, vec![Task::Hop, Task::Read], 5);
    let settings = Settings { batch: 4, ..Settings::new(assistant.identity(), &source) };
    let place = tempfile::tempdir().unwrap();
    let run = |name: &str, keep: usize, until: usize| {
        let folder = place.path().join(name);
        let job = Job { model: &assistant, source: &source, settings: &settings, folder: &folder, keep };
        let records = job.run(&mut |done| done < until).unwrap().records;
        (traces(&folder), records)
    };
    let (whole, records) = run("whole", 1, 100);
    let mut first: Vec<usize> = Vec::new();
    for task in ["hop", "read"] {
        for right in [true, false] {
            first.extend(records.iter().position(|record| record.task == task && record.right() == right));
        }
    }
    for item in &first {
        for file in ["trace.json", "thoughts.json", "picture.png", "thought-1.png", "region-1.png"] {
            assert!(whole.contains_key(&format!("{}/{file}", item + 1)), "{item}: {:?}", whole.keys());
        }
    }
    let pictures = whole.keys().filter(|name| name.ends_with("picture.png")).count();
    assert!(pictures >= 2 && pictures == first.len(), "{:?}", whole.keys());

    assert!(run("parts", 1, 8).1.len() == 8);
    assert!(run("parts", 1, 100).0 == whole, "stopped, and gone on with");
    let folder = place.path().join("parts/traces");
    fs::remove_dir_all(folder.join((first[0] + 1).to_string())).unwrap();
    assert!(run("parts", 1, 100).0 == whole, "one that is missing is made again");

    assert!(run("later", 0, 100).0.is_empty());
    assert!(run("later", 1, 100).0 == whole, "made without any, and given them later");
    assert!(run("later", 2, 100).0.len() > whole.len(), "more of them");
}

#[test]
fn a_kept_trace_knows_the_regions_and_shows_its_own_picture() {
    let assistant = assistant();
    let source = Refocus::new(Split::Val, vec![Task::Count], 2);
    let settings = Settings { batch: 2, ..Settings::new(assistant.identity(), &source) };
    let place = tempfile::tempdir().unwrap();
    let job = Job { model: &assistant, source: &source, settings: &settings, folder: place.path(), keep: 2 };
    let records = job.run(&mut |_| true).unwrap().records;
    let kept = keep::read(place.path(), &records).unwrap();
    assert_eq!(kept.len(), 2);
    for one in &kept {
        let item = source.item(one.item).unwrap();
        assert_eq!(one.picture().unwrap(), *item.picture);
        let regions = item.rationale.unwrap().regions.len();
        let thoughts = fs::read(one.folder.join("thoughts.json")).unwrap();
        let thoughts: Vec<Vec<f32>> = serde_json::from_slice(&thoughts).unwrap();
        assert_eq!(thoughts.len(), one.trace.steps.len());
        for thought in &thoughts {
            let mean_square = thought.iter().map(|x| x * x).sum::<f32>() / thought.len() as f32;
            assert!(thought.len() == assistant.config().language.width && (mean_square - 1.0).abs() < 1e-3);
        }
        for (place, step) in one.trace.steps.iter().enumerate() {
            assert_eq!(step.region.is_some(), place < regions);
            assert!(step.thought_picture.is_some() && one.thought(place).is_some());
            assert_eq!(one.region(place).is_some(), place < regions);
        }
    }
}
