//! JSON: LLaVA, ShareGPT, messages, questions.

use super::super::{asked, fault, kinds, put, read, refused};
use lare_data::chat::{Message, Part, Role};
use lare_data::examples::{FaultKind, Format, Reading, Samples, Unit};
use lare_data::{PictureAt, Region, Size};
use std::fs;
use std::path::Path;

#[test]
fn every_answer_of_a_conversation_is_an_example_with_what_came_before() {
    let place = tempfile::tempdir().unwrap();
    let turns = r#"[{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."},
        {"from": "human", "value": "Where?"}, {"from": "gpt", "value": " Left. "}]"#;
    let text = format!(r#"[{{"id": 7, "image": "a/b.png", "conversations": {turns}, "extra": 1}}]"#);
    let examples = read(&put(place.path(), "samples", text)).unwrap();
    assert_eq!(examples.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["7", "7#2"]);
    assert_eq!(examples.iter().map(|e| e.answer.as_str()).collect::<Vec<_>>(), ["A cat.", "Left."]);
    assert_eq!((examples[1].messages.len(), examples[1].question().as_str()), (3, "Where?"));
    let at = PictureAt::File(place.path().join("a/b.png"));
    assert!(examples.iter().all(|e| e.pictures == [at.clone()] && e.looks.is_empty()));
    assert_eq!(examples[1].messages[0], asked("What?"));
    assert!(examples[0].origin.to_string().ends_with("samples, entry 1"));
}

#[test]
fn conversations_of_other_programs_are_the_same_conversation() {
    let place = tempfile::tempdir().unwrap();
    let question = r#"{"from": "human", "value": "<image>\nWhat?"}"#;
    let answer = r#"{"from": "gpt", "value": "A cat."}"#;
    for (number, sample) in [
        format!(r#"{{"conversations": [{question}, {answer}], "images": ["p.png"]}}"#),
        format!(r#"{{"conversations": [{question}, {answer}], "image": "p.png"}}"#),
        r#"{"conversations": [{"role": "USER", "content": "<image>What?"}, {"role": "assistant", "content": "A cat."}], "images": "p.png"}"#.into(),
        r#"{"messages": [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A cat."}], "images": ["p.png"]}"#.into(),
        r#"{"messages": [{"role": "user", "content": [{"type": "image", "index": 0, "text": null}, {"type": "text", "text": "What?", "index": null}]}, {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}], "images": [{"path": "p.png", "bytes": null}]}"#.into(),
        r#"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "p.png"}}, {"type": "text", "text": "What?"}]}, {"role": "assistant", "content": "A cat."}]}"#.into(),
        r#"{"messages": [{"role": "user", "content": [{"type": "input_image", "image_url": "p.png"}, {"type": "input_text", "text": "What?"}]}, {"role": "assistant", "content": "A cat."}]}"#.into(),
        r#"{"messages": {"role": ["user", "assistant"], "content": ["What?", "A cat."]}, "images": ["p.png"]}"#.into(),
        r#"{"question": "What?", "answer": "A cat.", "image": "p.png"}"#.into(),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{number}.jsonl");
        let examples = read(&put(place.path(), &name, format!("\n{sample}\n\n{sample}"))).unwrap();
        assert_eq!(examples.len(), 2, "{sample}");
        assert_eq!(examples[0].messages, [asked("What?")], "{sample}");
        assert_eq!(examples[0].answer, "A cat.");
        assert_eq!(examples[0].pictures, [PictureAt::File(place.path().join("p.png"))], "{sample}");
        assert!(examples[1].origin.to_string().ends_with(&format!("{name}, line 4")), "{}", examples[1].origin);
        // The same as a list.
        let listed = read(&put(place.path(), "list.json", format!("[{sample},\n{sample}]"))).unwrap();
        assert_eq!(listed[1].messages, examples[1].messages);
    }
}

#[test]
fn what_holds_for_a_whole_conversation_comes_before_it() {
    let place = tempfile::tempdir().unwrap();
    let sample = r#"{"system": "Be brief.", "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]}"#;
    let examples = read(&put(place.path(), "a.jsonl", sample)).unwrap();
    let user = Message::new(Role::User, vec![Part::Text("What?".into())]);
    assert_eq!(examples[0].messages, [Message::new(Role::System, "Be brief."), user]);
}

#[test]
fn a_format_is_recognised_by_content_and_held_to_where_it_is_said() {
    let place = tempfile::tempdir().unwrap();
    let turns = r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#;
    let format = |text: &str| Samples::open(&put(place.path(), "x", text), Reading::default()).unwrap().files()[0].1;
    assert_eq!(format(&format!(" [{turns}]")), Format::Llava);
    assert_eq!(format(&format!("\u{feff}{turns}\n")), Format::Sharegpt);
    assert_eq!(format(r#"{"messages": []}"#), Format::Messages);
    assert_eq!(format(r#"{"question": "a", "answer": "b"}"#), Format::Questions);
    let path = put(place.path(), "x", turns);
    let forced = |format| Reading { format: Some(format), ..Reading::default() };
    assert!(Samples::open(&path, forced(Format::Llava)).is_ok(), "the same layout under another name");
    let message = refused(&path, forced(Format::Messages));
    assert!(message.contains("`messages`, a list of `role`") && message.contains("got       sharegpt"), "{message}");
    for (text, got) in [
        (&b"id,image\n1,2"[..], "begins `id,image"),
        (b"", "an empty file"),
        (b"[]", "no sample"),
        (b"[1, 2]", "no object: 1"),
        (br#"{"prompt": "a", "chosen": "b"}"#, "keys chosen, prompt"),
        (b"\x1f\x8b\x08", "a gzip file"),
        (br#"{"messages": ["#, "line 1"),
    ] {
        let message = refused(&put(place.path(), "x", text), Reading::default());
        for part in [got, "JSON", "parquet", "WebDataset", "hint:"] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
    assert!(refused(&place.path().join("none"), Reading::default()).contains("none"));
}

#[test]
fn a_folder_stands_for_its_one_file_and_braces_for_several() {
    let place = tempfile::tempdir().unwrap();
    let line = r#"{"question": "a", "answer": "b"}"#;
    put(place.path(), "part-08.jsonl", line);
    assert_eq!(read(place.path()).unwrap().len(), 1);
    put(place.path(), "part-09.jsonl", line);
    let message = refused(place.path(), Reading::default());
    assert!(message.contains("part-08.jsonl, part-09.jsonl") && message.contains("hint"), "{message}");
    assert_eq!(read(&place.path().join("part-{08..09}.jsonl")).unwrap().len(), 2);
    assert!(refused(&place.path().join("part-{08..10}.jsonl"), Reading::default()).contains("part-10.jsonl"));
    let empty = tempfile::tempdir().unwrap();
    assert!(refused(empty.path(), Reading::default()).contains("tar archives"));
}

/// What is wrong with a sample, of which a part is expected in the message, and the key in it.
type Case<'a> = (&'a str, FaultKind, &'a str, &'a str);

fn are_refused(cases: &[Case]) {
    let place = tempfile::tempdir().unwrap();
    let turns = r#"[{"from": "human", "value": "<image> What?"}, {"from": "gpt", "value": "A cat."}]"#;
    for (entry, kind, field, part) in cases {
        let found = fault(&put(place.path(), "x.jsonl", entry.replace("TURNS", turns)));
        assert_eq!((found.kind, found.field.as_str()), (*kind, *field), "{entry}: {found}");
        let message = found.to_string();
        for part in [*part, "x.jsonl, line 1", "hint:"] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
}

fn user_says(content: &str) -> String {
    format!(r#"{{"messages": [{{"role": "user", "content": {content}}}, {{"role": "assistant", "content": "x"}}]}}"#)
}

#[test]
fn turns_and_pictures_that_cannot_be_used_are_refused_by_place_and_field() {
    are_refused(&[
        (r#"{"id": "x", "conversations": TURNS}"#, FaultKind::Places, "conversations", "1 places, and 0 pictures"),
        (r#"{"id": "x", "image": ["a", "b"], "conversations": TURNS}"#, FaultKind::Places, "conversations", "and 2"),
        (r#"{"id": "x", "image": "a", "conversations": []}"#, FaultKind::Turns, "conversations", "0 turns"),
        (
            r#"{"image": "a", "conversations": [{"from": "bird", "value": ""}]}"#,
            FaultKind::Turns,
            "conversations",
            "`bird`, in turn 1",
        ),
        (
            r#"{"image": "a", "conversations": [{"from": "gpt", "value": "x"}]}"#,
            FaultKind::Turns,
            "conversations",
            "as turn 1",
        ),
        (r#"{"image": "a", "conversations": [{"from": "human"}]}"#, FaultKind::Turns, "conversations", "human"),
        (
            r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": " "}]}"#,
            FaultKind::EmptyAnswer,
            "conversations",
            "turn 2",
        ),
        (r#"{"image": 7, "conversations": TURNS}"#, FaultKind::Picture, "image", "7"),
        (r#"{"image": "http://x/y.png", "conversations": TURNS}"#, FaultKind::Picture, "image", "http://x"),
        (&user_says(r#"[{"type": "video", "text": "a"}]"#), FaultKind::Turns, "messages", "`video`"),
        (&user_says(r#"[{"type": "image"}]"#), FaultKind::Places, "messages", "1 places"),
        (&user_says(r#"[{"type": "image", "index": 2}]"#), FaultKind::Places, "messages", "0 pictures"),
        (
            &user_says(r#"[{"type": "image", "image": "data:image/png;base64,AA"}]"#),
            FaultKind::Picture,
            "messages",
            "data:",
        ),
    ]);
}

#[test]
fn regions_and_answers_that_cannot_be_used_are_refused_by_place_and_field() {
    are_refused(&[
        (
            r#"{"image": "a", "conversations": TURNS, "bboxes": [[3, 1, 2, 4]]}"#,
            FaultKind::EmptyRegion,
            "bboxes",
            "[3.0, 1.0",
        ),
        (
            r#"{"image": "a", "conversations": TURNS, "bboxes": [[0, 0, 1, 1]]}"#,
            FaultKind::Region,
            "bboxes",
            "one pixel",
        ),
        (r#"{"image": "a", "conversations": TURNS, "bboxes": "left"}"#, FaultKind::Layout, "bboxes", "left"),
        (
            r#"{"image": "a", "conversations": TURNS, "bboxes": [[1, 2, 3, 4]], "bbox_format": "xywh"}"#,
            FaultKind::Region,
            "bbox_format",
            "xywh",
        ),
        (
            r#"{"image": "a", "conversations": TURNS, "bboxes": [[1, 1, 2, 4]], "rationale": ["a", "b"]}"#,
            FaultKind::Layout,
            "bboxes",
            "1 and 2",
        ),
        (
            r#"{"image": "a", "conversations": TURNS, "bboxes": [[1, 1, 2, 4]], "steps": [{"says": "a"}]}"#,
            FaultKind::Layout,
            "steps",
            "both",
        ),
        (r#"{"question": "a", "choices": ["b", "c"], "answer": "d"}"#, FaultKind::Layout, "answer", "d"),
        (r#"{"question": "a", "answer": ["b", "c"]}"#, FaultKind::Layout, "answer", "[\"b\""),
    ]);
}

#[test]
fn one_broken_line_leaves_the_others() {
    let place = tempfile::tempdir().unwrap();
    let good = r#"{"question": "a", "answer": "b"}"#;
    let lines = format!("{good}\n{{\"question\"\n{good}\n[]\n{{\"question\": \"a\"}}\n{good}\n");
    assert_eq!(kinds(&put(place.path(), "x.jsonl", lines)), [FaultKind::Layout; 3]);
    // A list that is cut short is read up to there.
    let (mut read, path) = (0, put(place.path(), "x.json", format!("[{good}, {good}, {{")));
    let error = Samples::open(&path, Reading::default()).unwrap().each(&mut |_| {
        read += 1;
        Ok(())
    });
    assert!(read == 2 && error.unwrap_err().to_string().contains("line 1 column"));
}

#[test]
fn regions_count_pixels_shares_or_thousandths() {
    let place = tempfile::tempdir().unwrap();
    let size = Size { width: 200, height: 100 };
    let of = |more: &str, boxes| {
        let text = format!(r#"{{"question": "a", "answer": "b", "image": "p", {more}}}"#);
        let path = put(place.path(), "x.jsonl", text);
        let reading = Reading { boxes, ..Reading::default() };
        let examples = Samples::open(&path, reading).unwrap().all().unwrap();
        examples[0].looks[0].region.unwrap().in_pixels(size)
    };
    let region = Region { left: 50.0, top: 25.0, right: 100.0, bottom: 100.0 };
    assert_eq!(of(r#""bboxes": [[50, 25, 100, 100]]"#, None), region);
    assert_eq!(of(r#""bbox": [50, 25, 100, 100]"#, None), region);
    assert_eq!(of(r#""bboxes": [[0.25, 0.25, 0.5, 1]]"#, None), region);
    assert_eq!(of(r#""bboxes": [[250, 250, 500, 1000]]"#, Some(Unit::Thousandths)), region);
    assert_eq!(of(r#""bboxes": [[250, 250, 500, 1000]], "bbox_format": "normalised_1000""#, None), region);
    assert_eq!(
        of(r#""bboxes": [[0, 0, 1, 1]], "bbox_format": "normalized""#, None),
        Region { left: 0.0, top: 0.0, right: 200.0, bottom: 100.0 }
    );
    // What a sample says of itself counts before what is said of all.
    assert_eq!(of(r#""bboxes": [[50, 25, 100, 100]], "bbox_format": "pixels""#, Some(Unit::Thousandths)), region);
}

#[test]
fn a_large_list_is_read_an_entry_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let entry = format!(r#"{{"question": "{}", "answer": "b"}}"#, "why ".repeat(5000));
    let path = put(place.path(), "x.json", format!("[{}]", vec![entry.as_str(); 500].join(",")));
    let (mut most, mut read) = (0, 0);
    Samples::open(Path::new(&path), Reading::default())
        .unwrap()
        .each(&mut |sample| {
            most = most.max(sample.unwrap().len());
            read += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!((most, read), (1, 500));
    assert!(fs::metadata(&path).unwrap().len() > 9 << 20);
}
