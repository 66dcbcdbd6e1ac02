//! MMBench's parquet files, as `lmms-lab/MMBench` has them.
//!
//! From lmms-eval at 75571cfe, `lmms_eval/tasks/mmbench/en_utils.py` and `mmbench_evals.py`: `index` (a number; rows from
//! 1000000 on are rotations), `question`, `hint`, `A` to `E` (a missing one may be the text `nan`), `answer` (a letter),
//! `category`, `L2-category`, `split`, `source` and `image`. The test split has no answers.

use super::options::LETTERS;
use super::question::{LeftOut, Questions};
use super::table::Table;
use super::vlmevalkit::question;
use crate::Result;

/// Reads all rows: but for the picture they are VLMEvalKit's.
pub(super) fn read(table: &dyn Table) -> Result<Questions> {
    let columns = ["index", "question", "hint", "answer", "category", "L2-category", "l2-category", "split", "image"];
    let columns = [&columns[..], &LETTERS].concat();
    Questions::of(table, &columns, |row| {
        if row.has_picture("image") { question(row, "image") } else { Ok(Err(LeftOut::NoPicture)) }
    })
}
