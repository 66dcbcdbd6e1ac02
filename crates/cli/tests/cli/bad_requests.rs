//! Questions, options and places to write to that cannot be.

use crate::support::{Place, png};

fn refusal(place: &Place, arguments: &[&str]) -> String {
    let before = place.names();
    let ran = place.run(arguments);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {}", ran.err);
    assert_eq!(place.names(), before, "{arguments:?}");
    ran.err
}

fn place() -> Place {
    let place = Place::new();
    place.file("desk.png", &png(64, 64));
    place.file("none.txt", b"\n  \n");
    place.file("taken", b"{");
    place
}

#[test]
fn what_cannot_be_asked_is_named_with_the_way_out() {
    let place = place();
    let refusals = [
        refusal(&place, &["ask", "desk.png", "  "]),
        refusal(&place, &["ask", "desk.png", "--questions", "none.txt"]),
        refusal(&place, &["ask", "desk.png", "--questions", "missing.txt"]),
        refusal(&place, &["ask", "desk.png", "Where is it?", "--halt-threshold", "7"]),
        refusal(&place, &["ask", "desk.png", "Where is it?", "--temperature", "-1"]),
        refusal(&place, &["ask", "desk.png", "Where is it?", "--top-p", "0"]),
        refusal(&place, &["report", "taken"]),
        refusal(&place, &["ask", "desk.png", "Where is it?", "--max-tokens", "0"]),
        refusal(&place, &["ask", "desk.png", "Where is it?", "--steps", "many"]),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn an_answer_never_writes_over_the_picture_it_is_about() {
    let place = place();
    let picture = png(64, 64);
    place.file("step-1.png", &picture);
    let said = refusal(&place, &["ask", "desk.png", "Where is it?", "--looks", "desk.png"]);
    assert!(said.contains("`--looks` would write over `desk.png`") && said.contains("another file"), "{said}");
    let said = refusal(&place, &["ask", "step-1.png", "Where is it?", "--trace", "."]);
    assert!(said.contains("`--trace` would write over `step-1.png`") && said.contains("another folder"), "{said}");
    assert_eq!(std::fs::read(place.path().join("step-1.png")).unwrap(), picture);
    // A picture under a name that no trace uses may lie in the trace's folder.
    assert_eq!(place.run(&["ask", "desk.png", "Where is it?", "--trace", "."]).code, 0);
}

#[test]
fn numbers_that_overflow_are_refused_before_anything_is_written() {
    let place = place();
    for (first, count) in [("18446744073709551615", "2"), ("0", "18446744073709551615")] {
        let said = refusal(&place, &["make-data", "--out", "data", "--first", first, "--count", count]);
        assert!(said.contains("there are no samples") && said.contains("hint: ask for fewer"), "{said}");
    }
}

#[test]
fn a_question_longer_than_the_context_is_refused_with_its_length() {
    let long = refusal(&place(), &["ask", "desk.png", &"cat ".repeat(900)]);
    assert!(long.contains("error: the question is too long") && long.contains("got       900 tokens"), "{long}");
    assert!(long.contains("hint: ask in fewer words"), "{long}");
}

#[test]
fn more_steps_than_the_model_has_are_refused() {
    let many = refusal(&place(), &["ask", "desk.png", "Where is it?", "--steps", "99"]);
    assert!(many.contains("`steps` cannot be 99") && many.contains("refocus.max_steps"), "{many}");
}

#[test]
fn errors_are_objects_where_results_are() {
    let place = place();
    let object: serde_json::Value =
        serde_json::from_str(&refusal(&place, &["ask", "desk.png", " ", "--json"])).unwrap();
    assert_eq!(object["error"]["message"], "the question is empty");
    assert!(object["error"]["hint"].is_string());
}

#[test]
fn a_place_that_cannot_be_written_is_named_and_the_answer_is_not_lost() {
    let place = place();
    let ask = ["ask", "desk.png", "Where is it?", "--steps", "1"];
    let mut told = Vec::new();
    for flags in [["--trace", "taken/trace"], ["--looks", "taken/looks.png"], ["--looks", "no/looks.png"]] {
        let before = place.names();
        let ran = place.run(&[&ask[..], &flags].concat());
        assert_eq!((ran.code, ran.out.lines().count()), (2, 1), "{flags:?}: {}", ran.err);
        assert_eq!(place.names(), before, "{flags:?}");
        told.push(ran.err.lines().skip_while(|line| !line.starts_with("error:")).collect::<Vec<_>>().join("\n"));
    }
    insta::assert_snapshot!(told.join("\n\n"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_is_read_only_is_named() {
    let ran = place().run(&["ask", "desk.png", "Where is it?", "--steps", "1", "--trace", "/proc/trace"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("could not write /proc/trace"), "{}", ran.err);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_no_result() {
    let place = place();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = place.lare(&["ask", "desk.png", "Where is it?", "--no-looks"]).stdout(full).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && err.contains("could not be written to stdout"), "{err}");
    let ran = place.run(&["ask", "desk.png", "Where is it?", "--steps", "1", "--looks", "/dev/full"]);
    assert!(ran.code == 2 && ran.err.contains("free some space"), "{}", ran.err);
    assert!(std::fs::metadata("/dev/full").is_ok_and(|found| !found.is_file()), "the device is still one");
}

#[test]
fn data_is_never_written_over_something() {
    let place = place();
    let told = refusal(&place, &["make-data", "--tasks", "read", "--count", "1", "--out", "taken"]);
    assert!(told.contains("`taken` exists already"), "{told}");
    let told = refusal(&place, &["make-data", "--tasks", "reed", "--out", "new"]);
    assert!(told.contains("unknown task `reed`"), "{told}");
}

#[test]
fn the_answer_is_given_in_json_though_a_file_cannot_be_written() {
    let place = place();
    for (flag, path) in [("--trace", "taken/trace"), ("--looks", "no/looks.png")] {
        let ran = place.run(&["ask", "desk.png", "Where is it?", "--steps", "1", "--json", flag, path]);
        assert_eq!(ran.code, 2, "{}", ran.err);
        let object = ran.json();
        assert!(object["answer"].is_string());
        assert_eq!(object["files"], serde_json::json!({ "looks": null, "trace": null }));
        let error: serde_json::Value = serde_json::from_str(ran.err.lines().last().unwrap()).unwrap();
        assert!(error["error"]["message"].as_str().is_some_and(|message| message.contains(path)), "{error}");
    }
}

#[test]
fn looks_are_written_as_png_and_under_no_other_name() {
    let said = refusal(&place(), &["ask", "desk.png", "Where is it?", "--looks", "x.jpg"]);
    assert!(said.contains("ends in .png") && said.contains("hint: name it x.png"), "{said}");
}

#[test]
fn what_the_parser_refuses_is_an_object_where_results_are() {
    let place = place();
    for arguments in [&["ask", "desk.png", "Where?", "--steps", "many", "--json"][..], &["--json", "ask"], &["--json"]]
    {
        let said = refusal(&place, arguments);
        let object: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        let message = object["error"]["message"].as_str().unwrap();
        assert!(!message.starts_with("error") && object["error"]["hint"].is_string(), "{object}");
    }
}

#[test]
fn questions_are_counted_by_the_lines_of_their_file() {
    let place = place();
    place.file("long.txt", format!("Where is it?\n\n{}\n", "cat ".repeat(900)).as_bytes());
    let said = refusal(&place, &["ask", "desk.png", "--questions", "long.txt"]);
    assert!(said.contains("error: the question in line 3 of `long.txt` is too long"), "{said}");
    place.file("latin.txt", b"Where is it?\n\nO\xf9 est-il?\n");
    let said = refusal(&place, &["ask", "desk.png", "--questions", "latin.txt"]);
    assert!(said.contains("`latin.txt` is not UTF-8 text") && said.contains("line 3"), "{said}");
}
