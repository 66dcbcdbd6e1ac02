//! `lare eval`.

use crate::support::{Place, send, wait_until};
use serde_json::Value;
use std::fs;

#[test]
fn a_part_of_the_suite_is_measured_and_shown_again() {
    let place = Place::new();
    let asked =
        ["eval", "--tasks", "read,hop", "--count", "6", "--replace", "noise,oracle-patches", "--out", "results"];
    let json = [&asked[..], &["--json"]].concat();
    let found = place.run(&json);
    assert_eq!((found.code, found.err.as_str()), (0, ""));
    let found = found.json();
    let needed: Vec<u64> =
        found["looks"].as_array().unwrap().iter().filter_map(|group| group["looks"].as_u64()).collect();
    assert!(needed.len() > 2 && needed.iter().all(|looks| (1..=5).contains(looks)), "{needed:?}");
    assert_eq!(found["all"]["items"], 12);
    assert_eq!(found["settings"]["items"]["suite"]["split"], "val");
    let names: Vec<&str> = found["tasks"].as_array().unwrap().iter().map(|t| t["task"].as_str().unwrap()).collect();
    assert_eq!(names, ["read", "hop"]);
    let lines = fs::read_to_string(place.path().join("results/items.jsonl")).unwrap();
    let items: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(items.len(), 12);
    let right = items.iter().filter(|item| item["outcome"] == "correct").count();
    assert_eq!(found["all"]["right"]["value"], right as f64 / 12.0);
    assert_eq!(items[6]["id"], "val/hop/0");
    assert_eq!(items[0]["replaced"][0]["what"], "noise");
    assert!(found["causal"][1]["verdict"].as_str().unwrap().starts_with("reading the patches of the true region"));
    // Nothing is asked twice, and the text has what the JSON has.
    let again = place.run(&asked);
    assert_eq!(again.code, 0, "{}", again.err);
    assert_eq!(fs::read_to_string(place.path().join("results/items.jsonl")).unwrap(), lines);
    for part in
        ["read ", "  2 looks ", "all ", "12 questions", "latent mode was entered in 100.0 %", "noise of equal norm"]
    {
        assert!(again.out.contains(part), "{part} in {}", again.out);
    }
    let other = place.run(&["eval", "--tasks", "read", "--count", "6", "--out", "results"]);
    assert_eq!(other.code, 2);
    assert!(
        other.err.contains("holds the results of other settings") && other.err.contains("items: "),
        "{}",
        other.err
    );
}

#[test]
fn results_go_to_a_folder_of_their_settings() {
    let place = Place::new();
    for steps in ["0", "1", "0"] {
        let ran = place.run(&["eval", "--tasks", "read", "--count", "2", "--steps", steps]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(!ran.err.contains("warning"), "no steps were asked for: {}", ran.err);
    }
    let folders = fs::read_dir(place.path().join("runs/eval")).unwrap();
    assert_eq!(folders.count(), 2);
    let never = place.run(&["eval", "--tasks", "read", "--count", "2", "--halt-threshold", "0"]);
    assert!(never.err.contains("latent mode was never entered"), "{}", never.err);
}

#[test]
fn interventions_that_had_nothing_to_replace_are_no_evidence() {
    let place = Place::new();
    let asked = ["eval", "--tasks", "read", "--count", "2", "--steps"];
    let none = place.run(&[&asked[..], &["0", "--replace", "zero,shuffle", "--out", "none"]].concat());
    assert_eq!(none.code, 0);
    assert!(none.err.contains("warning: tried on no question") && none.err.contains("says nothing"), "{}", none.err);
    assert!(none.out.contains("what is replaced: zero, shuffle\n"), "{}", none.out);
    let some = place.run(&[&asked[..], &["1", "--replace", "zero,shuffle", "--out", "some", "--json"]].concat());
    assert!(some.err.contains("what is replaced: shuffle") && !some.err.contains("says nothing"), "{}", some.err);
    assert_eq!(some.json()["untried"], serde_json::json!(["shuffle"]));
    assert_eq!(place.run(&["report", "none", "--out", "made"]).code, 0);
    let page = fs::read_to_string(place.path().join("made/report.html")).unwrap();
    assert!(page.contains("Latent mode was never entered") && page.contains("what is replaced: zero, shuffle."));
}

/// Lines of results without their times, which differ from run to run.
fn without_times(items: &str) -> Vec<Value> {
    let timeless = |line: &str| {
        let mut item: Value = serde_json::from_str(line).unwrap();
        item["time_ms"].take();
        item
    };
    items.lines().map(timeless).collect()
}

#[test]
fn an_evaluation_that_was_killed_goes_on_to_the_same_results() {
    let place = Place::new();
    let asked = ["eval", "--tasks", "hop", "--count", "12", "--batch", "2", "--replace", "shuffle", "--out"];
    assert_eq!(place.run(&[&asked[..], &["whole"]].concat()).code, 0);
    let items = place.path().join("killed/items.jsonl");
    let killed = [&asked[..], &["killed"]].concat();
    let mut child = place.lare(&killed).spawn().unwrap();
    wait_until(|| fs::read_to_string(&items).is_ok_and(|text| text.lines().count() >= 4));
    child.kill().unwrap();
    child.wait().unwrap();
    let done = fs::read_to_string(&items).unwrap();
    // As a kill in the middle of a write leaves it.
    fs::write(&items, &done[..done.len() - 9]).unwrap();
    assert_eq!(place.run(&killed).code, 0);
    let read = |folder: &str| fs::read_to_string(place.path().join(folder).join("items.jsonl")).unwrap();
    assert_eq!(without_times(&read("killed")), without_times(&read("whole")));
    let settings = |folder: &str| fs::read(place.path().join(folder).join("settings.json")).unwrap();
    assert_eq!(settings("killed"), settings("whole"));
}

#[test]
fn an_evaluation_in_bf16_says_so_and_keeps_apart_or_is_refused() {
    let place = Place::new();
    let asked = ["eval", "--tasks", "read", "--count", "6", "--out", "results"];
    let found = place.run(&[&asked[..], &["--bf16"]].concat());
    if found.code == 2 {
        return assert!(found.err.contains("`--bf16` does not work here"), "{}", found.err);
    }
    assert!(found.out.contains("6 questions, latent steps: auto, in bf16"), "{}", found.out);
    let exact = place.run(&asked);
    assert!(exact.code == 2 && exact.err.contains("bf16"), "{}", exact.err);
}

#[test]
fn an_evaluation_that_was_stopped_goes_on() {
    let place = Place::new();
    let asked = ["eval", "--tasks", "read", "--count", "120", "--batch", "4", "--out", "results"];
    let mut child = place.lare(&asked).spawn().unwrap();
    let items = place.path().join("results/items.jsonl");
    wait_until(|| fs::read_to_string(&items).is_ok_and(|text| text.lines().count() >= 4));
    send("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let done = fs::read_to_string(&items).unwrap();
    assert!(done.lines().count() < 120);
    let ran = place.run(&asked);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let all = fs::read_to_string(&items).unwrap();
    assert!(all.starts_with(&done));
    assert_eq!(all.lines().count(), 120);
}

#[test]
fn a_benchmark_in_its_own_file_is_measured_by_its_rules() {
    let place = Place::new();
    let made =
        place.run(&["make-data", "--tasks", "compare,read", "--count", "3", "--format", "tsv", "--out", "some.tsv"]);
    assert_eq!(made.code, 0, "{}", made.err);
    let asked = [
        "eval",
        "--data",
        "some.tsv",
        "--circular",
        "--count",
        "2",
        "--steps",
        "1",
        "--replace",
        "other",
        "--out",
        "results",
    ];
    let found = place.run(&[&asked[..], &["--json"]].concat());
    assert_eq!((found.code, found.err.as_str()), (0, ""));
    let found = found.json();
    let items = &found["settings"]["items"]["benchmark"];
    assert_eq!(
        (&items["layout"], &items["circular"], &items["items"]),
        (&"vlmevalkit".into(), &true.into(), &4.into())
    );
    assert_eq!(items["left_out"]["open-question"], 3);
    assert_eq!(items["sha256"][0].as_str().unwrap().len(), 64);
    assert_eq!((&found["all"]["items"], &found["rules"]["circular"]["questions"]), (&4.into(), &2.into()));
    assert_eq!(found["causal"][0]["items"], 2, "the orders of a question are one");
    let lines = fs::read_to_string(place.path().join("results/items.jsonl")).unwrap();
    let ids = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone());
    assert!(ids.eq(["vlmevalkit/0/r0", "vlmevalkit/0/r1", "vlmevalkit/1/r0", "vlmevalkit/1/r1"].map(Value::from)));
    let again = place.run(&asked);
    assert!(again.out.contains("of 2 questions right in every order of their options"), "{}", again.out);
    assert!(again.err.contains("left out: 3 rows with an open question"), "{}", again.err);
    // Without `--out` the folder is named after the layout.
    let plain = place.run(&["eval", "--data", "some.tsv", "--steps", "0"]);
    assert!(plain.out.contains("3 questions") && !plain.out.contains("circular"), "{}", plain.out);
    assert!(plain.err.contains("nano-vlmevalkit-"), "{}", plain.err);
    let other = place.run(&["eval", "--data", "some.tsv", "--replace", "oracle-patches"]);
    assert_eq!(other.code, 2);
    assert!(other.err.contains("`--replace oracle-patches` needs to know where to look"), "{}", other.err);
}

#[test]
fn a_file_of_no_known_layout_is_refused_with_its_columns() {
    let place = Place::new();
    let file = place.file("strange.tsv", b"name\tpicture\n1\t2\n");
    let ran = place.run(&["eval", "--data", &file]);
    assert_eq!(ran.code, 2);
    for part in ["strange.tsv", "name, picture", "vlmevalkit", "mmvp", "hint: rename the columns"] {
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let place = Place::new();
    for (arguments, part) in [
        (&["--count", "0"][..], "`--count 0` asks nothing"),
        (&["--batch", "0"], "`--batch 0` asks nothing"),
        (&["--replace", "noises"], "unknown intervention `noises`"),
        (&["--tasks", "reading"], "unknown task `reading`"),
        (&["--steps", "99", "--count", "1"], "`steps`"),
        (&["--model", "nowhere"], "nowhere"),
        (&["--data", "nowhere.tsv"], "nowhere.tsv"),
        (&["--data", "nowhere.tsv", "--split", "val"], "--split"),
        (&["--data", "nowhere.tsv", "--tasks", "read"], "--tasks"),
        (&["--circular"], "--data"),
    ] {
        let ran = place.run(&[&["eval"][..], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}");
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
}
