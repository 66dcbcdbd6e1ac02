//! The questions of `lare ask`: the one on the command line, or the lines of a file.

use crate::args::Ask;
use crate::failure::Failure;
use crate::files;
use std::path::{Path, PathBuf};

/// The arguments as a model takes them, which `sees` pictures or not. Behind `--model` the parser cannot know what the first
/// of PICTURE and QUESTION is: a language model alone has no picture.
///
/// # Errors
/// For a picture where none is seen, and for one that is missing.
pub fn as_taken(ask: &Ask, sees: bool) -> Result<Ask, Failure> {
    let asks = ask.question.is_some() || ask.questions.is_some();
    match (sees, &ask.picture) {
        (true, Some(_)) if asks => Ok(ask.clone()),
        (true, picture) => {
            let got = picture.as_ref().map_or_else(|| "neither".into(), |given| format!("`{}` alone", given.display()));
            Err(Failure::new("`lare ask` needs a picture and a question about it")
                .part("expected", "PICTURE and QUESTION, or PICTURE and --questions FILE")
                .part("got", got)
                .hint("lare ask --model DIR photo.jpg \"What is this?\""))
        }
        (false, Some(picture)) if asks => Err(Failure::new("this is a language model alone, which sees no pictures")
            .part("expected", "a question without a picture")
            .part("got", format!("`{}`", picture.display()))
            .hint("leave the picture out, or name a vision-language model with --model")),
        (false, None) if asks => Ok(ask.clone()),
        (false, Some(question)) => match question.to_str() {
            Some(text) => Ok(Ask { picture: None, question: Some(text.to_owned()), ..ask.clone() }),
            None => Err(Failure::new("the question is not UTF-8 text")
                .part("expected", "UTF-8")
                .part("got", question.display())
                .hint("ask in a terminal that writes UTF-8")),
        },
        (false, None) => Err(Failure::new("`lare ask` needs a question")
            .part("expected", "QUESTION, or --questions FILE")
            .part("got", "neither")
            .hint("lare ask --model FILE.gguf \"What is a cup?\"")),
    }
}

/// The picture of a model that sees pictures.
///
/// # Errors
/// None where [`as_taken`] gave the arguments.
pub fn picture(ask: &Ask) -> Result<&PathBuf, Failure> {
    ask.picture.as_ref().ok_or_else(|| Failure::new("`lare ask` needs a picture").hint("name one before the question"))
}

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
        if input && ask.picture.as_deref() == Some(Path::new("-")) {
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
