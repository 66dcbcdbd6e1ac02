//! How many tokens samples take of a model: before a run, which leaves out those that are too long, and for `lare data lint`.

use super::asked::{Needs, Teller};
use super::lessons::most_steps;
use crate::Result;
use crate::config::Config;
use lare_data::lint::{self, Length};
use lare_data::{Example, Size};
use lare_model::pretrained::Pretrained;
use std::collections::BTreeSet;
use std::path::Path;

/// Counts tokens as training does.
pub struct Ruler {
    teller: Teller,
    steps: usize,
}

impl Ruler {
    /// With the model of a run, whose folder this is: its thoughts and its limit count.
    ///
    /// # Errors
    /// Names the file or field of the folder that does not fit.
    pub fn of_run(config: &Config, folder: &Path) -> Result<Self> {
        let model = Pretrained::from_folder(folder, None)?;
        let teller = Teller::open(&model, folder, &Needs::of(config, config.latent_step()?))?;
        Ok(Self { teller, steps: most_steps(config)? })
    }

    /// With a model alone: without thoughts, up to what it was made for.
    ///
    /// # Errors
    /// Names the file or field of the folder that does not fit.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let model = Pretrained::from_folder(folder, None)?;
        let needs = Needs { features: 0, read_slots: 0, positions_per_step: 1, max_tokens: None };
        Ok(Self { teller: Teller::open(&model, folder, &needs)?, steps: 0 })
    }
}

impl lint::Ruler for Ruler {
    fn picture(&self, size: Size) -> std::result::Result<usize, String> {
        self.teller.sights.tokens(size).map(|tokens| tokens.total()).map_err(|error| one_line(&error))
    }

    fn length(&self, example: &Example, sizes: &[Size]) -> std::result::Result<Length, String> {
        length(&self.teller, example, (sizes, self.steps)).map_err(|error| one_line(&error))
    }
}

/// The lines above a hint, as one.
fn one_line(error: &crate::Error) -> String {
    let text = error.to_string();
    let above = text.split("\n\nhint: ").next().unwrap_or_default();
    above.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// What an example takes with pictures of these sizes and so many latent steps.
pub fn length(teller: &Teller, example: &Example, (sizes, steps): (&[Size], usize)) -> Result<Length> {
    let tokens = sizes.iter().map(|size| teller.sights.tokens(*size)).collect::<Result<Vec<_>>>()?;
    // All that a stage could let it say.
    let said: BTreeSet<&str> = example.looks.iter().map(|look| look.says.as_str()).collect();
    let longest = said.into_iter().chain([example.answer.as_str()]).collect::<Vec<_>>().join("\n");
    let told = teller.told(&example.messages, &tokens, &longest)?;
    Ok(teller.length(&told, &tokens, steps))
}
