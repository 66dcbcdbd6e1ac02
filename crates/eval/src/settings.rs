//! What a run was asked to do: written beside its results, and compared before it goes on.

use crate::intervene::Intervention;
use crate::item::{Origin, Source};
use lare_trace::ModelInfo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Everything that decides what a run's results are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The model's name.
    pub model: String,
    /// SHA-256 of its weights, in hex.
    pub weights_hash: String,
    /// SHA-256 of its config, in hex.
    pub config_hash: String,
    /// The items.
    pub items: Origin,
    /// Latent steps of every item; `None` lets the halting head decide.
    pub steps: Option<usize>,
    /// Halting probability at which it stops.
    pub halt_threshold: f32,
    /// What is put in the place of its thoughts and looks, besides the untouched run.
    pub interventions: Vec<Intervention>,
    /// Of everything random.
    pub seed: u64,
    /// Items answered together.
    pub batch: usize,
    /// Whether matrix products round their operands to bf16: faster, and not to the bit what `ask` computes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bf16: bool,
    /// What a pretrained model's matrices were converted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Where it was computed, where that was not the CPU: sums are in another order there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Most tokens of an answer; `None`: as many as the context has room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
}

/// Items answered together unless said otherwise.
const BATCH: usize = 16;

impl Settings {
    /// The untouched model on all items, halting by itself.
    #[must_use]
    pub fn new(model: ModelInfo, source: &dyn Source) -> Self {
        Self {
            model: model.name,
            weights_hash: model.weights_hash,
            config_hash: model.config_hash,
            items: source.origin(),
            steps: None,
            halt_threshold: 0.5,
            interventions: Vec::new(),
            seed: 1,
            batch: BATCH,
            bf16: false,
            dtype: None,
            device: None,
            max_tokens: None,
        }
    }

    /// Whose results these are.
    pub(crate) fn identity(&self) -> ModelInfo {
        let (config_hash, weights_hash) = (self.config_hash.clone(), self.weights_hash.clone());
        ModelInfo { name: self.model.clone(), config_hash, weights_hash }
    }

    /// The first 8 hex digits of their SHA-256: a name for a folder of results that no other settings have.
    #[must_use]
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(text).iter().take(4).map(|b| format!("{b:02x}")).collect()
    }

    /// Lines such as `steps: 2 -> 4` for what differs.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let fields = |settings: &Self| match serde_json::to_value(settings) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (old, new) = (fields(self), fields(new));
        // A field that is left out at its usual value can be in either alone.
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let side =
            |fields: &serde_json::Map<String, Value>, key: &String| fields.get(key).unwrap_or(&Value::Null).to_string();
        let differs = |key: &&String| old.get(*key) != new.get(*key);
        let line = |key: &String| format!("{key}: {} -> {}", side(&old, key), side(&new, key));
        keys.into_iter().filter(differs).map(line).collect()
    }
}
