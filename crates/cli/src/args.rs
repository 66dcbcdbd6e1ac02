//! Every command and flag, documented where it is defined; `docs/cli.md` is made from here.

mod data;
mod device;
mod serving;

pub use data::{Data, DataCommand, Lint};
pub use device::{Computing, Place};
pub use serving::{BenchServe, LogLevel, Serve};

use clap::{Args, Parser, Subcommand, ValueEnum};
use lare_data::{Split, Task};
use lare_eval::Intervention;
use std::path::PathBuf;

/// Asks, trains and looks inside vision-language models that reason by looking again.
#[derive(Debug, Parser)]
#[command(name = "lare", version, propagate_version = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Print results as JSON, one object a line; errors and warnings become objects on stderr. `completions` and `man`
    /// print text all the same.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer a question about a picture, and show where the model looked.
    Ask(Ask),
    /// Answer questions over HTTP, as OpenAI's API, with a page to ask on.
    Serve(Serve),
    /// Put a server under load, and say how fast it answered.
    BenchServe(BenchServe),
    /// Train a model from a run config.
    Train(Train),
    /// Measure a model on the suite or a benchmark, and test whether its thoughts matter.
    Eval(Eval),
    /// Write samples of the refocus suite as files.
    MakeData(MakeData),
    /// Look after training data in files.
    Data(Data),
    /// Show a saved trace, or evaluated runs side by side, without the model.
    Report(Report),
    /// Show what a model folder holds, and whether it loads.
    Inspect(Inspect),
    /// Write every intermediate of a pretrained model between a prompt and its logits, to compare it with another
    /// implementation.
    Dump(Dump),
    /// Fold the low-rank changes of an adapter into its base.
    Merge(Merge),
    /// Check this machine and the model inside the program.
    Doctor,
    /// Print the completion script of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    Man {
        /// The folder to write them to; it must exist.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Print a generated page of the documentation.
    #[command(hide = true)]
    Docs {
        /// Which page.
        page: Page,
    },
}

/// `lare ask`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples: lare ask examples/desk.png \"What is written on the object left of the cat?\"; lare ask --model SmolLM2-135M-Instruct.gguf \"What is a cup?\""
)]
pub struct Ask {
    /// The picture: PNG, JPEG, GIF, WebP or BMP; `-` reads it from standard input. A language model alone is asked without
    /// one.
    #[arg(required_unless_present = "model")]
    pub picture: Option<PathBuf>,

    /// The question.
    #[arg(required_unless_present_any = ["questions", "model"], conflicts_with = "questions")]
    pub question: Option<String>,

    /// Ask every line of this file instead, `-` for standard input; answers come in the same order.
    #[arg(long, value_name = "FILE")]
    pub questions: Option<PathBuf>,

    /// The model to use instead of the model inside the program: a folder of `lare train`, or a Hugging Face folder of
    /// Qwen2.5-VL, Qwen3-VL, SmolVLM or Idefics3; `owner/name` finds it in the Hugging Face cache. Or a language model alone:
    /// a folder of Qwen2, Qwen3 or Llama, or a GGUF file of one.
    #[arg(long, value_name = "DIR|FILE")]
    pub model: Option<PathBuf>,

    /// With a Hugging Face folder or GGUF file: convert the matrices while they are loaded; by default they stay as they are stored.
    #[arg(long, requires = "model")]
    pub dtype: Option<Dtype>,

    /// Where to compute.
    #[command(flatten)]
    pub computing: Computing,

    /// With a Hugging Face folder: the adapter that `lare train` made for it, which lets it think in latent steps.
    #[arg(long, value_name = "DIR", requires = "model")]
    pub adapter: Option<PathBuf>,

    /// Latent steps: a number, or `auto` to let the model stop when it is done.
    #[arg(long, value_name = "N|auto", default_value = "auto")]
    pub steps: StepCount,

    /// With `--steps auto`: the model stops when it is this sure, 0 to 1.
    #[arg(long, value_name = "P", default_value_t = 0.5, allow_negative_numbers = true)]
    pub halt_threshold: f32,

    /// 0 says the most likely words; above, words are drawn at random.
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,

    /// With a temperature: draw among the likeliest words that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f32,

    /// Where random draws start; the same seed gives the same answer.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Most tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_tokens: usize,

    /// Where to write the picture of all looks, a PNG; by default PICTURE.looks.png in the current folder. With
    /// `--trace` only when given; `--questions` writes none.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_looks", "questions"])]
    pub looks: Option<PathBuf>,

    /// Write no picture of the looks.
    #[arg(long)]
    pub no_looks: bool,

    /// Write the whole trace to this folder: trace.json, a picture a step, an animation and index.html; with
    /// `--questions` one numbered folder a question.
    #[arg(long, value_name = "DIR")]
    pub trace: Option<PathBuf>,
}

/// `lare merge`.
#[derive(Debug, Args)]
#[command(
    after_help = "The folder holds the base with its matrices changed, which any program loads that loads the base, and an adapter of what is left, the latent step: lare ask --model OUT --adapter OUT photo.jpg \"...\""
)]
pub struct Merge {
    /// The Hugging Face folder that the adapter was trained on, or its `owner/name`.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,

    /// The adapter.
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,

    /// The folder to write; it must not exist.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// `lare train`.
#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C or SIGTERM ends the run with a checkpoint and exit code 130; a second one ends it at once."
)]
pub struct Train {
    /// The run config: of the nano model, as configs/nano.toml, or of latent refocusing for a Hugging Face folder, as
    /// configs/smolvlm-lora.toml, which ends with an adapter.
    pub config: PathBuf,

    /// The run's folder; by default runs/NAME, with the config's name.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Go on from the newest checkpoint in the run's folder. Stages that have not begun may have changed.
    #[arg(long)]
    pub resume: bool,

    /// Start from the weights of this checkpoint, model folder or adapter instead of random ones.
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub init: Option<PathBuf>,

    /// Of those weights take only the tensors whose names begin with PREFIX, separated by commas: `--init-only vision.`
    /// starts another kind of model with the same eyes.
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', requires = "init")]
    pub init_only: Vec<String>,

    /// Start the decoder of `[model.language]` from the language model of this Hugging Face folder, its id, or GGUF file, which must
    /// be of the same shape. Each word of the suite begins as the mean of the pieces that its tokenizer writes it in.
    #[arg(long, value_name = "MODEL", conflicts_with = "resume")]
    pub language: Option<PathBuf>,

    /// Set a field of the config, in place of what its file says: `--set seed=2`, `--set model.refocus.gate=false`,
    /// `--set 'stages[chains].steps=500'`, `--set 'stages[*].loss.rec=0'`. Can be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// End with a checkpoint after this step, to go on later with `--resume`.
    #[arg(long, value_name = "STEP")]
    pub stop_after: Option<usize>,
}

/// `lare eval`.
#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C or SIGTERM stops with exit code 130; the same command goes on where it stopped, and shows the results again when all is done."
)]
pub struct Eval {
    /// The model folder to use instead of the model inside the program, a Hugging Face folder, or the `owner/name` of one in the
    /// Hugging Face cache.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,

    /// With a Hugging Face folder: convert the matrices while they are loaded; by default they stay as they are stored.
    #[arg(long, requires = "model")]
    pub dtype: Option<Dtype>,

    /// Where to compute.
    #[command(flatten)]
    pub computing: Computing,

    /// With a Hugging Face folder: the adapter that `lare train` made for it, which lets it think in latent steps.
    #[arg(long, value_name = "DIR", requires = "model")]
    pub adapter: Option<PathBuf>,

    /// Most text tokens of an answer; by default as many as the context has room for, with a Hugging Face folder those of its
    /// `generation_config.json`, or 512.
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,

    /// The part of the suite: val, iid, style, hops, dense or size.
    #[arg(long, default_value_t = Split::Val)]
    pub split: Split,

    /// The tasks, separated by commas: read, locate, hop, compare, count, relate, odd, path, chart; by default all.
    #[arg(long, value_delimiter = ',', value_name = "TASKS")]
    pub tasks: Vec<Task>,

    /// Measure on a benchmark instead: its file, or the folder that its files lie in. VLMEvalKit's TSV, and the files of
    /// MMStar, MMBench, ScienceQA, POPE, MMMU-Pro and MMVP.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["split", "tasks"])]
    pub data: Option<PathBuf>,

    /// Ask each question of the benchmark once in every order of its options, and count it right only where all are.
    #[arg(long, requires = "data")]
    pub circular: bool,

    /// Questions of each task, by default 200; with `--data` the first of the file, by default all.
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,

    /// Latent steps: a number, or `auto` to let the model stop when it is done.
    #[arg(long, value_name = "N|auto", default_value = "auto")]
    pub steps: StepCount,

    /// With `--steps auto`: the model stops when it is this sure, 0 to 1.
    #[arg(long, value_name = "P", default_value_t = 0.5, allow_negative_numbers = true)]
    pub halt_threshold: f32,

    /// Answer every question again with its thoughts or looks replaced, in every way there is.
    #[arg(long)]
    pub causal: bool,

    /// Answer again with this replaced, separated by commas: zero, noise, mean, repeat-first, other, shuffle,
    /// markers-only, random-patches, other-patches, oracle-patches.
    #[arg(long, value_delimiter = ',', value_name = "NAMES", conflicts_with = "causal")]
    pub replace: Vec<Intervention>,

    /// Where random draws of interventions and intervals start.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Questions answered together.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub batch: usize,

    /// Round the operands of matrix products to bf16, on CPUs with instructions for it (AMX, AVX-512 BF16): faster;
    /// now and then an answer differs.
    #[arg(long)]
    pub bf16: bool,

    /// Keep the whole trace of the first N right answers of each task and of the first N others, for `lare report` to show.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep: usize,

    /// The folder of the results; by default one under runs/eval whose name follows from the settings.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `lare make-data`.
#[derive(Debug, Args)]
pub struct MakeData {
    /// The part of the suite: train, val, iid, style, hops, dense or size.
    #[arg(long, default_value_t = Split::Iid)]
    pub split: Split,

    /// The tasks, separated by commas: read, locate, hop, compare, count, relate, odd, path, chart; by default all.
    #[arg(long, value_delimiter = ',', value_name = "TASKS")]
    pub tasks: Vec<Task>,

    /// Samples of each task.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub count: u64,

    /// Number of the first sample; the same number is the same sample everywhere.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub first: u64,

    /// The form.
    #[arg(long, value_enum, default_value_t = Format::Folder)]
    pub format: Format,

    /// The file or folder to write; it must not exist.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
}

/// Forms of data that `lare make-data` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A folder with samples.jsonl and PNG pictures.
    Folder,
    /// One parquet file with embedded pictures, for Hugging Face datasets (needs the feature `parquet`).
    Parquet,
    /// A folder with llava.json and PNG pictures.
    Llava,
    /// One TSV with base64 pictures, for VLMEvalKit.
    Tsv,
    /// One PNG of at most 100 samples with their regions, to look at.
    Sheet,
}

/// `lare report`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: lare report runs/eval/one runs/eval/two --out compared. One run without `--out` is printed as `lare eval` prints it."
)]
pub struct Report {
    /// A trace: the folder that `lare ask --trace` or `lare eval --keep` wrote, or its trace.json. Or runs: the folders that
    /// `lare eval` wrote, the first being the one that the others are compared to.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// The picture that a trace is about; needed to draw it.
    #[arg(long, value_name = "FILE", requires = "out")]
    pub picture: Option<PathBuf>,

    /// Draw the trace again into this folder; or write what the runs come to: report.html, report.md, results.csv and
    /// causal.csv.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `lare inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 1: the model does not load; the reason is printed.")]
pub struct Inspect {
    /// The model folder, ours or Hugging Face's, a GGUF file, an adapter, a Hugging Face id, or `embedded` for the model inside
    /// the program.
    #[arg(default_value = crate::embedded::NAME)]
    pub model: PathBuf,

    /// Of an adapter: the base to try it on.
    #[arg(long = "model", value_name = "DIR")]
    pub base: Option<PathBuf>,

    /// List every tensor with its shape and number type.
    #[arg(long)]
    pub tensors: bool,
}

/// `lare dump`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: lare dump --model Qwen2.5-VL-3B-Instruct --image photo.jpg --prompt \"What is this?\" --out ours.safetensors"
)]
pub struct Dump {
    /// A Hugging Face folder of Qwen2.5-VL, Qwen3-VL, SmolVLM, Idefics3, Qwen2, Qwen3 or Llama, or a GGUF file of the last
    /// three; `owner/name` finds it in the Hugging Face cache.
    #[arg(long, value_name = "DIR|FILE")]
    pub model: PathBuf,

    /// A picture; several in the order of the prompt.
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,

    /// What a user asks; the pictures come before it, and the folder's chat template around both.
    #[arg(long, value_name = "TEXT", required_unless_present = "ids", conflicts_with = "ids")]
    pub prompt: Option<String>,

    /// The ids of the whole prompt instead, separated by commas, with as many image tokens as the pictures take. Needs no
    /// tokenizer.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub ids: Vec<u32>,

    /// Convert the matrices while they are loaded.
    #[arg(long)]
    pub dtype: Option<Dtype>,

    /// Where to compute.
    #[command(flatten)]
    pub computing: Computing,

    /// An adapter of the model: everything is computed with its low-rank changes. Latent steps come after all of it and are
    /// not written.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,

    /// The safetensors file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// How the matrices of a pretrained model are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 16 bits, 8 of exponent.
    Bf16,
    /// 16 bits, 5 of exponent.
    F16,
    /// 32 bits.
    F32,
    /// 8 bits and a scale for 32 numbers, as in GGUF.
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits and scales, as in GGUF.
    #[value(name = "q4_k")]
    Q4K,
}

impl From<Dtype> for lare_infer::Format {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
            Dtype::F32 => Self::F32,
            Dtype::Q8_0 => Self::Q8_0,
            Dtype::Q4K => Self::Q4K,
        }
    }
}

/// Pages that the program writes about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Page {
    /// Every command and flag.
    Cli,
    /// Every key of a run config.
    Config,
}

/// How many latent steps to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepCount {
    /// Until the halting head says so.
    Auto,
    /// So many.
    Fixed(usize),
}

impl std::str::FromStr for StepCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Fixed).map_err(|_| "expected a number of steps, or `auto`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn steps_are_a_number_or_auto() {
        assert_eq!(
            ["auto", "0", "4"].map(|t| t.parse()),
            [Ok(StepCount::Auto), Ok(StepCount::Fixed(0)), Ok(StepCount::Fixed(4))]
        );
        assert!("many".parse::<StepCount>().is_err());
    }
}
