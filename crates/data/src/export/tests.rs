use super::*;

fn selection(tasks: &[Task], count: u64) -> Selection {
    Selection { split: Split::Iid, tasks: tasks.to_vec(), count, first: 3 }
}

#[test]
fn a_folder_holds_every_sample_with_its_picture_exactly() {
    let (suite, place) = (Suite::new(), tempfile::tempdir().unwrap());
    let path = place.path().join("out");
    let mut heard = 0;
    let written = folder(&suite, &selection(&Task::ALL, 2), &path, &mut |done| {
        heard = done;
        true
    })
    .unwrap();
    assert_eq!(heard, written.samples);
    assert_eq!(written, Written { path: path.clone(), samples: 18 });
    let lines = fs::read_to_string(path.join("samples.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 18);
    for line in lines.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let task: Task = record["task"].as_str().unwrap().parse().unwrap();
        let sample = suite.sample(Split::Iid, task, record["index"].as_u64().unwrap());
        assert_eq!(record["question"], sample.question.text);
        assert_eq!(record["steps"].as_array().unwrap().len(), sample.question.looks);
        let picture = crate::image::open(&path.join(record["image"].as_str().unwrap())).unwrap();
        assert!(picture == *sample.picture);
    }
}

#[test]
fn llava_json_is_one_list_with_a_box_for_each_look() {
    let (suite, place) = (Suite::new(), tempfile::tempdir().unwrap());
    let path = place.path().join("llava");
    llava(&suite, &selection(&[Task::Hop, Task::Read], 3), &path, &mut |_| true).unwrap();
    let list: Vec<serde_json::Value> =
        serde_json::from_str(&fs::read_to_string(path.join("llava.json")).unwrap()).unwrap();
    assert_eq!(list.len(), 6);
    for entry in list {
        assert!(entry["conversations"][0]["value"].as_str().unwrap().starts_with("<image>\n"));
        assert_eq!(entry["bboxes"].as_array().unwrap().len(), entry["rationale"].as_array().unwrap().len());
        assert!(path.join(entry["image"].as_str().unwrap()).exists());
    }
}

#[test]
fn tsv_rows_have_every_column_and_the_letter_of_the_right_choice() {
    let (suite, place) = (Suite::new(), tempfile::tempdir().unwrap());
    let path = place.path().join("out.tsv");
    tsv(&suite, &selection(&[Task::Compare, Task::Read], 4), &path, &mut |_| true).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 9);
    for (number, row) in rows[1..].iter().enumerate() {
        assert_eq!(row.len(), rows[0].len());
        assert!(row[1].starts_with("iVBORw0KGgo"), "not a PNG in base64");
        let task: Task = row[9].parse().unwrap();
        let answer = suite.question(Split::Iid, task, 3 + number as u64 % 4).answer;
        let given = if row[8].len() == 1 { row[3 + (row[8].as_bytes()[0] - b'A') as usize] } else { row[8] };
        assert_eq!(given, answer);
    }
}

#[test]
fn base64_agrees_with_the_rfc() {
    let cases =
        [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
    for (plain, expected) in cases {
        assert_eq!(base64(plain.as_bytes()), expected);
    }
}

#[test]
fn a_sheet_is_a_picture_of_the_size_of_its_cells() {
    let (suite, place) = (Suite::new(), tempfile::tempdir().unwrap());
    let path = place.path().join("sheet.png");
    contact_sheet(&suite, &selection(&[Task::Read, Task::Path], 2), 3, &path).unwrap();
    let picture = crate::image::open(&path).unwrap();
    assert!(picture.width > 3 * 448 && picture.height > 2 * 448);
}

#[test]
fn a_sheet_shows_no_more_than_can_be_looked_at() {
    let (suite, place) = (Suite::new(), tempfile::tempdir().unwrap());
    let path = place.path().join("sheet.png");
    let written = contact_sheet(&suite, &selection(&Task::ALL, 1 << 40), 10, &path).unwrap();
    assert!(written.samples <= MOST_ON_A_SHEET && written.samples > MOST_ON_A_SHEET - 9, "{}", written.samples);
}

#[test]
fn what_cannot_be_written_is_refused_by_name_and_leaves_nothing() {
    let (suite, place) = (Suite::new(), tempfile::tempdir().unwrap());
    let path = place.path().join("out");
    let error = folder(&suite, &selection(&[], 1), &path, &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("0 tasks"), "{error}");
    let error =
        folder(&suite, &selection(&[Task::Read], 1), &path.join("deeper"), &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("create it first") && error.contains("deeper"), "{error}");
    let beyond = Selection { first: u64::MAX, ..selection(&[Task::Read], 2) };
    let error = folder(&suite, &beyond, &path, &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("no samples"), "{error}");
    let error = folder(&suite, &selection(&[Task::Read], 1), &path, &mut |_| false).unwrap_err().to_string();
    assert!(error.contains("stopped after 1"), "{error}");
    fs::write(&path, "mine").unwrap();
    let error = tsv(&suite, &selection(&[Task::Read], 1), &path, &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("exists already") && error.contains("a file"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn a_full_disk_is_named_with_a_way_out() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        println!("skipped: no /dev/full here");
        return;
    }
    let file = fs::OpenOptions::new().write(true).open(full).unwrap();
    let mut lines = BufWriter::new(file);
    writeln!(lines, "a line").unwrap();
    let error = finish(lines, full).unwrap_err().to_string();
    assert!(error.contains("/dev/full") && error.contains("free some space"), "{error}");
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_rows_read_back_with_their_pictures_and_choices() {
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    use ::parquet::record::{Field, RowAccessor};
    let (suite, place) = (Suite::new(), tempfile::tempdir().unwrap());
    let path = place.path().join("out.parquet");
    parquet(&suite, &selection(&[Task::Read, Task::Count], 200), &path, &mut |_| true).unwrap();
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 400);
    for (number, row) in rows.iter().enumerate() {
        let (task, index) = if number < 200 { (Task::Read, number) } else { (Task::Count, number - 200) };
        let sample = suite.sample(Split::Iid, task, 3 + index as u64);
        assert_eq!(row.get_string(2).unwrap(), &sample.question.text);
        let picture = crate::image::decode(row.get_group(0).unwrap().get_bytes(0).unwrap().data(), "x").unwrap();
        assert!(picture == *sample.picture);
        let choices = row.get_list(4).unwrap().elements();
        assert_eq!(choices.len(), if task == Task::Count { 5 } else { 0 });
        assert!(choices.iter().all(|choice| matches!(choice, Field::Str(_))));
    }
}
