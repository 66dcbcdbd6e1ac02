//! What can go wrong while a model is configured, loaded or run.

use std::path::PathBuf;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every error names the thing, what was expected, what was found and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed: shapes that do not fit, or a device error.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),

    /// A field of the architecture makes no sense.
    #[error("`{field}` in {file} is not usable\n  expected  {expected}\n  got       {got}\n\nhint: {hint}")]
    Config {
        /// The config file or its description.
        file: String,
        /// Dotted path of the field.
        field: String,
        /// What would be accepted.
        expected: String,
        /// What stands there.
        got: String,
        /// The way out.
        hint: String,
    },

    /// The config file is no valid TOML of this architecture.
    #[error("{file} is not a model config: {reason}\n\nhint: `lare inspect` prints the config of a working model")]
    ConfigSyntax {
        /// The config file.
        file: String,
        /// The parser's words, with line and column.
        reason: String,
    },

    /// A file of the model could not be read.
    #[error("cannot read {path}: {reason}\n\nhint: {hint}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
        /// The way out.
        hint: String,
    },

    /// An adapter was trained on another base.
    #[error(
        "the adapter `{}` belongs to another base\n  expected  {} ({}), weights {}\n  got       {} ({}), weights {}\n\nhint: pass the folder of {} as `--model`",
        adapter.display(), expected.name, expected.family, expected.fingerprint, got.name, got.family, got.fingerprint, expected.name
    )]
    OtherBase {
        /// The adapter's folder.
        adapter: PathBuf,
        /// What it was trained on. Boxed, because errors are common and this one is large.
        expected: Box<crate::adapter::Base>,
        /// What it was put on.
        got: Box<crate::adapter::Base>,
    },

    /// A file could not be written.
    #[error("cannot write {path}: {reason}\n\nhint: check the folder, its permissions and the room on the disk")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },

    /// The weights file is damaged.
    #[error(
        "{file} is not a whole safetensors file: {reason}\n\nhint: it was cut short or changed; fetch or train it again"
    )]
    Damaged {
        /// The weights file.
        file: String,
        /// What does not hold.
        reason: String,
    },

    /// An index of shards that says something its folder does not bear out.
    #[error("{index} {fault}\n  expected  {expected}\n  got       {got}\n\nhint: fetch the whole folder again")]
    Index {
        /// The index.
        index: String,
        /// What is wrong with it, as words behind its name.
        fault: String,
        /// What would be accepted.
        expected: String,
        /// What stands there.
        got: String,
    },

    /// A GGUF file that cannot be used.
    #[error("{file} {fault}\n  expected  {expected}\n  got       {got}\n\nhint: {hint}")]
    Gguf {
        /// The file.
        file: String,
        /// What is wrong with it, as words behind its name.
        fault: String,
        /// What would be accepted.
        expected: String,
        /// What stands there.
        got: String,
        /// The way out.
        hint: &'static str,
    },

    /// A tensor that the architecture needs is not in the file.
    #[error(
        "tensor `{name}` is missing\n  file      {file}\n  expected  {expected:?}\n  nearest   {nearest}\n\nhint: these weights belong to another architecture; use the config saved beside them"
    )]
    Missing {
        /// The weights file.
        file: String,
        /// The tensor.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
        /// The most similar name in the file.
        nearest: String,
    },

    /// A tensor has another shape than the architecture needs.
    #[error(
        "tensor `{name}` has the wrong shape\n  file      {file}\n  expected  {expected:?}\n  got       {got:?}\n\nhint: these weights belong to another architecture; use the config saved beside them"
    )]
    WrongShape {
        /// The weights file.
        file: String,
        /// The tensor.
        name: String,
        /// The shape the config asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        got: Vec<usize>,
    },

    /// A tensor in the file is used by nothing.
    #[error(
        "tensor `{name}` in {file} is used by nothing ({count} such tensors)\n  got       {got:?}\n\nhint: these weights belong to another architecture; use the config saved beside them"
    )]
    Extra {
        /// The weights file.
        file: String,
        /// The first such tensor.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// How many there are.
        count: usize,
    },

    /// A tensor holds numbers of a kind that the model cannot use.
    #[error(
        "tensor `{name}` in {file} has the number type {got}\n  expected  F32, F16 or BF16\n\nhint: convert it before loading"
    )]
    NumberType {
        /// The weights file.
        file: String,
        /// The tensor.
        name: String,
        /// The type found.
        got: String,
    },

    /// A call's arguments do not fit one another.
    #[error("{what}: expected {expected}, got {got}")]
    Arguments {
        /// Which argument.
        what: &'static str,
        /// What would fit.
        expected: String,
        /// What came.
        got: String,
    },
}
