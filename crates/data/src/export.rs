//! Any part of the suite as files other tools read.
//!
//! | function | writes | read by |
//! |---|---|---|
//! | [`folder`] | `samples.jsonl` and PNG pictures | anything |
//! | [`llava`] | `llava.json` and PNG pictures | LLaVA-style trainers |
//! | [`tsv`] | one TSV with base64 pictures | VLMEvalKit |
//! | [`parquet`] | one parquet file with embedded pictures | Hugging Face `datasets` |
//! | [`contact_sheet`] | one PNG of many samples with their regions | people |
//!
//! Everything is written under a temporary name and renamed when complete, so what has the final name is whole.

#[cfg(feature = "parquet")]
mod parquet;
mod sheet;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use ::image::ImageEncoder;
use ::image::codecs::png::PngEncoder;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use crate::image::Picture;
use crate::sample::{Region, Sample, Split, Task};
use crate::suite::{Suite, VERSION};

#[cfg(feature = "parquet")]
pub use parquet::parquet;
pub use sheet::{MOST_SAMPLES as MOST_ON_A_SHEET, contact_sheet};

/// Samples made at a time, in parallel, before they are written.
const CHUNK: usize = 64;

/// Hears how many samples are written, and says whether to go on.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> bool;

/// Which samples to write: of each task, `count` from number `first` on.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// The split.
    pub split: Split,
    /// The tasks, written one after the other.
    pub tasks: Vec<Task>,
    /// Samples of each task.
    pub count: u64,
    /// Number of the first.
    pub first: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The file or folder.
    pub path: PathBuf,
    /// Samples in it.
    pub samples: u64,
}

/// Why nothing was written under the final name.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The operating system refused.
    #[error("cannot {action} `{path}`: {source}\n\nhint: {}", hint(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something is there already.
    #[error(
        "`{path}` exists already\n  expected  a name that is free\n  got       {got}\n\nhint: choose another name or remove it first"
    )]
    Exists {
        /// The final name.
        path: PathBuf,
        /// A file or a folder.
        got: &'static str,
    },
    /// No task or no sample was selected.
    #[error(
        "nothing to write to `{path}`\n  expected  at least one task and one sample\n  got       {tasks} tasks, {count} samples of each"
    )]
    Nothing {
        /// The final name.
        path: PathBuf,
        /// Tasks selected.
        tasks: usize,
        /// Samples selected of each.
        count: u64,
    },
    /// The numbers of the samples do not fit.
    #[error(
        "there are no samples {first} to {first} + {count}\n  expected  first + count, times the tasks, below 2^63\n\nhint: ask for fewer, or start at a lower number"
    )]
    Numbers {
        /// Number of the first.
        first: u64,
        /// Samples selected of each task.
        count: u64,
    },
    /// Whoever hears of progress said so.
    #[error("stopped after {written} samples; nothing was left in `{path}`")]
    Stopped {
        /// The final name.
        path: PathBuf,
        /// Samples written until then.
        written: u64,
    },
    /// A picture or record could not be put into the format.
    #[error("cannot write sample `{id}` as {format}: {reason}")]
    Encode {
        /// The sample.
        id: String,
        /// The format.
        format: &'static str,
        /// What the encoder said.
        reason: String,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: free some space or write elsewhere"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "the folder is not writable: choose another or change its permissions"
        }
        io::ErrorKind::NotFound => "the folder to write in does not exist: create it first",
        _ => "nothing was left under the final name; try again or write elsewhere",
    }
}

/// Attaches what was being done to an error of the operating system.
fn doing(action: &'static str, path: &Path) -> impl Fn(io::Error) -> ExportError + use<> {
    let path = path.to_owned();
    move |source| ExportError::Io { action, path: path.clone(), source }
}

impl Selection {
    fn check(&self, path: &Path) -> Result<(), ExportError> {
        if self.tasks.is_empty() || self.count == 0 {
            let (tasks, count) = (self.tasks.len(), self.count);
            return Err(ExportError::Nothing { path: path.to_owned(), tasks, count });
        }
        let end = self.first.checked_add(self.count);
        let fits = |n: u64| n < 1 << 63;
        let total = self.count.checked_mul(self.tasks.len() as u64);
        if !end.is_some_and(fits) || !total.is_some_and(fits) {
            return Err(ExportError::Numbers { first: self.first, count: self.count });
        }
        let got = if path.is_dir() { "a folder" } else { "a file" };
        if path.symlink_metadata().is_ok() { Err(ExportError::Exists { path: path.to_owned(), got }) } else { Ok(()) }
    }

    fn total(&self) -> u64 {
        self.count * self.tasks.len() as u64
    }

    /// Calls `write` with every sample in order; they are made, and their pictures encoded, in parallel. `progress`
    /// hears now and then how many are written, and may end it.
    fn for_each(
        &self,
        suite: &Suite,
        path: &Path,
        progress: Progress,
        mut write: impl FnMut(&Sample, &[u8]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let end = self.first + self.count;
        let mut written = 0;
        for &task in &self.tasks {
            for start in (self.first..end).step_by(CHUNK) {
                let made: Result<Vec<_>, ExportError> = (start..end.min(start + CHUNK as u64))
                    .into_par_iter()
                    .map(|index| {
                        let sample = suite.sample(self.split, task, index);
                        let png = png(&sample.picture).map_err(|reason| encode_error(&sample, "PNG", reason))?;
                        Ok((sample, png))
                    })
                    .collect();
                for (sample, png) in made? {
                    write(&sample, &png)?;
                    written += 1;
                }
                if !progress(written) {
                    return Err(ExportError::Stopped { path: path.to_owned(), written });
                }
            }
        }
        Ok(())
    }
}

fn encode_error(sample: &Sample, format: &'static str, reason: impl ToString) -> ExportError {
    ExportError::Encode { id: id(sample), format, reason: reason.to_string() }
}

/// The name of a sample in files: `iid-read-000012`.
#[must_use]
pub fn id(sample: &Sample) -> String {
    format!("{}-{}-{:06}", sample.split, sample.question.task, sample.index)
}

/// A picture as a PNG file.
///
/// # Errors
/// If `rgb` has not three bytes for each pixel.
pub fn png(picture: &Picture) -> Result<Vec<u8>, ::image::ImageError> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new(&mut bytes);
    let (width, height) = (picture.width as u32, picture.height as u32);
    encoder.write_image(&picture.rgb, width, height, ::image::ExtendedColorType::Rgb8)?;
    Ok(bytes)
}

/// One line of `samples.jsonl`, and the row of the other formats.
#[derive(Serialize)]
struct Record<'a> {
    id: String,
    image: String,
    width: usize,
    height: usize,
    question: &'a str,
    answer: &'a str,
    choices: &'a Option<Vec<String>>,
    steps: Vec<serde_json::Value>,
    task: Task,
    split: Split,
    looks: usize,
    template: usize,
    index: u64,
    /// A string, because many readers of JSON hold numbers as 64-bit floats.
    seed: String,
    suite_version: u64,
}

fn corners(region: &Region) -> [f32; 4] {
    [region.left, region.top, region.right, region.bottom]
}

impl<'a> Record<'a> {
    fn of(sample: &'a Sample) -> Record<'a> {
        let question = &sample.question;
        let steps = question.steps.iter();
        Record {
            id: id(sample),
            image: format!("images/{}.png", id(sample)),
            width: sample.picture.width,
            height: sample.picture.height,
            question: &question.text,
            answer: &question.answer,
            choices: &question.choices,
            steps: steps
                .map(|step| json!({"says": step.says, "reads": step.reads, "region": corners(&step.region)}))
                .collect(),
            task: question.task,
            split: sample.split,
            looks: question.looks,
            template: question.template,
            index: sample.index,
            seed: format!("{:016x}", sample.seed),
            suite_version: VERSION,
        }
    }
}

/// Writes `samples.jsonl` and `images/` into a new folder.
///
/// # Errors
/// If the folder exists, nothing was selected, or the disk refuses.
pub fn folder(suite: &Suite, selection: &Selection, path: &Path, progress: Progress) -> Result<Written, ExportError> {
    selection.check(path)?;
    let place = Temporary::folder(path)?;
    let images = place.images()?;
    let list = place.path.join("samples.jsonl");
    let mut lines = BufWriter::new(File::create(&list).map_err(doing("create", &list))?);
    selection.for_each(suite, path, progress, |sample, png| {
        let record = Record::of(sample);
        write_picture(&images, sample, png)?;
        let line = serde_json::to_string(&record).map_err(|error| encode_error(sample, "JSON", error))?;
        writeln!(lines, "{line}").map_err(doing("write", &list))
    })?;
    finish(lines, &list)?;
    place.keep(selection)
}

/// Writes `llava.json` and `images/` into a new folder. `bboxes` are the regions of the looks in pixels,
/// `rationale` their sentences.
///
/// # Errors
/// If the folder exists, nothing was selected, or the disk refuses.
pub fn llava(suite: &Suite, selection: &Selection, path: &Path, progress: Progress) -> Result<Written, ExportError> {
    selection.check(path)?;
    let place = Temporary::folder(path)?;
    let images = place.images()?;
    let list = place.path.join("llava.json");
    let mut lines = BufWriter::new(File::create(&list).map_err(doing("create", &list))?);
    let mut before = "[\n";
    selection.for_each(suite, path, progress, |sample, png| {
        write_picture(&images, sample, png)?;
        let question = &sample.question;
        let entry = json!({
            "id": id(sample),
            "image": format!("images/{}.png", id(sample)),
            "width": sample.picture.width,
            "height": sample.picture.height,
            "conversations": [
                {"from": "human", "value": format!("<image>\n{}", question.text)},
                {"from": "gpt", "value": question.answer},
            ],
            "bboxes": question.steps.iter().map(|step| corners(&step.region)).collect::<Vec<_>>(),
            "rationale": question.steps.iter().map(|step| step.says.as_str()).collect::<Vec<_>>(),
        });
        let written = write!(lines, "{before}{entry}").map_err(doing("write", &list));
        before = ",\n";
        written
    })?;
    writeln!(lines, "\n]").map_err(doing("write", &list))?;
    finish(lines, &list)?;
    place.keep(selection)
}

/// Writes a VLMEvalKit TSV. Where the task offers choices, they fill the columns A, B, C, ... and `answer` is
/// the letter of the right one; elsewhere those columns are empty and `answer` is the text.
///
/// # Errors
/// If the file exists, nothing was selected, or the disk refuses.
pub fn tsv(suite: &Suite, selection: &Selection, path: &Path, progress: Progress) -> Result<Written, ExportError> {
    selection.check(path)?;
    let place = Temporary::file(path);
    let mut lines = BufWriter::new(File::create(&place.path).map_err(doing("create", &place.path))?);
    let fail = doing("write", &place.path);
    writeln!(lines, "index\timage\tquestion\tA\tB\tC\tD\tE\tanswer\tcategory\tsplit\tid").map_err(&fail)?;
    let mut index = 0;
    selection.for_each(suite, path, progress, |sample, png| {
        let question = &sample.question;
        let choices = question.choices.as_deref().unwrap_or_default();
        let options: Vec<&str> = (0..5).map(|option| choices.get(option).map_or("", String::as_str)).collect();
        let right = choices.iter().position(|choice| *choice == question.answer);
        let answer = right.map_or_else(|| question.answer.clone(), |right| crate::scenes::letter(right).to_string());
        let (image, options) = (base64(png), options.join("\t"));
        let (text, task, split, id) = (&question.text, question.task, sample.split, id(sample));
        writeln!(lines, "{index}\t{image}\t{text}\t{options}\t{answer}\t{task}\t{split}\t{id}").map_err(&fail)?;
        index += 1;
        Ok(())
    })?;
    finish(lines, &place.path)?;
    place.keep(selection)
}

fn write_picture(images: &Path, sample: &Sample, png: &[u8]) -> Result<(), ExportError> {
    let path = images.join(format!("{}.png", id(sample)));
    fs::write(&path, png).map_err(doing("write", &path))
}

/// Flushes to the disk, so that a full one is noticed before the rename.
fn finish(lines: BufWriter<File>, path: &Path) -> Result<(), ExportError> {
    let file = lines.into_inner().map_err(|error| doing("write", path)(error.into_error()))?;
    file.sync_all().map_err(doing("write", path))
}

/// A file or folder under a temporary name; removed when dropped unless kept.
struct Temporary {
    path: PathBuf,
    target: PathBuf,
}

impl Temporary {
    fn file(target: &Path) -> Temporary {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        Temporary { path, target: target.to_owned() }
    }

    fn folder(target: &Path) -> Result<Temporary, ExportError> {
        let place = Temporary::file(target);
        fs::create_dir(&place.path).map_err(doing("create", &place.path))?;
        Ok(place)
    }

    fn images(&self) -> Result<PathBuf, ExportError> {
        let images = self.path.join("images");
        fs::create_dir(&images).map_err(doing("create", &images))?;
        Ok(images)
    }

    fn keep(self, selection: &Selection) -> Result<Written, ExportError> {
        fs::rename(&self.path, &self.target).map_err(doing("create", &self.target))?;
        Ok(Written { path: self.target.clone(), samples: selection.total() })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename neither is there; a failure to clean up must not hide the error that led here.
        drop(fs::remove_file(&self.path));
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Standard base64 with padding. Twelve lines here or a dependency for one call.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0_u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() { DIGITS[value as usize] as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests;
