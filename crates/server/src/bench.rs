//! Load on a server, and what it did under it: `lare bench-serve`.
//!
//! Every answer is streamed, so that the time to its first token is that of the client. One connection a worker, kept open.

mod client;
mod report;

pub use client::{Target, TargetError};
pub use report::{Percentiles, Report};

use crate::picture::data_uri;
use client::{Connection, Said};
use lare_infer::Picture;
use report::{Failed, Sample};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is asked of a server, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where.
    pub target: Target,
    /// Requests under way at once.
    pub concurrency: usize,
    /// The requests' bodies, in order.
    pub bodies: Vec<String>,
    /// The key, where the server wants one.
    pub key: Option<String>,
    /// A request without an answer after this has failed.
    pub timeout: Duration,
}

/// A question of a load.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The model's name; left out, the one there is.
    pub model: Option<&'a str>,
    /// What it is about; left out, it is text alone.
    pub picture: Option<&'a Picture>,
    /// Its words.
    pub question: &'a str,
    /// Latent steps; left out, they are the model's to choose.
    pub steps: Option<usize>,
    /// Most tokens of the answer; left out, the server's limit.
    pub max_tokens: Option<usize>,
}

/// The body of a streamed question.
///
/// # Errors
/// A picture that is none.
pub fn body(asked: &Asked) -> Result<String, String> {
    let picture = asked.picture.map(|picture| data_uri(picture).ok_or("the picture cannot be written as PNG"));
    let picture = picture.transpose()?.map(|url| json!({ "type": "image_url", "image_url": { "url": url } }));
    let content: Vec<_> = picture.into_iter().chain([json!({ "type": "text", "text": asked.question })]).collect();
    let mut body = json!({
        "messages": [{ "role": "user", "content": content }],
        "temperature": 0,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    if let Some(model) = asked.model {
        body["model"] = json!(model);
    }
    if let Some(steps) = asked.steps {
        body["lare"] = json!({ "steps": steps });
    }
    if let Some(tokens) = asked.max_tokens {
        body["max_tokens"] = json!(tokens);
    }
    Ok(body.to_string())
}

/// Asks everything; `on_done` hears how many requests are over.
///
/// # Errors
/// When the system gives no threads.
pub fn run(plan: &Plan, on_done: impl Fn(usize) + Send + Sync + 'static) -> std::io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let queue: Arc<Mutex<VecDeque<String>>> = Arc::new(Mutex::new(plan.bodies.iter().cloned().collect()));
    let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
    let on_done = Arc::new(on_done);
    let begun = Instant::now();
    runtime.block_on(async {
        let workers: Vec<_> = (0..plan.concurrency.max(1))
            .map(|_| {
                let (plan, queue, samples, on_done) = (plan.clone(), queue.clone(), samples.clone(), on_done.clone());
                tokio::spawn(async move {
                    let mut connection = None;
                    while let Some(body) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) {
                        let sample = one(&plan, &mut connection, body).await;
                        if let Ok(mut samples) = samples.lock() {
                            samples.push(sample);
                            on_done(samples.len());
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            drop(worker.await); // a worker that panicked has left its samples
        }
    });
    let samples = samples.lock().map(|samples| samples.clone()).unwrap_or_default();
    Ok(Report::of(&samples, plan.bodies.len(), plan.concurrency, begun.elapsed()))
}

async fn one(plan: &Plan, connection: &mut Option<Connection>, body: String) -> Sample {
    let begun = Instant::now();
    let asked = async {
        let mut open = match connection.take() {
            Some(open) if open.is_usable() => open,
            _ => Connection::open(&plan.target).await.map_err(|error| Failed(format!("connect: {}", error.kind())))?,
        };
        let said = open.ask(&plan.target, plan.key.as_deref(), body).await?;
        *connection = Some(open);
        Ok::<Said, Failed>(said)
    };
    let said = tokio::time::timeout(plan.timeout, asked).await.unwrap_or_else(|_| Err(Failed("timeout".into())));
    Sample { total: begun.elapsed(), said: said.map(|said| said.since(begun)) }
}
