//! Everything before the first tensor.
pub mod batch;
pub mod export;
pub mod image;
pub mod prompt;
pub mod sample;
pub mod scenes;
pub mod suite;
pub mod tokenizer;

pub use crate::image::{ImageError, Picture, Prepared, prepare};
pub use batch::Stream;
pub use prompt::{Prompt, answer_ids, lay_out};
pub use sample::{Question, Region, Sample, Split, Step, Task};
pub use scenes::{Group, Mark, Object};
pub use suite::{GroupRecipe, RecipeError, Suite};
pub use tokenizer::{Tokenizer, TokenizerError};
