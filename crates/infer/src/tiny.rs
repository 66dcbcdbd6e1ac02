//! A model small enough for tests: the tiny config of the model crate with random weights.

use crate::Assistant;
use crate::model::Model;
use crate::sampler::normals;
use candle_core::{Device, Tensor};
use lare_data::{Picture, Tokenizer};
use lare_model::config::Thinking;
use lare_model::nn::{Part, Weight};
use lare_model::{Config, Ground, Init, Path, Reasoner, Source};
use std::sync::Arc;

/// Parameters that follow from their names alone.
pub struct Random;

impl Source for Random {
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> lare_model::Result<Tensor> {
        let count = shape.iter().product();
        let seed = name.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let values = match init {
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::Constant(value) => vec![value as f32; count],
            Init::Normal(std) | Init::Identity(std) => {
                normals(seed, count).into_iter().map(|x| x * std as f32).collect()
            }
        };
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// Frozen, as a model is loaded.
    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, init: Init) -> lare_model::Result<Weight> {
        let rows = parts.iter().map(|part| part.rows).sum();
        Weight::frozen(&self.tensor(name, &[rows, inputs], init)?)
    }
}

/// The model.
pub fn assistant() -> Assistant {
    changed(|_| ())
}

/// The model with another config.
pub fn changed(change: impl FnOnce(&mut Config)) -> Assistant {
    let tokenizer = Tokenizer::from_bytes(lare_data::tokenizer::build().as_bytes()).unwrap();
    let mut config = Config::from_toml(include_str!("../../model/tests/tiny.toml"), "tiny.toml").unwrap();
    config.language.vocabulary = tokenizer.vocab_size();
    change(&mut config);
    let reasoner = Reasoner::new(&config, Path::root(&Random)).unwrap();
    Assistant::from_parts(reasoner, tokenizer, "random", &Device::Cpu).unwrap()
}

/// The model as it splices what it reads into its context.
pub fn spliced() -> Assistant {
    changed(|config| (config.refocus.thinking, config.language.max_positions) = (Thinking::Splice, 512))
}

/// A picture of coloured noise in blocks.
pub fn picture(width: usize, height: usize, seed: u64) -> Picture {
    let colours: Vec<u8> =
        normals(seed, 3 * 64).into_iter().map(|x| (128.0 + 60.0 * x).clamp(0.0, 255.0) as u8).collect();
    let rgb = (0..width * height).flat_map(|i| {
        let block = (i / width / 24 % 8) * 8 + i % width / 24 % 8;
        [colours[3 * block], colours[3 * block + 1], colours[3 * block + 2]]
    });
    Picture { width, height, rgb: rgb.collect() }
}

/// What conversations about a picture go on from.
pub fn ground(assistant: &Assistant, picture: &Picture) -> Arc<Ground> {
    let seen = assistant.see(&assistant.prepare(picture).unwrap().form).unwrap();
    Arc::new(assistant.ground(&[], &[Arc::new(seen)]).unwrap())
}
