//! One file a family: config, vision, positions, decoder.

pub mod nano;
