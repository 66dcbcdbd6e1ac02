//! Flags of `lare serve` and `lare bench-serve`.

use super::{Computing, Dtype, StepCount};
use clap::{Args, ValueEnum};
use lare_data::{Split, Task};
use std::path::PathBuf;

/// `lare serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C or SIGTERM finishes what was accepted, refuses the rest and ends; a second one ends at once. Keys are also read from LARE_API_KEYS, separated by commas. docs/server.md describes the API."
)]
pub struct Serve {
    /// What to serve instead of the model inside the program: a model folder, a Hugging Face folder, a GGUF file, or
    /// `owner/name` from the Hugging Face cache of this machine.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,

    /// With a Hugging Face folder: the folder of an adapter that `lare train` made for it; it then thinks in latent steps.
    #[arg(long, value_name = "DIR", requires = "model")]
    pub adapter: Option<PathBuf>,

    /// With a Hugging Face folder or GGUF file: convert matrices to this number type in memory; by default each stays as it is
    /// in the file.
    #[arg(long, value_enum, value_name = "DTYPE", requires = "model")]
    pub dtype: Option<Dtype>,

    /// Where to compute.
    #[command(flatten)]
    pub computing: Computing,

    /// The name under which it is served; by default that of its folder, or `owner/name`; of models of `lare train`, their own
    /// behind `lare-`.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// The address to listen on. The default is reached from this machine alone; 0.0.0.0 from every other.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: String,

    /// The port; 0 takes a free one and prints it.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,

    /// A file of API keys, one a line; with it, requests to /v1/ must bring one.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,

    /// Let pages of this origin, such as http://localhost:3000, ask from a browser; `*` for all. Can be given several times.
    #[arg(long, value_name = "ORIGIN")]
    pub cors: Vec<String>,

    /// On a loopback address: answer to this name too, beside localhost and loopback addresses. Can be given several times.
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,

    /// Fetch pictures from http and https URLs in requests, from public addresses alone.
    #[arg(long)]
    pub allow_image_urls: bool,

    /// Limits.
    #[command(flatten)]
    pub limits: ServeLimits,

    /// How much is written to the log on stderr.
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = LogLevel::Info)]
    pub log: LogLevel,
}

/// What `lare serve` takes.
#[derive(Debug, Args)]
pub struct ServeLimits {
    /// Requests that wait; one more is refused.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub queue: usize,

    /// Requests computed together.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub batch: usize,

    /// Seconds from a request to the end of its answer.
    #[arg(long, value_name = "S", default_value_t = 300)]
    pub timeout: u64,

    /// Most text tokens of an answer; what asks for more is cut to this.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub max_tokens: usize,

    /// Most latent steps of a request, asked for by number or left to the model; by default what it was trained for.
    #[arg(long, value_name = "N")]
    pub max_steps: Option<usize>,

    /// Most pictures of a request.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub max_pictures: usize,

    /// Most pixels of a picture, in millions.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub max_megapixels: u64,

    /// Most bytes of a request's body, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    pub max_body: usize,

    /// Memory of bodies and decoded pictures of all requests, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub memory: usize,

    /// Memory of the keys and values of requests under way, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub cache: usize,

    /// Memory of encoded pictures, and of what the model read with them, kept for later requests, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub picture_cache: usize,

    /// Connections held at once; more wait.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub connections: usize,

    /// Seconds for a request's head to come, and for a connection without requests.
    #[arg(long, value_name = "S", default_value_t = 15)]
    pub head_timeout: u64,

    /// Seconds for a request's body to come.
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub body_timeout: u64,

    /// Seconds in which a client must take something of its answer.
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub write_timeout: u64,

    /// Seconds in which accepted requests are finished when the server ends.
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub drain_timeout: u64,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what was strange.
    Warn,
    /// And a line for every answer.
    Info,
    /// And for every request; which of its fields were ignored.
    Debug,
}

/// `lare bench-serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: lare bench-serve --count 200 --concurrency 16 --steps 2,4,auto. Exit code 1: a request had no answer."
)]
pub struct BenchServe {
    /// The server.
    #[arg(default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,

    /// Requests.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub count: usize,

    /// Requests under way at once.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub concurrency: usize,

    /// Latent steps, a number or `auto`; several, separated by commas, take turns.
    #[arg(long, value_name = "N|auto", value_delimiter = ',', default_value = "auto")]
    pub steps: Vec<StepCount>,

    /// The part of the suite whose pictures are asked about: val, iid, style, hops, dense or size.
    #[arg(long, default_value_t = Split::Iid)]
    pub split: Split,

    /// The tasks, separated by commas: read, locate, hop, compare, count, relate, odd, path, chart; by default all.
    #[arg(long, value_delimiter = ',', value_name = "TASKS")]
    pub tasks: Vec<Task>,

    /// Number of the first sample of each task.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub first: u64,

    /// Different questions, each on a picture of its own, which take turns; by default as many as requests. A server keeps
    /// what it saw in a picture, so few of them measure it without its eyes.
    #[arg(long, value_name = "N")]
    pub pictures: Option<usize>,

    /// Ask the questions without their pictures, of a model that reads text alone.
    #[arg(long)]
    pub text: bool,

    /// Most text tokens of an answer; by default the server's limit.
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,

    /// The model's name in requests; left out, the one there is.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// A file whose first line is the API key.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,

    /// Seconds after which a request has failed.
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub timeout: u64,

    /// Also put another machine under load.
    #[arg(long)]
    pub anywhere: bool,
}
