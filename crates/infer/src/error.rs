//! What can go wrong between a model folder and an answer.

use std::path::PathBuf;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every error names the thing, what was expected, what was found and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be loaded or run. Boxed, because it is the largest and the others are common.
    #[error(transparent)]
    Model(Box<lare_model::Error>),

    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),

    /// The text side of a Hugging Face folder does not fit, or refuses a conversation.
    #[error(transparent)]
    Chat(#[from] lare_data::chat::ChatError),

    /// The image processor of a Hugging Face folder does not fit, or refuses a picture.
    #[error(transparent)]
    Processor(#[from] lare_data::ProcessorError),

    /// The folder is no model folder.
    #[error("`{}` is not a model folder\n  expected  a folder with {expected}\n  got       {got}\n\nhint: pass the folder `model` of a finished run, or leave `--model` out for the built-in model", folder.display())]
    NotAFolder {
        /// The path that was given.
        folder: PathBuf,
        /// The files a model folder has.
        expected: String,
        /// What is there.
        got: String,
    },

    /// The folder is that of a training run, and the model is in it.
    #[error("`{}` is the folder of a training run\n  expected  a folder with {expected}\n  got       a folder whose `model` has them\n\nhint: pass `{}`", folder.display(), folder.join("model").display())]
    RunFolder {
        /// The path that was given.
        folder: PathBuf,
        /// The files a model folder has.
        expected: String,
    },

    /// The tokenizer cannot be read.
    #[error("{file}: {source}\n\nhint: copy the tokenizer.json that was saved with these weights")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: lare_data::TokenizerError,
    },

    /// Tokenizer and weights do not belong together.
    #[error(
        "{file} has the wrong number of tokens\n  expected  {expected}   language.vocabulary of {config}\n  got       {got}\n\nhint: copy the tokenizer.json that was saved with these weights"
    )]
    Vocabulary {
        /// The tokenizer's file.
        file: String,
        /// The config's file.
        config: String,
        /// Tokens that the weights know.
        expected: usize,
        /// Tokens in the file.
        got: usize,
    },

    /// A question without words.
    #[error(
        "question {number} is empty\n  expected  at least one word\n  got       `{got}`\n\nhint: ask something, for example \"What is written on the cup?\""
    )]
    EmptyQuestion {
        /// Its place among the questions, from 1.
        number: usize,
        /// What came.
        got: String,
    },

    /// A question that does not fit the context.
    #[error(
        "question {number} is too long\n  expected  at most {most} tokens, which leaves room for {steps} latent steps and an answer\n  got       {got} tokens\n\nhint: ask in fewer words, or allow fewer steps"
    )]
    LongQuestion {
        /// Its place among the questions, from 1.
        number: usize,
        /// Most tokens of the question's own words.
        most: usize,
        /// Latent steps it may take.
        steps: usize,
        /// Tokens of its words.
        got: usize,
    },

    /// A conversation that this model cannot take.
    #[error(
        "this model cannot answer such a conversation\n  expected  {expected}\n  got       {got}\n\nhint: ask again in that form, or another model"
    )]
    Conversation {
        /// What it takes.
        expected: &'static str,
        /// What came.
        got: String,
    },

    /// An option that cannot be.
    #[error("`{field}` cannot be {got}\n  expected  {expected}\n  got       {got}\n\nhint: {hint}")]
    Option {
        /// The option, under the name users know.
        field: &'static str,
        /// What would be accepted.
        expected: String,
        /// What came.
        got: String,
        /// The way out.
        hint: &'static str,
    },

    /// A panic while one question was computed.
    #[error(
        "the computation of an answer panicked\n  got       {reason}\n\nhint: this is a fault of the program; please report it with the picture and the question"
    )]
    Panic {
        /// The panic's message.
        reason: String,
    },

    /// The model computed something that is no number.
    #[error(
        "the model computed {what} that is not a number\n  got       {got}\n\nhint: its weights hold NaN or infinity; `lare inspect` names them"
    )]
    NotFinite {
        /// What was computed.
        what: &'static str,
        /// The value.
        got: f32,
    },
}

impl Error {
    /// The same, about the question with this number.
    #[must_use]
    pub(crate) fn of_question(self, number: usize) -> Self {
        match self {
            Self::EmptyQuestion { got, .. } => Self::EmptyQuestion { number, got },
            Self::LongQuestion { most, steps, got, .. } => Self::LongQuestion { number, most, steps, got },
            other => other,
        }
    }
}

impl From<lare_model::Error> for Error {
    fn from(error: lare_model::Error) -> Self {
        Self::Model(Box::new(error))
    }
}
