//! What is found in files of samples.

use super::super::{png, put};
use lare_data::examples::Reading;
use lare_data::lint::{Findings, Kind, Length, Lint, Range, Ruler, Severity};
use lare_data::{Example, Size};
use std::path::Path;

/// A token a word, and one for every 100 pixels of a picture.
struct Words;

impl Ruler for Words {
    fn picture(&self, size: Size) -> Result<usize, String> {
        match size.width > 400 {
            true => Err("too wide".into()),
            false => Ok(size.width * size.height / 100),
        }
    }

    fn length(&self, example: &Example, sizes: &[Size]) -> Result<Length, String> {
        let pictures: Vec<usize> = sizes.iter().map(|size| self.picture(*size)).collect::<Result<_, _>>()?;
        let prompt = example.question().split(' ').count() + pictures.iter().sum::<usize>();
        Ok(Length { prompt, pictures, thoughts: 2, answer: example.answer.split(' ').count(), most: 30 })
    }
}

fn lint(path: &Path, ruler: Option<&dyn Ruler>) -> Findings {
    let mut read = 0;
    let mut progress = |count| read = count;
    let mut lint = Lint::new(2, ruler, &mut progress);
    lint.path(path, Reading::default());
    let findings = lint.end();
    assert_eq!(read, findings.files.iter().map(|file| file.samples as u64).sum::<u64>());
    findings
}

fn sample(image: &str, question: &str, more: &str) -> String {
    format!(r#"{{"image": "{image}", "question": "{question}", "answer": "A cat."{more}}}"#)
}

#[test]
fn every_kind_of_problem_is_found_where_it_stands() {
    let place = tempfile::tempdir().unwrap();
    put(place.path(), "a.png", png(40, 50, 1));
    put(place.path(), "same.png", png(40, 50, 1));
    put(place.path(), "wide.png", png(500, 20, 1));
    put(place.path(), "broken.png", &png(40, 50, 1)[..60]);
    let lines = [
        sample("a.png", "What?", r#", "bboxes": [[0, 0, 40, 50]]"#),
        sample("same.png", "What?", ""),
        sample("a.png", "Where?", r#", "bboxes": [[10, 10, 60, 40]]"#),
        sample("none.png", "Who?", ""),
        sample("none.png", "Who now?", ""),
        sample("broken.png", "Who?", ""),
        sample("wide.png", "Who?", ""),
        sample("a.png", &"why ".repeat(20), ""),
        r#"{"question": "What?", "answer": "A cat."}"#.into(),
        r#"{"image": "a.png", "question": "What?", "answer": ""}"#.into(),
        sample("a.png", "Why?", r#", "bboxes": [[0, 0, 1, 1]]"#),
        sample("a.png", "How?", r#", "bboxes": [[9, 9, 9, 12]]"#),
        sample("a.png", "<image><image> How?", ""),
        "{".into(),
    ];
    let findings = lint(&put(place.path(), "x.jsonl", lines.join("\n")), Some(&Words));
    let expected = [
        (Kind::Layout, 1, "line 14"),
        (Kind::Places, 1, "line 13"),
        (Kind::MissingPicture, 2, "line 4"),
        (Kind::BrokenPicture, 1, "line 6"),
        (Kind::RefusedPicture, 1, "line 7"),
        (Kind::Region, 1, "line 11"),
        (Kind::EmptyRegion, 1, "line 12"),
        (Kind::RegionOutside, 1, "line 3"),
        (Kind::EmptyAnswer, 1, "line 10"),
        (Kind::NoPicture, 1, "line 9"),
        (Kind::TooLong, 1, "line 8"),
        (Kind::Duplicate, 1, "line 2"),
    ];
    let found: Vec<_> =
        findings.problems.iter().map(|(kind, (count, first))| (*kind, *count, first[0].at.as_str())).collect();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((kind, count, at), found) in expected.iter().zip(&found) {
        assert!(found.0 == *kind && found.1 == *count && found.2.ends_with(at), "{found:?}");
    }
    assert_eq!((findings.count(Severity::Error), findings.count(Severity::Warning)), (10, 3));
    assert_eq!((findings.files[0].samples, findings.pictures, findings.looks), (14, 5, (2, 2)));
    // 20 of the picture, 1 word, 2 thoughts, 2 words; the longest has 20 + 20 + 1.
    assert_eq!(Range::of(&findings.lengths).map(|range| (range.min, range.median, range.max)), Some((25, 25, 45)));
    let duplicate = &findings.problems[&Kind::Duplicate].1[0];
    assert!(duplicate.what.contains("x.jsonl, line 1"), "{duplicate:?}");
}

#[test]
fn problems_are_counted_and_the_first_are_named() {
    let place = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..600).map(|number| sample("none.png", &format!("{number}?"), "")).collect();
    let findings = lint(&put(place.path(), "x.jsonl", lines.join("\n")), None);
    let (count, first) = &findings.problems[&Kind::MissingPicture];
    assert_eq!((*count, first.len(), findings.pictures), (600, 2, 1), "a picture is looked for once");
    assert!(first[1].at.ends_with("line 2") && first[1].field == "image", "{first:?}");
}

#[test]
fn files_that_cannot_be_read_are_findings_too() {
    let place = tempfile::tempdir().unwrap();
    assert_eq!(lint(&place.path().join("none"), None).problems[&Kind::File].0, 1);
    let cut = put(place.path(), "x.json", r#"[{"question": "a", "answer": "b"}, {"#);
    let findings = lint(&cut, None);
    assert_eq!((findings.problems[&Kind::File].0, findings.files[0].samples), (1, 1));
    assert!(findings.problems[&Kind::File].1[0].what.contains("cannot be read to its end"));
}
