//! Which layout a table has: it follows from its columns, never from its name.

use super::question::Questions;
use super::table::{Table, shortened};
use super::{mmbench, mmmu_pro, mmstar, mmvp, pope, scienceqa, vlmevalkit};
use crate::error::{Result, Unusable};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Layouts of benchmarks that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// A TSV with base64 pictures, as VLMEvalKit has all its benchmarks.
    Vlmevalkit,
    /// MMStar's parquet file.
    Mmstar,
    /// MMBench's parquet files.
    Mmbench,
    /// ScienceQA's parquet files.
    Scienceqa,
    /// POPE's parquet files.
    Pope,
    /// MMMU-Pro's parquet files, with options as text or in the picture.
    MmmuPro,
    /// MMVP's CSV beside a folder of pictures, or its parquet file.
    Mmvp,
}

impl Layout {
    /// All of them. Where a table fits several, the first is meant.
    pub const ALL: [Self; 7] =
        [Self::Vlmevalkit, Self::MmmuPro, Self::Mmvp, Self::Pope, Self::Scienceqa, Self::Mmbench, Self::Mmstar];

    /// The name in results and ids.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vlmevalkit => "vlmevalkit",
            Self::Mmstar => "mmstar",
            Self::Mmbench => "mmbench",
            Self::Scienceqa => "scienceqa",
            Self::Pope => "pope",
            Self::MmmuPro => "mmmu-pro",
            Self::Mmvp => "mmvp",
        }
    }

    /// Its columns, for people.
    fn columns(self) -> &'static str {
        match self {
            Self::Vlmevalkit => {
                "TSV or CSV with index, question, answer, image or image_path, and A, B, ... for options"
            }
            Self::Mmstar => "parquet with index, question, answer, category, l2_category, image",
            Self::Mmbench => "parquet with index, question, A, B, ..., answer, image",
            Self::Scienceqa => "parquet with question, choices, answer, hint, image",
            Self::Pope => "parquet with question_id, question, answer, category, image",
            Self::MmmuPro => "parquet with id, options, answer, subject, and question and image_1, or image",
            Self::Mmvp => "CSV with Index, Question, Options, Correct Answer; or parquet with these and image",
        }
    }

    fn fits(self, table: &dyn Table) -> bool {
        let has = |names: &[&str]| names.iter().all(|name| table.columns().iter().any(|column| column == name));
        let shows = |name: &str| table.pictures().iter().any(|column| column == name);
        match self {
            Self::Vlmevalkit => {
                table.is_text() && has(&["index", "question", "answer"]) && (has(&["image"]) || has(&["image_path"]))
            }
            Self::Mmstar => {
                shows("image") && has(&["index", "question", "answer", "category", "l2_category"]) && !has(&["A"])
            }
            Self::Mmbench => shows("image") && has(&["index", "question", "A", "B", "answer"]),
            Self::Scienceqa => shows("image") && has(&["question", "choices", "answer", "hint"]),
            Self::Pope => {
                let free = !has(&["A"]) && !has(&["choices"]) && !has(&["options"]);
                shows("image") && has(&["question_id", "question", "answer", "category"]) && free
            }
            Self::MmmuPro => {
                let form = (has(&["question"]) && shows("image_1")) || (!has(&["question"]) && shows("image"));
                has(&["id", "options", "answer", "subject"]) && form
            }
            Self::Mmvp => {
                has(&["Index", "Question", "Options", "Correct Answer"]) && (table.is_text() || shows("image"))
            }
        }
    }

    /// The layout of a table.
    ///
    /// # Errors
    /// Where it has none: lists the columns and the layouts there are.
    pub(super) fn of(table: &dyn Table) -> Result<Self> {
        if let Some(layout) = Self::ALL.into_iter().find(|layout| layout.fits(table)) {
            return Ok(layout);
        }
        let kind = |name: &String| {
            let is_picture = table.pictures().contains(name);
            format!("{}{}", shortened(name), if is_picture { " (pictures)" } else { "" })
        };
        let columns: Vec<String> = table.columns().iter().map(kind).collect();
        let known: Vec<String> =
            Self::ALL.iter().map(|layout| format!("{:<11} {}", layout.name(), layout.columns())).collect();
        let file = table.files().first().map_or(String::new(), |file| file.display().to_string());
        Err(Unusable {
            what: "the columns are those of no benchmark that is read".to_owned(),
            place: file,
            expected: format!("the columns of one of these\n    {}", known.join("\n    ")),
            got: columns.join(", "),
            hint: "rename the columns to those of a layout; VLMEvalKit's is the easiest to write".to_owned(),
        }
        .into())
    }

    /// Reads all questions of a table with this layout.
    pub(super) fn read(self, table: &dyn Table) -> Result<Questions> {
        match self {
            Self::Vlmevalkit => vlmevalkit::read(table),
            Self::Mmstar => mmstar::read(table),
            Self::Mmbench => mmbench::read(table),
            Self::Scienceqa => scienceqa::read(table),
            Self::Pope => pope::read(table),
            Self::MmmuPro => mmmu_pro::read(table),
            Self::Mmvp => mmvp::read(table),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Layout;

    #[test]
    fn names_are_those_of_files() {
        for layout in Layout::ALL {
            assert_eq!(serde_json::to_value(layout).unwrap(), layout.name());
        }
    }
}
