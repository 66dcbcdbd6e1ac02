//! Keys and values of one batch of conversations: the pictures' part, shared by their rows, and each row's own.

use crate::Result;
use crate::mask::Slots;
use candle_core::{Device, Tensor};

/// Keys and values of one layer.
#[derive(Clone, Debug)]
pub struct LayerCache {
    /// `[S, P, 2, G, Dh]`, the pictures.
    pub shared: Tensor,
    /// `[B, C, 2, G, Dh]`, the rows' own slots so far.
    pub own: Option<Tensor>,
}

impl LayerCache {
    /// Appends `[B, T, 2, G, Dh]` and returns all own slots.
    pub fn append(&mut self, new: Tensor) -> Result<Tensor> {
        let own = match self.own.take() {
            None => new,
            Some(old) => Tensor::cat(&[&old, &new], 1)?,
        };
        self.own = Some(own.clone());
        Ok(own)
    }
}

/// Keys and values of all layers, with the slots they stand in. Part of the graph in training.
#[derive(Clone, Debug)]
pub struct Cache {
    /// One entry per layer.
    pub layers: Vec<LayerCache>,
    /// Which slots are real.
    pub slots: Slots,
}

impl Cache {
    /// Where it lies.
    pub fn device(&self) -> &Device {
        self.layers.first().map_or(&Device::Cpu, |layer| layer.shared.device())
    }

    /// Conversations that have seen their pictures and no word yet.
    pub fn new(shared: &[Tensor], slots: Slots) -> Self {
        let layers = shared.iter().map(|kv| LayerCache { shared: kv.clone(), own: None }).collect();
        Self { layers, slots }
    }
}
