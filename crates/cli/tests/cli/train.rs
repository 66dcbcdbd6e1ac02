//! `lare train`: runs that are killed, interrupted, refused and gone on with.

use crate::support::{Place, send, wait_until};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The tiny run of the train crate, with the suite's vocabulary.
fn place() -> Place {
    let place = Place::new();
    let tokens = place.run(&["inspect", "--json"]).json()["vocabulary"].as_u64().unwrap();
    let text = include_str!("../../../train/tests/tiny.toml");
    let old = text.lines().find(|line| line.starts_with("vocabulary")).unwrap();
    place.file("tiny.toml", text.replace(old, &format!("vocabulary = {tokens}")).as_bytes());
    place
}

fn weights(place: &Place, run: &str) -> Vec<u8> {
    fs::read(place.path().join(run).join("model/model.safetensors")).unwrap()
}

fn newest_checkpoint(run: &Path) -> Option<usize> {
    let step = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok();
    fs::read_dir(run).ok()?.filter_map(|entry| step(entry.unwrap())).max()
}

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let place = place();
    let started = Instant::now();
    assert_eq!(place.run(&["train", "tiny.toml", "--out", "whole"]).code, 0);
    let whole_ms = started.elapsed().as_millis() as u64;
    let nanoseconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    let run = place.path().join("killed");
    for kill in 0..3u64 {
        let after_ms = (u64::from(nanoseconds) / 97 * (kill + 1)) % (whole_ms / 3);
        let resume: &[&str] = if place.path().join("killed").exists() { &["--resume"] } else { &[] };
        let mut command = place.lare(&[&["train", "tiny.toml", "--out", "killed"], resume].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if kill > 0 {
            // The first may come before anything was saved; the others have something to go on from.
            wait_until(|| newest_checkpoint(&run).is_some());
        }
        std::thread::sleep(Duration::from_millis(after_ms));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        println!("killed after {after_ms} of {whole_ms} ms, checkpoint {:?}", newest_checkpoint(&run));
    }
    assert!(newest_checkpoint(&run).is_some_and(|step| step > 0), "no kill came after a checkpoint");
    let resume: &[&str] = if place.path().join("killed").exists() { &["--resume"] } else { &[] };
    let ran = place.run(&[&["train", "tiny.toml", "--out", "killed"], resume].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(weights(&place, "whole") == weights(&place, "killed"), "the resumed run ended with other weights");
}

#[test]
fn a_run_that_was_stopped_on_purpose_goes_on_to_the_same_bits() {
    let place = place();
    assert_eq!(place.run(&["train", "tiny.toml", "--out", "whole"]).code, 0);
    let ran = place.run(&["train", "tiny.toml", "--out", "parts", "--stop-after", "4", "--json"]);
    let last: serde_json::Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert_eq!((ran.code, &last["complete"], &last["step"]), (0, &false.into(), &4.into()), "{}", ran.err);
    let ran = place.run(&["train", "tiny.toml", "--out", "parts", "--resume"]);
    assert!(ran.code == 0 && ran.err.contains("going on from step 4"), "{}", ran.err);
    assert!(weights(&place, "whole") == weights(&place, "parts"));
    let model = place.path().join("parts/model").display().to_string();
    assert_eq!(place.run(&["inspect", &model]).code, 0);
}

/// What a kill leaves when it comes after checkpoint 3 and before the next one. Step 3 ends a stage.
#[test]
fn a_run_killed_after_the_end_of_a_stage_resumes_to_the_same_bits() {
    let place = place();
    assert_eq!(place.run(&["train", "tiny.toml", "--out", "whole"]).code, 0);
    let stopped = place.run(&["train", "tiny.toml", "--out", "killed", "--stop-after", "4"]);
    assert_eq!(stopped.code, 0, "{}", stopped.err);
    fs::remove_dir_all(place.path().join("killed/checkpoint-4")).unwrap();
    // A run that misses the end of its stage would never end.
    let limit = ["--stop-after", "40"];
    let ran = place.run(&[&["train", "tiny.toml", "--out", "killed", "--resume"][..], &limit].concat());
    assert!(ran.code == 0 && ran.err.contains("going on from step 3"), "{}", ran.err);
    assert!(!ran.out.contains("stopped at step"), "{}", ran.out);
    assert!(weights(&place, "whole") == weights(&place, "killed"));
}

/// What a kill leaves when it comes while the finished model is written.
#[test]
fn a_run_killed_while_it_writes_its_model_writes_the_same_bits_when_resumed() {
    let place = place();
    assert_eq!(place.run(&["train", "tiny.toml", "--out", "run"]).code, 0);
    let whole = weights(&place, "run");
    fs::remove_dir_all(place.path().join("run/model")).unwrap();
    assert_eq!(place.run(&["train", "tiny.toml", "--out", "run", "--resume"]).code, 0);
    assert!(whole == weights(&place, "run"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_checkpoint_and_exit_code_130() {
    let place = place();
    let long = fs::read_to_string(place.path().join("tiny.toml")).unwrap().replacen("steps = 3", "steps = 100000", 1);
    place.file("long.toml", long.replace("checkpoint_every_steps = 3", "checkpoint_every_steps = 1000000").as_bytes());
    let mut child = place
        .lare(&["train", "long.toml", "--out", "run"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = place.path().join("run/metrics.jsonl");
    wait_until(|| fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() >= 2));
    for flags in [&[][..], &["--resume"]] {
        let second = place.run(&[&["train", "long.toml", "--out", "run"], flags].concat());
        assert_eq!(second.code, 2);
        assert!(second.err.contains("another run is writing into `run`"), "{}", second.err);
    }
    send("-INT", &child);
    let code = child.wait().unwrap().code();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code, Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(newest_checkpoint(&place.path().join("run")).is_some_and(|step| step >= 2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("go on with --resume"));
}

#[cfg(unix)]
#[test]
fn a_run_that_is_told_to_end_while_its_model_is_built_ends_as_any_other() {
    let place = place();
    let mut command = place.lare(&["train", "tiny.toml", "--out", "run"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(|| place.path().join("run").exists());
    send("-TERM", &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(newest_checkpoint(&place.path().join("run")).is_some());
}

#[test]
fn fields_set_on_the_command_line_are_those_of_the_run() {
    let place = place();
    let set = ["--set", "seed=7", "--set", "model.refocus.gate=false", "--set", "stages[*].loss.rec=0"];
    let ran = place.run(&[&["train", "tiny.toml", "--out", "run", "--stop-after", "1"][..], &set].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let config = fs::read_to_string(place.path().join("run/config.toml")).unwrap();
    assert!(
        config.contains("seed = 7") && config.contains("gate = false") && !config.contains("rec = 0.5"),
        "{config}"
    );
    let ran = place.run(&["train", "tiny.toml", "--out", "run", "--resume"]);
    assert!(ran.code == 2 && ran.err.contains("seed: 7 -> "), "{}", ran.err);
    let ran = place.run(&["train", "tiny.toml", "--out", "other", "--set", "model.refocus.gaet=false"]);
    assert!(ran.code == 2 && ran.err.contains("gaet") && !place.path().join("other").exists(), "{}", ran.err);
}

#[test]
fn a_run_is_never_written_over() {
    let place = place();
    assert_eq!(place.run(&["train", "tiny.toml", "--out", "run", "--stop-after", "1"]).code, 0);
    let ran = place.run(&["train", "tiny.toml", "--out", "run"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    insta::assert_snapshot!(ran.err);
}

#[test]
fn a_run_that_cannot_start_leaves_nothing_behind() {
    let place = place();
    let text = fs::read_to_string(place.path().join("tiny.toml")).unwrap();
    place.file("key.toml", text.replace("weight_decay", "wait_decay").as_bytes());
    place.file("words.toml", text.replace("vocabulary = ", "vocabulary = 1").as_bytes());
    place.file("taken", b"a file");
    let before = place.names();
    let refused = |arguments: &[&str]| {
        let ran = place.run(&[&["train"], arguments].concat());
        assert_eq!((ran.code, place.names()), (2, before.clone()), "{arguments:?} {}", ran.err);
        ran.err
    };
    assert!(refused(&["key.toml", "--out", "run"]).contains("unknown field `wait_decay`"));
    assert!(refused(&["words.toml", "--out", "run"]).contains("`model.language.vocabulary` in words.toml"));
    assert!(refused(&["missing.toml"]).contains("the run config `missing.toml` cannot be read"));
    assert!(refused(&["tiny.toml", "--out", "taken/run"]).contains("cannot write taken/run"));
    assert!(refused(&["tiny.toml", "--out", "run", "--init", "missing"]).contains("missing/weights.safetensors"));
    assert!(refused(&["tiny.toml", "--out", "run", "--resume"]).contains("there is no run to resume"));
}
