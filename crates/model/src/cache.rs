//! Keys and values: of one batch of conversations, the pictures' part, shared by their rows, and each row's own; and of one
//! conversation that stands apart.

use crate::Result;
use crate::mask::Slots;
use candle_core::{DType, Device, Tensor};

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

/// Room for the keys and values of one conversation that stands apart: they are written where they stay, so that nothing is
/// copied as it grows.
#[derive(Debug)]
pub struct Slab {
    /// `[1, C, 2, G, Dh]` a layer.
    layers: Vec<Tensor>,
    slots: usize,
}

impl Slab {
    /// Room for `slots` slots of `layers` layers, each of `[G, Dh]` keys and as many values.
    pub fn new(slots: usize, layers: usize, [groups, width]: [usize; 2], device: &Device) -> Result<Self> {
        let layer = || Tensor::zeros(&[1, slots, 2, groups, width][..], DType::F32, device);
        Ok(Self { layers: (0..layers).map(|_| layer()).collect::<candle_core::Result<_>>()?, slots })
    }

    /// `C`.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.elem_count() * layer.dtype().size_in_bytes()).sum()
    }

    /// Keys and values of one layer, those of slots that are not there yet included.
    pub(crate) fn layer(&self, layer: usize) -> &Tensor {
        &self.layers[layer]
    }

    /// Writes those of new slots, `[1, T, 2, G, Dh]`, from slot `first` on. Writing them again changes nothing.
    pub(crate) fn write(&self, layer: usize, new: &Tensor, first: usize) -> Result<()> {
        Ok(self.layers[layer].slice_set(new, 1, first)?)
    }
}
