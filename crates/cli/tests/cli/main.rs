//! Text in, text out: the program as its users run it, with the model inside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod ask;
mod bad_models;
mod bad_pictures;
mod bad_requests;
mod dump;
mod eval;
mod folders;
mod gguf;
mod lint;
mod pages;
mod report;
mod serve;
mod support;
mod train;
