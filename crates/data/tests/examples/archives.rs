//! WebDataset archives.

use super::super::{asked, fault, png, put, read};
use lare_data::chat::{Message, Part, Role};
use lare_data::examples::{Album, Reading, Samples};
use lare_data::{Picture, PictureAt};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

fn archive(path: PathBuf, members: &[(&str, &[u8])]) -> PathBuf {
    let mut builder = tar::Builder::new(File::create(&path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.finish().unwrap();
    path
}

fn widths(pictures: &[PictureAt]) -> Vec<usize> {
    let album = Album::default();
    pictures.iter().map(|at| album.open(at).map(|picture: Picture| picture.width).unwrap()).collect()
}

fn questions(path: &Path) -> Vec<String> {
    read(path).unwrap().iter().map(|example| example.question()).collect()
}

#[test]
fn members_of_one_name_are_a_sample() {
    let place = tempfile::tempdir().unwrap();
    let (one, two, three) = (png(20, 10, 1), png(30, 10, 2), png(40, 10, 3));
    let long = format!("{}/long", "folder/".repeat(20));
    let path = archive(
        place.path().join("a.tar"),
        &[
            ("000.jpg", &one[..]),
            ("000.json", br#"{"question": "What?", "answer": "A cat."}"#),
            ("001.question.txt", b"Which?"),
            ("001.left.png", &two),
            ("001.right.png", &three),
            ("001.answer.txt", b"Both.\n"),
            ("notes", b"no ending"),
            ("d/002.json", br#"{"id": "own", "conversations": [{"from": "human", "value": "<image>Who?"}, {"from": "gpt", "value": "Ann."}], "image": "002.png"}"#),
            ("d/002.png", &three),
            ("d/002.txt", b"Ann, once more"),
            (&format!("{long}.png"), &one),
            (&format!("{long}.json"), br#"{"question": "Long?", "answer": "Yes."}"#),
        ],
    );
    let examples = read(&path).unwrap();
    let ids: Vec<&str> = examples.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, ["000", "001", "own", &long]);
    assert_eq!(
        examples.iter().map(|e| widths(&e.pictures)).collect::<Vec<_>>(),
        [vec![20], vec![30, 40], vec![40], vec![20]]
    );
    assert_eq!(examples[0].messages, [asked("What?")]);
    let both = vec![Part::Picture, Part::Picture, Part::Text("Which?".into())];
    assert_eq!(
        (&examples[1].messages[..], examples[1].answer.as_str()),
        (&[Message::new(Role::User, both)][..], "Both.")
    );
    assert_eq!(examples[2].messages, [asked("Who?")]);
    assert!(examples[2].origin.to_string().ends_with("a.tar, key d/002"), "{}", examples[2].origin);
}

#[test]
fn captions_and_classes_need_a_question_that_is_said() {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (png(20, 10, 1), png(30, 10, 2));
    let path =
        archive(place.path().join("a.tar"), &[("a.png", &one), ("a.txt", b"A cat."), ("b.png", &two), ("b.cls", b"7")]);
    let found = fault(&path);
    assert!(found.field == "question" && found.expected.contains("a `question` for all answers"), "{found}");
    let reading = Reading { question: Some("What is it?".into()), ..Reading::default() };
    let examples = Samples::open(&path, reading).unwrap().all().unwrap();
    let told: Vec<_> = examples.iter().map(|e| (e.question(), e.answer.as_str(), widths(&e.pictures))).collect();
    assert_eq!(told, [("What is it?".into(), "A cat.", vec![20]), ("What is it?".into(), "7", vec![30])]);
}

#[test]
fn shards_are_read_as_one_and_damage_is_named() {
    let place = tempfile::tempdir().unwrap();
    for number in 0..3 {
        let sample = format!(r#"{{"question": "{number}?", "answer": "x"}}"#);
        archive(
            place.path().join(format!("s-{number:03}.tar")),
            &[("a.json", sample.as_bytes()), ("a.png", &png(20, 10, 1))],
        );
    }
    assert_eq!(questions(place.path()), ["0?", "1?", "2?"]);
    assert_eq!(questions(&place.path().join("s-{001..002}.tar")), ["1?", "2?"]);
    let whole = fs::read(place.path().join("s-000.tar")).unwrap();
    let cut = put(place.path(), "cut.tar", &whole[..1600]);
    let message = read(&cut).unwrap_err().to_string();
    assert!(message.contains("cut.tar") && message.contains("within member a.png"), "{message}");
    let broken = archive(
        place.path().join("broken.tar"),
        &[("a.json", b"{\"question\""), ("b.json", br#"{"question": "a", "answer": "b"}"#)],
    );
    let found = fault(&broken);
    assert_eq!((found.id.as_str(), found.field.as_str()), ("a", "json"), "{found}");
}
