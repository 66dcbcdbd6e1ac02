//! What is found: counts, and a few problems of every kind by name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::check::Report;
use crate::examples::{Example, Fault, FaultKind, Format};

/// Whether a run can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A run would not begin, or learn what is wrong.
    Error,
    /// A run leaves it out, or learns it twice.
    Warning,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A file cannot be read, or is of no format.
    File,
    /// A file holds no sample.
    Nothing,
    /// A sample has not the keys of its format.
    Layout,
    /// Turns make no conversation.
    Turns,
    /// Places for pictures are not as many as pictures.
    Places,
    /// A picture is named in a way that leads nowhere.
    PictureName,
    /// A picture is not there.
    MissingPicture,
    /// A picture cannot be decoded.
    BrokenPicture,
    /// The model's processor refuses a picture.
    RefusedPicture,
    /// It is unclear what the numbers of a region count.
    Region,
    /// A region has no area.
    EmptyRegion,
    /// A region is not in its picture.
    RegionOutside,
    /// An answer says nothing.
    EmptyAnswer,
    /// The model's template or tokenizer refuses a sample.
    Refused,
    /// A sample shows no picture.
    NoPicture,
    /// A sample is too long for the model.
    TooLong,
    /// The same is asked of the same pictures again.
    Duplicate,
}

impl Kind {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "unreadable_file",
            Self::Nothing => "empty_file",
            Self::Layout => "layout",
            Self::Turns => "turns",
            Self::Places => "places_of_pictures",
            Self::PictureName => "picture_name",
            Self::MissingPicture => "missing_picture",
            Self::BrokenPicture => "undecodable_picture",
            Self::RefusedPicture => "refused_picture",
            Self::Region => "region",
            Self::EmptyRegion => "empty_region",
            Self::RegionOutside => "region_outside",
            Self::EmptyAnswer => "empty_answer",
            Self::Refused => "refused_sample",
            Self::NoPicture => "no_picture",
            Self::TooLong => "too_long",
            Self::Duplicate => "duplicate",
        }
    }

    /// Whether a run can begin with it.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::NoPicture | Self::TooLong | Self::Duplicate => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// What to do.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::File => "without the file the rest is not the whole",
            Self::Nothing => "take it out, or write it anew",
            Self::Layout => FaultKind::Layout.hint(),
            Self::Turns => FaultKind::Turns.hint(),
            Self::Places => FaultKind::Places.hint(),
            Self::PictureName => FaultKind::Picture.hint(),
            Self::MissingPicture => {
                "bring it back, name the folder that names start from (`pictures`), or take the sample out"
            }
            Self::BrokenPicture => "fetch or export it again, or take the sample out",
            Self::RefusedPicture => "scale it to sizes that the model's processor takes, or take the sample out",
            Self::Region => FaultKind::Region.hint(),
            Self::EmptyRegion => FaultKind::EmptyRegion.hint(),
            Self::RegionOutside => {
                "write it in pixels of the first picture as it is shown, upright; numbers to 1000 that are none need `bbox_format` = `thousandths`"
            }
            Self::EmptyAnswer => FaultKind::EmptyAnswer.hint(),
            Self::Refused => "write the turns as the model's chat template takes them",
            Self::NoPicture => "training leaves it out: there is nothing to look at again",
            Self::TooLong => {
                "training leaves it out: raise `data.max_tokens`, or let the processor make fewer tokens of a picture"
            }
            Self::Duplicate => "take one of them out, unless it is meant to count twice",
        }
    }

    pub(super) fn of_fault(kind: FaultKind) -> Kind {
        match kind {
            FaultKind::Layout => Self::Layout,
            FaultKind::Turns => Self::Turns,
            FaultKind::Places => Self::Places,
            FaultKind::Picture => Self::PictureName,
            FaultKind::EmptyAnswer => Self::EmptyAnswer,
            FaultKind::EmptyRegion => Self::EmptyRegion,
            FaultKind::Region => Self::Region,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub kind: Kind,
    /// The file, and where in it.
    pub at: String,
    /// The sample's name; empty for a whole file.
    pub id: String,
    /// The key in it; empty where the whole is meant.
    pub field: String,
    /// What is there, and what was expected.
    pub what: String,
}

impl Problem {
    pub(super) fn of_file(kind: Kind, file: &Path, what: String) -> Self {
        Self { kind, at: file.display().to_string(), id: String::new(), field: String::new(), what }
    }

    pub(super) fn of(kind: Kind, example: &Example, field: &str, what: String) -> Self {
        Self { kind, at: example.origin.to_string(), id: example.id.clone(), field: field.to_owned(), what }
    }

    pub(super) fn of_fault(fault: &Fault) -> Self {
        Self {
            kind: Kind::of_fault(fault.kind),
            at: fault.origin.to_string(),
            id: fault.id.clone(),
            field: fault.field.clone(),
            what: format!("{}; expected {}", fault.got, fault.expected),
        }
    }
}

/// A file, and how much is in it.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The file.
    pub file: Arc<Path>,
    /// What it is.
    pub format: Format,
    /// Samples in it, those that cannot be used among them.
    pub samples: usize,
    /// Examples: an answer each.
    pub examples: usize,
}

/// Numbers from the smallest to the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The smallest.
    pub min: usize,
    /// As many are below as above.
    pub median: usize,
    /// 95 of 100 are not above.
    pub p95: usize,
    /// The largest.
    pub max: usize,
}

impl Range {
    /// Of some numbers; `None` of none.
    #[must_use]
    pub fn of(numbers: &[usize]) -> Option<Range> {
        let mut all = numbers.to_vec();
        all.sort_unstable();
        let last = all.len().checked_sub(1)?;
        // The smallest number that enough of them are not above.
        let share = |part: usize| all[(all.len() * part).div_ceil(100).saturating_sub(1)];
        Some(Range { min: all[0], median: share(50), p95: share(95), max: all[last] })
    }
}

/// What was found in files.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Problems of each kind that are named.
    pub named: usize,
    /// The files that were recognised.
    pub files: Vec<Counted>,
    /// Pictures, each counted once.
    pub pictures: usize,
    /// Places in prompts at which they stand, over all examples.
    pub places: usize,
    /// Looks that are known, over all samples, and those of them with a region.
    pub looks: (usize, usize),
    /// Tokens of every example, where they were counted.
    pub lengths: Vec<usize>,
    /// Tokens of every picture.
    pub per_picture: Vec<usize>,
    /// The most tokens that an example may have.
    pub most: Option<usize>,
    /// How many problems of a kind there are, and the first of them.
    pub problems: BTreeMap<Kind, (usize, Vec<Problem>)>,
}

impl Findings {
    /// Problems of a severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|(kind, _)| kind.severity() == severity).map(|(_, (count, _))| count).sum()
    }

    pub(super) fn add(&mut self, problem: Problem) {
        let (count, first) = self.problems.entry(problem.kind).or_default();
        *count += 1;
        if first.len() < self.named {
            first.push(problem);
        }
    }

    pub(super) fn take(&mut self, report: Report) {
        self.places += report.places;
        self.looks = (self.looks.0 + report.looks.0, self.looks.1 + report.looks.1);
        for length in report.lengths {
            self.lengths.push(length.total());
            self.most = Some(length.most);
        }
        report.problems.into_iter().for_each(|problem| self.add(problem));
    }
}

#[cfg(test)]
mod tests {
    use super::Range;

    #[test]
    fn a_range_names_numbers_that_are_there() {
        let all: Vec<usize> = (1..=100).rev().collect();
        assert_eq!(Range::of(&all), Some(Range { min: 1, median: 50, p95: 95, max: 100 }));
        assert_eq!(Range::of(&[7]), Some(Range { min: 7, median: 7, p95: 7, max: 7 }));
        assert_eq!(Range::of(&[]), None);
    }
}
