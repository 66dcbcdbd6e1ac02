//! `lare report` of evaluated runs.

use crate::support::Place;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Two runs of one model on the same few questions, the first with traces.
fn two_runs(place: &Place) {
    let first = ["eval", "--tasks", "read,hop", "--count", "3", "--replace", "noise", "--keep", "1", "--out", "one"];
    let second = ["eval", "--tasks", "read,hop", "--count", "3", "--steps", "1", "--out", "two"];
    for arguments in [&first[..], &second] {
        let ran = place.run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
}

/// Numbers of the items whose traces should be kept: of each task the first that is right, and the first that is not.
fn first_of_each(items: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(items).unwrap();
    let items: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut seen = BTreeSet::new();
    let kind = |item: &Value| (item["task"].to_string(), item["outcome"] == "correct");
    let first = items.iter().zip(1..).filter(|(item, _)| seen.insert(kind(item)));
    first.map(|(_, number)| number.to_string()).collect()
}

fn folders(path: &Path) -> BTreeSet<String> {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn runs_are_put_side_by_side_with_tables_plots_and_answers() {
    let place = Place::new();
    two_runs(&place);
    let kept = folders(&place.path().join("one/traces"));
    assert_eq!(kept, first_of_each(&place.path().join("one/items.jsonl")));
    let ran = place.run(&["report", "one", "two", "--out", "made", "--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let found = ran.json();
    assert_eq!(
        (found["runs"][0]["label"].as_str(), found["runs"][1]["label"].as_str()),
        (Some("halts at 0.5"), Some("1 step"))
    );
    assert_eq!(found["runs"][0]["all"]["items"], 6);
    assert_eq!(found["runs"][0]["kept"].as_array().unwrap().len(), kept.len());
    let command = found["runs"][1]["command"].as_str().unwrap();
    assert_eq!(command, "lare eval --split val --tasks read,hop --count 3 --steps 1 --seed 1 --batch 16");
    let gap = &found["differences"][0];
    assert_eq!((&gap["run"], &gap["to"], &gap["of"]), (&"1 step".into(), &"halts at 0.5".into(), &"items".into()));
    let right = |run: usize| found["runs"][run]["all"]["right"]["value"].as_f64().unwrap();
    assert!((gap["all"]["by"]["value"].as_f64().unwrap() - (right(1) - right(0))).abs() < 1e-9);

    let read = |file: &str| fs::read_to_string(place.path().join(found["files"][file].as_str().unwrap())).unwrap();
    let page = read("page");
    for part in [
        "Content-Security-Policy",
        "Pareto front",
        "Accuracy by the looks a question needs",
        "Do the thoughts matter?",
        "Are the thoughts all alike?",
        "How long to think",
        "Answers, right and not right",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<article ").count(), kept.len());
    // Two of cost, and one of each: looks, noise, likeness, halting.
    assert_eq!(page.matches("<svg class=\"plot").count(), 6);
    assert!(!page.contains("NaN") && !page.contains("<script"));
    let tables = read("tables");
    assert!(tables.contains("## Results") && tables.contains("| 1 step − halts at 0.5 |"), "{tables}");
    assert!(read("results").lines().count() > 8 && read("causal").lines().count() == 4);
    assert_eq!(place.run(&["report", "two", "one", "--out", "made"]).code, 0, "written again, over the first");
    assert_eq!(folders(&place.path().join("made")).len(), 4);
}

#[test]
fn one_run_is_shown_as_it_was_when_it_ended() {
    let place = Place::new();
    let arguments = ["eval", "--tasks", "read", "--count", "2", "--steps", "1", "--out", "one"];
    let told = place.run(&arguments);
    let shown = place.run(&["report", "one"]);
    assert_eq!((shown.code, shown.out), (0, told.out), "{}", shown.err);
    let found = place.run(&["report", "one", "--json"]).json();
    assert_eq!((found["runs"][0]["all"]["items"].as_u64(), &found["files"]), (Some(2), &Value::Null));
    // Traces can be asked for later; nothing else changes.
    assert!(!place.path().join("one/traces").exists());
    let lines = fs::read(place.path().join("one/items.jsonl")).unwrap();
    assert_eq!(place.run(&[&arguments[..], &["--keep", "1"]].concat()).code, 0);
    assert_eq!(fs::read(place.path().join("one/items.jsonl")).unwrap(), lines);
    let kept = folders(&place.path().join("one/traces"));
    assert_eq!(kept, first_of_each(&place.path().join("one/items.jsonl")));
    // A kept trace is a trace, with its picture beside it.
    let trace = format!("one/traces/{}", kept.first().unwrap());
    let picture = format!("{trace}/picture.png");
    let drawn = place.run(&["report", &trace, "--picture", &picture, "--out", "drawn"]);
    assert_eq!(drawn.code, 0, "{}", drawn.err);
    assert!(
        !drawn.err.contains("its bytes differ") && drawn.out.contains("true region"),
        "{} {}",
        drawn.err,
        drawn.out
    );
    assert!(place.path().join("drawn/index.html").exists());
}

#[test]
fn what_is_neither_a_trace_nor_a_run_is_refused() {
    let place = Place::new();
    let folder = |name: &str, files: &[&str]| {
        fs::create_dir(place.path().join(name)).unwrap();
        for file in files {
            fs::write(place.path().join(name).join(file), "{}").unwrap();
        }
    };
    folder("trace", &["trace.json"]);
    folder("run", &["settings.json"]);
    folder("both", &["trace.json", "settings.json"]);
    folder("other", &["a", "b", "c", "d", "e"]);
    folder("empty", &[]);
    let before = place.names();
    for (arguments, part) in [
        (&["trace", "run"][..], "a trace and a run cannot be shown together"),
        (&["trace", "trace"], "several traces cannot be shown together"),
        (&["both"], "`both` holds both a trace and a run"),
        (&["other"], "a, b, c and 2 more"),
        (&["empty"], "an empty folder"),
        (&["nowhere"], "the trace `nowhere` cannot be read"),
        (&["run", "run"], "`--out DIR`"),
        (&["run", "--picture", "x.png", "--out", "made"], "`--picture` draws a trace"),
        (&["run", "--out", "made"], "run/items.jsonl"),
        (&["trace"], "trace is not a record of this format"),
        (&[], "required"),
    ] {
        let ran = place.run(&[&["report"][..], arguments].concat());
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}");
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
        assert_eq!(place.names(), before, "{arguments:?}");
    }
}

#[test]
fn a_stopped_run_is_shown_with_a_warning() {
    let place = Place::new();
    let ran = place.run(&["eval", "--tasks", "read", "--count", "4", "--steps", "0", "--batch", "2", "--out", "one"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let items = place.path().join("one/items.jsonl");
    let text = fs::read_to_string(&items).unwrap();
    fs::write(&items, text.split_inclusive('\n').take(2).collect::<String>()).unwrap();
    let ran = place.run(&["report", "one", "--out", "made"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("one stopped after 2 of 4 questions"), "{}", ran.err);
    assert!(fs::read_to_string(place.path().join("made/report.md")).unwrap().contains("| 2 of 4 |"));
}

/// Where a browser may be.
const CHROMIUM: &str = "/usr/bin/chromium";

/// Looks at `made/report.html` from outside, since a report has no script of its own: what of it has a size on the screen.
const LOOKS_AT_IT: &str = r#"<!doctype html>
<iframe src="made/report.html" width="400" height="900"></iframe>
<pre id="found"></pre>
<script>
onload = () => {
    const page = frames[0].document;
    const seen = parts => [...page.querySelectorAll(parts)].filter(part => {
        const { width, height } = part.getBoundingClientRect();
        return width > 0 && height > 0;
    }).length;
    const { scrollWidth, clientWidth } = page.documentElement;
    document.getElementById("found").textContent = JSON.stringify({
        plots: seen("svg.plot"),
        tables: seen("table"),
        answers: seen("article"),
        pictures: page.images.length,
        broken: [...page.images].filter(picture => picture.naturalWidth === 0).length,
        sideways: scrollWidth > clientWidth,
        empty: [...page.querySelectorAll("svg.plot")].filter(plot => !plot.querySelector("circle, path, rect")).length,
    });
};
</script>
"#;

/// What a browser makes of a page: its document when all is loaded, and what it wrote to the console.
fn browsed(place: &Place, page: &Path) -> (String, Vec<String>) {
    let profile = format!("--user-data-dir={}", place.path().join("profile").display());
    let flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
    let mut command = Command::new(CHROMIUM);
    command.args(flags).arg(profile).args(["--enable-logging=stderr", "--window-size=400,900", "--dump-dom"]);
    command.arg("--allow-file-access-from-files"); // so that one page may look at another
    let output = command.arg(format!("file://{}", page.display())).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let console = said.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    (String::from_utf8_lossy(&output.stdout).into_owned(), console)
}

#[test]
fn a_browser_shows_the_page_and_finds_nothing_wrong_with_it() {
    if !Path::new(CHROMIUM).exists() {
        println!("skipped: there is no browser at {CHROMIUM}");
        return;
    }
    let place = Place::new();
    place.file("wrong.html", b"<svg><path d=\"M1 NaN\"/></svg>");
    let (_, console) = browsed(&place, &place.path().join("wrong.html"));
    assert!(console.iter().any(|line| line.contains("path")), "a page that is wrong is noticed: {console:?}");
    two_runs(&place);
    assert_eq!(place.run(&["report", "one", "two", "--out", "made"]).code, 0);
    let (document, console) = browsed(&place, &place.path().join("made/report.html"));
    assert!(console.is_empty(), "{console:?}");
    assert_eq!(document.matches("<svg class=\"plot").count(), 6);
    assert!(document.contains("<article ") && document.trim_end().ends_with("</html>"));
    place.file("outside.html", LOOKS_AT_IT.as_bytes());
    let (document, console) = browsed(&place, &place.path().join("outside.html"));
    assert!(console.is_empty(), "{console:?}");
    let found = document.split("id=\"found\">").nth(1).and_then(|rest| rest.split("</pre>").next()).unwrap();
    let found: Value = serde_json::from_str(found).unwrap();
    let kept = folders(&place.path().join("one/traces")).len();
    assert_eq!((&found["plots"], &found["empty"], &found["answers"]), (&6.into(), &0.into(), &kept.into()), "{found}");
    assert!(found["tables"].as_u64() > Some(4), "{found}");
    // The picture of each step's thought and the true one beside it, all of them drawn; and the page as wide as the screen.
    assert!(found["pictures"].as_u64() >= Some(2 * kept as u64), "{found}");
    assert_eq!((&found["broken"], &found["sideways"]), (&0.into(), &false.into()), "{found}");
}
