//! POPE's parquet files, as `lmms-lab/POPE` has them.
//!
//! From lmms-eval at 75571cfe, `lmms_eval/tasks/pope/utils.py` and `pope.yaml` (`question_id`, `question`, `answer` `yes` or
//! `no`, `image`, and a split or `category` `adversarial`, `popular` or `random`). `question_id` begins anew in each
//! category, so the category is part of an item's name.

use super::question::{Answer, Asked, LeftOut, Place, Question, Questions, task};
use super::table::{Row, Table};
use crate::Result;

/// Reads all rows.
pub(super) fn read(table: &dyn Table) -> Result<Questions> {
    Questions::of(table, &["question_id", "question", "answer", "category", "image"], question)
}

fn question(row: &Row) -> Result<Asked> {
    if !row.has_picture("image") {
        return Ok(Err(LeftOut::NoPicture));
    }
    let Some(said) = row.maybe("answer") else {
        return Ok(Err(LeftOut::NoAnswer));
    };
    let yes = match said.trim().to_lowercase().as_str() {
        "yes" => true,
        "no" => false,
        _ => return Err(row.unusable("answer", "yes or no", said)),
    };
    let task = task(row, &["category"], "all");
    Ok(Ok(Question {
        id: format!("{task}/{}", row.text("question_id")?.trim()),
        index: None,
        number: row.number,
        task,
        text: row.text("question")?.trim().to_owned(),
        hint: None,
        answer: Answer::YesNo(yes),
        picture: Place::Cell(row.spot, "image".to_owned()),
    }))
}
