//! `lare ask`, `lare report`: answers, their cost, and what shows how they came about.

use crate::support::{Place, png};
use std::fs;
use std::process::Stdio;

const QUESTION: &str = "What is written under the cat?";

fn place() -> Place {
    let place = Place::new();
    place.file("desk.png", &png(300, 200));
    place
}

#[test]
fn an_answer_goes_to_stdout_and_its_cost_to_stderr() {
    let ran = place().run(&["ask", "desk.png", QUESTION, "--steps", "2"]);
    assert_eq!((ran.code, ran.out.lines().count()), (0, 1), "{}", ran.err);
    for part in ["2 latent steps", "text token", "refocused visual tokens", "processed positions", " ms"] {
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
    assert!(ran.err.contains("where it looked: desk.looks.png"), "{}", ran.err);
}

#[test]
fn where_it_looked_is_drawn_in_the_pictures_shape() {
    let place = place();
    assert_eq!(place.run(&["ask", "desk.png", QUESTION, "--steps", "3"]).code, 0);
    let strip = image::open(place.path().join("desk.looks.png")).unwrap();
    let panel = (strip.width() - 16) as f32 / 3.0;
    assert!((panel / strip.height() as f32 - 1.5).abs() < 0.02, "{} x {}", strip.width(), strip.height());
    assert_eq!(place.names(), ["desk.looks.png", "desk.png"]);
}

#[test]
fn nothing_is_written_when_nobody_wants_it() {
    for flags in [&["--no-looks"][..], &["--steps", "0"]] {
        let place = place();
        let ran = place.run(&[&["ask", "desk.png", QUESTION], flags].concat());
        assert_eq!((ran.code, place.names()), (0, vec!["desk.png".to_owned()]), "{}", ran.err);
    }
}

#[test]
fn json_is_one_object_with_the_names_of_the_method() {
    let ran = place().run(&["ask", "desk.png", QUESTION, "--steps", "2", "--json"]);
    let object = ran.json();
    assert_eq!(ran.err, "");
    for name in
        ["text_tokens", "latent_steps", "refocused_visual_tokens", "appended_visual_tokens", "processed_positions"]
    {
        assert!(object["usage"][name].is_u64(), "{name}");
    }
    assert_eq!(object["looks"].as_array().unwrap().len(), 2);
    for look in object["looks"].as_array().unwrap() {
        assert!(look["selected"].as_array().is_some_and(|s| !s.is_empty()), "{look}");
        assert!(look["halt_probability"].is_f64(), "{look}");
    }
    assert!(object["time_ms"].is_f64());
    assert!(object["model"]["weights_hash"].as_str().is_some_and(|h| h.len() == 64));
    assert_eq!((object["picture"]["width"].as_u64(), object["picture"]["height"].as_u64()), (Some(300), Some(200)));
    assert_eq!(object["files"]["looks"], "desk.looks.png");
}

#[test]
fn a_picture_comes_from_standard_input() {
    let place = place();
    let from_file = place.run(&["ask", "desk.png", QUESTION, "--no-looks"]);
    let from_pipe = place.run_with(&["ask", "-", QUESTION, "--no-looks"], &png(300, 200));
    assert_eq!((from_pipe.code, from_pipe.out), (0, from_file.out), "{}", from_pipe.err);
}

#[test]
fn the_questions_of_a_file_are_answered_in_their_order() {
    let place = place();
    let questions: Vec<String> = (0..40)
        .map(|i| format!("What is {} of the {}?", ["left", "right"][i % 2], ["cat", "dog", "cup"][i % 3]))
        .collect();
    place.file("questions.txt", format!("{}\n\n", questions.join("\n")).as_bytes());
    let flags = ["--steps", "2", "--max-tokens", "3"];
    let ran = place.run(&[&["ask", "desk.png", "--questions", "questions.txt", "--json"][..], &flags].concat());
    let objects: Vec<serde_json::Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((ran.code, objects.len()), (0, 40), "{}", ran.err);
    for (object, question) in objects.iter().zip(&questions) {
        assert_eq!(object["question"], question.as_str());
    }
    let alone = place.run(&[&["ask", "desk.png", &questions[33], "--no-looks"][..], &flags].concat());
    assert_eq!(objects[33]["answer"], alone.out.trim_end());
    assert_eq!(place.names(), ["desk.png", "questions.txt"]);
}

#[test]
fn a_trace_can_be_drawn_again_without_the_model() {
    let place = place();
    let ran = place.run(&["ask", "desk.png", QUESTION, "--steps", "2", "--trace", "trace"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let again = place.run(&["report", "trace", "--picture", "desk.png", "--out", "again"]);
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.out.contains("step 2 of 2"), "{}", again.out);
    for name in ["trace.json", "index.html", "step-1.png", "step-2.png", "looks.gif"] {
        let [first, second] = ["trace", "again"].map(|folder| fs::read(place.path().join(folder).join(name)).unwrap());
        assert!(first == second, "{name} differs");
    }
    assert!(place.run(&["report", "trace/trace.json", "--json"]).json()["steps"][1]["drift"]["shift_px"].is_f64());
}

#[test]
fn every_question_of_a_file_has_a_trace_of_its_own() {
    let place = place();
    place.file("questions.txt", b"Where is the cat?\nWhere is the dog?\n");
    let arguments = ["ask", "desk.png", "--questions", "questions.txt", "--trace", "traces", "--steps", "1"];
    assert_eq!(place.run(&arguments).code, 0);
    for (folder, question) in [("traces/1", "Where is the cat?"), ("traces/2", "Where is the dog?")] {
        assert_eq!(place.run(&["report", folder, "--json"]).json()["question"], question);
    }
}

#[test]
fn another_picture_is_noticed_by_the_report() {
    let place = place();
    assert_eq!(place.run(&["ask", "desk.png", QUESTION, "--steps", "1", "--trace", "trace"]).code, 0);
    place.file("other.png", &png(300, 201));
    let ran = place.run(&["report", "trace", "--picture", "other.png", "--out", "again"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("its bytes differ") && ran.err.contains("300 x 200 px"), "{}", ran.err);
    assert!(!place.path().join("again").exists());
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let place = place();
    let ask = |seed: &str| {
        let ran = place.run(&[
            "ask",
            "desk.png",
            QUESTION,
            "--no-looks",
            "--temperature",
            "3",
            "--seed",
            seed,
            "--max-tokens",
            "12",
        ]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    assert_eq!(ask("4"), ask("4"));
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let place = place();
    place.file("questions.txt", "Where is the cat?\n".repeat(50).as_bytes());
    let mut command =
        place.lare(&["ask", "desk.png", "--questions", "questions.txt", "--steps", "1", "--max-tokens", "2"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(0) && !err.contains("panicked"), "{:?} {err}", output.status);
}

#[test]
fn questions_come_from_standard_input() {
    let place = place();
    let flags = ["--steps", "1", "--max-tokens", "2", "--json"];
    let arguments = [&["ask", "desk.png", "--questions", "-"][..], &flags].concat();
    let ran = place.run_with(&arguments, b"Where is the cat?\n\nWhere is the dog?\n");
    assert_eq!((ran.code, ran.out.lines().count()), (0, 2), "{}", ran.err);
    let ran = place.run_with(&["ask", "-", "--questions", "-"], b"Where is the cat?\n");
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("standard input cannot be both"), "{}", ran.err);
}

#[test]
fn a_shorter_list_of_questions_leaves_no_older_traces() {
    let place = place();
    for count in [3, 2] {
        place.file("questions.txt", "Where is the cat?\n".repeat(count).as_bytes());
        let flags = ["--trace", "traces", "--steps", "1", "--max-tokens", "2"];
        let ran = place.run(&[&["ask", "desk.png", "--questions", "questions.txt"][..], &flags].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert_eq!(fs::read_dir(place.path().join("traces")).unwrap().count(), count);
    }
}
