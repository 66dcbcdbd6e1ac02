//! What a causal test puts in the place of what the model thinks and reads.

use crate::Result;
use crate::look::finite;
use candle_core::Tensor;
use lare_model::Config;

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
    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        let width = config.language.width;
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

/// The thoughts `own` `[B, D]`, with those of some rows replaced.
pub(crate) fn thoughts(own: &Tensor, given: &[Option<&[f32]>]) -> lare_model::Result<Tensor> {
    let mut rows = own.to_vec2::<f32>()?;
    for (row, given) in rows.iter_mut().zip(given) {
        if let Some(given) = given {
            row.copy_from_slice(given);
        }
    }
    let (shape, device) = (own.shape().clone(), own.device());
    Ok(Tensor::from_vec(rows.concat(), shape, device)?)
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
