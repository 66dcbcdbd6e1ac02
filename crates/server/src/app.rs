//! What every request shares: the engine, the settings, the counters.

use crate::error::Misconfigured;
use crate::fetch::{Fetcher, System};
use crate::health::Health;
use crate::host;
use crate::limits::{Budget, Limits};
use crate::metrics::Metrics;
use crate::picture::Loader;
use lare_infer::engine::{About, Engine};
use lare_infer::load::sha256;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// How a model is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The model's name in requests.
    pub name: String,
    /// Tokens that the same model takes on average when it reasons in text, where that was measured.
    pub text_reasoning_tokens: Option<f64>,
    /// Keys of which a request to `/v1/` must bring one; none: everybody may ask.
    pub keys: Vec<String>,
    /// Origins whose pages may ask from a browser; `*` for all.
    pub cors: Vec<String>,
    /// Names, beside those of this machine, by which requests may call a server that listens on loopback: another page's name
    /// can be made to lead here (DNS rebinding), and then a browser takes that page for ours.
    pub hosts: Vec<String>,
    /// Whether pictures are fetched from http URLs.
    pub image_urls: bool,
    /// What is taken.
    pub limits: Limits,
}

impl Settings {
    /// Everything by default.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text_reasoning_tokens: None,
            keys: Vec::new(),
            cors: Vec::new(),
            hosts: Vec::new(),
            image_urls: false,
            limits: Limits::default(),
        }
    }

    fn check(&self) -> Result<(), Misconfigured> {
        let name = self.name.clone();
        if let Some(part) = taken(&name) {
            return Err(Misconfigured::Name { name, part });
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_/:".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            return Err(Misconfigured::NoName { name });
        }
        if let Some(host) = self.hosts.iter().find(|host| !host::is_name(host)) {
            return Err(Misconfigured::Host { host: host.clone() });
        }
        let sendable = |key: &&String| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        match self.keys.iter().find(|key| !sendable(key)) {
            Some(key) => Err(Misconfigured::Key { got: format!("a key of {} bytes", key.len()) }),
            None => Ok(()),
        }
    }
}

/// Names by which evaluation tools know other vendors' models, whose requests and answers they change.
const TAKEN: [&str; 10] = ["o1", "o3", "o4", "gpt-5", "step", "gemini", "grok", "ernie", "moonshot", "abab"];

/// The part of a name that evaluation tools branch on.
#[must_use]
pub fn taken(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    TAKEN.into_iter().find(|part| name.contains(part))
}

/// The name under which a model is served by default: its own behind `lare-`, unless evaluation tools would take that for
/// another vendor's.
#[must_use]
pub fn served_name(model: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' };
    let own: String = model.chars().map(plain).collect();
    match taken(&own) {
        Some(_) => "lare-model".to_owned(),
        None if own.starts_with("lare") => own,
        None => format!("lare-{own}"),
    }
}

/// The name under which a published model is served by default: its folder's or `owner/name`, as it is where that can be.
#[must_use]
pub fn published_name(model: &str) -> String {
    match Settings::new(model).check() {
        Ok(()) => model.to_owned(),
        Err(_) => served_name(model.rsplit('/').next().unwrap_or(model)),
    }
}

/// Shared by all requests.
pub(crate) struct App {
    pub(crate) engine: Arc<Engine>,
    pub(crate) about: About,
    pub(crate) settings: Settings,
    /// Hashes of the keys: what is compared has one length, and no key lies in memory.
    pub(crate) keys: Vec<String>,
    pub(crate) loader: Loader,
    pub(crate) metrics: Metrics,
    pub(crate) health: Arc<Health>,
    pub(crate) ids: Ids,
    /// Whether it listens on loopback, where it is particular about its name.
    pub(crate) guarded: AtomicBool,
    /// When the server was made, in seconds since 1970.
    pub(crate) created: u64,
}

impl App {
    pub(crate) fn new(engine: Arc<Engine>, mut settings: Settings) -> Result<Self, Misconfigured> {
        settings.check()?;
        let (limits, cores) = (settings.limits, std::thread::available_parallelism().map_or(2, usize::from));
        let fetcher = || Fetcher::new(Arc::new(System), limits.body_bytes, limits.fetch_time);
        let loader = Loader {
            limits,
            budget: Budget::new(limits.memory_bytes),
            fetcher: settings.image_urls.then(fetcher),
            decoding: Arc::new(Semaphore::new(cores)),
            fetching: Arc::new(Semaphore::new(2 * cores)),
        };
        let watched = engine.clone();
        let metrics = Metrics::new(Box::new(move || (watched.load(), watched.stats())));
        let keys = std::mem::take(&mut settings.keys);
        Ok(Self {
            about: engine.about(),
            metrics,
            engine,
            keys: keys.iter().map(|key| sha256(key.as_bytes())).collect(),
            settings,
            loader,
            health: Arc::default(),
            ids: Ids::default(),
            guarded: AtomicBool::new(false),
            created: now(),
        })
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Names for requests and answers that no other of this server has, and hardly one of another.
#[derive(Debug)]
pub(crate) struct Ids {
    server: u64,
    next: AtomicU64,
}

impl Default for Ids {
    fn default() -> Self {
        Self { server: RandomState::new().hash_one(now()), next: AtomicU64::new(0) }
    }
}

impl Ids {
    pub(crate) fn next(&self) -> String {
        format!("{:016x}{:08x}", self.server, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_served_that_evaluation_tools_know_as_anothers() {
        assert_eq!(served_name("nano"), "lare-nano");
        assert_eq!(served_name("Qwen2.5 VL/3B"), "lare-Qwen2.5-VL-3B");
        assert_eq!(served_name("lare-two-steps"), "lare-model");
        assert_eq!(published_name("Qwen/Qwen2.5-VL-3B-Instruct"), "Qwen/Qwen2.5-VL-3B-Instruct");
        assert_eq!(published_name("my model"), "lare-my-model");
        assert_eq!(published_name("owner/o3"), "lare-model");
        for name in TAKEN {
            assert!(taken(&served_name(&format!("a-{name}-b"))).is_none());
            assert!(Settings::new(format!("x{name}")).check().is_err());
        }
        assert!(Settings::new("").check().is_err() && Settings::new("a b").check().is_err());
        assert!(Settings::new("lare-nano").check().is_ok());
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_refused_without_being_shown() {
        let settings = Settings { keys: vec!["secret one".into()], ..Settings::new("a") };
        let message = settings.check().unwrap_err().to_string();
        assert!(message.contains("10 bytes") && !message.contains("secret"), "{message}");
    }
}
