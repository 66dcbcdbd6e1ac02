//! What can end a run.

use std::path::PathBuf;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every error names the thing, what was expected, what was found and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be built or run.
    #[error(transparent)]
    Model(#[from] lare_model::Error),

    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),

    /// The run's config is no valid TOML of its form.
    #[error("{file} is not a run config: {reason}\n\nhint: docs/config.md lists every key")]
    ConfigSyntax {
        /// The file.
        file: String,
        /// The parser's words, with line and column.
        reason: String,
    },

    /// A field of the run's config makes no sense.
    #[error(
        "`{field}` in {file} is not usable\n  expected  {expected}\n  got       {got}\n\nhint: docs/config.md explains every key"
    )]
    Config {
        /// The file.
        file: String,
        /// Dotted path of the field.
        field: String,
        /// What would be accepted.
        expected: String,
        /// What stands there.
        got: String,
    },

    /// The machine cannot compute as the config asks.
    #[error(
        "`precision` = \"bf16\" does not work here: {reason}\n\nhint: `--set precision=f32` computes the same everywhere"
    )]
    Precision {
        /// What is missing.
        reason: String,
    },

    /// A file of the run could not be read or written.
    #[error("cannot {doing} {path}: {reason}\n\nhint: {hint}")]
    File {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
        /// The way out.
        hint: String,
    },

    /// Another process writes into the run's folder.
    #[error(
        "another run is writing into `{path}`\n  expected  one at a time\n  got       a lock on {lock}\n\nhint: wait until it ends, stop it, or name another folder with `--out`"
    )]
    Busy {
        /// The folder.
        path: PathBuf,
        /// The file that is locked.
        lock: PathBuf,
    },

    /// A new run was to go where something is.
    #[error(
        "`{path}` is taken\n  expected  an empty folder, or none\n  got       {got}\n\nhint: pass `--resume` to go on with the run in it, or another folder with `--out`"
    )]
    Taken {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        got: String,
    },

    /// A run was to go on that is not there.
    #[error(
        "there is no run to resume in `{path}`\n  expected  the folder of a run\n\nhint: leave `--resume` out to start one"
    )]
    NoRun {
        /// The folder.
        path: PathBuf,
    },

    /// What the run has already used of its config is not what it was.
    #[error(
        "cannot resume from {path}: the config has changed\n  {changes}\n\nhint: resume with {}, the config of that checkpoint, or start a new run in another folder; stages that have not begun may change", path.join("config.toml").display()
    )]
    Changed {
        /// The checkpoint.
        path: PathBuf,
        /// The keys with their old and new values, a line each.
        changes: String,
    },

    /// A checkpoint is not whole.
    #[error(
        "checkpoint {path} is damaged\n  expected  whole weights, optimiser and state\n  got       {got}\n\nhint: {hint}"
    )]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        got: String,
        /// The way back to an older one, where there is one.
        hint: String,
    },

    /// A checkpoint does not belong to this run.
    #[error(
        "cannot resume from {path}: {what}\n  expected  {expected}\n  got       {got}\n\nhint: resume with the config the run was started with, or start a new run in another folder"
    )]
    Mismatch {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        what: String,
        /// What the config asks for.
        expected: String,
        /// What the checkpoint holds.
        got: String,
    },

    /// Initial weights are not those of the config's model.
    #[error(
        "the weights in {path} are not those of the config's model\n  expected  {expected}\n  got       {got}\n\nhint: give `[model]` the values it has in that run, or start without `--init`"
    )]
    Init {
        /// The checkpoint or model folder.
        path: PathBuf,
        /// What the model has.
        expected: String,
        /// What was found.
        got: String,
    },

    /// A pretrained language model is not the config's.
    #[error(
        "the language model in {path} is not of the config's shape\n  expected  {expected}\n  got       {got}\n\nhint: give `[model.language]` its values, as `lare inspect` shows them; only decoders of the llama architecture with one matrix for words and output fit"
    )]
    Language {
        /// The folder or file.
        path: PathBuf,
        /// The first field that differs, as the config has it.
        expected: String,
        /// The same, as the model has it.
        got: String,
    },

    /// A number that is not finite.
    #[error(
        "the run stopped at step {step}: `{term}` is {value}\n\nhint: the last checkpoint before it is intact; resume it with a lower `rate`, or look at `{term}` in metrics.jsonl"
    )]
    NotFinite {
        /// The step.
        step: usize,
        /// The first term of the loss (or `gradient_norm`) that is not finite.
        term: &'static str,
        /// Its value.
        value: f64,
    },

    /// A picture of a sample could not be read.
    #[error(transparent)]
    Picture(lare_data::ImageError),

    /// A pretrained model's text files do not fit, or its template refuses a sample.
    #[error(transparent)]
    Chat(#[from] lare_data::chat::ChatError),

    /// A pretrained model's processor does not fit, or refuses a picture.
    #[error(transparent)]
    Processor(#[from] lare_data::ProcessorError),

    /// A file with samples could not be read.
    #[error(transparent)]
    Examples(#[from] lare_data::ExamplesError),

    /// A pretrained model's folder names no token that ends an answer.
    #[error(
        "nothing says where an answer ends
  expected  `eos_token_id` in generation_config.json or config.json of the base
  got       none

hint: take the files that were published with the weights"
    )]
    NoEnd,

    /// Pictures of samples that are missing, broken or refused by the model's processor.
    #[error(
        "{count} of {of} pictures cannot be used
  {lines}

hint: bring them back, or take their samples out of the file"
    )]
    Pictures {
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
        /// The first of them, a line each: sample, file and reason.
        lines: String,
    },

    /// No sample is left to train on.
    #[error(
        "no sample is left to train on
  expected  at least one that fits
  got       {count} that do not; the first is {first}

hint: raise `data.max_tokens`, or let the processor make fewer image tokens of a picture"
    )]
    Nothing {
        /// Samples that were left out.
        count: usize,
        /// The first, and why.
        first: String,
    },

    /// No question fits a batch's recipe.
    #[error("stage `{stage}`: {reason}")]
    Recipe {
        /// The stage's name.
        stage: String,
        /// The suite's words.
        reason: String,
    },
}

impl Error {
    /// Wraps a failed read or write.
    pub fn file(doing: &'static str, path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                "choose a folder that you may write to"
            }
            std::io::ErrorKind::StorageFull => "free some space; what was there before is unchanged",
            std::io::ErrorKind::NotFound => "check the path",
            _ => "check the path and the disk",
        };
        Self::File { doing, path: path.into(), reason: error.to_string(), hint: hint.into() }
    }
}
