//! ScienceQA's parquet files.
//!
//! From the card of `derek-thomas/ScienceQA` (`image`, `question`, `choices` a sequence of texts, `answer` an int8, `hint`,
//! `task`, `grade`, `subject`, `topic`, `category`, `skill`, `lecture`, `solution`) and lmms-eval at 75571cfe,
//! `lmms_eval/tasks/scienceqa/utils.py`: `answer` counts the choices from 0, `image` may be missing, an empty `hint` is none.
//! More than half of the questions have no picture; they are counted and not asked.

use super::options;
use super::question::{Answer, Asked, LeftOut, Place, Question, Questions, Read, task};
use super::table::{Row, Table};
use crate::Result;

/// Reads all rows. They have no names of their own: their number, from 0, is theirs.
pub(super) fn read(table: &dyn Table) -> Result<Questions> {
    Questions::of(table, &["question", "choices", "answer", "hint", "subject", "topic", "image"], question)
}

fn question(row: &Row) -> Result<Asked> {
    if !row.has_picture("image") {
        return Ok(Err(LeftOut::NoPicture));
    }
    let Some(said) = row.maybe("answer") else {
        return Ok(Err(LeftOut::NoAnswer));
    };
    let texts = options::of_list(row, "choices", row.list("choices")?.to_vec())?;
    let offered = |right: &usize| texts.get(*right).is_some_and(|text| !text.is_empty());
    let right = said.trim().parse().ok().filter(offered);
    let right = right.ok_or_else(|| {
        row.unusable("answer", &format!("the number of a choice, from 0 to {}", texts.len().saturating_sub(1)), said)
    })?;
    Ok(Ok(Question {
        id: row.number.to_string(),
        index: None,
        number: row.number,
        task: task(row, &["subject", "topic"], "all"),
        text: row.text("question")?.to_owned(),
        hint: row.maybe("hint").map(str::to_owned),
        answer: Answer::Option { texts, right, read: Read::Below },
        picture: Place::Cell(row.spot, "image".to_owned()),
    }))
}
