//! VLMEvalKit's TSV.
//!
//! From VLMEvalKit at e8e78f05: `vlmeval/dataset/image_base.py` (`ImageBaseDataset.__init__`, `dump_image`),
//! `image_mcq.py` (`build_prompt`), `image_yorn.py`, `vlmeval/smp/misc.py` (`toliststr`), `docs/en/Development.md`:
//!
//! - `index` names a row. `image` is a picture in base64, or, where it has at most 64 characters, the index of the row whose
//!   picture is shown. Without the column, `image_path` names a file. Either may be a Python list of several.
//! - Rows whose `image` is missing are not asked.
//! - Columns `A` to `Z` that are not empty are options, and `answer` is a letter. Without options `answer` is `Yes` or `No`,
//!   or the question is open.
//! - `hint`, `category`, `l2-category` and `split` may be missing; so may values, which pandas reads as NaN.
//!
//! VLMEvalKit looks for files of `image_path` in its own folder of pictures; here they are searched beside the TSV, in
//! `images` there and in the folder of `images` with the TSV's name, which is how that folder is laid out.

use super::base64::{self, Texts};
use super::options::{self, LETTERS};
use super::question::{Answer, Asked, LeftOut, Place, Question, Questions, Read, task};
use super::table::{Row, Spot, Table, place};
use crate::error::{Error, Result, Unusable};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Values of `image` up to this length are the index of another row.
const LONGEST_INDEX: usize = 64;
/// Columns besides those of options.
const COLUMNS: [&str; 10] =
    ["index", "question", "hint", "answer", "category", "l2-category", "L2-category", "split", "image", "image_path"];

/// What a row shows.
#[derive(Clone)]
enum Shown {
    One(Place),
    /// The picture of the row with this index.
    As(String),
    Several,
    Nothing,
}

struct Draft {
    index: String,
    spot: Spot,
    asked: Asked,
    shown: Shown,
}

/// Reads all rows.
pub(super) fn read(table: &dyn Table) -> Result<Questions> {
    let columns = [&COLUMNS[..], &LETTERS].concat();
    let embedded = table.columns().iter().any(|column| column == "image");
    let mut drafts = Vec::new();
    table.each_row(&columns, &mut |row| {
        let shown = if embedded { in_cell(row)? } else { in_file(row)? };
        let index = row.text("index")?.trim().to_owned();
        let asked = match shown {
            Shown::Nothing => Err(LeftOut::NoPicture),
            Shown::Several => Err(LeftOut::SeveralPictures),
            Shown::One(_) | Shown::As(_) => question(row, "image")?,
        };
        drafts.push(Draft { index, spot: row.spot, asked, shown });
        Ok(())
    })?;
    let shown = resolved(table, &drafts)?;
    let mut found = Questions::default();
    for (draft, shown) in drafts.into_iter().zip(shown) {
        found.add(match shown {
            Shown::One(picture) => draft.asked.map(|question| Question { picture, ..question }),
            // Also by way of another row.
            Shown::Several => Err(LeftOut::SeveralPictures),
            Shown::Nothing | Shown::As(_) => Err(LeftOut::NoPicture),
        });
    }
    Ok(found)
}

/// A row's question, with the picture in its own cell.
pub(super) fn question(row: &Row, column: &str) -> Result<Asked> {
    let index = row.text("index")?.trim();
    let Some(said) = row.maybe("answer") else {
        return Ok(Err(LeftOut::NoAnswer));
    };
    let texts = options::of_columns(row);
    let answer = match said.trim().to_lowercase().as_str() {
        _ if !texts.is_empty() => {
            Answer::Option { right: options::right(row, "answer", &texts)?, texts, read: Read::Below }
        }
        "yes" => Answer::YesNo(true),
        "no" => Answer::YesNo(false),
        _ => return Ok(Err(LeftOut::OpenQuestion)),
    };
    Ok(Ok(Question {
        id: index.to_owned(),
        index: index.parse().ok(),
        number: row.number,
        task: task(row, &["category", "l2-category", "L2-category", "split"], "all"),
        text: row.text("question")?.to_owned(),
        hint: row.maybe("hint").map(str::to_owned),
        answer,
        picture: Place::Cell(row.spot, column.to_owned()),
    }))
}

/// What the column `image` shows. A picture is decoded from its text here, so that a file that is damaged is refused before
/// the first question and not in the middle of a run.
fn in_cell(row: &Row) -> Result<Shown> {
    let Some(cell) = row.maybe("image") else {
        return Ok(Shown::Nothing);
    };
    let expected = "a picture in base64, or the index of another row";
    let bad = |got: String| row.unusable("image", expected, &got);
    match base64::texts(cell).map_err(bad)? {
        Texts::Many(0) => Ok(Shown::Nothing),
        Texts::Many(_) => Ok(Shown::Several),
        Texts::One(text) if text.len() <= LONGEST_INDEX => Ok(Shown::As(text)),
        Texts::One(text) => match base64::decode(&text) {
            Ok(_) => Ok(Shown::One(Place::Cell(row.spot, "image".to_owned()))),
            Err(error) => Err(bad(format!("{text:.24}...: {error}"))),
        },
    }
}

/// What the column `image_path` shows.
fn in_file(row: &Row) -> Result<Shown> {
    let Some(cell) = row.maybe("image_path") else {
        return Ok(Shown::Nothing);
    };
    let bad = |got: String| row.unusable("image_path", "the path of a picture", &got);
    match base64::texts(cell).map_err(bad)? {
        Texts::Many(0) => Ok(Shown::Nothing),
        Texts::Many(_) => Ok(Shown::Several),
        Texts::One(name) => {
            let own = row.path.file_stem().unwrap_or_default();
            let missing = || bad(format!("no {name} beside the table, in images or in images/{} there", own.display()));
            let file = places(row.path, &name).into_iter().find(|place| place.is_file());
            Ok(Shown::One(Place::File(file.ok_or_else(missing)?)))
        }
    }
}

/// Where a picture of this name may be.
fn places(table: &Path, name: &str) -> [PathBuf; 3] {
    let folder = table.parent().unwrap_or(Path::new(""));
    let images = folder.join("images");
    let own = images.join(table.file_stem().unwrap_or_default());
    [folder.join(name), images.join(name), own.join(name)]
}

/// Gives rows that show another row's picture that picture.
///
/// # Errors
/// Where there is no such row, or it does not show a picture itself.
fn resolved(table: &dyn Table, drafts: &[Draft]) -> Result<Vec<Shown>> {
    let own = drafts.iter().filter(|draft| !matches!(draft.shown, Shown::As(_) | Shown::Nothing));
    let mut shown: HashMap<&str, &Shown> = own.map(|draft| (draft.index.as_str(), &draft.shown)).collect();
    let mut all = Vec::with_capacity(drafts.len());
    for draft in drafts {
        all.push(match &draft.shown {
            Shown::As(other) => {
                let found = *shown.get(other.trim()).ok_or_else(|| no_such_row(table, draft, other))?;
                // In the order of the rows: a later row may name this one.
                shown.insert(&draft.index, found);
                found.clone()
            }
            own => own.clone(),
        });
    }
    Ok(all)
}

fn no_such_row(table: &dyn Table, draft: &Draft, other: &str) -> Error {
    let path = table.files().get(draft.spot.file).map_or(Path::new(""), PathBuf::as_path);
    Unusable {
        what: "`image` names no row with a picture".to_owned(),
        place: place(path, draft.spot.row),
        expected: format!(
            "a picture in base64 of more than {LONGEST_INDEX} characters, or the index of a row with one"
        ),
        got: other.to_owned(),
        hint: "put the picture, or the index of the row that has it, there in a copy of the file".to_owned(),
    }
    .into()
}
