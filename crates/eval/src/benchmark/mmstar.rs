//! MMStar's parquet file.
//!
//! From lmms-eval at 75571cfe, `lmms_eval/tasks/mmstar/utils.py`: `index`, `question` with the options inside its text,
//! `image`, `answer` (`A` to `D`), `category` and `l2_category`. Readers of the published `mmstar.parquet` find in `image`
//! the bytes themselves, not the group that `datasets` writes; both are read. The options stand in several forms
//! (`Options: A: red, B: blue`, `Choices:` with `(A) red`), so their texts are known only where they are found; the letter
//! alone always decides where they are not.

use super::options::{in_text, index_of};
use super::question::{Answer, Asked, LeftOut, Place, Question, Questions, Read, task};
use super::table::{Row, Table};
use crate::Result;

/// Options of a question whose options are not found in its text.
const OPTIONS: usize = 4;

/// Reads all rows.
pub(super) fn read(table: &dyn Table) -> Result<Questions> {
    Questions::of(table, &["index", "question", "answer", "category", "l2_category", "image"], question)
}

fn question(row: &Row) -> Result<Asked> {
    if !row.has_picture("image") {
        return Ok(Err(LeftOut::NoPicture));
    }
    let Some(said) = row.maybe("answer") else {
        return Ok(Err(LeftOut::NoAnswer));
    };
    let (text, index) = (row.text("question")?, row.text("index")?.trim());
    let mut texts = in_text(text);
    // An option that the source had not.
    texts.iter_mut().filter(|text| text.as_str() == "nan").for_each(String::clear);
    let right = index_of(said).filter(|index| *index < OPTIONS.max(texts.len()));
    let right = right.ok_or_else(|| row.unusable("answer", "the letter of an option: A, B, C, D", said))?;
    if texts.get(right).is_none_or(String::is_empty) {
        texts = vec![String::new(); OPTIONS.max(right + 1)];
    }
    Ok(Ok(Question {
        id: index.to_owned(),
        index: None,
        number: row.number,
        task: task(row, &["category", "l2_category"], "all"),
        text: text.to_owned(),
        hint: None,
        answer: Answer::Option { texts, right, read: Read::InText },
        picture: Place::Cell(row.spot, "image".to_owned()),
    }))
}
