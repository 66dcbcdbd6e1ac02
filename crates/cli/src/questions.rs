//! The questions of `lare ask`: the one on the command line, or the lines of a file.

use crate::args::Ask;
use crate::failure::Failure;
use crate::files;
use std::path::Path;

/// What is asked, in order.
pub struct Questions {
    /// The file's name; `None` for the command line.
    file: Option<String>,
    /// Numbers of lines, from 1, and what they ask.
    lines: Vec<(usize, String)>,
}

impl Questions {
    /// Those that the arguments name.
    pub fn of(ask: &Ask) -> Result<Self, Failure> {
        let Some(path) = &ask.questions else {
            return Ok(Self { file: None, lines: ask.question.iter().map(|text| (1, text.clone())).collect() });
        };
        let input = path == Path::new("-");
        if input && ask.picture == Path::new("-") {
            return Err(Failure::new("standard input cannot be both the picture and the questions")
                .part("expected", "one `-`")
                .part("got", "two")
                .hint("save the picture or the questions as a file, and name that"));
        }
        let what = "the file of questions";
        let (name, text) = match input {
            true => ("standard input".to_owned(), files::input_text("the list of questions")?),
            false => (format!("`{}`", path.display()), files::text(path, what)?),
        };
        let lines: Vec<(usize, String)> =
            (1..).zip(text.lines().map(|line| line.trim().to_owned())).filter(|(_, text)| !text.is_empty()).collect();
        if lines.is_empty() {
            return Err(Failure::new(format!("{name} has no question"))
                .part("expected", "one question a line")
                .hint("write one, or name another file"));
        }
        Ok(Self { file: Some(name), lines })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Their words, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|(_, text)| text.as_str())
    }

    /// An error of a batch that began after so many questions. Batches count from 1; the user counts lines of the file.
    pub fn named(&self, error: lare_infer::Error, before: usize) -> Failure {
        use lare_infer::Error::{EmptyQuestion, LongQuestion};
        let (EmptyQuestion { number, .. } | LongQuestion { number, .. }) = error else {
            return Failure::from(error);
        };
        let name = match (&self.file, self.lines.get(before + number - 1)) {
            (Some(file), Some((line, _))) => format!("the question in line {line} of {file}"),
            _ => "the question".to_owned(),
        };
        let failure = Failure::from(error);
        Failure { summary: failure.summary.replacen(&format!("question {number}"), &name, 1), ..failure }
    }
}
