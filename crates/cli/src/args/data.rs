//! Flags of `lare data`.

use clap::{Args, Subcommand, ValueEnum};
use lare_data::examples::{Format, Unit};
use std::path::PathBuf;

/// `lare data`.
#[derive(Debug, Args)]
pub struct Data {
    /// What to do with it.
    #[command(subcommand)]
    pub command: DataCommand,
}

/// What can be done with training data.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Read files of samples to their end, and tell what is in them and what is wrong with them.
    Lint(Lint),
}

/// `lare data lint`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1: there are errors, with which a run would not begin. What a run leaves out, and what it learns twice, are warnings. Examples: lare data lint train.jsonl; lare data lint shards/train-{000..015}.tar --model Qwen2.5-VL-3B-Instruct; lare data lint --config train.toml"
)]
pub struct Lint {
    /// Files, folders of parquet files or of tar archives, or names with a part in braces; by default those of `--config`.
    #[arg(value_name = "PATH", required_unless_present = "config")]
    pub paths: Vec<PathBuf>,

    /// Count tokens with this model: a Hugging Face folder, or `owner/name` in the cache.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub model: Option<PathBuf>,

    /// Count tokens with the model, the latent steps and the limit of this run config.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What the files must be; by default what their content says.
    #[arg(long, requires = "paths")]
    pub format: Option<DataFormat>,

    /// The folder that names of pictures start from; by default the one that a file lies in.
    #[arg(long, value_name = "DIR", requires = "paths")]
    pub pictures: Option<PathBuf>,

    /// What the numbers of regions count where a sample does not say it; by default what they can only be.
    #[arg(long, requires = "paths")]
    pub bbox_format: Option<BoxFormat>,

    /// What is asked where a sample has an answer and no question, as captions have.
    #[arg(long, value_name = "TEXT", requires = "paths")]
    pub question: Option<String>,

    /// Name at most so many problems of each kind.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub named: usize,
}

/// Formats of files with samples; docs/data.md has an example of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DataFormat {
    /// LLaVA's JSON.
    Llava,
    /// ShareGPT's JSON, a list or a line each.
    Sharegpt,
    /// `messages` of `role` and `content`.
    Messages,
    /// `question` and `answer`.
    Questions,
    /// Hugging Face's parquet files.
    Parquet,
    /// WebDataset's tar archives.
    Webdataset,
}

impl From<DataFormat> for Format {
    fn from(format: DataFormat) -> Self {
        match format {
            DataFormat::Llava => Self::Llava,
            DataFormat::Sharegpt => Self::Sharegpt,
            DataFormat::Messages => Self::Messages,
            DataFormat::Questions => Self::Questions,
            DataFormat::Parquet => Self::Parquet,
            DataFormat::Webdataset => Self::Webdataset,
        }
    }
}

/// What the numbers of regions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BoxFormat {
    /// Pixels of the first picture.
    Pixels,
    /// Shares of its width and height, 0 to 1.
    Normalised,
    /// Thousandths of its width and height, 0 to 1000.
    Thousandths,
}

impl From<BoxFormat> for Unit {
    fn from(format: BoxFormat) -> Self {
        match format {
            BoxFormat::Pixels => Self::Pixels,
            BoxFormat::Normalised => Self::Normalised,
            BoxFormat::Thousandths => Self::Thousandths,
        }
    }
}
