//! What is wrong with files of samples, before a run finds it out: everything is read once, from front to back, every picture
//! is decoded, and what is kept of a sample are a few numbers.

mod check;
mod found;

pub use check::outside;
pub use found::{Counted, Findings, Kind, Problem, Range, Severity};

use std::collections::HashMap;
use std::path::Path;

use rayon::prelude::*;

use crate::examples::{Album, Example, ExamplesError, Fault, Reading, Samples};
use crate::processor::Size;
use check::{Known, Report};

/// Samples that are looked at together, in parallel.
const CHUNK: usize = 256;

/// How many tokens an example takes of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Length {
    /// Of the prompt, with its pictures.
    pub prompt: usize,
    /// Of each picture.
    pub pictures: Vec<usize>,
    /// Of what is thought.
    pub thoughts: usize,
    /// Of the answer.
    pub answer: usize,
    /// The most there may be.
    pub most: usize,
}

impl Length {
    /// All together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.prompt + self.thoughts + self.answer
    }

    /// Why it is too long, if it is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        (self.total() > self.most).then(|| {
            format!(
                "{} tokens ({} of the prompt, {} of them of pictures, {} of thoughts, {} of the answer), at most {}",
                self.total(),
                self.prompt,
                self.pictures.iter().sum::<usize>(),
                self.thoughts,
                self.answer,
                self.most
            )
        })
    }
}

/// Counts tokens with the model that is to be trained; `sizes` are those of the example's pictures.
pub trait Ruler: Sync {
    /// What a picture of this size takes.
    ///
    /// # Errors
    /// Why the model's processor refuses it.
    fn picture(&self, size: Size) -> Result<usize, String>;

    /// What an example takes.
    ///
    /// # Errors
    /// Why the model's template or processor refuses it.
    fn length(&self, example: &Example, sizes: &[Size]) -> Result<Length, String>;
}

/// Hears how many samples are read.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Reads files and tells what is wrong with them.
pub struct Lint<'a> {
    ruler: Option<&'a dyn Ruler>,
    progress: Progress<'a>,
    album: Album,
    /// What is known of pictures in files of their own, which samples can share.
    known: HashMap<u64, Known>,
    /// Where a question was asked first, by the hash of its words and pictures.
    asked: HashMap<u64, Box<str>>,
    findings: Findings,
}

impl<'a> Lint<'a> {
    /// Names at most so many problems of each kind; counts tokens where there is a ruler.
    pub fn new(named: usize, ruler: Option<&'a dyn Ruler>, progress: Progress<'a>) -> Self {
        let findings = Findings { named, ..Findings::default() };
        let (album, known, asked) = (Album::default(), HashMap::new(), HashMap::new());
        Self { ruler, progress, album, known, asked, findings }
    }

    /// Reads the files that a path stands for. What is wrong with them is a finding.
    pub fn path(&mut self, path: &Path, reading: Reading) {
        let samples = match Samples::open(path, reading) {
            Ok(samples) => samples,
            Err(error) => return self.findings.add(unreadable(path, &error)),
        };
        for (number, (file, format)) in samples.files().iter().enumerate() {
            self.findings.files.push(Counted { file: file.clone(), format: *format, samples: 0, examples: 0 });
            let mut waiting = Vec::with_capacity(CHUNK);
            let read = samples.each_of(number, &mut |read| {
                waiting.push(read);
                if waiting.len() == CHUNK {
                    self.chunk(std::mem::take(&mut waiting));
                }
                Ok(())
            });
            self.chunk(waiting);
            if let Err(error) = read {
                self.findings.add(unreadable(file, &error));
            } else if self.findings.files.last().is_some_and(|counted| counted.samples == 0) {
                self.findings.add(Problem::of_file(Kind::Nothing, file, "no sample in it".into()));
            }
        }
    }

    /// What was found.
    #[must_use]
    pub fn end(self) -> Findings {
        self.findings
    }

    /// Looks at some samples of one file.
    fn chunk(&mut self, read: Vec<Result<Vec<Example>, Fault>>) {
        let fresh = self.pictures(&read);
        let (known, ruler) = (&self.known, self.ruler);
        let look = |read: &Result<Vec<Example>, Fault>| match read {
            Ok(examples) => check::sample(examples, &|at| fresh.get(at).or_else(|| known.get(&check::key(at))), ruler),
            Err(fault) => Report::of_fault(fault),
        };
        let reports: Vec<Report> = read.par_iter().map(look).collect();
        let examples: usize = read.iter().flatten().map(Vec::len).sum();
        if let Some(counted) = self.findings.files.last_mut() {
            counted.samples += read.len();
            counted.examples += examples;
        }
        for (mut report, read) in reports.into_iter().zip(&read) {
            for (hash, example) in report.asked.drain(..).zip(read.iter().flatten()) {
                let origin = example.origin.to_string();
                match self.asked.get(&hash) {
                    None => _ = self.asked.insert(hash, origin.into()),
                    Some(first) => report.problems.push(Problem::of(
                        Kind::Duplicate,
                        example,
                        "",
                        format!("the same as in {first}"),
                    )),
                }
            }
            self.findings.take(report);
        }
        (self.progress)(self.findings.files.iter().map(|counted| counted.samples as u64).sum());
    }

    /// Opens every picture that is not known, each once. Those in files of their own are remembered.
    fn pictures(&mut self, read: &[Result<Vec<Example>, Fault>]) -> HashMap<crate::PictureAt, Known> {
        let mut wanted: Vec<&crate::PictureAt> = read.iter().flatten().flatten().flat_map(|e| &e.pictures).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|at| !self.known.contains_key(&check::key(at)));
        let open = |at: &&crate::PictureAt| ((*at).clone(), check::open(&self.album, at, self.ruler));
        let opened: Vec<(crate::PictureAt, Known)> = wanted.par_iter().map(open).collect();
        self.findings.pictures += opened.len();
        let mut fresh = HashMap::new();
        for (at, known) in opened {
            if let Known::Seen { tokens: Some(tokens), .. } = known {
                self.findings.per_picture.push(tokens);
            }
            match at {
                crate::PictureAt::File(_) => _ = self.known.insert(check::key(&at), known),
                inside => _ = fresh.insert(inside, known),
            }
        }
        fresh
    }
}

fn unreadable(path: &Path, error: &ExamplesError) -> Problem {
    let text = error.to_string();
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
    Problem::of_file(Kind::File, path, lines.join("; "))
}
