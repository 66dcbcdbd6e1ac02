//! The model inside the program: no download, no path, nothing that can be missing.

use lare_infer::Files;

/// How messages and `lare inspect` name it.
pub const NAME: &str = "embedded";

const WEIGHTS: &[u8] = include_bytes!("../../../weights/nano/model.safetensors");
const CONFIG: &str = include_str!("../../../weights/nano/config.toml");
const TOKENIZER: &[u8] = include_bytes!("../../../weights/nano/tokenizer.json");

/// Its files, as a model folder has them.
pub fn files() -> Files<'static> {
    Files { place: NAME, config: CONFIG, weights: WEIGHTS, tokenizer: TOKENIZER }
}
