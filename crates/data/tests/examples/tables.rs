//! Parquet files as Hugging Face `datasets` writes them: pictures inside, nested turns.

use super::super::{asked, png, read};
use lare_data::PictureAt;
use lare_data::chat::{Message, Part, Role};
use lare_data::examples::{Album, Reading, Samples};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Values of a leaf with their definition and repetition levels.
type Leaf = (Vec<Vec<u8>>, Vec<i16>, Vec<i16>);

fn write(path: &Path, schema: &str, groups: &[Vec<Leaf>]) -> PathBuf {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    for leaves in groups {
        let mut group = writer.next_row_group().unwrap();
        leaves.iter().for_each(|leaf| column(&mut group, leaf));
        group.close().unwrap();
    }
    writer.close().unwrap();
    path.to_owned()
}

fn column(group: &mut SerializedRowGroupWriter<File>, (values, defined, repeated): &Leaf) {
    let values: Vec<ByteArray> = values.iter().map(|value| ByteArray::from(value.clone())).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&values, Some(defined), Some(repeated)).unwrap();
    column.close().unwrap();
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn widths(pictures: &[PictureAt]) -> Vec<usize> {
    let album = Album::default();
    pictures.iter().map(|at| album.open(at).unwrap().width).collect()
}

const QUESTIONS: &str = "message schema {
    OPTIONAL GROUP image { OPTIONAL BINARY bytes; OPTIONAL BINARY path (STRING); }
    OPTIONAL BINARY question (STRING);
    OPTIONAL BINARY answer (STRING);
}";

#[test]
fn a_row_is_a_sample_with_the_picture_inside_or_beside() {
    let place = tempfile::tempdir().unwrap();
    let group = |first: u32, shade: u8| -> Vec<Leaf> {
        vec![
            (vec![png(first, 10, shade), png(first + 1, 10, shade)], vec![2, 2, 1], vec![0; 3]),
            (texts(&["x.png"]), vec![1, 1, 2], vec![0; 3]),
            (texts(&["What?", "Who?", "Which?"]), vec![1; 3], vec![0; 3]),
            (texts(&["A cat.", "Ann.", "Red."]), vec![1; 3], vec![0; 3]),
        ]
    };
    let path = write(&place.path().join("a.parquet"), QUESTIONS, &[group(20, 1), group(30, 2)]);
    let examples = read(&path).unwrap();
    assert_eq!(examples.len(), 6);
    assert_eq!((&examples[1].messages[..], examples[1].answer.as_str()), (&[asked("Who?")][..], "Ann."));
    assert!(examples[4].origin.to_string().ends_with("a.parquet, row 5"), "{}", examples[4].origin);
    let inside: Vec<usize> = [0, 1, 3, 4].iter().flat_map(|row| widths(&examples[*row].pictures)).collect();
    assert_eq!(inside, [20, 21, 30, 31]);
    assert_eq!(examples[2].pictures, [PictureAt::File(place.path().join("x.png"))]);
    // In any order, with one album, from several threads.
    let album = Album::default();
    std::thread::scope(|scope| {
        for turn in 0..4 {
            let (album, examples) = (&album, &examples);
            scope.spawn(move || {
                for number in 0..40 {
                    let (row, width) = [(4, 31), (0, 20), (3, 30), (1, 21)][(number + turn) % 4];
                    assert_eq!(album.open(&examples[row].pictures[0]).unwrap().width, width);
                }
            });
        }
    });
}

#[test]
fn turns_and_pictures_can_be_lists() {
    let place = tempfile::tempdir().unwrap();
    let schema = "message schema {
        OPTIONAL GROUP images (LIST) { REPEATED GROUP list { OPTIONAL GROUP element { OPTIONAL BINARY bytes; OPTIONAL BINARY path (STRING); } } }
        OPTIONAL GROUP messages (LIST) { REPEATED GROUP list { OPTIONAL GROUP element {
            OPTIONAL GROUP content (LIST) { REPEATED GROUP list { OPTIONAL GROUP element { OPTIONAL BINARY text (STRING); OPTIONAL BINARY type (STRING); } } }
            OPTIONAL BINARY role (STRING);
        } } }
    }";
    // Row 1: two pictures, and user [image, text, image], assistant [text]. Row 2: one picture; user [image, text], assistant [text].
    let leaves: Vec<Leaf> = vec![
        (vec![png(20, 10, 1), png(21, 10, 1), png(22, 10, 1)], vec![4; 3], vec![0, 1, 0]),
        (vec![], vec![3; 3], vec![0, 1, 0]),
        (texts(&["Same?", "No.", "What?", "A cat."]), vec![6, 7, 6, 7, 6, 7, 7], vec![0, 2, 2, 1, 0, 2, 1]),
        (texts(&["image", "text", "image", "text", "image", "text", "text"]), vec![7; 7], vec![0, 2, 2, 1, 0, 2, 1]),
        (texts(&["user", "assistant", "user", "assistant"]), vec![4; 4], vec![0, 1, 0, 1]),
    ];
    let examples = read(&write(&place.path().join("a.parquet"), schema, &[leaves])).unwrap();
    let between = Message::new(Role::User, vec![Part::Picture, Part::Text("Same?".into()), Part::Picture]);
    assert_eq!((&examples[0].messages[..], examples[0].answer.as_str()), (&[between][..], "No."));
    assert_eq!(examples[1].messages, [asked("What?")]);
    assert_eq!((widths(&examples[0].pictures), widths(&examples[1].pictures)), (vec![20, 21], vec![22]));
}

#[test]
fn columns_that_no_sample_has_are_not_read_and_a_table_without_the_others_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let schema = |answer: &str| {
        format!(
            "message schema {{ OPTIONAL BINARY when (BSON); OPTIONAL GROUP photo {{ OPTIONAL BINARY bytes; }} OPTIONAL GROUP odd (MAP) {{ REPEATED GROUP key_value {{ REQUIRED BINARY key; OPTIONAL BINARY value; }} }} OPTIONAL BINARY question (STRING); OPTIONAL BINARY {answer} (STRING); }}"
        )
    };
    let leaves: Vec<Leaf> = vec![
        (vec![vec![0xff]], vec![1], vec![0]),
        (vec![png(20, 10, 1)], vec![2], vec![0]),
        (texts(&["k"]), vec![2], vec![0]),
        (texts(&["v"]), vec![3], vec![0]),
        (texts(&["What?"]), vec![1], vec![0]),
        (texts(&["A cat."]), vec![1], vec![0]),
    ];
    let path = write(&place.path().join("a.parquet"), &schema("answer"), std::slice::from_ref(&leaves));
    let examples = read(&path).unwrap();
    assert_eq!((&examples[0].messages[..], widths(&examples[0].pictures)), (&[asked("What?")][..], vec![20]));
    let path = write(&place.path().join("b.parquet"), &schema("label"), &[leaves]);
    let message = read(&path).unwrap_err().to_string();
    assert!(message.contains("the columns when, photo, odd, question, label"), "{message}");
}

#[test]
fn a_damaged_table_and_files_of_two_splits_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let leaves: Vec<Leaf> = vec![
        (vec![png(20, 10, 1)], vec![2], vec![0]),
        (vec![], vec![1], vec![0]),
        (texts(&["What?"]), vec![1], vec![0]),
        (texts(&["A cat."]), vec![1], vec![0]),
    ];
    let path = write(&place.path().join("train-00000-of-00001.parquet"), QUESTIONS, &[leaves]);
    let bytes = std::fs::read(&path).unwrap();
    let cut = place.path().join("cut.bin");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let message = read(&cut).unwrap_err().to_string();
    assert!(message.contains("cut.bin") && message.contains("a whole parquet file"), "{message}");
    std::fs::copy(&path, place.path().join("test-00000-of-00001.parquet")).unwrap();
    let message = Samples::open(place.path(), Reading::default()).unwrap_err().to_string();
    assert!(message.contains("test, train"), "{message}");
}
