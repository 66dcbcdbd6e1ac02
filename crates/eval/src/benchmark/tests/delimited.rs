//! TSV and CSV.

use super::made::{picture, picture_as_text, rows, table};
use crate::benchmark::{Benchmark, Layout, LeftOut, open};
use crate::grade::{Expected, Outcome};
use crate::item::{Item, Origin, Source};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn place() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Another TSV of these lines, see [`rows`].
fn tsv(place: &TempDir, lines: &[&str]) -> PathBuf {
    let number = fs::read_dir(place.path()).unwrap().count();
    let path = place.path().join(format!("any name {number}.txt"));
    table(&path, '\t', &rows(lines));
    path
}

fn read(place: &TempDir, lines: &[&str]) -> Benchmark {
    open(&tsv(place, lines)).unwrap_or_else(|error| panic!("{error}"))
}

fn items(benchmark: &Benchmark) -> Vec<Item> {
    (0..benchmark.count()).map(|index| benchmark.item(index).unwrap()).collect()
}

/// Why these lines are refused.
fn refusal(lines: &[&str]) -> String {
    let place = place();
    open(&tsv(&place, lines)).err().map_or("accepted".to_owned(), |error| error.to_string())
}

fn assert_parts(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in:\n{message}");
    }
}

const HEADER: &str = "index|image|question|hint|A|B|C|answer|category";

#[test]
fn rows_of_a_vlmevalkit_table_are_questions_with_options_and_hints() {
    let question = "Which \"one\"\tis\nlarger?";
    let place = place();
    let benchmark = read(
        &place,
        &[
            HEADER,
            &format!("7|@8|{question}|Look twice.|a cup|a dog|nan|B|size"),
            "8|7|What colour?||red|None|blue|C|colour",
        ],
    );
    assert_eq!(benchmark.layout(), Layout::Vlmevalkit);
    let items = items(&benchmark);
    assert_eq!(items.len(), 2);
    assert_eq!((items[0].id.as_str(), items[0].task.as_str()), ("vlmevalkit/7", "size"));
    assert_eq!(
        items[0].prompt,
        format!(
            "Hint: Look twice.\nQuestion: {question}\nOptions:\nA. a cup\nB. a dog\n\
             Please select the correct answer from the options above."
        )
    );
    assert_eq!(items[0].expected, Expected::Option { texts: vec!["a cup".into(), "a dog".into()], right: 1 });
    assert_eq!(items[1].expected.text(), "C. blue");
    assert_eq!(items[1].expected.grade("B"), Outcome::Wrong, "`None` is an option here, not a missing one");
    assert!(!items[1].prompt.contains("Hint"));
    // The second row shows the first one's picture.
    assert_eq!((items[0].picture.width, items[1].picture.width), (8, 8));
    assert!(items[0].looks.is_none() && items[0].rationale.is_none());
}

#[test]
fn without_options_the_answer_is_yes_or_no_and_categories_may_be_missing() {
    let place = place();
    let lines = ["index|image|question|answer", "1|@8|Is there a dog?|Yes", "2|@12|Is there a cat?|No"];
    let benchmark = read(&place, &lines);
    let items = items(&benchmark);
    assert_eq!(items[0].expected, Expected::YesNo { yes: true });
    assert_eq!(items[1].expected, Expected::YesNo { yes: false });
    assert_eq!((items[1].task.as_str(), items[1].picture.width), ("all", 12));
    assert_eq!(items[1].prompt, "Is there a cat?\nPlease answer yes or no.");
}

#[test]
fn what_cannot_be_asked_is_counted_by_reason() {
    let two = format!("['{}', '{}']", picture_as_text(8), picture_as_text(12));
    let one = format!("['{}']", picture_as_text(16));
    let place = place();
    let benchmark = read(
        &place,
        &[
            HEADER,
            &format!("1|{two}|Which?||x|y||A|a"),
            "2||Which?||x|y||A|a",
            "3|@8|Which?||x|y|||a",
            "4|@8|How many?|||||three|a",
            "5|1|Which?||x|y||A|a",
            &format!("6|{one}|Which?||x|y||A|a"),
        ],
    );
    let left_out: Vec<(LeftOut, usize)> = benchmark.left_out().iter().map(|(why, count)| (*why, *count)).collect();
    let expected =
        [(LeftOut::NoPicture, 1), (LeftOut::SeveralPictures, 2), (LeftOut::NoAnswer, 1), (LeftOut::OpenQuestion, 1)];
    assert_eq!(left_out, expected);
    let items = items(&benchmark);
    assert_eq!((items.len(), items[0].id.as_str(), items[0].picture.width), (1, "vlmevalkit/6", 16));
}

#[test]
fn pictures_in_files_are_found_beside_the_table_and_in_its_folders_of_images() {
    let place = place();
    let path = place.path().join("Mine.tsv");
    let absolute = place.path().join("elsewhere.bmp").display().to_string();
    for (name, width) in [("a.bmp", 4), ("images/b.bmp", 8), ("images/Mine/c.bmp", 12), ("elsewhere.bmp", 16)] {
        let file = place.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, picture(width)).unwrap();
    }
    let lines =
        ["index|image_path|question|answer", "1|a.bmp|Is it?|yes", "2|b.bmp|Is it?|no", "3|['c.bmp']|Is it?|yes"];
    let mut all = rows(&lines);
    all.push(vec!["4".into(), absolute, "Is it?".into(), "no".into()]);
    table(&path, '\t', &all);
    let before = open(&path).unwrap();
    let widths: Vec<usize> = items(&before).iter().map(|item| item.picture.width).collect();
    assert_eq!(widths, [4, 8, 12, 16]);
    // Other pictures are another benchmark, though the table is the same.
    fs::write(place.path().join("a.bmp"), picture(20)).unwrap();
    let (before, after) = (hashes(&before), hashes(&open(&path).unwrap()));
    assert_eq!((before.len(), before[0] == after[0], before[1] == after[1]), (2, true, false));

    fs::remove_file(place.path().join("a.bmp")).unwrap();
    let message = open(&path).err().unwrap().to_string();
    assert_parts(&message, &["`image_path`", "Mine.tsv, row 1", "no a.bmp beside the table", "images/Mine"]);
}

fn hashes(benchmark: &Benchmark) -> Vec<String> {
    match benchmark.origin() {
        Origin::Benchmark { sha256, .. } => sha256,
        Origin::Suite { .. } => panic!("not of a benchmark"),
    }
}

#[test]
fn every_rotation_is_an_item_in_circular_evaluation() {
    let lines = [HEADER, "1|@8|Which?||x|y|z|C|a", "2|1|Which one?||both A and B|y||B|a", "3|1|Is it?|||||yes|b"];
    let place = place();
    assert_eq!(read(&place, &lines).count(), 3);
    let circular = read(&place, &lines).circular().unwrap();
    let items = items(&circular);
    let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["vlmevalkit/1/r0", "vlmevalkit/1/r1", "vlmevalkit/1/r2", "vlmevalkit/2/r0", "vlmevalkit/3/r0"]);
    let right: Vec<String> = items[..3].iter().map(|item| item.expected.text()).collect();
    assert_eq!(right, ["C. z", "B. z", "A. z"]);
    assert!(items[1].prompt.contains("A. y\nB. z\nC. x\n"));
    // A limit is one of questions, so that none is asked in a part of its orders.
    let first = circular.first(1);
    assert_eq!(first.count(), 3);
    let Origin::Benchmark { circular, items, .. } = first.origin() else { panic!("not of a benchmark") };
    assert_eq!((circular, items), (true, 3));
    assert_eq!(read(&place, &lines).first(99).count(), 3);

    let message = read(&place, &[HEADER, "3|@8|Is it?|||||yes|b"]).circular().err().unwrap().to_string();
    assert_parts(&message, &["circular evaluation", "vlmevalkit", "leave out `--circular`"]);
}

#[test]
fn rotations_that_a_file_has_are_asked_in_circular_evaluation_alone() {
    let lines = [
        HEADER,
        "4|@8|Which?||x|y||A|a",
        "5|@12|Who?||u|v||B|a",
        "1000004|4|Which?||y|x||B|a",
        "1000005|5|Who?||v|u||A|a",
    ];
    let place = place();
    let plain = read(&place, &lines);
    let ids: Vec<String> = items(&plain).into_iter().map(|item| item.id).collect();
    assert_eq!(ids, ["vlmevalkit/4", "vlmevalkit/5"]);
    assert_eq!(plain.left_out().get(&LeftOut::OtherOrder), Some(&2));
    let circular = plain.circular().unwrap();
    assert!(circular.left_out().is_empty());
    let items = items(&circular);
    let asked: Vec<(&str, String, usize)> =
        items.iter().map(|item| (item.id.as_str(), item.expected.text(), item.picture.width)).collect();
    let expected = [
        ("vlmevalkit/4/r0", "A. x", 8),
        ("vlmevalkit/4/r1", "B. x", 8),
        ("vlmevalkit/5/r0", "B. v", 12),
        ("vlmevalkit/5/r1", "A. v", 12),
    ];
    assert_eq!(asked, expected.map(|(id, text, width)| (id, text.to_owned(), width)));
}

#[test]
fn thoughts_are_borrowed_from_questions_that_are_not_asked_where_there_are_any() {
    let mut lines = vec![HEADER.to_owned(), "0|@8|Which 0?||x|y||A|a".to_owned()];
    lines.extend((1..40).map(|n| format!("{n}|0|Which {n}?||x|y||A|{}", if n % 4 == 3 { "b" } else { "a" })));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let ids = |benchmark: &Benchmark| -> Vec<String> {
        benchmark.others().unwrap().into_iter().map(|item| item.id.replace("vlmevalkit/", "")).collect()
    };
    let place = place();
    // Tasks that are not asked lend nothing.
    let rest: Vec<String> = (4..25).filter(|n| n % 4 != 3).map(|n| n.to_string()).collect();
    assert_eq!(ids(&read(&place, &lines).first(3)), rest);
    let all = ids(&read(&place, &lines));
    assert_eq!(all.len(), 16 + 10, "10 questions of b are all there are");
    assert_eq!(all[..4], ["0", "1", "2", "3"]);
}

#[test]
fn the_table_that_this_project_writes_is_read_back() {
    use lare_data::export::{Selection, tsv};
    let (suite, place) = (lare_data::Suite::new(), place());
    let (split, tasks) = (lare_data::Split::Iid, vec![lare_data::Task::Compare, lare_data::Task::Read]);
    let path = place.path().join("suite.tsv");
    tsv(&suite, &Selection { split, tasks, count: 3, first: 0 }, &path, &mut |_| true).unwrap();
    let benchmark = open(&path).unwrap();
    assert_eq!(benchmark.left_out().get(&LeftOut::OpenQuestion), Some(&3), "tags are no options");
    for (index, item) in items(&benchmark).iter().enumerate() {
        let sample = suite.sample(split, lare_data::Task::Compare, index as u64);
        assert!(*item.picture == *sample.picture);
        assert_eq!(item.expected.grade(&sample.question.answer), Outcome::Correct);
        assert_eq!(item.task, "compare");
    }
    assert_eq!(benchmark.count(), 3);
}

#[test]
fn mmvp_is_a_csv_beside_a_folder_of_pictures() {
    let place = place();
    let folder = place.path().join("MMVP Images");
    fs::create_dir(&folder).unwrap();
    for number in 1..=4 {
        fs::write(folder.join(format!("{number}.jpg")), picture(4 * number)).unwrap();
    }
    let question = "Are the wings open, or closed?";
    let lines = [
        "Index|Question|Options|Correct Answer".to_owned(),
        format!("1|{question}|(a) Open (b) Closed|(a)"),
        format!("2|{question}|(a) Open (b) Closed|(b)"),
        "3|How many?|(a) 1 (b) 2|(b) ".to_owned(),
        "4|How many?|(a) 1 (b) 2|(A)".to_owned(),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    table(&place.path().join("Questions.csv"), ',', &rows(&lines));
    // By the file, and by its folder.
    for path in [place.path().join("Questions.csv"), place.path().to_owned()] {
        let benchmark = open(&path).unwrap();
        assert_eq!(benchmark.layout(), Layout::Mmvp);
        let items = items(&benchmark);
        let right: Vec<String> = items.iter().map(|item| item.expected.text()).collect();
        assert_eq!(right, ["A. Open", "B. Closed", "B. 2", "A. 1"]);
        assert_eq!((items[2].id.as_str(), items[2].picture.width), ("mmvp/3", 12));
        assert!(items[0].prompt.starts_with(&format!("Question: {question}\nOptions:\nA. Open\nB. Closed\n")));
        assert_eq!(hashes(&benchmark).len(), 2);
    }

    fs::remove_file(folder.join("3.jpg")).unwrap();
    let message = open(place.path()).err().unwrap().to_string();
    assert_parts(&message, &["Questions.csv, row 3", "3.jpg"]);
    fs::write(folder.join("3.jpg"), picture(12)).unwrap();
    fs::write(place.path().join("3.png"), picture(12)).unwrap();
    let message = open(place.path()).err().unwrap().to_string();
    assert_parts(&message, &["Questions.csv, row 3", "one picture of this number", "3.png"]);
    fs::remove_file(place.path().join("3.png")).unwrap();
    for (options, answer, part) in
        [("open or closed", "(a)", "`Options`"), ("(a) Open (b) Closed", "(c)", "`Correct Answer`")]
    {
        let line = format!("1|{question}|{options}|{answer}");
        table(&place.path().join("Questions.csv"), ',', &rows(&[lines[0], &line]));
        let message = open(place.path()).err().unwrap().to_string();
        assert_parts(&message, &[part, "Questions.csv, row 1"]);
    }
}

#[test]
fn a_row_that_cannot_be_used_is_named_with_what_was_expected_and_found() {
    for (line, parts) in [
        ("1|@8|Which?||x|y||D|a", &["`answer`", "row 1", "the letter of an option: A, B", "got       D"][..]),
        ("1|@8|Which?||x||z|B|a", &["`answer`", "the letter of an option: A, C", "got       B"]),
        ("1|@8|Which?||x|y||AB|a", &["`answer`", "got       AB"]),
        ("1|@8||Look twice.|x|y||A|a", &["`question`", "a text", "nothing"]),
        ("|@8|Which?||x|y||A|a", &["`index`", "row 1"]),
        ("1|9|Which?||x|y||A|a", &["`image` names no row with a picture", "row 1", "got       9"]),
        ("1|1|Which?||x|y||A|a", &["`image` names no row with a picture", "got       1"]),
    ] {
        assert_parts(&refusal(&[HEADER, line]), parts);
    }
    let no_base64 = format!("1|{}|Which?||x|y||A|a", "no base64! ".repeat(10));
    assert_parts(&refusal(&[HEADER, &no_base64]), &["`image`", "row 1", "a picture in base64", "no base64!"]);
    let cut = format!("1|{}|Which?||x|y||A|a", &picture_as_text(8)[..99]);
    assert_parts(&refusal(&[HEADER, &cut]), &["`image`", "row 1", "a picture in base64"]);
    let list = format!("1|['{}|Which?||x|y||A|a]", picture_as_text(8));
    assert_parts(&refusal(&[HEADER, &list]), &["`image`", "row 1"]);
    assert_parts(
        &refusal(&[HEADER, "1|@8|Which?||x|y||A|a", "1|@8|Who?||x|y||A|a"]),
        &["two rows have the same name", "`1` in rows 1 and 2"],
    );
}

#[test]
fn text_that_is_no_picture_is_named_when_it_is_asked_for() {
    let text = format!("1|{}|Which?||x|y||A|a", "QUJD".repeat(30));
    let place = place();
    let message = read(&place, &[HEADER, &text]).item(0).err().unwrap().to_string();
    assert_parts(&message, &["any name 0.txt, row 1", "is not a picture"]);
}

#[test]
fn an_unknown_layout_lists_the_columns_found_and_the_layouts_known() {
    let message = refusal(&["number|picture|question|answer", "1|@8|Which?|A"]);
    assert_parts(
        &message,
        &["any name 0.txt", "number, picture, question, answer", "vlmevalkit", "mmmu-pro", "mmvp", "hint: "],
    );
    // A missing column is an unknown layout.
    assert_parts(&refusal(&["index|image|question|A|B", "1|@8|Which?|x|y"]), &["index, image, question, A, B"]);
}

#[test]
fn files_without_a_question_are_refused() {
    let place = place();
    let path = tsv(&place, &[HEADER]);
    assert_parts(&refusal(&[HEADER]), &["no row of the benchmark can be asked", "no rows"]);
    assert_parts(&refusal(&[HEADER, "1|@8|Which?||x|y|||a"]), &["1 without a published answer", "dev or val"]);
    fs::write(&path, "").unwrap();
    assert_parts(&open(&path).err().unwrap().to_string(), &["empty file", "any name 0.txt", "fetch the file again"]);
    let message = open(&place.path().join("nowhere.tsv")).err().unwrap().to_string();
    assert_parts(&message, &["cannot read", "nowhere.tsv"]);
}

#[test]
fn a_table_that_is_damaged_is_refused_with_the_row() {
    let place = place();
    let path = tsv(&place, &[HEADER, "1|@8|Which?||x|y||A|a", "2|1|Who?||x|y||A|a"]);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 8]).unwrap();
    let message = open(&path).err().unwrap().to_string();
    assert_parts(&message, &["another number of fields", "row 2", "9 fields"]);
    fs::write(&path, text.replace("Who?", "\"Who?")).unwrap();
    assert_parts(&open(&path).err().unwrap().to_string(), &["row 2", "a quote that is never closed"]);
    let mut bytes = text.into_bytes();
    let at = bytes.windows(4).position(|four| four == b"Who?").unwrap();
    bytes[at] = 0xff;
    fs::write(&path, bytes).unwrap();
    assert_parts(&open(&path).err().unwrap().to_string(), &["row 2", "UTF-8"]);
}

#[test]
fn a_folder_stands_for_the_one_table_in_it() {
    let place = place();
    let path = tsv(&place, &[HEADER, "1|@8|Which?||x|y||A|a"]);
    let folder = place.path();
    let message = |folder: &Path| open(folder).err().unwrap().to_string();
    assert_parts(&message(folder), &["a folder without a table", "any name 0.txt"]);
    fs::create_dir(folder.join("data")).unwrap();
    assert_parts(&message(folder), &["in this one are data"]);
    assert_parts(&message(&folder.join("data")), &["an empty folder"]);
    fs::rename(&path, folder.join("one.TSV")).unwrap();
    assert_eq!(open(folder).unwrap().count(), 1);
    fs::copy(folder.join("one.TSV"), folder.join("two.csv")).unwrap();
    assert_parts(&message(folder), &["several tables", "one.TSV, two.csv", "name one of them"]);
}
