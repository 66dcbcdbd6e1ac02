//! Evaluated runs side by side: one page that needs nothing else, its tables as Markdown, and all numbers as CSV.
//!
//! | part | |
//! |---|---|
//! | `run` | a run, its name and the command that repeats it |
//! | `compare` | runs on the same questions, pair by pair; what nothing beats |
//! | `sections` | what is shown: tables, plots, sentences, one file a section |
//! | `gallery` | answers with their looks |
//! | `table`, `plot`, `bars`, `axis`, `place`, `number` | how it is shown |
//! | `page`, `sheets` | the page and the Markdown; the CSV |
//!
//! Nothing here needs a model, and the same folders give the same report, byte for byte: no date, no path of the
//! machine, and no time that was measured but in the CSV. The page has no script and fetches nothing; its own content
//! security policy forbids both. All text in it that comes from results is escaped.

mod axis;
mod bars;
mod compare;
mod gallery;
#[cfg(test)]
mod made;
mod number;
mod page;
mod place;
mod plot;
mod run;
mod sections;
mod sheets;
mod table;

pub use compare::{Difference, Gap};
pub use run::Run;

use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Runs, and what they are compared by.
#[derive(Clone, Debug)]
pub struct Report {
    runs: Vec<Run>,
    differences: Vec<Difference>,
    own_weights: String,
}

/// The files of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `report.html`.
    pub page: PathBuf,
    /// `report.md`.
    pub tables: PathBuf,
    /// `results.csv`.
    pub results: PathBuf,
    /// `causal.csv`.
    pub causal: PathBuf,
}

impl Report {
    /// Compares and names runs. `own_weights` is the hash of the weights that the program itself holds: their runs are
    /// repeated without naming a model.
    #[must_use]
    pub fn new(mut runs: Vec<Run>, own_weights: &str) -> Self {
        run::name(&mut runs);
        Self { differences: compare::differences(&runs), runs, own_weights: own_weights.to_owned() }
    }

    /// Its runs, in the order they were given.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Each run against the first on the same questions.
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// The command that repeats a run.
    #[must_use]
    pub fn command(&self, run: &Run) -> String {
        run.command(&self.own_weights)
    }

    /// `report.html`.
    ///
    /// # Errors
    /// [`Error::Kept`] and [`Error::Picture`] for a kept trace that cannot be shown.
    pub fn html(&self) -> Result<String> {
        Ok(page::html(self, &sections::all(self), &gallery::html(&self.runs)?))
    }

    /// `report.md`: the tables of the page.
    #[must_use]
    pub fn markdown(&self) -> String {
        page::markdown(self, &sections::all(self))
    }

    /// `results.csv`: a row for each run, task and number of looks.
    #[must_use]
    pub fn results(&self) -> String {
        sheets::results(self)
    }

    /// `causal.csv`: a row for each run, task and intervention.
    #[must_use]
    pub fn causal(&self) -> String {
        sheets::causal(self)
    }

    /// Writes all four files into a folder, which is made if need be. Each is whole or not there.
    ///
    /// # Errors
    /// As [`Report::html`], before anything is written; [`Error::File`].
    pub fn write(&self, folder: &Path) -> Result<Written> {
        let written = Written {
            page: folder.join("report.html"),
            tables: folder.join("report.md"),
            results: folder.join("results.csv"),
            causal: folder.join("causal.csv"),
        };
        let files = [
            (&written.page, self.html()?),
            (&written.tables, self.markdown()),
            (&written.results, self.results()),
            (&written.causal, self.causal()),
        ];
        fs::create_dir_all(folder).map_err(|e| Error::file("write", folder, &e))?;
        for (path, text) in files {
            let partial = path.with_extension("partial");
            let put = fs::write(&partial, text).and_then(|()| fs::rename(&partial, path));
            put.map_err(|e| {
                drop(fs::remove_file(&partial)); // there may be none
                Error::file("write", path, &e)
            })?;
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests;
