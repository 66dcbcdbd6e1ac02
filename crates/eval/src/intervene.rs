//! Does it think there? What is put in the place of a model's thoughts and looks, item by item.
//!
//! Each intervention but the one without thoughts is answered with as many steps as the untouched model took, and graded
//! like it. What it costs in right answers is what the thoughts, or the looks, were worth. Where there is nothing to
//! replace, an intervention is not tried: it would seem to cost nothing.

use crate::cells::best_cells;
use crate::item::Item;
use lare_infer::{Answer, LookReport};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intervention {
    /// Every thought is zero.
    Zero,
    /// Every thought is Gaussian noise of the norm of the model's own.
    Noise,
    /// Every thought is the mean of that step's thoughts over other questions: of another split, where there is one.
    Mean,
    /// Every thought is the first one; not tried on one step alone.
    RepeatFirst,
    /// The thoughts are those about another question of the same task; in the suite on another picture.
    Other,
    /// The thoughts come in another order; not tried on one step alone.
    Shuffle,
    /// No thought at all: `<think>` is followed by `</think>`.
    MarkersOnly,
    /// Random patches are read.
    RandomPatches,
    /// The patches are read that were chosen for another question; in the suite on another picture.
    OtherPatches,
    /// The patches are read that hold the true region, where it is known.
    OraclePatches,
}

impl Intervention {
    /// All of them, thoughts first, as reports list them.
    pub const ALL: [Self; 10] = [
        Self::Zero,
        Self::Noise,
        Self::Mean,
        Self::RepeatFirst,
        Self::Other,
        Self::Shuffle,
        Self::MarkersOnly,
        Self::RandomPatches,
        Self::OtherPatches,
        Self::OraclePatches,
    ];

    /// The name in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Noise => "noise",
            Self::Mean => "mean",
            Self::RepeatFirst => "repeat-first",
            Self::Other => "other",
            Self::Shuffle => "shuffle",
            Self::MarkersOnly => "markers-only",
            Self::RandomPatches => "random-patches",
            Self::OtherPatches => "other-patches",
            Self::OraclePatches => "oracle-patches",
        }
    }

    /// What was done, as a sentence about the thoughts or looks begins.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Zero => "replacing the thoughts with zeros",
            Self::Noise => "replacing the thoughts with noise of equal norm",
            Self::Mean => "replacing the thoughts with their mean over other questions",
            Self::RepeatFirst => "repeating the first thought",
            Self::Other => "replacing the thoughts with those about another question",
            Self::Shuffle => "shuffling the thoughts",
            Self::MarkersOnly => "leaving the thoughts out",
            Self::RandomPatches => "reading random patches",
            Self::OtherPatches => "reading the patches chosen for another question",
            Self::OraclePatches => "reading the patches of the true region",
        }
    }
}

impl fmt::Display for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no intervention has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown intervention `{got}`\n  expected  one of {expected}")]
pub struct UnknownIntervention {
    /// The name that was given.
    pub got: String,
    /// The names there are.
    pub expected: String,
}

impl FromStr for Intervention {
    type Err = UnknownIntervention;

    fn from_str(name: &str) -> Result<Self, UnknownIntervention> {
        Self::ALL
            .into_iter()
            .find(|what| what.name() == name)
            .ok_or_else(|| UnknownIntervention { got: name.to_owned(), expected: Self::ALL.map(Self::name).join(", ") })
    }
}

/// Thoughts and patches to put in the place of one answer's own, a step each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// How many steps are taken.
    pub steps: usize,
    /// As [`lare_infer::Replaced::thoughts`].
    pub thoughts: Vec<Option<Vec<f32>>>,
    /// As [`lare_infer::Replaced::patches`].
    pub patches: Vec<Option<Vec<usize>>>,
}

/// What an intervention draws on besides the answer it changes.
pub struct Material<'a> {
    /// An answer to another question, with at least one step if there is any.
    pub other: &'a Answer,
    /// Mean thought of each step, `[K][D]`; the last one serves later steps.
    pub means: &'a [Vec<f32>],
    /// Random numbers follow from this and the item.
    pub seed: u64,
}

impl Plan {
    fn of_thoughts(looks: &[LookReport], make: impl FnMut((usize, &LookReport)) -> Option<Vec<f32>>) -> Self {
        Self { steps: looks.len(), thoughts: looks.iter().enumerate().map(make).collect(), patches: Vec::new() }
    }

    fn of_patches(looks: &[LookReport], make: impl FnMut((usize, &LookReport)) -> Option<Vec<usize>>) -> Self {
        Self { steps: looks.len(), thoughts: Vec::new(), patches: looks.iter().enumerate().map(make).collect() }
    }
}

impl Intervention {
    /// What to put in the place of the thoughts and looks of `own`; `None` where there is nothing to replace, or nothing
    /// to put there.
    #[must_use]
    pub fn plan(self, item: &Item, own: &Answer, material: &Material) -> Option<Plan> {
        let looks = &own.looks;
        let is_possible = match self {
            Self::Zero | Self::Noise | Self::Mean | Self::MarkersOnly => !looks.is_empty(),
            Self::RepeatFirst | Self::Shuffle => looks.len() > 1,
            Self::Other => !looks.is_empty() && !material.other.looks.is_empty(),
            _ => looks.iter().any(|look| !look.chosen.is_empty()),
        };
        let plan = is_possible.then(|| self.replacements(item, own, material))?;
        let reads = plan.patches.iter().any(Option::is_some);
        (reads || !self.is_about_patches()).then_some(plan)
    }

    fn is_about_patches(self) -> bool {
        matches!(self, Self::RandomPatches | Self::OtherPatches | Self::OraclePatches)
    }

    fn replacements(self, item: &Item, own: &Answer, material: &Material) -> Plan {
        let looks = &own.looks;
        let mut dice = ChaCha8Rng::seed_from_u64(material.seed);
        // Of an answer with fewer steps, the last one serves again.
        let other = |k: usize| material.other.looks.get(k).or(material.other.looks.last());
        match self {
            Self::Zero => Plan::of_thoughts(looks, |(_, look)| Some(vec![0.0; look.thought.len()])),
            Self::Noise => Plan::of_thoughts(looks, |(_, look)| Some(noise_like(&look.thought, &mut dice))),
            Self::Mean => Plan::of_thoughts(looks, |(k, _)| material.means.get(k).or(material.means.last()).cloned()),
            Self::RepeatFirst => Plan::of_thoughts(looks, |_| looks.first().map(|first| first.thought.clone())),
            Self::Other => Plan::of_thoughts(looks, |(k, _)| other(k).map(|look| look.thought.clone())),
            Self::Shuffle => {
                let order = deranged(looks.len(), &mut dice);
                Plan::of_thoughts(looks, |(k, _)| Some(looks[order[k]].thought.clone()))
            }
            Self::MarkersOnly => Plan::default(),
            Self::RandomPatches => {
                let mut tokens: Vec<usize> = (0..own.places.tokens()).collect();
                Plan::of_patches(looks, |(_, look)| {
                    tokens.shuffle(&mut dice);
                    Some(tokens.iter().copied().take(look.chosen.len()).collect())
                })
            }
            Self::OtherPatches => Plan::of_patches(looks, |(k, _)| {
                // The other picture may have more of them.
                let real = other(k)?.chosen.iter().copied().filter(|token| *token < own.places.tokens());
                Some(real.collect()).filter(|real: &Vec<usize>| !real.is_empty())
            }),
            Self::OraclePatches => Plan::of_patches(looks, |(k, look)| {
                let region = item.rationale.as_ref()?.regions.get(k)?;
                Some(own.places.over(&best_cells(region, &own.grid, look.chosen.len())))
            }),
        }
    }
}

/// Gaussian numbers, scaled to the norm of `own`.
fn noise_like(own: &[f32], dice: &mut ChaCha8Rng) -> Vec<f32> {
    let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
    let noise: Vec<f32> = own.iter().map(|_| gaussian(dice)).collect();
    let scale = norm(own) / norm(&noise).max(1e-6);
    noise.into_iter().map(|x| x * scale).collect()
}

/// A number of the standard normal distribution, by Box and Muller.
fn gaussian(dice: &mut ChaCha8Rng) -> f32 {
    let (radius, angle): (f64, f64) = (dice.random(), dice.random());
    let radius = (-2.0 * (1.0 - radius).ln()).sqrt();
    (radius * (std::f64::consts::TAU * angle).cos()) as f32
}

/// A random cyclic shift: where there are two or more, nothing stays in its place.
fn deranged(count: usize, dice: &mut ChaCha8Rng) -> Vec<usize> {
    let by = if count < 2 { 0 } else { dice.random_range(1..count) };
    (0..count).map(|k| (k + by) % count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_norm_of_what_it_replaces_and_another_direction() {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let own: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin()).collect();
        let noise = noise_like(&own, &mut dice);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!((dot(&noise, &noise) / dot(&own, &own) - 1.0).abs() < 1e-4);
        assert!((dot(&noise, &own) / dot(&own, &own)).abs() < 0.5);
        assert_eq!(noise_like(&[0.0; 3], &mut dice), [0.0; 3]);
    }

    #[test]
    fn a_shuffle_leaves_nothing_in_its_place() {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        for count in 0..6 {
            let order = deranged(count, &mut dice);
            assert!(count < 2 || order.iter().enumerate().all(|(k, from)| k != *from), "{order:?}");
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..count), "{order:?}");
        }
    }

    #[test]
    fn names_are_those_of_files() {
        for what in Intervention::ALL {
            assert_eq!(serde_json::to_value(what).unwrap(), what.name());
            assert_eq!(what.name().parse(), Ok(what));
        }
    }
}
