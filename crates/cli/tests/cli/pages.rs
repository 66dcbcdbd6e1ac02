//! What the program writes about itself, and about the machine.

use crate::support::{Place, send, wait_until};
use std::process::Stdio;

#[test]
fn the_help_lists_every_command() {
    insta::assert_snapshot!(Place::new().run(&["help"]).out);
}

#[test]
fn completions_and_manual_pages_are_generated() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = place.run(&["completions", shell]);
        assert!(ran.code == 0 && ran.out.contains("lare"), "{shell}: {}", ran.err);
    }
    std::fs::create_dir(place.path().join("man")).unwrap();
    assert_eq!(place.run(&["man", "man"]).code, 0);
    let page = std::fs::read_to_string(place.path().join("man/lare-ask.1")).unwrap();
    assert!(page.contains("halt\\-threshold"), "{page}");
    assert_eq!(place.run(&["man", "no/such"]).code, 2);
}

#[test]
fn the_doctor_tells_the_machine_and_tries_the_model() {
    let ran = Place::new().run(&["doctor", "--json"]);
    let object = ran.json();
    assert_eq!(ran.code, i32::from(object["sound"] == false), "{}", ran.err);
    let found = &object["findings"];
    for name in ["machine", "simd", "versions", "model"] {
        assert!(found[name].is_string(), "{name}: {}", ran.out);
    }
    let (used, of) = (found["threads"]["used"].as_u64(), found["self-test"]["of"].as_u64());
    assert!(used >= Some(1) && of >= Some(1) && found["answering"]["time_ms"].as_f64() > Some(0.0), "{}", ran.out);
}

#[test]
fn samples_are_written_in_every_form() {
    let place = Place::new();
    for (format, out) in [("folder", "folder"), ("llava", "llava"), ("tsv", "data.tsv"), ("sheet", "sheet.png")] {
        let ran = place.run(&[
            "make-data",
            "--split",
            "val",
            "--tasks",
            "read,chart",
            "--count",
            "2",
            "--format",
            format,
            "--out",
            out,
            "--json",
        ]);
        assert_eq!((ran.code, ran.json()["samples"].as_u64()), (0, Some(4)), "{}", ran.err);
        assert!(place.path().join(out).exists());
    }
    assert_eq!(place.names(), ["data.tsv", "folder", "llava", "sheet.png"]);
}

#[test]
fn a_task_named_twice_is_one_and_a_sheet_has_an_end() {
    let place = Place::new();
    let arguments = ["make-data", "--tasks", "read,read", "--json", "--out"];
    let ran = place.run(&[&arguments[..], &["data", "--count", "2"]].concat());
    assert_eq!((ran.code, ran.json()["samples"].as_u64()), (0, Some(2)), "{}", ran.err);
    let ran = place.run(&[&arguments[..], &["sheet.png", "--format", "sheet", "--count", "1000"]].concat());
    assert_eq!((ran.code, ran.json()["samples"].as_u64()), (0, Some(100)), "{}", ran.err);
    let said: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert!(said["warning"].as_str().is_some_and(|text| text.contains("100 of 1000 samples")), "{said}");
}

#[cfg(unix)]
#[test]
fn data_that_is_stopped_leaves_nothing_and_exit_code_130() {
    for signal in ["-INT", "-TERM"] {
        let place = Place::new();
        let mut command = place.lare(&["make-data", "--tasks", "read", "--count", "1000000", "--out", "data"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until(|| !place.names().is_empty());
        send(signal, &child);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), place.names().len()), (Some(130), 0), "{signal} {said}");
        assert!(said.contains("stopped after") && said.contains("nothing was left in data"), "{said}");
    }
}
