//! Regions of looks as files have them: what their numbers count is said, or can only be one thing.

use serde::Deserialize;

use super::fault::FaultKind;
use crate::processor::Size;
use crate::sample::Region;

/// What the numbers of a region count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Pixels of the picture.
    Pixels,
    /// Shares of its width and height, 0 to 1.
    Normalised,
    /// Thousandths of its width and height, 0 to 1000.
    Thousandths,
}

impl Unit {
    /// All, with their names in files.
    pub const ALL: [(Unit, &'static str); 3] =
        [(Unit::Pixels, "pixels"), (Unit::Normalised, "normalised"), (Unit::Thousandths, "thousandths")];

    /// The unit of a name in a file; other spellings are taken where they can mean one thing only.
    #[must_use]
    pub fn named(name: &str) -> Option<Unit> {
        match name.trim().to_ascii_lowercase().as_str() {
            "pixels" | "pixel" | "absolute" => Some(Unit::Pixels),
            "normalised" | "normalized" | "relative" => Some(Unit::Normalised),
            "thousandths" | "normalised_1000" | "normalized_1000" => Some(Unit::Thousandths),
            _ => None,
        }
    }

    /// The largest number there can be; pixels have none before the picture is known.
    fn most(self) -> f32 {
        match self {
            Self::Pixels => f32::INFINITY,
            Self::Normalised => 1.0,
            Self::Thousandths => 1000.0,
        }
    }
}

/// A region of a picture, before the picture is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spot {
    /// Its edges, in `unit`.
    pub edges: Region,
    /// What they count.
    pub unit: Unit,
}

impl Spot {
    /// The region in pixels of a picture of this size.
    #[must_use]
    pub fn in_pixels(&self, size: Size) -> Region {
        let per_unit = match self.unit {
            Unit::Pixels => return self.edges,
            Unit::Normalised => 1.0,
            Unit::Thousandths => 1000.0,
        };
        let (x, y) = (size.width as f32 / per_unit, size.height as f32 / per_unit);
        let Region { left, top, right, bottom } = self.edges;
        Region { left: left * x, top: top * y, right: right * x, bottom: bottom * y }
    }
}

/// A region of a file: left, top, right, bottom.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Edges(pub [f64; 4]);

/// Why regions cannot be used: the kind, what is expected, what is there.
pub(super) type Refusal = (FaultKind, String, String);

/// The regions of a sample, all of one unit: the one that is said, or the one that the numbers can only be.
pub(super) fn spots(all: &[Edges], said: Option<Unit>) -> Result<Vec<Spot>, Refusal> {
    if let Some(Edges(wrong)) = all.iter().find(|Edges(edges)| edges.iter().any(|x| !x.is_finite() || *x < 0.0)) {
        return Err((FaultKind::Region, "four numbers of 0 or more".into(), format!("{wrong:?}")));
    }
    let unit = match said {
        Some(unit) => unit,
        None => unit_of(all)?,
    };
    let too_large = |edges: &&Edges| edges.0.iter().any(|x| *x as f32 > unit.most());
    if let Some(Edges(wrong)) = all.iter().find(too_large) {
        let expected = format!("numbers of at most {}, as `bbox_format` is {}", unit.most(), name(unit));
        return Err((FaultKind::Region, expected, format!("{wrong:?}")));
    }
    let spot = |Edges(edges): &Edges| {
        let [left, top, right, bottom] = edges.map(|x| x as f32);
        if left >= right || top >= bottom {
            let expected = "[left, top, right, bottom] with left < right and top < bottom".into();
            return Err((FaultKind::EmptyRegion, expected, format!("{edges:?}")));
        }
        Ok(Spot { edges: Region { left, top, right, bottom }, unit })
    };
    all.iter().map(spot).collect()
}

/// Numbers above 1 are pixels; numbers of at most 1, some of them between 0 and 1, are shares. Zeros and ones alone are either,
/// and thousandths look like pixels: they must be said.
fn unit_of(all: &[Edges]) -> Result<Unit, Refusal> {
    let small = |Edges(edges): &Edges| edges.iter().all(|x| *x <= 1.0);
    if !all.iter().any(small) {
        return Ok(Unit::Pixels);
    }
    let shown = |Edges(edges): &Edges| format!("{edges:?}");
    let unclear = |got: String| {
        let expected = "numbers that can only be pixels or only be shares, or `bbox_format`";
        Err((FaultKind::Region, expected.into(), got))
    };
    if let (Some(one), Some(other)) = (all.iter().find(|edges| small(edges)), all.iter().find(|edges| !small(edges))) {
        return unclear(format!("{} beside {}", shown(one), shown(other)));
    }
    let between = |Edges(edges): &Edges| edges.iter().any(|x| *x > 0.0 && *x < 1.0);
    match all.iter().any(between) {
        true => Ok(Unit::Normalised),
        false => unclear(format!("{}, which is the whole picture or one pixel", shown(&all[0]))),
    }
}

pub(super) fn name(unit: Unit) -> &'static str {
    Unit::ALL.iter().find(|(known, _)| *known == unit).map_or("", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(all: &[[f64; 4]], said: Option<Unit>) -> Result<Unit, Refusal> {
        let all: Vec<Edges> = all.iter().map(|edges| Edges(*edges)).collect();
        spots(&all, said).map(|spots| spots[0].unit)
    }

    #[test]
    fn what_numbers_count_is_said_or_can_only_be_one_thing() {
        assert_eq!(unit(&[[0.0, 0.0, 20.0, 10.0]], None), Ok(Unit::Pixels));
        assert_eq!(unit(&[[0.1, 0.0, 1.0, 0.5]], None), Ok(Unit::Normalised));
        assert_eq!(unit(&[[0.0, 0.0, 1.0, 1.0], [0.2, 0.1, 0.9, 1.0]], None), Ok(Unit::Normalised));
        assert_eq!(unit(&[[0.5, 0.5, 20.0, 10.0]], None), Ok(Unit::Pixels));
        assert_eq!(unit(&[[0.0, 0.0, 1.0, 1.0]], Some(Unit::Pixels)), Ok(Unit::Pixels));
        assert_eq!(unit(&[[100.0, 0.0, 900.0, 1000.0]], Some(Unit::Thousandths)), Ok(Unit::Thousandths));
    }

    #[test]
    fn numbers_that_can_be_either_or_are_too_large_are_refused() {
        for (all, said, named) in [
            (&[[0.0, 0.0, 1.0, 1.0]][..], None, "one pixel"),
            (&[[0.1, 0.1, 0.2, 0.2], [3.0, 4.0, 50.0, 60.0]], None, "beside"),
            (&[[0.1, 0.1, 1.2, 0.2]], Some(Unit::Normalised), "1.2"),
            (&[[0.0, 0.0, 1001.0, 5.0]], Some(Unit::Thousandths), "1001"),
            (&[[-1.0, 0.0, 3.0, 5.0]], None, "-1"),
        ] {
            let (kind, _, got) = unit(all, said).unwrap_err();
            assert!(kind == FaultKind::Region && got.contains(named), "{all:?}: {got}");
        }
        assert_eq!(unit(&[[3.0, 1.0, 3.0, 4.0]], None).unwrap_err().0, FaultKind::EmptyRegion);
    }

    #[test]
    fn regions_in_every_unit_are_the_same_pixels() {
        let size = Size { width: 200, height: 50 };
        let spot = |edges: [f64; 4], unit| spots(&[Edges(edges)], Some(unit)).unwrap()[0].in_pixels(size);
        let pixels = spot([20.0, 5.0, 100.0, 50.0], Unit::Pixels);
        assert_eq!(spot([100.0, 100.0, 500.0, 1000.0], Unit::Thousandths), pixels);
        assert_eq!(spot([0.125, 0.5, 0.5, 1.0], Unit::Normalised), spot([25.0, 25.0, 100.0, 50.0], Unit::Pixels));
    }
}
