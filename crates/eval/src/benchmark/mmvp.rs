//! MMVP: a CSV beside a folder of pictures, or a parquet file with them.
//!
//! From MMVP's `scripts/evaluate_mllm.py` (`Questions.csv` with `Question`, `Options`, `Correct Answer`; the picture of row
//! `n` is `n.jpg` in a folder beside it, called `MMVP Images` in the published data set) and lmms-eval at 75571cfe,
//! `lmms_eval/tasks/mmvp/utils.py` and `README.md`: `Index` counts from 1, `Options` is `(a) Open (b) Closed`,
//! `Correct Answer` is `(a)`, and pairs of rows 1 and 2, 3 and 4, ... ask the same about two pictures. The published CSV has
//! the answers of rows 99, 100, 279 and 280 swapped; lmms-eval's own copy of the data corrects them, this reader does not.

use super::files::entries;
use super::options::{in_brackets, index_of};
use super::question::{Answer, Asked, LeftOut, Place, Question, Questions, Read};
use super::table::{Row, Table};
use crate::Result;
use std::path::{Path, PathBuf};

/// What the files of pictures may end in, in lower or upper case.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// Reads all rows.
pub(super) fn read(table: &dyn Table) -> Result<Questions> {
    let embedded = !table.is_text();
    let folders = match table.files().first() {
        Some(file) if !embedded => folders(file)?,
        _ => Vec::new(),
    };
    let columns = ["Index", "Question", "Options", "Correct Answer", "image"];
    Questions::of(table, &columns, |row| {
        let number: u64 = row
            .text("Index")
            .and_then(|text| text.trim().parse().map_err(|_| row.unusable("Index", "a whole number", text)))?;
        let picture = match embedded {
            true if row.has_picture("image") => Place::Cell(row.spot, "image".to_owned()),
            true => return Ok(Err(LeftOut::NoPicture)),
            false => Place::File(picture(row, &folders, number)?),
        };
        question(row, number, picture)
    })
}

fn question(row: &Row, number: u64, picture: Place) -> Result<Asked> {
    let listed = row.text("Options")?;
    let texts = in_brackets(listed);
    if texts.is_empty() {
        return Err(row.unusable("Options", "at least two, as in `(a) Open (b) Closed`", listed));
    }
    let Some(said) = row.maybe("Correct Answer") else {
        return Ok(Err(LeftOut::NoAnswer));
    };
    let letter = said.trim().trim_start_matches('(').trim_end_matches(')').to_ascii_uppercase();
    let right = index_of(&letter).filter(|right| *right < texts.len());
    let right = right.ok_or_else(|| row.unusable("Correct Answer", "the letter of an option, as in `(a)`", said))?;
    Ok(Ok(Question {
        id: number.to_string(),
        index: None,
        number: row.number,
        task: "all".to_owned(),
        text: row.text("Question")?.trim().to_owned(),
        hint: None,
        answer: Answer::Option { texts, right, read: Read::Below },
        picture,
    }))
}

/// The folder of the CSV, and those in it.
fn folders(file: &Path) -> Result<Vec<PathBuf>> {
    // The parent of a bare file name is an empty path, which cannot be listed.
    let own = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let inner = entries(own)?.into_iter().filter(|entry| entry.is_dir());
    Ok([own.to_owned()].into_iter().chain(inner).collect())
}

/// The one picture whose name is the row's number.
fn picture(row: &Row, folders: &[PathBuf], number: u64) -> Result<PathBuf> {
    let names: Vec<String> = ENDINGS.iter().map(|ending| format!("{number}.{ending}")).collect();
    // The second case only where there is none of the first: some file systems do not tell them apart.
    let in_a_case = |folder: &PathBuf, name: &str| {
        let cases = [folder.join(name), folder.join(name.to_uppercase())];
        cases.into_iter().find(|path| path.is_file())
    };
    let found: Vec<PathBuf> =
        folders.iter().flat_map(|folder| names.iter().filter_map(move |name| in_a_case(folder, name))).collect();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => {
            Err(row.unusable("Index", &format!("a picture {} beside the CSV or in a folder there", names[0]), "none"))
        }
        [one, other, ..] => {
            let both = format!("{} and {}", one.display(), other.display());
            Err(row.unusable("Index", "one picture of this number", &both))
        }
    }
}
