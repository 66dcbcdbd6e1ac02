//! Samples that others have written: what is read of them, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lare_data::chat::{Message, Part, Role};
use lare_data::examples::{Look, llava, messages};
use lare_data::export::{Selection, llava as write_llava};
use lare_data::{Region, Split, Suite, Task};
use std::fs;
use std::path::{Path, PathBuf};

fn put(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("samples");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn what_is_written_as_llava_is_read_back() {
    let place = tempfile::tempdir().unwrap();
    let (suite, folder) = (Suite::new(), place.path().join("out"));
    let selection = Selection { split: Split::Val, tasks: vec![Task::Read, Task::Hop], count: 5, first: 3 };
    write_llava(&suite, &selection, &folder, &mut |_| true).unwrap();
    let examples = llava(&folder.join("llava.json"), &folder).unwrap();
    assert_eq!(examples.len(), 10);
    for (task, first) in [(Task::Read, 0), (Task::Hop, 5)] {
        for i in 0..5 {
            let (example, sample) = (&examples[first + i], suite.sample(Split::Val, task, 3 + i as u64));
            assert_eq!(example.id, lare_data::export::id(&sample));
            let asked = Message::new(Role::User, vec![Part::Picture, Part::Text(sample.question.text.clone())]);
            assert_eq!((&example.messages[..], &example.answer), (&[asked][..], &sample.question.answer));
            let [picture] = &example.pictures[..] else { panic!("one picture") };
            assert_eq!(lare_data::image::open(picture).unwrap(), *sample.picture);
            let looks = sample.question.steps.iter();
            let looks: Vec<Look> =
                looks.map(|step| Look { says: step.says.clone(), region: Some(step.region) }).collect();
            assert_eq!(example.looks, looks);
        }
    }
}

#[test]
fn every_answer_of_a_conversation_is_an_example_with_what_came_before() {
    let place = tempfile::tempdir().unwrap();
    let turns = r#"[{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."},
        {"from": "human", "value": "Where?"}, {"from": "gpt", "value": " Left. "}]"#;
    let path =
        put(place.path(), &format!(r#"[{{"id": 7, "image": "a/b.png", "conversations": {turns}, "extra": 1}}]"#));
    let examples = llava(&path, Path::new("pictures")).unwrap();
    assert_eq!(examples.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["7", "7#2"]);
    assert_eq!(examples.iter().map(|e| e.answer.as_str()).collect::<Vec<_>>(), ["A cat.", "Left."]);
    assert_eq!(examples[1].messages.len(), 3);
    assert!(examples.iter().all(|e| e.pictures == [Path::new("pictures/a/b.png")] && e.looks.is_empty()));
    let first = Message::new(Role::User, vec![Part::Picture, Part::Text("What?".into())]);
    assert_eq!(examples[1].messages[0], first);
}

#[test]
fn messages_take_pictures_by_name_or_in_turn() {
    let place = tempfile::tempdir().unwrap();
    let image = |part: &str| {
        format!(
            r#"{{"messages": [{{"role": "system", "content": "Be brief."}}, {{"role": "user", "content": [{part}, {{"type": "text", "text": "What?"}}]}}, {{"role": "assistant", "content": [{{"type": "text", "text": "A cat."}}]}}], "images": IMAGES, "bboxes": [[1, 2, 3, 4.5]]}}"#
        )
    };
    let lines = [
        image(r#"{"type": "image", "image": "one.png"}"#).replace("IMAGES", "[]"),
        image(r#"{"type": "image"}"#).replace("IMAGES", r#"["two.png"]"#),
        image(r#"{"type": "image_url", "image_url": {"url": "file:///three.png"}}"#).replace("IMAGES", "[]"),
    ];
    let examples = messages(&put(place.path(), &format!("{}\n\n", lines.join("\n"))), Path::new("at")).unwrap();
    let names: Vec<_> = examples.iter().map(|e| e.pictures[0].to_str().unwrap()).collect();
    assert_eq!(names, ["at/one.png", "at/two.png", "/three.png"]);
    let region = Region { left: 1.0, top: 2.0, right: 3.0, bottom: 4.5 };
    assert_eq!(examples[0].looks, [Look { says: String::new(), region: Some(region) }]);
    assert_eq!((examples[0].id.as_str(), examples[0].messages.len()), ("number 1", 2));
}

#[test]
fn what_cannot_be_used_is_refused_by_sample_and_part() {
    let place = tempfile::tempdir().unwrap();
    let turns = r#"[{"from": "human", "value": "<image> What?"}, {"from": "gpt", "value": "A cat."}]"#;
    for (entry, parts) in [
        ("{}", &["LLaVA's JSON", "conversations"][..]),
        (r#"{"id": "x", "conversations": TURNS}"#, &["`x`", "1, and 0 pictures"]),
        (r#"{"id": "x", "image": "a", "conversations": []}"#, &["`x`", "at least one answer"]),
        (r#"{"id": "x", "image": "a", "conversations": [{"from": "bird", "value": ""}]}"#, &["human, gpt", "bird"]),
        (r#"{"id": "x", "image": "a", "conversations": TURNS, "bboxes": [[3, 1, 2, 4]]}"#, &["`x`", "[3.0, 1.0"]),
        (
            r#"{"id": "x", "image": "a", "conversations": TURNS, "bboxes": [[1, 1, 2, 4]], "rationale": ["a", "b"]}"#,
            &["`x`", "1 and 2"],
        ),
    ] {
        let path = put(place.path(), &format!("[{}]", entry.replace("TURNS", turns)));
        let message = llava(&path, place.path()).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)) && message.contains("hint"), "{entry}: {message}");
    }
    for (line, parts) in [
        ("{\"messages\"", &["line 1"][..]),
        (r#"{"messages": [{"role": "bird", "content": "x"}]}"#, &["number 1", "system, user"]),
        (r#"{"messages": [{"role": "user", "content": [{"type": "image"}]}]}"#, &["one more in `images`"]),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image", "image": "http://x/y.png"}]}]}"#,
            &["as files"],
        ),
        (r#"{"messages": [{"role": "user", "content": "x"}], "images": ["a.png"]}"#, &["1 without one"]),
        (r#"{"messages": [{"role": "assistant", "content": "x"}]}"#, &["each after a question"]),
    ] {
        let message = messages(&put(place.path(), line), place.path()).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{line}: {message}");
    }
    let missing = llava(&place.path().join("none"), place.path()).unwrap_err().to_string();
    assert!(missing.contains("none"), "{missing}");
}
