//! What `lare make-data` writes is read back as it was made.

use super::super::{asked, read};
use lare_data::examples::{Album, Look, Spot, Unit};
use lare_data::export::{self, Selection};
use lare_data::{Example, Sample, Split, Suite, Task};
use std::path::Path;

const FIRST: u64 = 3;
const COUNT: u64 = 4;

fn selection() -> Selection {
    Selection { split: Split::Val, tasks: vec![Task::Read, Task::Hop, Task::Odd], count: COUNT, first: FIRST }
}

fn samples(suite: &Suite) -> Vec<Sample> {
    let of =
        |task: &Task| (FIRST..FIRST + COUNT).map(|number| suite.sample(Split::Val, *task, number)).collect::<Vec<_>>();
    selection().tasks.iter().flat_map(of).collect()
}

/// `all`: whether the format has choices and the words that a look reads.
fn is_read_back(suite: &Suite, path: &Path, all: bool) {
    let (examples, album) = (read(path).unwrap(), Album::default());
    let samples = samples(suite);
    assert_eq!(examples.len(), samples.len());
    let same = |(example, sample): (&Example, &Sample)| {
        assert_eq!(example.id, export::id(sample));
        assert_eq!(
            (&example.messages[..], &example.answer),
            (&[asked(&sample.question.text)][..], &sample.question.answer)
        );
        let [picture] = &example.pictures[..] else { panic!("one picture") };
        assert_eq!(album.open(picture).unwrap(), *sample.picture);
        let look = |step: &lare_data::Step| Look {
            says: step.says.clone(),
            reads: if all { step.reads.clone() } else { String::new() },
            region: Some(Spot { edges: step.region, unit: Unit::Pixels }),
        };
        assert_eq!(example.looks, sample.question.steps.iter().map(look).collect::<Vec<_>>());
        if all {
            assert_eq!(example.choices, sample.question.choices.clone().unwrap_or_default());
        }
    };
    examples.iter().zip(&samples).for_each(same);
    // Pictures are the same in any order.
    for (example, sample) in examples.iter().zip(&samples).rev() {
        assert_eq!(album.open(&example.pictures[0]).unwrap(), *sample.picture);
    }
}

#[test]
fn what_is_written_as_llava_is_read_back() {
    let (place, suite) = (tempfile::tempdir().unwrap(), Suite::new());
    let folder = place.path().join("out");
    export::llava(&suite, &selection(), &folder, &mut |_| true).unwrap();
    is_read_back(&suite, &folder, false);
    is_read_back(&suite, &folder.join("llava.json"), false);
}

#[test]
fn what_is_written_as_a_folder_is_read_back() {
    let (place, suite) = (tempfile::tempdir().unwrap(), Suite::new());
    let folder = place.path().join("out");
    export::folder(&suite, &selection(), &folder, &mut |_| true).unwrap();
    is_read_back(&suite, &folder, true);
}

#[cfg(feature = "parquet")]
#[test]
fn what_is_written_as_parquet_is_read_back() {
    let (place, suite) = (tempfile::tempdir().unwrap(), Suite::new());
    let file = place.path().join("out.parquet");
    export::parquet(&suite, &selection(), &file, &mut |_| true).unwrap();
    is_read_back(&suite, &file, true);
}
