//! The server over a real socket, with the shipped weights.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod contract;
mod harnesses;
mod operation;
mod support;
