//! What is wrong with one sample, and with one picture.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;

use super::found::{Kind, Problem};
use super::{Length, Ruler};
use crate::PictureAt;
use crate::chat::{Content, Part};
use crate::examples::{Album, Example, Fault, Look};
use crate::image::{self, ImageError};
use crate::processor::Size;
use crate::sample::Region;

/// How far a region may reach over the edge, in pixels: edges are rounded.
const TOLERANCE_PX: f32 = 1.0;

/// What is known of a picture.
pub(super) enum Known {
    /// It can be used.
    Seen {
        size: Size,
        /// Of its file.
        hash: u64,
        /// Where they were counted.
        tokens: Option<usize>,
    },
    /// It cannot: what is wrong, and why.
    Not(Kind, Box<str>),
}

/// What one sample adds to the findings.
#[derive(Default)]
pub(super) struct Report {
    pub problems: Vec<Problem>,
    pub places: usize,
    pub looks: (usize, usize),
    pub lengths: Vec<Length>,
    /// For each example the hash of its words and pictures.
    pub asked: Vec<u64>,
}

impl Report {
    pub fn of_fault(fault: &Fault) -> Self {
        Self { problems: vec![Problem::of_fault(fault)], ..Self::default() }
    }
}

/// What tells pictures in files of their own apart.
pub(super) fn key(at: &PictureAt) -> u64 {
    let mut hasher = DefaultHasher::new();
    at.hash(&mut hasher);
    hasher.finish()
}

/// Reads and decodes a picture.
pub(super) fn open(album: &Album, at: &PictureAt, ruler: Option<&dyn Ruler>) -> Known {
    let name = at.to_string();
    let opened = album.read(at).and_then(|bytes| {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Ok((Size::of(&image::decode(&bytes, &name)?), hasher.finish()))
    });
    let (size, hash) = match opened {
        Ok(opened) => opened,
        Err(ImageError::Read { source, .. }) => {
            let kind = if source.kind() == ErrorKind::NotFound { Kind::MissingPicture } else { Kind::BrokenPicture };
            let got = if kind == Kind::MissingPicture { "is not there".to_owned() } else { source.to_string() };
            return Known::Not(kind, format!("{name}: {got}").into());
        }
        Err(error) => return Known::Not(Kind::BrokenPicture, one_line(&error).into()),
    };
    match ruler.map(|ruler| ruler.picture(size)).transpose() {
        Ok(tokens) => Known::Seen { size, hash, tokens },
        Err(reason) => Known::Not(
            Kind::RefusedPicture,
            format!("{name}, {} x {} pixels: {reason}", size.width, size.height).into(),
        ),
    }
}

/// The first line of an error, and what it got.
fn one_line(error: &ImageError) -> String {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    let got = lines.find_map(|line| line.strip_prefix("got")).map(str::trim);
    got.map_or_else(|| first.clone(), |got| format!("{first}: {got}"))
}

/// Looks at the examples of one sample. `seen` knows all their pictures.
pub(super) fn sample<'a>(
    examples: &[Example],
    seen: &dyn Fn(&PictureAt) -> Option<&'a Known>,
    ruler: Option<&dyn Ruler>,
) -> Report {
    let mut report = Report::default();
    // The last has all the pictures of the others.
    if let Some(last) = examples.last() {
        pictures(last, seen, &mut report);
    }
    if let Some(first) = examples.first() {
        report.looks = (first.looks.len(), first.looks.iter().filter(|look| look.region.is_some()).count());
        regions(first, seen, &mut report);
    }
    for example in examples {
        report.places += example.pictures.len();
        let known: Vec<&Known> = example.pictures.iter().filter_map(seen).collect();
        let sizes: Vec<Size> = known.iter().filter_map(|known| known.size()).collect();
        report.asked.push(asked(example, &known));
        if sizes.len() < example.pictures.len() || sizes.is_empty() {
            continue;
        }
        match ruler.map(|ruler| ruler.length(example, &sizes)).transpose() {
            Ok(Some(length)) => {
                if let Some(reason) = length.fault() {
                    report.problems.push(Problem::of(Kind::TooLong, example, "", reason));
                }
                report.lengths.push(length);
            }
            Ok(None) => {}
            Err(reason) => report.problems.push(Problem::of(Kind::Refused, example, "", reason)),
        }
    }
    report
}

impl Known {
    fn size(&self) -> Option<Size> {
        match self {
            Self::Seen { size, .. } => Some(*size),
            Self::Not(..) => None,
        }
    }
}

fn pictures<'a>(example: &Example, seen: &dyn Fn(&PictureAt) -> Option<&'a Known>, report: &mut Report) {
    if example.pictures.is_empty() {
        report.problems.push(Problem::of(Kind::NoPicture, example, "image", "it shows no picture".into()));
    }
    let mut named: Vec<&PictureAt> = example.pictures.iter().collect();
    named.sort_unstable();
    named.dedup();
    for at in named {
        if let Some(Known::Not(kind, reason)) = seen(at) {
            report.problems.push(Problem::of(*kind, example, "image", reason.to_string()));
        }
    }
}

fn regions<'a>(example: &Example, seen: &dyn Fn(&PictureAt) -> Option<&'a Known>, report: &mut Report) {
    let Some(size) = example.pictures.first().and_then(seen).and_then(Known::size) else { return };
    for (field, got) in outside(example, size) {
        report.problems.push(Problem::of(Kind::RegionOutside, example, field, got));
    }
}

/// The regions of an example that are not in its first picture, which has this size: the key that they stand under, and what is
/// wrong.
pub fn outside(example: &Example, size: Size) -> Vec<(&'static str, String)> {
    let whole = Region {
        left: -TOLERANCE_PX,
        top: -TOLERANCE_PX,
        right: size.width as f32 + TOLERANCE_PX,
        bottom: size.height as f32 + TOLERANCE_PX,
    };
    let fault = |(k, look): (usize, &Look)| {
        let region = look.region.map(|spot| spot.in_pixels(size)).filter(|region| !whole.contains(region))?;
        let Region { left, top, right, bottom } = region;
        let (width, height) = (size.width, size.height);
        let got = format!(
            "look {}: [{left}, {top}, {right}, {bottom}] reaches out of the {width} x {height} pixels of its picture",
            k + 1
        );
        Some((if look.reads.is_empty() { "bboxes" } else { "steps" }, got))
    };
    example.looks.iter().enumerate().filter_map(fault).collect()
}

/// The hash of what is asked: the words of all turns before the answer, and the pictures' files.
fn asked(example: &Example, known: &[&Known]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for message in &example.messages {
        message.role.name().hash(&mut hasher);
        match &message.content {
            Content::Text(text) => text.trim().hash(&mut hasher),
            Content::Parts(parts) => parts.iter().for_each(|part| match part {
                Part::Text(text) => text.trim().hash(&mut hasher),
                Part::Picture => 0.hash(&mut hasher),
            }),
        }
    }
    for (known, at) in known.iter().zip(&example.pictures) {
        match known {
            Known::Seen { hash, .. } => hash.hash(&mut hasher),
            Known::Not(..) => at.hash(&mut hasher),
        }
    }
    hasher.finish()
}
