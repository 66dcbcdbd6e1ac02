//! Connections: taken in, watched for clients that do not send or take, and brought to an end.

use crate::app::{App, Settings};
use crate::error::Misconfigured;
use crate::health::Standing;
use crate::{layers, routes};
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use lare_infer::chat::{Message, Role};
use lare_infer::engine::{Engine, Request, Ticket, Update};
use lare_infer::{Options, Picture};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

/// Threads that read and write; the model has its own, and pictures are decoded on others.
const WORKERS: usize = 2;
/// Bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;
/// Time for the last bytes of answers that are complete.
const LAST_BYTES: Duration = Duration::from_secs(5);
/// Pause after the system gave no connection, because too many files are open for example.
const BREATH: Duration = Duration::from_millis(50);

/// A server that is not running yet.
pub struct Server {
    app: Arc<App>,
    router: Router,
    connections: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Requests that had been accepted and were not finished in time.
    pub lost: usize,
}

impl Server {
    /// A server of an engine.
    ///
    /// # Errors
    /// Settings that cannot be.
    pub fn new(engine: Arc<Engine>, settings: Settings) -> Result<Self, Misconfigured> {
        let cors = layers::cors(&settings.cors)?;
        let connections = Arc::new(Semaphore::new(settings.limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let app = Arc::new(App::new(engine, settings)?);
        let router = routes::router(app.clone(), cors);
        Ok(Self { app, router, connections, open: Arc::default() })
    }

    /// Answers until `closing` comes; then finishes what was accepted, refuses the rest and closes the engine.
    ///
    /// Until all is finished the port stays open: `/health` says that the server is closing, and so do refused requests.
    ///
    /// On a loopback address, only requests to a name of this machine are answered, as [`crate::Settings::hosts`] says.
    pub async fn run(self, listener: TcpListener, closing: impl Future<Output = ()>) -> Ended {
        // An address that is not known counts as one that others reach: there a page of theirs needs no rebinding.
        self.app.guarded.store(listener.local_addr().is_ok_and(|at| at.ip().is_loopback()), Ordering::Relaxed);
        let graceful = GracefulShutdown::new();
        let proof = tokio::spawn(prove(self.app.clone()));
        self.take_until(&listener, &graceful, closing).await;
        self.app.health.set(Standing::Closing);
        tracing::info!(under_way = self.app.health.in_flight(), "closing: what was accepted is finished");
        let limits = &self.app.settings.limits;
        let idle = async {
            // Late or not: what is left is counted below.
            drop(tokio::time::timeout(limits.drain_time, self.app.health.idle()).await);
        };
        self.take_until(&listener, &graceful, idle).await;
        drop(listener);
        proof.abort();
        let lost = self.app.health.in_flight();
        if tokio::time::timeout(LAST_BYTES, graceful.shutdown()).await.is_err() {
            tracing::warn!("connections were cut that did not take their answers");
        }
        let engine = self.app.engine.clone();
        // Its thread ends after the forward pass under way; nobody waits for what is left.
        drop(tokio::time::timeout(LAST_BYTES, tokio::task::spawn_blocking(move || engine.close())).await);
        Ended { lost }
    }

    /// The same from a thread that is not asynchronous: listens, says where, and answers until `closing` becomes true.
    ///
    /// # Errors
    /// When there is no such address or it is taken.
    pub fn block(
        self,
        address: (&str, u16),
        listening: impl FnOnce(SocketAddr),
        closing: Arc<AtomicBool>,
    ) -> std::io::Result<Ended> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
        let ended = runtime.block_on(async {
            let listener = TcpListener::bind(address).await?;
            listening(listener.local_addr()?);
            let closed = async {
                while !closing.load(Ordering::Relaxed) {
                    tokio::time::sleep(BREATH).await;
                }
            };
            Ok(self.run(listener, closed).await)
        });
        // Not waited for: a resolver may still be looking for a host.
        runtime.shutdown_background();
        ended
    }

    /// Takes connections in until `end` comes.
    async fn take_until(&self, listener: &TcpListener, graceful: &GracefulShutdown, end: impl Future<Output = ()>) {
        tokio::pin!(end);
        loop {
            let next = async {
                let permit = self.connections.clone().acquire_owned().await.ok()?;
                Some((permit, listener.accept().await))
            };
            tokio::select! {
                () = &mut end => return,
                next = next => match next {
                    Some((permit, Ok((stream, _)))) => self.attend(stream, permit, graceful.watcher()),
                    Some((_, Err(error))) => {
                        tracing::warn!(%error, "a connection could not be taken in");
                        tokio::time::sleep(BREATH).await;
                    }
                    None => return,
                },
            }
        }
    }

    /// Serves one connection, in a task of its own: a panic there ends nothing else.
    fn attend(&self, stream: TcpStream, permit: OwnedSemaphorePermit, watcher: Watcher) {
        let limits = &self.app.settings.limits;
        drop(stream.set_nodelay(true)); // a chunk is worth sending at once; where it cannot be set, it comes later
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_time));
        let router = self.router.clone();
        let service =
            service_fn(move |request: hyper::Request<Incoming>| router.clone().oneshot(request.map(Body::new)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_time)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let counted = Counted::new(self.app.clone(), self.open.clone());
        tokio::spawn(async move {
            let _until_closed = (permit, counted);
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

/// Counts an open connection.
struct Counted(Arc<App>, Arc<AtomicUsize>);

impl Counted {
    fn new(app: Arc<App>, open: Arc<AtomicUsize>) -> Self {
        app.metrics.connections(open.fetch_add(1, Ordering::Relaxed) + 1);
        Self(app, open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connections(self.1.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

/// Asks the model something small; the server is ready when it has answered.
async fn prove(app: Arc<App>) {
    let standing = match first_answer(&app).await {
        Ok(()) => Standing::Ready,
        Err(reason) => {
            tracing::error!(reason, "the model does not answer");
            Standing::Broken
        }
    };
    app.health.set(standing);
    if standing == Standing::Ready {
        tracing::info!(model = app.settings.name, "ready");
    }
}

async fn first_answer(app: &App) -> Result<(), String> {
    let (answered, answer) = oneshot::channel();
    let _ticket = submit_proof(app, answered)?;
    answer.await.map_err(|_| "the engine is gone".to_owned())?
}

fn submit_proof(app: &App, answered: oneshot::Sender<Result<(), String>>) -> Result<Ticket, String> {
    const SIDE: usize = 64;
    let picture = Picture { width: SIDE, height: SIDE, rgb: vec![128; SIDE * SIDE * 3] };
    let pictures = if app.about.pictures > 0 { vec![Arc::new(picture)] } else { Vec::new() };
    let request = Request {
        messages: vec![question(pictures.len())],
        pictures,
        options: Options { max_tokens: 1, ..Options::default() },
        most_steps: app.settings.limits.steps,
        stop: Vec::new(),
        replace: None,
        draw: false,
        deadline: None,
    };
    let mut answered = Some(answered);
    let sink = move |update: Update| {
        let result = match update {
            Update::Done(_) => Ok(()),
            Update::Failed(failure) => Err(format!("{failure:?}")),
            Update::Look { .. } | Update::Text(_) => return true,
        };
        answered.take().is_some_and(|answered| answered.send(result).is_ok())
    };
    app.engine.submit(request, Box::new(sink)).map_err(|refusal| refusal.to_string())
}

fn question(pictures: usize) -> Message {
    use lare_infer::chat::Part;
    let parts = std::iter::repeat_n(Part::Picture, pictures).chain([Part::Text("What is in the picture?".into())]);
    Message::new(Role::User, parts.collect::<Vec<_>>())
}
