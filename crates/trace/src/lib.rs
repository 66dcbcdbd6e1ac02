//! What the model looked at: the record of an answer, numbers about it, and pictures of it.
//!
//! Job: keep where a model looked at each latent step in a form that can be read years later
//! ([`schema`]), measured ([`measures`]) and shown ([`render`]), and write it as a folder
//! ([`write_folder`]).
//!
//! Invariants:
//!
//! - No tensor library in its tree: a report can be made on a machine that cannot run the model.
//! - It knows none of the project's other crates; pictures come in as bytes ([`PictureRef`]).
//! - A record that was read is valid: another schema version, or a value that cannot be true, is refused.
//! - Geometry is that of the original picture everywhere: nothing assumes a square picture or cell.
//! - Files appear complete or not at all.
//!
//! ```
//! use lare_trace::{Record, example, measures, render};
//!
//! let (record, _picture) = example::wide();
//! let read = Record::from_json(&record.to_json()?)?;
//! assert_eq!(read, record);
//!
//! let first = measures::of(&read)[0];
//! assert!(first.focus_entropy_nats < (read.grid.cells() as f64).ln());
//! assert!(render::text::text(&read).contains("step 1 of 3"));
//! # Ok::<(), lare_trace::TraceError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod error;
pub mod example;
pub mod measures;
mod picture;
pub mod render;
pub mod schema;
mod write;

pub use error::{Invalid, TraceError, WriteProblem};
pub use picture::PictureRef;
pub use schema::{
    Grid, InputInfo, ModelInfo, OptionsInfo, Record, Region, SCHEMA, SmallPicture, StepRecord, Timing, Usage, Word,
};
pub use write::{Written, write_folder};
