//! What trains when: a stage builds the model with gradients where it trains and a fresh optimiser.

use crate::config::{Config, Objective, Stage};
use crate::reading::Readers;
use crate::vars::Vars;
use crate::{Error, Result};
use candle_core::Var;
use lare_kernels::{AdamW, AdamWOptions};
use lare_model::{Path, Reasoner};

/// A stage, ready to be trained.
pub struct Staged {
    /// The model, with gradient where the stage trains.
    pub model: Reasoner,
    /// The encoders' heads.
    pub readers: Readers,
    /// Of all variables; frozen ones get no gradient and stay.
    pub optimizer: AdamW,
    /// Names of the optimiser's parameters.
    pub names: Vec<String>,
    /// Factor on the rate for each.
    pub rate_scale: Vec<f64>,
    /// Whether the encoders are frozen, so that features can be kept.
    pub frozen_encoders: bool,
}

/// Parameters of the encoders: all that features depend on.
const ENCODERS: [&str; 2] = ["vision.fine.", "vision.coarse."];

/// Prepares a stage from the variables as they are.
pub fn enter(config: &Config, stage: &Stage, vars: &Vars) -> Result<Staged> {
    let mut prefixes = stage.train.clone();
    if stage.objective == Objective::Read {
        prefixes.push("reading.".into());
    }
    vars.train(&prefixes);
    let model = Reasoner::new(&config.model, Path::root(vars))?;
    let readers = Readers::new(Path::root(vars), &config.model)?;
    let (names, params): (Vec<String>, Vec<Var>) = vars.all().into_iter().unzip();
    if let Some(prefix) = stage.train.iter().find(|prefix| !names.iter().any(|name| name.starts_with(prefix.as_str())))
    {
        let expected = format!("beginnings of parameter names, such as `{}`", names.first().map_or("", String::as_str));
        let field = format!("train of stage `{}`", stage.name);
        return Err(Error::Config { file: config.name.clone(), field, expected, got: prefix.clone() });
    }
    let o = &config.optimizer;
    let decay = |p: &Var| if p.rank() >= 2 { o.weight_decay } else { 0.0 };
    let options = AdamWOptions {
        beta1: o.beta1,
        beta2: o.beta2,
        eps: o.eps,
        weight_decay: params.iter().map(decay).collect(),
        ema_decay: Some(o.ema_decay),
    };
    let rate_scale = names.iter().map(|name| scale_of(name, stage)).collect();
    let frozen_encoders = !names.iter().any(|n| ENCODERS.iter().any(|e| n.starts_with(e)) && vars.is_trained(n));
    Ok(Staged { model, readers, optimizer: AdamW::new(params, options)?, names, rate_scale, frozen_encoders })
}

/// The factor of the longest prefix of `name` that the stage names, 1 if none.
fn scale_of(name: &str, stage: &Stage) -> f64 {
    let fitting = stage.rate_scale.iter().filter(|(prefix, _)| name.starts_with(prefix.as_str()));
    fitting.max_by_key(|(prefix, _)| prefix.len()).map_or(1.0, |(_, scale)| *scale)
}
