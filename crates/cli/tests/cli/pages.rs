//! What the program writes about itself, and about the machine.

use crate::support::Place;

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
    for finding in ["machine", "threads", "memory", "simd", "versions", "model", "answering", "self-test"] {
        assert!(object["findings"][finding].is_string(), "{finding}: {}", ran.out);
    }
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
