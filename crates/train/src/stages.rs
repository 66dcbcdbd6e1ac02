//! What trains when: a stage builds the model with gradients where it trains and a fresh optimiser.

use crate::config::{Config, Objective, Stage};
use crate::subject::Subject;
use crate::vars::Vars;
use crate::{Error, Result};
use candle_core::{Device, Tensor, Var};
use lare_kernels::{AdamW, AdamWOptions};
use std::collections::BTreeMap;

/// A stage, ready to be trained.
pub struct Staged<S: Subject> {
    /// The model, with gradient where the stage trains.
    pub model: S::Model,
    /// Heads outside the model.
    pub heads: S::Heads,
    /// What changes its parameters.
    pub trained: Trained,
    /// Whether the encoders are frozen, so that features can be kept.
    pub frozen_encoders: bool,
}

/// The optimiser of a stage, and what its parameters are called.
pub struct Trained {
    /// Of all variables; frozen ones get no gradient and stay.
    pub optimizer: AdamW,
    /// Names of the optimiser's parameters.
    pub names: Vec<String>,
    /// Factor on the rate for each.
    pub rate_scale: Vec<f64>,
}

impl Trained {
    /// The averaged weights by name, or, where none are kept, the weights.
    pub fn averaged(&self) -> Result<BTreeMap<String, Tensor>> {
        let of = |(i, (name, var)): (usize, (&String, &Var))| {
            let tensor = match self.optimizer.ema(i) {
                Some(values) => Tensor::from_slice(values, var.shape(), &Device::Cpu)?,
                None => var.as_detached_tensor().to_device(&Device::Cpu)?,
            };
            Ok((name.clone(), tensor))
        };
        self.names.iter().zip(self.optimizer.params()).enumerate().map(of).collect()
    }
}

/// Prepares a stage from the variables as they are.
pub fn enter<S: Subject>(subject: &S, config: &Config, stage: &Stage, vars: &Vars) -> Result<Staged<S>> {
    let mut prefixes = stage.train.clone();
    if stage.objective == Objective::Read {
        prefixes.push("reading.".into());
    }
    vars.train(&prefixes);
    let (model, heads) = subject.build(vars)?;
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
    let is_trained_encoder = |n: &String| S::ENCODERS.iter().any(|e| n.starts_with(e)) && vars.is_trained(n);
    let frozen_encoders = !names.iter().any(is_trained_encoder);
    let trained = Trained { optimizer: AdamW::new(params, options)?, names, rate_scale };
    Ok(Staged { model, heads, trained, frozen_encoders })
}

/// The factor of the longest prefix of `name` that the stage names, 1 if none.
fn scale_of(name: &str, stage: &Stage) -> f64 {
    let fitting = stage.rate_scale.iter().filter(|(prefix, _)| name.starts_with(prefix.as_str()));
    fitting.max_by_key(|(prefix, _)| prefix.len()).map_or(1.0, |(_, scale)| *scale)
}
