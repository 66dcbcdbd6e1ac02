//! What the one training program must know of what it trains: the nano model ([`crate::nano`]), or what is added to a
//! pretrained one ([`crate::family`]). Everything else is shared: stages, terms of the loss, optimiser, checkpoints, metrics.

use crate::batch::Batch;
use crate::loss::LossTerms;
use crate::{Error, Result};
use candle_core::Tensor;
use lare_model::reasoning::Scene;
use lare_model::semantic::Semantic;
use lare_model::{Reasoning, Source, Thread};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A model in training: what the loss must know of it besides its latent steps.
pub trait Learner: Reasoning + Sync + Sized {
    /// The pictures of a batch, as it takes them.
    type Pictures: Clone + Send + Sync;
    /// What its encoders saw in them.
    type Seen;

    /// Whether an answer begins with a mark that is fed and not said; the last thought says its first token otherwise.
    const MARKED: bool;

    /// Looks at a batch's pictures once.
    fn look_at(&self, batch: &Batch<Self::Pictures>) -> Result<(Scene, Self::Seen)>;

    /// What a second look can see, `[S, P, E, Dv]`, without gradient and zero for cells that are padding.
    fn fine(&self, seen: &Self::Seen) -> Result<Tensor>;

    /// What gives its thoughts a meaning.
    fn semantic(&self) -> Option<&Semantic>;

    /// What the denoiser is to find in the thought of a step, about unit variance. `origin`: row and step.
    fn clean(
        &self,
        fine: &Tensor,
        batch: &Batch<Self::Pictures>,
        thread: &Thread,
        origin: (usize, usize),
    ) -> Result<Vec<f32>>;

    /// Cross-entropy of the names of what stands in the pictures; `None` for a model that is not asked for them, or where
    /// nothing stands.
    fn names(&self, _: &Scene, _: &Batch<Self::Pictures>) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// A sample that was left out of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// The pictures of a subject's batches.
pub type PicturesOf<S> = <<S as Subject>::Model as Learner>::Pictures;

/// What a run trains.
pub trait Subject: Sync {
    /// The model.
    type Model: Learner;
    /// Heads that only training has, outside the model.
    type Heads: Sync;

    /// Parameters that pictures' features depend on, by prefix: while none of them is trained, features are kept.
    const ENCODERS: &'static [&'static str];

    /// Builds the model, asking for each parameter that a run may change by name.
    fn build(&self, source: &dyn Source) -> Result<(Self::Model, Self::Heads)>;

    /// Batch number `index` (optimiser step times `accumulate`, plus the part) of a stage. `frozen`: the model while its
    /// encoders do not change.
    fn batch(&mut self, stage: usize, index: usize, frozen: Option<&Self::Model>) -> Result<Batch<PicturesOf<Self>>>;

    /// Validation batch `number` of a stage; `None` behind the last.
    fn validation(
        &mut self,
        stage: usize,
        number: usize,
        model: &Self::Model,
    ) -> Result<Option<Batch<PicturesOf<Self>>>>;

    /// The objective `read`: its term, and shares right by name.
    ///
    /// # Errors
    /// [`Error::Config`] for a model whose encoders are never trained.
    fn read(
        &self,
        _: (&Self::Model, &Self::Heads),
        _: &Batch<PicturesOf<Self>>,
    ) -> Result<(LossTerms, Vec<(&'static str, f64)>)> {
        let (file, field) = ("the run config".into(), "objective".into());
        Err(Error::Config { file, field, expected: "reason or halt".into(), got: "read".into() })
    }

    /// Samples that were left out, with the reason.
    fn dropped(&self) -> &[Dropped] {
        &[]
    }

    /// Writes what was trained into the run's folder `run`, for use; gives where.
    fn export(&self, run: &Path, weights: &BTreeMap<String, Tensor>) -> Result<PathBuf>;
}
