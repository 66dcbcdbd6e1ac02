//! `lare serve`: the model behind OpenAI's API, until it is told to end.

use super::{Outcome, assistant, counted, generate};
use crate::args::Serve;
use crate::failure::Failure;
use crate::files;
use crate::hub;
use crate::messages::{Messages, Report};
use lare_infer::Options;
use lare_infer::engine::{self, Engine};
use lare_infer::model::Model;
use lare_server::{Ended, Limits, Server, Settings, published_name, served_name};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Keys, separated by commas, for where files are awkward.
const KEYS: &str = "LARE_API_KEYS";
/// Mean tokens of an answer when the shipped architecture reasons in text (`text-cot`, EXPERIMENTS.md).
const TEXT_REASONING_TOKENS: f64 = 28.0;

/// Serves.
pub fn run(serve: &Serve, messages: &Messages) -> Result<Outcome, Failure> {
    messages.log(serve.log);
    let settings = Settings { keys: keys(serve)?, ..settings(serve) };
    let open = settings.keys.is_empty();
    let Served { engine, name, text_reasoning_tokens } = served(serve, messages)?;
    let name = serve.name.clone().unwrap_or(name);
    let settings = Settings { name, text_reasoning_tokens, ..settings };
    let name = settings.name.clone();
    let server = Server::new(engine, settings)?;
    let closing = super::listen()?;
    let mut said = Ok(());
    let listening = |address: SocketAddr| {
        said = messages.report(&Listening { address, name: &name }).and_then(|()| messages.flush());
        if !address.ip().is_loopback() && open {
            messages.warning("everybody who reaches this machine may ask: give --api-key-file, or listen on 127.0.0.1");
        }
    };
    let ended = server.block((&serve.host, serve.port), listening, closing);
    let ended = ended.map_err(|error| not_listening(serve, &error))?;
    said?;
    if ended != (Ended { lost: 0 }) {
        let lost = counted(ended.lost, "request");
        messages
            .warning(&format!("{lost} had been accepted and were not finished; allow more time with --drain-timeout"));
    }
    Ok(Outcome::Done)
}

/// A model that is ready to be asked.
struct Served {
    engine: Arc<Engine>,
    /// Its name by default.
    name: String,
    /// Of the shipped model, what reasoning in text takes.
    text_reasoning_tokens: Option<f64>,
}

/// Loads what is served: a published model, with its adapter, or one of ours.
fn served(serve: &Serve, messages: &Messages) -> Result<Served, Failure> {
    let model = serve.model.as_deref().map(hub::folder).transpose()?;
    if let Some(folder) = model.as_deref().filter(|folder| generate::is_for(folder)) {
        let adapter = serve.adapter.as_deref().map(generate::open_adapter).transpose()?;
        let generator =
            generate::load(folder, serve.computing.holding(serve.dtype.map(Into::into))?, adapter.as_ref(), messages)?;
        // A warning, once: every request that names no steps takes them.
        generate::settled(&generator, Options::default().steps, messages);
        let id = serve.model.as_deref().and_then(hub::id_of);
        let name = published_name(id.unwrap_or(&generator.name));
        return Ok(Served { engine: engine(generator, serve)?, name, text_reasoning_tokens: None });
    }
    super::ask::refuse_what_pretrained_models_have(serve.dtype, serve.adapter.as_deref())?;
    let assistant = assistant(model.as_deref(), &serve.computing.open()?)?;
    let name = served_name(assistant.name());
    let text_reasoning_tokens = model.is_none().then_some(TEXT_REASONING_TOKENS);
    Ok(Served { engine: engine(assistant, serve)?, name, text_reasoning_tokens })
}

fn engine(model: impl Model, serve: &Serve) -> Result<Arc<Engine>, Failure> {
    let given = &serve.limits;
    let limits = engine::Limits {
        queue: given.queue,
        rows: given.batch,
        pictures: given.max_pictures,
        cache_bytes: given.cache << 20,
        picture_bytes: given.picture_cache << 20,
    };
    Ok(Arc::new(Engine::start(Arc::new(model), limits)?))
}

/// What the flags say; the name follows from the model.
fn settings(serve: &Serve) -> Settings {
    let (given, seconds) = (&serve.limits, Duration::from_secs);
    let limits = Limits {
        body_bytes: given.max_body << 20,
        picture_pixels: given.max_megapixels * 1_000_000,
        pictures: given.max_pictures,
        steps: given.max_steps.unwrap_or(usize::MAX),
        tokens: given.max_tokens.max(1),
        memory_bytes: given.memory << 20,
        connections: given.connections,
        head_time: seconds(given.head_timeout),
        body_time: seconds(given.body_timeout),
        write_time: seconds(given.write_timeout),
        answer_time: seconds(given.timeout),
        drain_time: seconds(given.drain_timeout),
        ..Limits::default()
    };
    let (cors, hosts) = (serve.cors.clone(), serve.allow_host.clone());
    Settings { cors, hosts, image_urls: serve.allow_image_urls, limits, ..Settings::new("") }
}

/// Keys of the file and of the environment. A file without any would leave the server open, against what was meant.
fn keys(serve: &Serve) -> Result<Vec<String>, Failure> {
    let lines = |text: &str, end: char| -> Vec<String> {
        text.split(end).map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect()
    };
    let mut keys = lines(&std::env::var(KEYS).unwrap_or_default(), ',');
    if let Some(file) = &serve.api_key_file {
        let of_file = lines(&files::text(file, "the file of API keys")?, '\n');
        if of_file.is_empty() {
            return Err(Failure::new(format!("`{}` has no API key", file.display()))
                .part("expected", "one key a line")
                .part("got", "no line with text")
                .hint("write a key into it, or leave --api-key-file out"));
        }
        keys.extend(of_file);
    }
    Ok(keys)
}

fn not_listening(serve: &Serve, error: &std::io::Error) -> Failure {
    Failure::new(format!("`{}` port {} cannot be listened on", serve.host, serve.port))
        .part("got", error)
        .hint("choose another port with --port, 0 for any that is free, or an address of this machine with --host")
}

/// Where the server is.
struct Listening<'a> {
    address: SocketAddr,
    name: &'a str,
}

impl Report for Listening<'_> {
    fn text(&self) -> String {
        format!("{} is served at http://{}", self.name, self.address)
    }

    fn json(&self) -> Value {
        json!({ "model": self.name, "url": format!("http://{}", self.address), "port": self.address.port() })
    }
}
