//! Whole traces of a few answers, to look at: the first right and the first other answers of every task.
//!
//! A run's folder has them as `traces/N`, where `N` is the line of the item in `items.jsonl`:
//!
//! | file | |
//! |---|---|
//! | `trace.json` | the record of the answer, with the true region of each look where it is known |
//! | `picture.png` | the picture |
//! | `thoughts.json` | the thought of each step, as many numbers as the model is wide, of mean square 1 |
//! | `thought-K.png` | what the denoiser draws from the thought of step `K` |
//! | `region-K.png` | the part of the picture that it should have drawn, as small |
//!
//! How many are kept is not one of the [`crate::Settings`]. These decide what is answered, and a trace that is kept
//! changes no answer: runs that differ in nothing else have one folder, one digest and the same results, and can be
//! compared. Which answers are kept follows from the results alone, so that a run that was stopped keeps the same ones,
//! and a run that was made without any can be given them later: the batches that they lie in are answered again.

use crate::cells;
use crate::item::{Item, Rationale};
use crate::run::{Job, Progress, ask, options};
use crate::{Error, Record, Result};
use lare_data::{Picture, Region};
use lare_infer::Answer;
use lare_infer::model::Drawn;
use lare_infer::record::{Asked, record};
use lare_trace::{Grid, Record as Trace, Timing};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of traces in a run's folder.
const TRACES: &str = "traces";
/// The record.
const TRACE: &str = "trace.json";
/// The thoughts.
const THOUGHTS: &str = "thoughts.json";
/// The picture.
const PICTURE: &str = "picture.png";

/// A trace that was kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Index of its item among the results.
    pub item: usize,
    /// Its folder.
    pub folder: PathBuf,
    /// The record of the answer.
    pub trace: Trace,
}

/// The traces that a run kept, in the order of their items.
///
/// # Errors
/// [`Error::File`], and [`Error::Kept`] for one that is not of the result it stands by.
pub fn read(folder: &Path, records: &[Record]) -> Result<Vec<Kept>> {
    let traces = folder.join(TRACES);
    if !traces.exists() {
        return Ok(Vec::new());
    }
    let failed = |e: std::io::Error| Error::file("read", &traces, &e);
    let mut lines: Vec<usize> = Vec::new();
    for entry in fs::read_dir(&traces).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        // One that is being written has another name.
        lines.extend(name.to_str().and_then(|name| name.parse::<usize>().ok()));
    }
    lines.sort_unstable();
    let kept = lines.into_iter().filter_map(|line| Some((line, records.get(line.checked_sub(1)?)?)));
    kept.map(|(line, record)| Kept::read(&traces.join(line.to_string()), line - 1, record)).collect()
}

impl Kept {
    fn read(folder: &Path, item: usize, record: &Record) -> Result<Self> {
        let path = folder.join(TRACE);
        let text = fs::read_to_string(&path).map_err(|e| Error::file("read", &path, &e))?;
        let wrong = |reason: &str| Error::Kept { path: path.clone(), reason: reason.to_owned() };
        let trace = Trace::from_json(&text).map_err(|e| wrong(e.to_string().lines().next().unwrap_or_default()))?;
        if (&trace.input.question, &trace.answer) != (&record.prompt, &record.said) {
            return Err(wrong(&format!("`{}` was answered otherwise", record.id)));
        }
        Ok(Self { item, folder: folder.into(), trace })
    }

    /// The picture that was asked about.
    ///
    /// # Errors
    /// [`Error::Picture`], and [`Error::Kept`] for one of another size than the trace's.
    pub fn picture(&self) -> Result<Picture> {
        let path = self.folder.join(PICTURE);
        let picture = lare_data::image::open(&path)?;
        let (got, expected) = ((picture.width, picture.height), (self.trace.input.width, self.trace.input.height));
        if got != (expected.0 as usize, expected.1 as usize) {
            let reason = format!("it has {} x {} pixels, not {} x {}", got.0, got.1, expected.0, expected.1);
            return Err(Error::Kept { path, reason });
        }
        Ok(picture)
    }

    /// What the denoiser drew from the thought of a step, counted from 0, as a PNG file.
    #[must_use]
    pub fn thought(&self, step: usize) -> Option<Vec<u8>> {
        fs::read(self.folder.join(thought_file(step))).ok()
    }

    /// What it should have drawn, where that is known.
    #[must_use]
    pub fn region(&self, step: usize) -> Option<Vec<u8>> {
        fs::read(self.folder.join(region_file(step))).ok()
    }
}

fn thought_file(step: usize) -> String {
    format!("thought-{}.png", step + 1)
}

fn region_file(step: usize) -> String {
    format!("region-{}.png", step + 1)
}

/// Chooses what is kept and writes it.
pub(crate) struct Keeper<'a> {
    job: Job<'a>,
    /// How many answers each task had so far, right ones and others.
    seen: BTreeMap<(String, bool), usize>,
}

impl<'a> Keeper<'a> {
    pub fn new(job: Job<'a>) -> Self {
        Self { job, seen: BTreeMap::new() }
    }

    /// Makes the traces that results which are there already should have and have not; `false` if that was stopped.
    pub fn fill(&mut self, records: &[Record], progress: Progress) -> Result<bool> {
        let size = self.job.settings.batch.max(1);
        for (first, batch) in (0..).step_by(size).zip(records.chunks(size)) {
            let wanted = self.wanted(first, batch);
            if wanted.is_empty() {
                continue;
            }
            if !progress(records.len()) {
                return Ok(false);
            }
            self.again(first, batch, &wanted)?;
        }
        Ok(true)
    }

    /// Keeps those of a batch that are to be kept.
    pub fn keep(&mut self, first: usize, items: &[Item], records: &[Record], answers: &[Option<Answer>]) -> Result<()> {
        let rows = answers.iter().flatten().count();
        for place in self.wanted(first, records) {
            if let Some(answer) = &answers[place] {
                self.write(first + place, &items[place], &shared(answer, rows))?;
            }
        }
        Ok(())
    }

    /// Places in a batch whose traces are to be kept and are not there. Asked of every batch, in order.
    fn wanted(&mut self, first: usize, batch: &[Record]) -> Vec<usize> {
        let mut wanted = Vec::new();
        for (place, record) in batch.iter().enumerate() {
            if self.is_among_the_first(record) && !self.folder(first + place).exists() {
                wanted.push(place);
            }
        }
        wanted
    }

    fn is_among_the_first(&mut self, record: &Record) -> bool {
        // What was not asked has no trace.
        if record.refused.is_some() {
            return false;
        }
        let seen = self.seen.entry((record.task.clone(), record.right())).or_default();
        *seen += 1;
        *seen <= self.job.keep
    }

    /// Answers a batch again, as it was, and keeps the traces that are wanted.
    fn again(&self, first: usize, batch: &[Record], wanted: &[usize]) -> Result<()> {
        let Job { model, source, settings, .. } = self.job;
        let asked: Vec<usize> = (0..batch.len()).filter(|place| batch[*place].refused.is_none()).collect();
        let items = asked.iter().map(|place| source.item(first + place)).collect::<Result<Vec<_>>>()?;
        let answers = ask(model, &items, &vec![None; items.len()], settings)?;
        for ((place, item), answer) in asked.iter().zip(&items).zip(&answers) {
            // On another machine a tie may fall otherwise; that would be the trace of another answer.
            if wanted.contains(place) && answer.text == batch[*place].said {
                self.write(first + place, item, &shared(answer, items.len()))?;
            }
        }
        Ok(())
    }

    fn folder(&self, item: usize) -> PathBuf {
        self.job.folder.join(TRACES).join((item + 1).to_string())
    }

    /// Writes a trace; its folder appears when it is whole.
    fn write(&self, number: usize, item: &Item, answer: &Answer) -> Result<()> {
        let folder = self.folder(number);
        let partial = folder.with_file_name(format!(".{}.partial", number + 1));
        let failed = |e: std::io::Error| Error::file("write", &folder, &e);
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(failed)?; // of a run that was killed
        }
        let files = self.files(&folder, item, answer)?;
        fs::create_dir_all(&partial).map_err(failed)?;
        for (name, bytes) in files {
            fs::write(partial.join(name), bytes).map_err(failed)?;
        }
        fs::rename(&partial, &folder).map_err(failed)
    }

    /// The files of a trace, by name.
    fn files(&self, folder: &Path, item: &Item, answer: &Answer) -> Result<Vec<(String, Vec<u8>)>> {
        let Job { model, settings, .. } = self.job;
        let png = |picture: &Picture| {
            let drawn = lare_data::export::png(picture);
            drawn.map_err(|e| Error::File { what: "write", path: folder.into(), reason: e.to_string() })
        };
        let thoughts: Vec<&[f32]> = answer.looks.iter().map(|look| &look.thought[..]).collect();
        let drawings = model.speaking().draw(&thoughts, settings.seed)?;
        let picture = png(&item.picture)?;
        let asked = Asked {
            picture: &item.picture,
            picture_hash: &lare_infer::load::sha256(&picture),
            question: &item.prompt,
            options: options(settings),
        };
        let mut trace = record(settings.identity(), &asked, answer, &drawings);
        let mut files = vec![(PICTURE.to_owned(), picture)];
        for (step, drawing) in drawings.into_iter().enumerate() {
            let drawn = Picture { width: drawing.side, height: drawing.side, rgb: drawing.rgb };
            files.push((thought_file(step), png(&drawn)?));
        }
        let drawn = model.speaking().drawn();
        for (step, region) in regions(item.rationale.as_ref(), answer).into_iter().enumerate() {
            if let Some(drawn) = drawn {
                files.push((region_file(step), png(&around(&drawn, &region, &item.picture, &answer.grid))?));
            }
            trace.steps[step].region = Some(lare_trace::Region {
                x: region.left,
                y: region.top,
                width: region.right - region.left,
                height: region.bottom - region.top,
            });
        }
        let written = serde_json::to_vec(&thoughts);
        let written = written.map_err(|e| Error::File { what: "write", path: folder.into(), reason: e.to_string() })?;
        files.push((THOUGHTS.to_owned(), written));
        files.push((TRACE.to_owned(), trace.to_json()?.into_bytes()));
        Ok(files)
    }
}

/// The true region of each look, as far as they are known.
fn regions(rationale: Option<&Rationale>, answer: &Answer) -> Vec<Region> {
    let Some(rationale) = rationale else {
        return Vec::new();
    };
    let order = cells::order(rationale, answer);
    order.into_iter().take(answer.looks.len()).map(|place| rationale.regions[place]).collect()
}

/// An answer with its part of the time that its batch took, as `items.jsonl` counts it.
fn shared(answer: &Answer, rows: usize) -> Answer {
    let mut own = answer.clone();
    let rows = rows.max(1) as f64;
    let Timing { prepare, encode, prefill, think, answer, total } = answer.timing;
    let [prepare, encode, prefill, think, answer, total] =
        [prepare, encode, prefill, think, answer, total].map(|ms| ms / rows);
    own.timing = Timing { prepare, encode, prefill, think, answer, total };
    own.looks.iter_mut().for_each(|look| look.time_ms /= rows);
    own
}

/// What a drawing around the middle of a region should show.
fn around(drawn: &Drawn, region: &Region, picture: &Picture, grid: &Grid) -> Picture {
    // Picture pixels for one pixel of the drawing, along each axis.
    let (scale_x, scale_y) =
        (drawn.shrink * grid.cell_px_x / drawn.cell_px, drawn.shrink * grid.cell_px_y / drawn.cell_px);
    let first = |middle: f32| middle.round() - (drawn.side / 2) as f32;
    let left = first((region.left + region.right) / 2.0 / scale_x);
    let top = first((region.top + region.bottom) / 2.0 / scale_y);
    let mut rgb = Vec::with_capacity(drawn.side * drawn.side * 3);
    for y in 0..drawn.side {
        let rows = pixels((top + y as f32) * scale_y, scale_y, picture.height);
        for x in 0..drawn.side {
            let columns = pixels((left + x as f32) * scale_x, scale_x, picture.width);
            rgb.extend(mean(picture, &rows, &columns));
        }
    }
    Picture { width: drawn.side, height: drawn.side, rgb }
}

/// The pixels of an axis from a place on, at least one; past the edge the last one stands again.
fn pixels(from: f32, count: f32, length: usize) -> std::ops::Range<usize> {
    let last = length.saturating_sub(1);
    let first = (from.round().max(0.0) as usize).min(last);
    first..((from + count).round().max(0.0) as usize).clamp(first + 1, last + 1)
}

fn mean(picture: &Picture, rows: &std::ops::Range<usize>, columns: &std::ops::Range<usize>) -> [u8; 3] {
    let mut sums = [0u64; 3];
    for row in rows.clone() {
        let start = (row * picture.width + columns.start) * 3;
        for pixel in picture.rgb[start..start + columns.len() * 3].chunks_exact(3) {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u64::from(*value));
        }
    }
    let count = (rows.len() * columns.len()).max(1) as u64;
    sums.map(|sum| ((sum + count / 2) / count) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_centred_on_its_region_and_goes_on_past_the_edge() {
        // 8 x 4 pixels, the right half white; cells of 4 px, so that the prepared picture is the picture.
        let rgb = (0..32).flat_map(|i| [if i % 8 < 4 { 0 } else { 255 }; 3]).collect();
        let picture = Picture { width: 8, height: 4, rgb };
        let grid = Grid { rows: 1, cols: 2, cell_px_x: 4.0, cell_px_y: 4.0, fine_per_cell: 1 };
        let window = Drawn { side: 2, shrink: 2.0, cell_px: 4.0 };
        let red = |region: Region| -> Vec<u8> {
            around(&window, &region, &picture, &grid).rgb.chunks_exact(3).map(|pixel| pixel[0]).collect()
        };
        assert_eq!(red(Region::at(3, 1, 2, 2)), [0, 255, 0, 255], "the edge in the middle");
        assert_eq!(red(Region::at(0, 0, 1, 1)), [0; 4], "past the left and upper edge");
        assert_eq!(red(Region::at(7, 3, 1, 1)), [255; 4], "past the right and lower edge");
        // The same on a picture that is shown at half its size: a drawn pixel is four pixels wide.
        let wide = Grid { rows: 1, cols: 1, cell_px_x: 8.0, cell_px_y: 8.0, fine_per_cell: 1 };
        let drawn = around(&window, &Region::at(3, 1, 2, 2), &picture, &wide).rgb;
        assert_eq!((drawn.len(), drawn[0], drawn[3]), (12, 0, 255));
    }

    #[test]
    fn a_mean_of_pixels_is_rounded() {
        let picture = Picture { width: 2, height: 1, rgb: vec![0, 10, 255, 1, 20, 255] };
        assert_eq!(mean(&picture, &(0..1), &(0..2)), [1, 15, 255]);
        assert_eq!(pixels(-9.0, 2.0, 5), 0..1);
        assert_eq!(pixels(4.6, 2.0, 5), 4..5);
    }
}
