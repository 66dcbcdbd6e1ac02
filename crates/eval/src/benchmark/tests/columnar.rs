//! Parquet files, with the columns and types of the published ones.

use super::made::{picture, picture_as_text};
use crate::benchmark::{Benchmark, Layout, LeftOut, open};
use crate::grade::Expected;
use crate::item::{Item, Origin, Source};
use parquet::basic::{Compression, ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Rows of a row group, so that files of a few rows have several.
const ROWS: usize = 2;

/// A column with all of its values.
enum Column {
    /// A nullable string.
    Text(Vec<Option<String>>),
    /// Nullable bytes without a mark.
    Bytes(Vec<Option<Vec<u8>>>),
    /// A nullable group of bytes and path, as `datasets` writes a picture.
    Picture(Vec<Option<Vec<u8>>>),
    /// A nullable list of nullable strings, as `datasets` writes a sequence.
    List(Vec<Vec<String>>),
    /// Marked as of 8 bits.
    Int8(Vec<i32>),
    /// Without a mark.
    Int64(Vec<i64>),
    /// Milliseconds since 1970.
    Time(Vec<i64>),
    /// Nullable; what pandas makes of whole numbers where one is missing.
    Double(Vec<Option<f64>>),
}

fn texts(all: &[&str]) -> Column {
    Column::Text(all.iter().map(|text| Some((*text).to_owned())).collect())
}

fn pictures(widths: &[u32]) -> Column {
    Column::Picture(widths.iter().map(|width| (*width > 0).then(|| picture(*width))).collect())
}

impl Column {
    fn rows(&self) -> usize {
        match self {
            Self::Text(all) => all.len(),
            Self::Bytes(all) | Self::Picture(all) => all.len(),
            Self::List(all) => all.len(),
            Self::Int8(all) => all.len(),
            Self::Int64(all) | Self::Time(all) => all.len(),
            Self::Double(all) => all.len(),
        }
    }

    fn schema(&self, name: &str) -> TypePtr {
        let leaf = |name: &str, physical, converted| -> TypePtr {
            let builder = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
            Arc::new(builder.with_converted_type(converted).build().unwrap())
        };
        let group = |name: &str, repetition, converted, fields| -> TypePtr {
            let builder = Type::group_type_builder(name).with_repetition(repetition);
            Arc::new(builder.with_converted_type(converted).with_fields(fields).build().unwrap())
        };
        let (bytes, none, utf8) = (Physical::BYTE_ARRAY, ConvertedType::NONE, ConvertedType::UTF8);
        match self {
            Self::Text(_) => leaf(name, bytes, utf8),
            Self::Bytes(_) => leaf(name, bytes, none),
            Self::Picture(_) => {
                let fields = vec![leaf("bytes", bytes, none), leaf("path", bytes, utf8)];
                group(name, Repetition::OPTIONAL, none, fields)
            }
            Self::List(_) => {
                let list = group("list", Repetition::REPEATED, none, vec![leaf("element", bytes, utf8)]);
                group(name, Repetition::OPTIONAL, ConvertedType::LIST, vec![list])
            }
            Self::Int8(_) => leaf(name, Physical::INT32, ConvertedType::INT_8),
            Self::Int64(_) => leaf(name, Physical::INT64, none),
            Self::Time(_) => leaf(name, Physical::INT64, ConvertedType::TIMESTAMP_MILLIS),
            Self::Double(_) => leaf(name, Physical::DOUBLE, none),
        }
    }

    fn write(&self, group: &mut SerializedRowGroupWriter<File>, rows: Range<usize>) {
        let count = rows.len();
        match self {
            Self::Text(all) => {
                let all: Vec<Option<Vec<u8>>> =
                    all[rows].iter().map(|text| text.clone().map(String::into_bytes)).collect();
                nullable::<ByteArrayType>(
                    group,
                    &all.into_iter().map(|text| text.map(ByteArray::from)).collect::<Vec<_>>(),
                );
            }
            Self::Bytes(all) => {
                let all: Vec<_> = all[rows].iter().map(|bytes| bytes.clone().map(ByteArray::from)).collect();
                nullable::<ByteArrayType>(group, &all);
            }
            Self::Picture(all) => {
                let all = &all[rows];
                let there: Vec<ByteArray> = all.iter().flatten().map(|bytes| ByteArray::from(bytes.clone())).collect();
                let levels: Vec<i16> = all.iter().map(|bytes| if bytes.is_some() { 2 } else { 0 }).collect();
                leaf::<ByteArrayType>(group, &there, &levels, None);
                // The path is null where the picture is there.
                let levels: Vec<i16> = all.iter().map(|bytes| i16::from(bytes.is_some())).collect();
                leaf::<ByteArrayType>(group, &[], &levels, None);
            }
            Self::List(all) => {
                let all = &all[rows];
                let values: Vec<ByteArray> = all.iter().flatten().map(|text| ByteArray::from(text.as_str())).collect();
                let repeats: Vec<i16> =
                    all.iter().flat_map(|list| (0..list.len()).map(|at| i16::from(at > 0))).collect();
                leaf::<ByteArrayType>(group, &values, &vec![3; values.len()], Some(&repeats));
            }
            Self::Int8(all) => leaf::<Int32Type>(group, &all[rows], &vec![1; count], None),
            Self::Int64(all) | Self::Time(all) => leaf::<Int64Type>(group, &all[rows], &vec![1; count], None),
            Self::Double(all) => nullable::<DoubleType>(group, &all[rows]),
        }
    }
}

fn nullable<T: DataType>(group: &mut SerializedRowGroupWriter<File>, all: &[Option<T::T>]) {
    let there: Vec<T::T> = all.iter().flatten().cloned().collect();
    let levels: Vec<i16> = all.iter().map(|value| i16::from(value.is_some())).collect();
    leaf::<T>(group, &there, &levels, None);
}

fn leaf<T: DataType>(
    group: &mut SerializedRowGroupWriter<File>,
    values: &[T::T],
    defined: &[i16],
    repeats: Option<&[i16]>,
) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, Some(defined), repeats).unwrap();
    column.close().unwrap();
}

/// Writes a file with Snappy, in several row groups.
fn write(path: &Path, columns: &[(&str, Column)]) {
    let fields = columns.iter().map(|(name, column)| column.schema(name)).collect();
    let schema = Type::group_type_builder("schema").with_fields(fields).build().unwrap();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).unwrap();
    let rows = columns[0].1.rows();
    for first in (0..rows).step_by(ROWS) {
        let mut group = writer.next_row_group().unwrap();
        for (_, column) in columns {
            column.write(&mut group, first..rows.min(first + ROWS));
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// A benchmark in one file of these columns, whose name says nothing; its folder goes when the first part is dropped.
fn read(columns: &[(&str, Column)]) -> (tempfile::TempDir, Benchmark) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("0000.bin");
    write(&path, columns);
    let benchmark = open(&path).unwrap_or_else(|error| panic!("{error}"));
    (place, benchmark)
}

fn refusal(columns: &[(&str, Column)]) -> String {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("0000.bin");
    write(&path, columns);
    open(&path).err().map_or("accepted".to_owned(), |error| error.to_string())
}

fn items(benchmark: &Benchmark) -> Vec<Item> {
    (0..benchmark.count()).map(|index| benchmark.item(index).unwrap()).collect()
}

fn right(items: &[Item]) -> Vec<String> {
    items.iter().map(|item| item.expected.text()).collect()
}

fn widths(items: &[Item]) -> Vec<usize> {
    items.iter().map(|item| item.picture.width).collect()
}

fn assert_parts(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in:\n{message}");
    }
}

fn mmstar(image: Column) -> Vec<(&'static str, Column)> {
    let first = "Which colour?\nOptions: A: red, B: blue, C: grey, D: nan";
    let second = "Choices:\n(A) a cup\n(B) a dog\n(C) a cat\n(D) none";
    vec![
        ("index", Column::Int64(vec![0, 1, 2])),
        ("question", texts(&[first, second, "Which of the four?"])),
        ("image", image),
        ("answer", texts(&["B", "A", "D"])),
        ("category", texts(&["coarse perception", "math", "math"])),
        ("l2_category", texts(&["image emotion", "geometry", "geometry"])),
    ]
}

#[test]
fn mmstar_has_its_options_in_the_question_and_its_pictures_in_either_form() {
    let bytes = Column::Bytes([4, 8, 12].map(|width| Some(picture(width))).to_vec());
    for image in [pictures(&[4, 8, 12]), bytes] {
        let (_place, benchmark) = read(&mmstar(image));
        assert_eq!(benchmark.layout(), Layout::Mmstar);
        let items = items(&benchmark);
        assert_eq!((items[1].id.as_str(), items[1].task.as_str()), ("mmstar/1", "math"));
        assert_eq!(right(&items), ["B. blue", "A. a cup", "D. "]);
        assert_eq!(widths(&items), [4, 8, 12]);
        assert_eq!(
            items[0].prompt,
            "Which colour?\nOptions: A: red, B: blue, C: grey, D: nan\n\
             Please select the correct answer from the options above."
        );
        assert!(benchmark.circular().is_err(), "options in the text cannot move");
    }
    let mut wrong = mmstar(pictures(&[4, 8, 12]));
    wrong[3].1 = texts(&["B", "E", "D"]);
    assert_parts(&refusal(&wrong), &["`answer`", "0000.bin, row 2", "A, B, C, D", "got       E"]);
}

#[test]
fn mmbench_has_a_column_an_option_and_rotations_of_its_own() {
    let columns = [
        ("index", Column::Int64(vec![241, 252, 1_000_241])),
        ("question", texts(&["Which?", "Who?", "Which?"])),
        ("hint", texts(&["Look twice.", "nan", "Look twice."])),
        ("answer", texts(&["A", "B", "B"])),
        ("A", texts(&["cup", "Ann", "dog"])),
        ("B", texts(&["dog", "Bob", "cup"])),
        ("C", texts(&["nan", "Cid", "nan"])),
        ("D", Column::Text(vec![None, None, None])),
        ("category", texts(&["identity_reasoning", "ocr", "identity_reasoning"])),
        ("image", pictures(&[4, 8, 12])),
        ("source", texts(&["a", "b", "a"])),
        ("L2-category", texts(&["x", "y", "x"])),
        ("comment", texts(&["nan", "nan", "nan"])),
        ("split", texts(&["dev", "dev", "dev"])),
    ];
    let (_place, benchmark) = read(&columns);
    assert_eq!((benchmark.layout(), benchmark.count()), (Layout::Mmbench, 2));
    let plain = items(&benchmark);
    assert!(plain[0].prompt.starts_with("Hint: Look twice.\nQuestion: Which?\nOptions:\nA. cup\nB. dog\nPlease"));
    assert!(plain[1].prompt.starts_with("Question: Who?\nOptions:\nA. Ann\nB. Bob\nC. Cid\nPlease"));
    let circular = benchmark.circular().unwrap();
    let all = items(&circular);
    let ids: Vec<&str> = all.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["mmbench/241/r0", "mmbench/241/r1", "mmbench/252/r0", "mmbench/252/r1", "mmbench/252/r2"]);
    assert_eq!(right(&all), ["A. cup", "B. cup", "B. Bob", "A. Bob", "C. Bob"]);
    assert_eq!(widths(&all), [4, 4, 8, 8, 8], "an order shows the picture of its question");
    assert_eq!(all[1].task, "identity_reasoning");
}

#[test]
fn scienceqa_without_a_picture_is_counted_and_not_asked() {
    let list = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
    let columns = |answers: Vec<i32>| {
        vec![
            ("image", pictures(&[0, 8, 0, 12, 16])),
            ("question", texts(&["a?", "b?", "c?", "d?", "e?"])),
            (
                "choices",
                Column::List(vec![
                    list(&["x", "y"]),
                    list(&["p", "q", "r"]),
                    list(&["x", "y"]),
                    list(&["u", "v"]),
                    list(&["s", "t"]),
                ]),
            ),
            ("answer", Column::Int8(answers)),
            ("hint", texts(&["", "Look twice.", "", "", ""])),
            ("task", texts(&["closed choice"; 5])),
            (
                "subject",
                texts(&["natural science", "social science", "natural science", "natural science", "natural science"]),
            ),
        ]
    };
    let (_place, benchmark) = read(&columns(vec![0, 2, 1, 0, 1]));
    assert_eq!(benchmark.layout(), Layout::Scienceqa);
    assert_eq!(benchmark.left_out().get(&LeftOut::NoPicture), Some(&2));
    let items = items(&benchmark);
    let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["scienceqa/1", "scienceqa/3", "scienceqa/4"]);
    assert_eq!(right(&items), ["C. r", "A. u", "B. t"]);
    assert_eq!(widths(&items), [8, 12, 16]);
    assert!(items[0].prompt.starts_with("Hint: Look twice.\nQuestion: b?\nOptions:\nA. p\nB. q\nC. r\n"));
    assert!(items[1].prompt.starts_with("Question: d?"));
    assert_eq!(items[0].task, "social science");
    let message = refusal(&columns(vec![0, 2, 1, 2, 1]));
    assert_parts(&message, &["`answer`", "0000.bin, row 4", "from 0 to 1", "got       2"]);
}

fn pope(first: u32) -> Vec<(&'static str, Column)> {
    vec![
        ("id", texts(&["0", "1", "2"])),
        ("question_id", texts(&["1", "2", "1"])),
        ("question", texts(&["Is there a dog?", "Is there a cat?", "Is there a cup?"])),
        ("answer", texts(&["yes", "no", "no"])),
        ("image_source", texts(&["a", "b", "c"])),
        ("image", pictures(&[first, first + 4, first + 8])),
        ("category", texts(&["adversarial", "adversarial", "popular"])),
    ]
}

#[test]
fn pope_asks_for_yes_or_no_in_categories_that_number_their_questions_anew() {
    let (_place, benchmark) = read(&pope(4));
    assert_eq!(benchmark.layout(), Layout::Pope);
    let items = items(&benchmark);
    let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["pope/adversarial/1", "pope/adversarial/2", "pope/popular/1"]);
    assert_eq!(items[1].expected, Expected::YesNo { yes: false });
    assert_eq!((items[2].task.as_str(), items[2].picture.width), ("popular", 12));
    let mut wrong = pope(4);
    wrong[3].1 = texts(&["yes", "no", "maybe"]);
    assert_parts(&refusal(&wrong), &["`answer`", "row 3", "yes or no", "got       maybe"]);
}

#[test]
fn files_of_a_folder_are_one_benchmark() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str| place.path().join(name);
    let mut second = pope(16);
    second[1].1 = texts(&["3", "4", "2"]);
    write(&file("test-00001-of-00002.parquet"), &second);
    write(&file("test-00000-of-00002.parquet"), &pope(4));
    fs::write(file("README.md"), "# POPE").unwrap();
    let benchmark = open(place.path()).unwrap();
    assert_eq!(widths(&items(&benchmark)), [4, 8, 12, 16, 20, 24]);
    // Pictures do not depend on the order in which they are asked for.
    for index in [5, 0, 4, 4, 1, 3, 2] {
        assert_eq!(benchmark.item(index).unwrap().picture.width, 4 + 4 * index);
    }
    let Origin::Benchmark { layout, sha256, items, .. } = benchmark.origin() else { panic!("not of a benchmark") };
    assert_eq!((layout, sha256.len(), items), (Layout::Pope, 2, 6));

    write(&file("train-00000-of-00001.parquet"), &pope(4));
    let message = open(place.path()).err().unwrap().to_string();
    assert_parts(&message, &["files of several splits", "test, train"]);
    fs::remove_file(file("train-00000-of-00001.parquet")).unwrap();
    write(&file("test-00002-of-00002.parquet"), &mmstar(pictures(&[4, 8, 12])));
    let message = open(place.path()).err().unwrap().to_string();
    assert_parts(&message, &["files with other columns", "test-00002-of-00002.parquet", "question_id"]);
    fs::copy(file("test-00000-of-00002.parquet"), file("test-00002-of-00002.parquet")).unwrap();
    let message = open(place.path()).err().unwrap().to_string();
    assert_parts(&message, &["two rows have the same name", "`adversarial/1` in rows 1 and 7"]);
}

/// MMMU-Pro's standard form: what the options say, and which of the first two pictures are there.
fn mmmu(question: &str, options: &str, there: [u32; 2]) -> Vec<(&'static str, Column)> {
    let mut columns = vec![
        ("id", texts(&["test_History_1"])),
        ("question", texts(&[question])),
        ("options", texts(&[options])),
        ("explanation", texts(&["?"])),
        ("image_1", pictures(&there[..1])),
        ("image_2", pictures(&there[1..])),
    ];
    columns.extend(["image_3", "image_4", "image_5", "image_6", "image_7"].map(|name| (name, pictures(&[0]))));
    columns.extend([("answer", texts(&["B"])), ("subject", texts(&["History"]))]);
    columns
}

#[test]
fn mmmu_pro_lists_its_options_as_python_and_may_show_one_picture() {
    for (question, there, width) in
        [("Who? <image 1>", [8, 0], 8), ("Who? <image 2>", [8, 12], 12), ("Who?", [0, 12], 12)]
    {
        let (_place, benchmark) = read(&mmmu(question, r#"['Ann', "Bob's cat", 'Cid']"#, there));
        assert_eq!(benchmark.layout(), Layout::MmmuPro);
        let items = items(&benchmark);
        assert_eq!((items[0].id.as_str(), items[0].task.as_str()), ("mmmu-pro/test_History_1", "History"));
        assert_eq!((right(&items), widths(&items)), (vec!["B. Bob's cat".to_owned()], vec![width]));
        assert!(
            items[0].prompt.starts_with(&format!("Question: {question}\nOptions:\nA. Ann\nB. Bob's cat\nC. Cid\n"))
        );
        assert_eq!(benchmark.circular().unwrap().count(), 3);
    }
    for (question, options, there, reason) in [
        ("<image 1> and <image 2>?", "['x', 'y']", [8, 12], "1 with several pictures"),
        ("Which?", "['<image 1>', '<image 2>']", [8, 12], "1 with several pictures"),
        ("Which?", "['x', 'y']", [8, 12], "1 with several pictures"),
        ("<image 1>?", "['x', 'y']", [0, 12], "1 without a picture"),
        ("Which?", "['x', 'y']", [0, 0], "1 without a picture"),
    ] {
        assert_parts(&refusal(&mmmu(question, options, there)), &["no row of the benchmark can be asked", reason]);
    }
    let message = refusal(&mmmu("Who? <image 1>", "['Ann' 'Bob']", [8, 0]));
    assert_parts(
        &message,
        &["`options`", "row 1", "a Python list", "`'` in place of `]`, at character 8", "['Ann' 'Bob']"],
    );
    let message = refusal(&mmmu("Who? <image 1>", "['Ann']", [8, 0]));
    assert_parts(&message, &["`answer`", "the letter of an option: A", "got       B"]);
}

#[test]
fn mmmu_pro_in_the_picture_is_asked_with_a_prompt_of_its_own() {
    let columns = [
        ("id", texts(&["test_History_1", "test_History_2"])),
        ("image", pictures(&[8, 0])),
        ("options", texts(&["['Ann', 'Bob']", "['Ann', 'Bob']"])),
        ("answer", texts(&["B", "A"])),
        ("subject", texts(&["History", "History"])),
    ];
    let (_place, benchmark) = read(&columns);
    assert_eq!(benchmark.layout(), Layout::MmmuPro);
    assert_eq!(benchmark.left_out().get(&LeftOut::NoPicture), Some(&1));
    let items = items(&benchmark);
    assert_eq!(right(&items), ["B. Bob"]);
    assert!(items[0].prompt.starts_with("Answer the following multiple-choice question in the image."));
    assert!(benchmark.circular().is_err());
}

#[test]
fn mmvp_may_be_a_parquet_file() {
    let columns = [
        // A number that pandas has made a floating-point one.
        ("Index", Column::Double(vec![Some(1.0), Some(2.0)])),
        ("Question", texts(&["Open or closed?", "Open or closed?"])),
        ("Options", texts(&["(a) Open (b) Closed", "(a) Open (b) Closed"])),
        ("Correct Answer", texts(&["(a)", "(b)"])),
        ("image", pictures(&[4, 8])),
    ];
    let (_place, benchmark) = read(&columns);
    assert_eq!(benchmark.layout(), Layout::Mmvp);
    let items = items(&benchmark);
    assert_eq!(items[1].id, "mmvp/2");
    assert_eq!((right(&items), widths(&items)), (vec!["A. Open".to_owned(), "B. Closed".to_owned()], vec![4, 8]));
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("pope.parquet");
    write(&path, &pope(4));
    let bytes = fs::read(&path).unwrap();
    for length in [4, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let message = open(&path).err().unwrap().to_string();
        assert_parts(&message, &["a parquet file cannot be read", "pope.parquet", "cut short"]);
    }
}

#[test]
fn a_row_that_cannot_be_used_is_named_in_its_own_file() {
    let place = tempfile::tempdir().unwrap();
    let mut second = pope(16);
    second[1].1 = texts(&["3", "4", "2"]);
    second[3].1 = texts(&["yes", "neither", "no"]);
    write(&place.path().join("a.parquet"), &pope(4));
    write(&place.path().join("b.parquet"), &second);
    assert_parts(&open(place.path()).err().unwrap().to_string(), &["b.parquet, row 2", "got       neither"]);
}

#[test]
fn a_column_of_another_type_is_named() {
    let mut columns = pope(4);
    columns[1].1 = Column::Time(vec![1, 2, 3]);
    assert_parts(&refusal(&columns), &["the column `question_id` cannot be used", "0000.bin", "INT64"]);
    columns[1].1 = Column::List(vec![vec!["1".into()], vec!["2".into(), "3".into()], vec!["4".into()]]);
    assert_parts(&refusal(&columns), &["`question_id`", "row 1", "a text", "a list"]);
}

#[test]
fn what_is_no_picture_is_named_with_its_row() {
    let mut columns = pope(4);
    columns[5].1 = Column::Picture(vec![Some(picture(4)), Some(picture(8)), Some(b"not a picture".to_vec())]);
    let (_place, benchmark) = read(&columns);
    assert_eq!(benchmark.item(1).unwrap().picture.width, 8);
    assert_parts(&benchmark.item(2).err().unwrap().to_string(), &["0000.bin, row 3", "is not a picture"]);
    // The next one is read all the same.
    assert_eq!(benchmark.item(0).unwrap().picture.width, 4);
}

#[test]
fn an_unknown_layout_says_which_columns_hold_pictures() {
    let text = picture_as_text(8);
    let columns = [("question", texts(&["a?"])), ("photo", pictures(&[4])), ("image", texts(&[&text]))];
    assert_parts(&refusal(&columns), &["question, photo (pictures), image\n", "vlmevalkit", "scienceqa"]);
    let mut missing = pope(4);
    missing.remove(3);
    assert_parts(&refusal(&missing), &["the columns are those of no benchmark", "question_id"]);
}
