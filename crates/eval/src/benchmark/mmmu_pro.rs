//! MMMU-Pro's parquet files: the standard form, and the vision form, whose question is in the picture.
//!
//! From lmms-eval at 75571cfe, `lmms_eval/tasks/mmmu_pro/utils.py`, and VLMEvalKit at e8e78f05, `MMMUProDataset`: `id`,
//! `options` (the text of a Python list), `answer` (a letter), `subject`; the standard form has `question` and `image_1` to
//! `image_7`, and shows those that question and options speak of as `<image 1>`; the vision form has `image` and no
//! `question`.

use super::options;
use super::python;
use super::question::{Answer, Asked, LeftOut, Place, Question, Questions, Read, task};
use super::table::{Row, Table};
use crate::Result;

/// Columns of pictures in the standard form.
const PICTURES: [&str; 7] = ["image_1", "image_2", "image_3", "image_4", "image_5", "image_6", "image_7"];

/// Reads all rows.
pub(super) fn read(table: &dyn Table) -> Result<Questions> {
    let columns = [&["id", "question", "options", "answer", "subject", "image"][..], &PICTURES].concat();
    let read = if table.columns().iter().any(|column| column == "question") { Read::Below } else { Read::InPicture };
    Questions::of(table, &columns, |row| question(row, read))
}

fn question(row: &Row, read: Read) -> Result<Asked> {
    let listed = row.text("options")?;
    let texts = python::list(listed).map_err(|reason| {
        row.unusable("options", "a Python list of texts, such as ['a cup', 'a dog']", &format!("{reason}, in {listed}"))
    })?;
    let texts = options::of_list(row, "options", texts)?;
    let text = if read == Read::Below { row.text("question")? } else { "" };
    let column = match read {
        Read::Below => shown(row, text, &texts),
        _ if row.has_picture("image") => Ok("image"),
        _ => Err(LeftOut::NoPicture),
    };
    let column = match column {
        Ok(column) => column,
        Err(reason) => return Ok(Err(reason)),
    };
    if row.maybe("answer").is_none() {
        return Ok(Err(LeftOut::NoAnswer));
    }
    Ok(Ok(Question {
        id: row.text("id")?.trim().to_owned(),
        index: None,
        number: row.number,
        task: task(row, &["subject"], "all"),
        text: text.to_owned(),
        hint: None,
        answer: Answer::Option { right: options::right(row, "answer", &texts)?, texts, read },
        picture: Place::Cell(row.spot, column.to_owned()),
    }))
}

/// The column of the one picture that a question shows: the one it speaks of, else the only one there is.
fn shown(row: &Row, text: &str, texts: &[String]) -> std::result::Result<&'static str, LeftOut> {
    let speaks = |number: usize| {
        let mark = format!("<image {number}>");
        text.contains(&mark) || texts.iter().any(|text| text.contains(&mark))
    };
    let named = (1..).zip(PICTURES).filter(|(number, _)| speaks(*number));
    let named: Vec<&'static str> = named.map(|(_, name)| name).collect();
    let there: Vec<&'static str> = PICTURES.into_iter().filter(|name| row.has_picture(name)).collect();
    match (&named[..], &there[..]) {
        ([one], there) if there.contains(one) => Ok(*one),
        ([], [one]) => Ok(*one),
        ([_], _) | ([], []) => Err(LeftOut::NoPicture),
        _ => Err(LeftOut::SeveralPictures),
    }
}
