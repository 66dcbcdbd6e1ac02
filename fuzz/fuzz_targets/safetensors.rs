//! Any bytes as weights: refused, or read as tensors whose sizes hold.
#![no_main]

use candle_core::Device;
use lare_model::weights::Loaded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    drop(Loaded::from_bytes(bytes, "model.safetensors", &Device::Cpu));
});
