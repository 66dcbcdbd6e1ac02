//! Named intermediates, for finding where two implementations part.

use candle_core::Tensor;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Sees intermediates as they are computed.
pub trait Tap {
    /// `value` is the intermediate `name` of layer `layer`. Called once for each run of the layer.
    fn see(&self, name: &'static str, layer: usize, value: &Tensor);
}

/// Sees nothing, at the price of a call.
impl Tap for () {
    fn see(&self, _: &'static str, _: usize, _: &Tensor) {}
}

/// Keeps everything, by name and layer, in the order of the runs.
#[derive(Debug, Default)]
pub struct Kept(RefCell<BTreeMap<(&'static str, usize), Vec<Tensor>>>);

impl Tap for Kept {
    fn see(&self, name: &'static str, layer: usize, value: &Tensor) {
        self.0.borrow_mut().entry((name, layer)).or_default().push(value.clone());
    }
}

impl Kept {
    /// What was seen: (name, layer) and the value of each run.
    pub fn into_inner(self) -> BTreeMap<(&'static str, usize), Vec<Tensor>> {
        self.0.into_inner()
    }
}
