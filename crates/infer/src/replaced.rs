//! What a causal test puts in the place of what the model thinks and reads.

use crate::Result;
use crate::engine::Replacement;
use crate::look::finite;
use crate::sampler::normals;
use lare_model::refocus::{Grid, Refocus};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Thoughts and looks of one question that are not the model's own, step by step. A step that has no entry, or `None`,
/// is left alone. How many steps are taken stays with [`crate::Options::steps`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Replaced<'a> {
    /// Fed back in place of a step's thought: `[D]`, mean square 1 where it should be as large as the model's own.
    pub thoughts: &'a [Option<Vec<f32>>],
    /// Read again in place of what a step chooses: cells of the picture's own grid, at least one.
    pub patches: &'a [Option<Vec<usize>>],
}

impl Replaced<'_> {
    /// Refuses thoughts of another width or with NaN. Patches are checked when the picture is known.
    pub(crate) fn check(&self, width: usize) -> Result<()> {
        for thought in self.thoughts.iter().flatten() {
            if thought.len() != width {
                let (what, expected) = ("width of a thought", width.to_string());
                return Err(lare_model::Error::Arguments { what, expected, got: thought.len().to_string() }.into());
            }
            thought.iter().try_for_each(|x| finite("a thought that was given", *x).map(drop))?;
        }
        Ok(())
    }

    /// The patches of step `k`, as the model takes them.
    pub(crate) fn patches_at(&self, k: usize) -> Option<Vec<u32>> {
        let patches = self.patches.get(k)?.as_ref()?;
        Some(patches.iter().map(|p| u32::try_from(*p).unwrap_or(u32::MAX)).collect())
    }

    /// The thought of step `k`.
    pub(crate) fn thought_at(&self, k: usize) -> Option<&[f32]> {
        self.thoughts.get(k)?.as_deref()
    }
}

/// Where what is put in the place of a question's thoughts and looks comes from.
pub(crate) enum Replacing<'a> {
    /// From a plan, step by step; the empty one replaces nothing.
    Given(Replaced<'a>),
    /// From what it is at each step.
    Live(Live),
}

/// One [`Replacement`] of every step, drawn as the steps come.
pub(crate) struct Live {
    what: Replacement,
    seed: u64,
}

/// What stands in for parts of one step.
pub(crate) struct Standin {
    thought: Option<Thought>,
    /// Read in place of what the step chooses.
    pub patches: Option<Vec<u32>>,
}

/// What is thought in place of a step's own thought.
enum Thought {
    /// This.
    Is(Vec<f32>),
    /// This direction, as long as the thought itself.
    Along(Vec<f32>),
}

impl Live {
    pub(crate) fn new(what: Replacement) -> Self {
        let seed = match what {
            Replacement::Noise { seed } | Replacement::RandomPatches { seed } => seed,
            Replacement::Zero | Replacement::RepeatFirst | Replacement::MarkersOnly => 0,
        };
        Self { what, seed }
    }

    fn standin(&self, of: &Under, k: usize) -> Standin {
        // A stream for each step: what is drawn for one does not depend on how much was drawn before.
        let mut dice = ChaCha8Rng::seed_from_u64(self.seed);
        dice.set_stream(k as u64);
        let nothing = Standin { thought: None, patches: None };
        match self.what {
            Replacement::Zero => Standin { thought: Some(Thought::Is(vec![0.0; of.width])), ..nothing },
            Replacement::Noise { .. } => {
                let noise = normals(dice.random(), of.width);
                Standin { thought: Some(Thought::Along(noise)), ..nothing }
            }
            Replacement::RepeatFirst => {
                Standin { thought: of.first.map(|first| Thought::Is(first.to_vec())), ..nothing }
            }
            Replacement::MarkersOnly => nothing,
            Replacement::RandomPatches { .. } => {
                let mut cells: Vec<u32> = (0..of.grids.iter().map(|grid| grid.cells() as u32).sum()).collect();
                cells.shuffle(&mut dice);
                cells.truncate(of.refocus.patches_of_a_look(of.grids));
                Standin { patches: Some(cells).filter(|cells| !cells.is_empty()), ..nothing }
            }
        }
    }
}

/// What a step that is replaced would be a step of.
pub(crate) struct Under<'a> {
    /// The step.
    pub refocus: &'a Refocus,
    /// `D`.
    pub width: usize,
    /// How the cells of the pictures lie.
    pub grids: &'a [Grid],
    /// The thought of the first step.
    pub first: Option<&'a [f32]>,
}

impl Replacing<'_> {
    /// What stands in for parts of step `k`.
    pub(crate) fn standin(&self, of: &Under, k: usize) -> Standin {
        match self {
            Self::Given(replaced) => {
                let thought = replaced.thought_at(k).map(|thought| Thought::Is(thought.to_vec()));
                Standin { thought, patches: replaced.patches_at(k) }
            }
            Self::Live(live) => live.standin(of, k),
        }
    }
}

impl Standin {
    /// Whether it has a thought.
    pub(crate) fn thinks(&self) -> bool {
        self.thought.is_some()
    }

    /// Replaces a thought.
    pub(crate) fn think(&self, own: &mut [f32]) {
        let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
        match &self.thought {
            None => {}
            Some(Thought::Is(thought)) => own.copy_from_slice(thought),
            Some(Thought::Along(noise)) => {
                let scale = norm(own) / norm(noise).max(1e-6);
                own.iter_mut().zip(noise).for_each(|(own, noise)| *own = noise * scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Answer, Batch, Options, Question, Replaced, Steps, session, tiny};

    fn ask(replaced: [Replaced; 2]) -> crate::Result<Vec<Answer>> {
        let picture = tiny::picture(256, 192, 3);
        let options = Options { steps: Steps::Fixed(3), ..Options::default() };
        let question = |replaced| Question { replaced, ..Question::new(0, "What is left of the cat?", options) };
        let batch = Batch { pictures: &[&picture], questions: &replaced.map(question) };
        session::answer(&tiny::assistant(), &batch, &mut |_| ())
    }

    #[test]
    fn what_is_given_takes_the_place_of_one_rows_own_from_its_step_on() {
        let own = ask([Replaced::default(); 2]).unwrap();
        let width = own[0].looks[0].thought.len();
        let (zero, cells) = ([None, Some(vec![0.0; width])], [None, None, Some(vec![5, 2])]);
        let changed = ask([Replaced { thoughts: &zero, patches: &cells }, Replaced::default()]).unwrap();
        let looks = &changed[0].looks;
        assert_eq!(looks[0], crate::LookReport { time_ms: looks[0].time_ms, ..own[0].looks[0].clone() });
        assert!(looks[1].thought.iter().all(|x| *x == 0.0));
        assert_eq!(looks[2].chosen, [5, 2]);
        assert_ne!(looks[2].thought, own[0].looks[2].thought);
        assert_eq!(looks.len(), 3);
        for (a, b) in changed[1].looks.iter().zip(&own[1].looks) {
            assert_eq!((&a.chosen, &a.thought), (&b.chosen, &b.thought), "the other row");
        }
        // Giving a row its own thoughts changes nothing.
        let thoughts: Vec<_> = own[0].looks.iter().map(|l| Some(l.thought.clone())).collect();
        let same = ask([Replaced { thoughts: &thoughts, patches: &[] }, Replaced::default()]).unwrap();
        assert_eq!(same[0].tokens, own[0].tokens);
        assert!(same[0].looks.iter().zip(&own[0].looks).all(|(a, b)| a.scores == b.scores));
    }

    #[test]
    fn what_cannot_be_thought_or_read_is_refused() {
        let refused = |thoughts: &[Option<Vec<f32>>], patches: &[Option<Vec<usize>>]| {
            ask([Replaced { thoughts, patches }, Replaced::default()]).unwrap_err().to_string()
        };
        assert!(refused(&[Some(vec![1.0; 3])], &[]).contains("width of a thought"));
        let width = ask([Replaced::default(); 2]).unwrap()[0].looks[0].thought.len();
        assert!(refused(&[Some(vec![f32::NAN; width])], &[]).contains("a thought that was given"));
        for cells in [vec![], vec![12], vec![usize::MAX]] {
            assert!(refused(&[], &[Some(cells)]).contains("patches of a look"));
        }
    }
}
