//! Everything before the first tensor: pictures, questions, tokens, and the refocus suite that draws them.
//!
//! # Invariants
//!
//! - Depends on none of our crates and on no tensor library.
//! - A sample follows from (suite version, split, task, number): the same bytes on every machine, no files.
//! - The suite is a fair test: its tests hold a blind and a coarse answerer near chance and a solver at 100 %.
//! - One function lays out a question as ids ([`lay_out`]) and one an answer ([`answer_ids`]).
//! - Regions are in pixels of the picture; [`image::Prepared`] takes them to model pixels and back, and [`View`] from image
//!   tokens of the other families.
//! - [`Processor`] makes the values that the reference implementation makes of a picture, to the bit.
//! - Nothing is printed, nothing reads the environment; errors name the file, what was expected and what was got.
//!
//! # Map
//!
//! | module | gives |
//! |---|---|
//! | [`image`] | a picture from a file, and the picture as the nano model sees it |
//! | [`processor`] | the picture as Qwen2.5-VL, Qwen3-VL, SmolVLM and Idefics3 see it, as their published configs say |
//! | [`suite`] | any sample, or one picture with many questions |
//! | [`scenes`] | what can be in a picture |
//! | [`sample`], [`order_taken`] | picture, question, looks, answer, and looks that may come in any order |
//! | [`tokenizer`], [`prompt`] | text as ids |
//! | [`chat`] | conversations with the models of a Hugging Face folder: template, tokenizer, where pictures stand |
//! | [`batch`] | the order of samples, resumable |
//! | [`export`] | the suite as files for other tools |
//! | [`lint`] | what is wrong with files of samples |
//! | [`examples`] | samples that others have written: LLaVA, ShareGPT, messages, parquet, WebDataset |
//!
//! # Example
//!
//! ```
//! use lare_data::{Split, Suite, Task, Tokenizer, answer_ids, lay_out, prepare};
//!
//! let suite = Suite::new();
//! let sample = suite.sample(Split::Iid, Task::Hop, 12);
//! let question = &sample.question;
//! assert_eq!(question.steps.len(), question.looks);
//! assert_eq!(question.steps.last().map(|step| &step.reads), Some(&question.answer));
//!
//! let seen = prepare(&sample.picture, 64, 64);
//! assert_eq!((seen.rows, seen.cols), (7, 7));
//!
//! let tokenizer = Tokenizer::suite()?;
//! let prompt = lay_out(&tokenizer, &question.text);
//! let answer = answer_ids(&tokenizer, None, &question.answer);
//! assert_eq!(tokenizer.decode(&prompt.ids), question.text);
//! assert_eq!(tokenizer.decode(&answer), question.answer);
//! # Ok::<(), lare_data::TokenizerError>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout))]

pub mod batch;
pub mod chat;
#[cfg(feature = "parquet")]
pub mod columnar;
pub mod examples;
pub mod export;
pub mod image;
pub mod lint;
mod order;
pub mod processor;
pub mod prompt;
pub mod sample;
pub mod scenes;
pub mod suite;
pub mod tokenizer;

pub use crate::image::{ImageError, Picture, Prepared, prepare};
pub use batch::Stream;
pub use examples::{Album, Example, ExamplesError, PictureAt, Samples};
pub use order::order_taken;
pub use processor::{Layout, Processed, Processor, ProcessorError, Size, View};
pub use prompt::{Prompt, answer_ids, lay_out};
pub use sample::{Question, Region, Sample, Split, Step, Task};
pub use scenes::{Colour, Group, Mark, Object};
pub use suite::{GroupRecipe, RecipeError, Suite};
pub use tokenizer::{Tokenizer, TokenizerError};
