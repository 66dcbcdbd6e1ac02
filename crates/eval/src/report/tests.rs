//! Whole reports of runs made up for it.

use super::{Report, Run, made};
use crate::{Intervention, Outcome, keep};
use lare_data::Picture;
use lare_trace::example;
use std::fs;
use std::path::Path;

fn two() -> Report {
    let (first, mut second) = (made::run(40, 2), made::run(40, 4));
    second.settings.steps = Some(2);
    Report::new(vec![first, second], "")
}

/// What a report shows, in every form.
fn forms(report: &Report) -> [String; 4] {
    [report.html().unwrap(), report.markdown(), report.results(), report.causal()]
}

/// A page without its pictures, which may hold any letters.
fn without_pictures(page: &str) -> String {
    page.split("base64,").map(|part| part.split_once('"').map_or(part, |(_, rest)| rest)).collect()
}

#[test]
fn a_report_of_no_runs_is_a_page_that_says_so() {
    let report = Report::new(Vec::new(), "");
    let [page, tables, ..] = forms(&report);
    assert!(page.contains("There are no runs to show.") && page.ends_with("</html>\n"), "{page}");
    assert!(!page.contains("NaN") && !tables.contains('|'), "{tables}");
}

#[test]
fn one_run_has_tables_and_plots_and_nothing_to_compare() {
    let [page, tables, ..] = forms(&Report::new(vec![made::run(40, 2)], ""));
    for heading in ["What was run", "Results", "Accuracy by the looks", "Do the thoughts matter?", "all alike?"] {
        assert!(page.contains(heading) && tables.contains(heading), "{heading} in {tables}");
    }
    assert!(page.contains("Accuracy and cost") && !page.contains("Pareto front"), "one point has no front");
    assert!(!page.contains("How long to think") && !page.contains("Difference in points"));
    assert!(!page.contains("none can be paired") && !page.contains("id=\"gallery\""));
    assert!(tables.contains("| all | 40 | 50.0 | ["), "{tables}");
    assert!(page.matches("<svg class=\"plot").count() >= 3);
}

#[test]
fn two_runs_on_the_same_items_are_compared_in_every_way() {
    let [page, tables, results, _] = forms(&two());
    for part in ["Pareto front", "How long to think", "Difference in points", "K = 2", "p ≥ 0.5", "processed positions"]
    {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(tables.contains("2 steps − halts at 0.5"), "{tables}");
    assert!(tables.contains("**−25.0** [−"), "{tables}");
    assert!(results.lines().any(|line| line.contains(",-0.25,")), "{results}");
}

#[test]
fn two_runs_on_different_items_are_not_paired() {
    let report = Report::new(vec![made::run(40, 2), made::run(8, 2)], "");
    assert!(report.differences().is_empty());
    let [page, tables, ..] = forms(&report);
    assert!(page.contains("No two runs answered the same questions"), "{page}");
    assert!(!page.contains("Pareto front") && !page.contains("Difference in points"));
    assert!(!tables.contains("Difference in points"), "{tables}");
}

#[test]
fn text_of_results_never_becomes_markup() {
    let attack = "</title></table><script>alert('x')</script>\" onload=\"x\" <img src=y> | `";
    let mut run = made::run(8, 2);
    run.settings.model = attack.into();
    for record in &mut run.records {
        record.task = attack.into();
        (record.said, record.expected, record.prompt) = (attack.into(), attack.into(), attack.into());
    }
    let run = Run::new(Path::new("runs/<b>"), run.settings, run.records).unwrap();
    let mut other = run.clone();
    other.settings.seed = 2;
    let [page, tables, ..] = forms(&Report::new(vec![run, other], ""));
    assert!(!page.contains("<script") && !page.contains("onload=\"x") && !page.contains("<img"), "{page}");
    assert!(!page.contains("<b>)"), "the folder's name is text");
    assert!(!tables.contains("<script") && !tables.contains("<img"), "{tables}");
}

#[test]
fn the_page_fetches_nothing_and_runs_nothing() {
    let page = without_pictures(&two().html().unwrap());
    assert!(page.contains("content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\""));
    for reference in ["http:", "https:", "src=\"/", "\"//", "url(", "@import", "<script", "javascript:", " onclick"] {
        assert!(!page.contains(reference), "found {reference}");
    }
}

#[test]
fn nan_never_appears() {
    let mut empty = made::run(2, 1);
    for record in &mut empty.records {
        // Nothing was asked, so that nothing has a mean.
        (record.outcome, record.refused, record.looks) = (Outcome::Unparsed, Some("empty".into()), None);
        (record.usage, record.time_ms) = (lare_trace::Usage::default(), 0.0);
        (record.hits, record.likeness, record.replaced) = (Vec::new(), Vec::new(), Vec::new());
    }
    empty.settings.interventions = Intervention::ALL.to_vec();
    let empty = Run::new(Path::new("runs/empty"), empty.settings, empty.records).unwrap();
    let mut steps = empty.clone();
    steps.settings.steps = Some(0);
    let one = made::run(2, 1);
    for runs in [vec![empty.clone()], vec![empty, steps], vec![one.clone(), one.clone(), one], vec![made::run(40, 3)]] {
        for text in forms(&Report::new(runs, "")) {
            let text = without_pictures(&text);
            for number in ["NaN", ">inf<", "\"inf\"", ",inf,", " inf "] {
                assert!(!text.contains(number), "{number} in {text}");
            }
        }
    }
}

#[test]
fn a_stopped_run_says_how_far_it_came() {
    let whole = made::run(8, 2);
    let records = whole.records[..4].to_vec();
    let stopped = Run::new(Path::new("runs/stopped"), whole.settings, records).unwrap();
    assert_eq!((stopped.records.len(), stopped.asked()), (4, 8));
    assert!(Report::new(vec![stopped], "").markdown().contains("| 4 of 8 |"));
}

#[test]
fn every_section_can_be_reached_by_its_link_and_ids_are_given_once() {
    let page = two().html().unwrap();
    let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let mut once = ids.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), ids.len(), "{ids:?}");
    let links: Vec<&str> = page.split("<a href=\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(links.len() >= 7 && links.iter().all(|link| ids.contains(link)), "{links:?} among {ids:?}");
}

#[test]
fn the_files_of_a_report_are_whole_and_the_same_every_time() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("new/report");
    let first = two().write(&folder).unwrap();
    let bytes = || [&first.page, &first.tables, &first.results, &first.causal].map(|path| fs::read(path).unwrap());
    let before = bytes();
    two().write(&folder).unwrap();
    assert_eq!(bytes(), before);
    let mut names: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["causal.csv", "report.html", "report.md", "results.csv"]);
    fs::write(place.path().join("taken"), "mine").unwrap();
    let refused = two().write(&place.path().join("taken")).err().unwrap().to_string();
    assert!(refused.contains("cannot write") && refused.contains("taken"), "{refused}");
}

/// A run of two answers in a folder, which kept the trace of the first.
fn with_a_trace(folder: &Path) -> Run {
    let (trace, rgb) = example::square();
    let mut run = made::run(2, 1);
    (run.records[0].prompt, run.records[0].said) = (trace.input.question.clone(), trace.answer.clone());
    let kept = folder.join("traces/1");
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join("trace.json"), trace.to_json().unwrap()).unwrap();
    let picture = lare_data::export::png(&Picture { width: 448, height: 448, rgb }).unwrap();
    fs::write(kept.join("picture.png"), picture).unwrap();
    let small = lare_data::export::png(&Picture { width: 1, height: 1, rgb: vec![9; 3] }).unwrap();
    fs::write(kept.join("thought-1.png"), &small).unwrap();
    fs::write(kept.join("region-1.png"), &small).unwrap();
    run.kept = keep::read(folder, &run.records).unwrap();
    run
}

#[test]
fn kept_answers_are_shown_with_every_look_and_what_was_drawn() {
    let place = tempfile::tempdir().unwrap();
    let run = with_a_trace(place.path());
    assert_eq!((run.kept.len(), run.kept[0].item), (1, 0));
    let page = Report::new(vec![run.clone(), run], "").html().unwrap();
    let gallery = page.split("id=\"gallery\"").nth(1).unwrap();
    assert_eq!(gallery.matches("<article class=\"card right\"").count(), 2, "one for each run");
    assert_eq!(gallery.matches("data:image/jpeg").count(), 2);
    assert_eq!(gallery.matches("<g class=\"focus\">").count(), 8, "four steps each");
    assert_eq!(gallery.matches("drawn from the thought</figcaption>").count(), 2);
    assert_eq!(gallery.matches("the true region</figcaption>").count(), 2);
    assert!(gallery.contains("id=\"picture-0-1\"") && gallery.contains("href=\"#picture-1-1\""));
    assert!(gallery.contains("aria-label=\"names\"") && gallery.contains("4 latent steps"));
    assert!(page.contains("<a href=\"#gallery\">"));
}

#[test]
fn a_kept_trace_of_another_answer_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let mut run = with_a_trace(place.path());
    run.records[0].said = "another".into();
    let refused = keep::read(place.path(), &run.records).unwrap_err().to_string();
    assert!(refused.contains("trace.json") && refused.contains("`val/read/0` was answered otherwise"), "{refused}");
    fs::write(place.path().join("traces/1/trace.json"), "{").unwrap();
    let refused = keep::read(place.path(), &run.records).unwrap_err().to_string();
    assert!(refused.contains("trace.json") && refused.contains("hint: remove its folder"), "{refused}");
    // Of no result, or not whole yet: neither is a trace of this run.
    fs::remove_dir_all(place.path().join("traces/1")).unwrap();
    for name in ["0", "3", ".1.partial"] {
        fs::create_dir(place.path().join("traces").join(name)).unwrap();
    }
    assert!(keep::read(place.path(), &run.records).unwrap().is_empty());
}

#[test]
fn a_picture_of_another_size_is_refused_and_nothing_is_written() {
    let place = tempfile::tempdir().unwrap();
    let run = with_a_trace(place.path());
    let other = lare_data::export::png(&Picture { width: 2, height: 1, rgb: vec![0; 6] }).unwrap();
    fs::write(place.path().join("traces/1/picture.png"), other).unwrap();
    let out = place.path().join("report");
    let refused = Report::new(vec![run], "").write(&out).unwrap_err().to_string();
    assert!(refused.contains("2 x 1 pixels, not 448 x 448"), "{refused}");
    assert!(!out.exists());
}
