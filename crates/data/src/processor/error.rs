//! What can go wrong between a model's preprocessing config and pixel values.

use std::path::PathBuf;

/// A config that is not followed to the letter, or a picture that a model cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// A file is there and could not be read.
    #[error("`{file}` cannot be read: {source}\n\nhint: check the path and its permissions")]
    Read {
        /// The file.
        file: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// No file of the folder says how pictures are prepared.
    #[error(
        "`{}` does not say how pictures are prepared\n  expected  preprocessor_config.json, or processor_config.json with `image_processor`\n  got       {got}\n\nhint: copy the one that was published with these weights", folder.display()
    )]
    Missing {
        /// The model folder.
        folder: PathBuf,
        /// What is there of the two.
        got: &'static str,
    },
    /// The text is not what such a file holds.
    #[error(
        "`{file}` is not the config of an image processor\n  expected  a JSON object\n  got       {got}\n\nhint: fetch the file again"
    )]
    Json {
        /// The file.
        file: String,
        /// What the parser said.
        got: String,
    },
    /// A field has a value that we do not compute.
    #[error(
        "`{field}` of the image processor is not supported\n  file      {file}\n  expected  {expected}\n  got       {got}\n\nhint: {hint}"
    )]
    Field {
        /// The file.
        file: String,
        /// The field, with the object it is in.
        field: String,
        /// What we compute.
        expected: String,
        /// What the file says.
        got: String,
        /// The way out.
        hint: String,
    },
    /// A picture that this processor cannot bring to a size the model takes.
    #[error("the picture cannot be prepared for this model\n  expected  {expected}\n  got       {got}\n\nhint: {hint}")]
    Picture {
        /// What can be prepared.
        expected: String,
        /// The picture.
        got: String,
        /// The way out.
        hint: &'static str,
    },
}
