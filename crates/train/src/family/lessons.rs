//! Samples of files, read and checked before a run begins: pictures that are missing or broken end it, samples that do not
//! fit are left out, and both are named.

use super::asked::Teller;
use super::ruler::length;
use crate::config::Config;
use crate::subject::Dropped;
use crate::vars::dice;
use crate::{Error, Result};
use lare_data::lint::outside;
use lare_data::{Album, Example, PictureAt, Samples, Size, Stream};
use rand::RngExt;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Pictures that are named when some cannot be used.
const NAMED: usize = 10;

/// A sample.
pub struct Lesson {
    /// What it says.
    pub example: Example,
    /// What its results are counted with.
    pub group: Arc<str>,
}

/// All samples of a run's files.
#[derive(Default)]
pub struct Lessons {
    training: Vec<Lesson>,
    /// Those that are never trained on.
    pub validation: Vec<Lesson>,
    /// Those that do not fit.
    pub dropped: Vec<Dropped>,
    /// Reads their pictures.
    pub album: Album,
    /// Of the epoch that a batch was last taken from.
    order: Option<((u64, u64), Vec<usize>)>,
}

impl Lessons {
    /// Reads all files of the config, opens every picture once, and counts the tokens of every sample.
    ///
    /// # Errors
    /// For a file that cannot be read, pictures that cannot be used, and where no sample is left.
    pub fn read(config: &Config, teller: &Teller) -> Result<Self> {
        let mut all = Self::default();
        for files in &config.data.files {
            let read = Samples::open(&files.file, files.reading())?.all()?;
            let sizes = sizes(&read, teller, &all.album)?;
            let steps = most_steps(config)?;
            let fault = |example: &Example| fault(example, steps, &sizes, teller);
            let faults = read.par_iter().map(fault).collect::<Result<Vec<_>>>()?;
            let name = files.file.file_stem().map_or_else(|| "samples".into(), |name| name.to_string_lossy());
            let group: Arc<str> = name.replace(' ', "_").into();
            let kept = if files.validation { &mut all.validation } else { &mut all.training };
            for (example, fault) in read.into_iter().zip(faults) {
                match fault {
                    None => kept.push(Lesson { example, group: group.clone() }),
                    Some(reason) => all.dropped.push(Dropped { id: example.id, reason }),
                }
            }
        }
        if !config.data.files.is_empty() && all.training.is_empty() {
            let first = all.dropped.first().map_or_else(|| "no sample".into(), |d| format!("`{}`: {}", d.id, d.reason));
            return Err(Error::Nothing { count: all.dropped.len(), first });
        }
        Ok(all)
    }

    /// A sample.
    pub fn get(&self, number: usize, validation: bool) -> &Lesson {
        if validation { &self.validation[number] } else { &self.training[number] }
    }

    /// Which samples a batch of `count` has: all in an order of their own, again and again. `place`: stage and batch.
    pub fn of_batch(&mut self, seed: u64, (stage, index): (usize, usize), count: usize) -> Vec<usize> {
        let (stream, all) = (dice(seed, "order of samples", stage as u64).random::<u64>(), self.training.len());
        let number = |at: usize| {
            let key = (stream, (at / all) as u64);
            if self.order.as_ref().is_none_or(|(known, _)| *known != key) {
                self.order = Some((key, Stream::new(key.0).shuffled(all, key.1)));
            }
            self.order.as_ref().map_or(0, |(_, order)| order[at % all])
        };
        (index * count..(index + 1) * count).map(number).collect()
    }
}

/// The most latent steps that a row of any stage takes.
pub fn most_steps(config: &Config) -> Result<usize> {
    let steps = config.stages.iter().map(|stage| stage.latent_steps + stage.spare_steps).max().unwrap_or(0);
    Ok(steps.min(config.latent_step()?.max_steps))
}

/// The size of every picture, each opened once, in the order in which they lie in their files.
fn sizes(examples: &[Example], teller: &Teller, album: &Album) -> Result<BTreeMap<PictureAt, Size>> {
    let mut first: BTreeMap<&PictureAt, &str> = BTreeMap::new();
    for example in examples {
        for at in &example.pictures {
            first.entry(at).or_insert(&example.id);
        }
    }
    let size = |(at, id): (&&PictureAt, &&str)| {
        let opened = album.open(at).map_err(Error::from);
        let size = opened.map(|picture| Size::of(&picture));
        let fits = size.and_then(|size| teller.sights.tokens(size).map(|_| size));
        fits.map(|size| ((*at).clone(), size)).map_err(|error| {
            let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
            format!("sample `{id}`, {at}: {reason}")
        })
    };
    let (mut sizes, mut broken) = (BTreeMap::new(), Vec::new());
    for found in first.par_iter().map(size).collect::<Vec<_>>() {
        match found {
            Ok((at, size)) => _ = sizes.insert(at, size),
            Err(line) => broken.push(line),
        }
    }
    if broken.is_empty() {
        return Ok(sizes);
    }
    let count = broken.len();
    broken.truncate(NAMED);
    Err(Error::Pictures { count, of: first.len(), lines: broken.join("\n  ") })
}

/// Why a sample cannot be trained on, if it cannot.
fn fault(
    example: &Example,
    steps: usize,
    sizes: &BTreeMap<PictureAt, Size>,
    teller: &Teller,
) -> Result<Option<String>> {
    if example.pictures.is_empty() {
        return Ok(Some("it shows no picture to look at again".into()));
    }
    let sizes: Vec<Size> = example.pictures.iter().filter_map(|at| sizes.get(at)).copied().collect();
    // A look at what is not there teaches nothing, and its numbers may count something else.
    if let Some((field, got)) = sizes.first().and_then(|size| outside(example, *size).into_iter().next()) {
        return Ok(Some(format!("`{field}`, {got}")));
    }
    Ok(length(teller, example, (&sizes, steps))?.fault())
}
