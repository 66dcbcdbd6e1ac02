//! What is served where.

use crate::app::App;
use crate::convert::{self, Asked, Wanted};
use crate::error::{Problem, shortened};
use crate::health::Standing;
use crate::layers::{self, RequestId};
use crate::limits::Limits;
use crate::metrics::seconds;
use crate::stream::{self, Answer};
use crate::underway::{Kept, Tracked, Underway};
use crate::wire::{self, Abilities, ChatCompletion, Choice, Extras, Model, Models, Said};
use crate::{openapi, page};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt;
use lare_infer::engine::{Refusal, Update};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Every path, and what is done with it.
pub(crate) fn paths() -> Router<Arc<App>> {
    let router = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi::document));
    page::FILES.iter().fold(router, |router, file| router.route(file.path, get(|| async { file.respond() })))
}

/// All of it, with what holds for every request around it.
pub(crate) fn router(app: Arc<App>, cors: Option<tower_http::cors::CorsLayer>) -> Router {
    layers::around(paths(), app, cors, not_found, no_such_method)
}

async fn not_found(State(app): State<Arc<App>>, request: Request) -> Problem {
    let problem = Problem::route(request.uri().path());
    refused_unread(request, &app.settings.limits, problem).await
}

async fn no_such_method(State(app): State<Arc<App>>, request: Request) -> Problem {
    let problem = Problem::method(request.method().as_str(), request.uri().path());
    refused_unread(request, &app.settings.limits, problem).await
}

/// An object as JSON; ours always have a form.
fn json(object: &impl serde::Serialize) -> Response {
    match serde_json::to_string(object) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => Problem::broken().into_response(),
    }
}

async fn health(State(app): State<Arc<App>>) -> Response {
    match app.health.check() {
        Ok(()) => json(&serde_json::json!({ "status": "ok" })),
        Err(problem) => problem.into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.text();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The model that is served.
fn served(app: &App) -> Model<'_> {
    let about = &app.about;
    let limits = &app.settings.limits;
    let lare = Abilities {
        max_steps: about.max_steps.min(limits.steps),
        pictures: about.pictures.min(limits.pictures),
        can_draw: about.can_draw,
        text_reasoning_tokens: app.settings.text_reasoning_tokens,
        limits: wire::Limits { body_bytes: limits.body_bytes, picture_pixels: limits.picture_pixels },
    };
    Model { id: &app.settings.name, object: "model", created: app.created, owned_by: "lare", lare }
}

async fn models(State(app): State<Arc<App>>) -> Response {
    json(&Models { object: "list", data: [served(&app)] })
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    match name == app.settings.name {
        true => json(&served(&app)),
        false => Problem::model(&name, &app.settings.name).into_response(),
    }
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Response {
    let id = request.extensions().get::<RequestId>().map_or_else(|| app.ids.next(), |id| id.0.clone());
    let mut tracked = Tracked::new(app.clone(), id);
    match accept(&app, request, &mut tracked).await {
        Ok((accepted, wanted)) => answer(&app, accepted.under(tracked), wanted).await,
        Err(problem) => {
            tracked.failed(&problem);
            problem.into_response()
        }
    }
}

async fn answer(app: &App, underway: Underway, wanted: Wanted) -> Response {
    let about = Answer::new(format!("chatcmpl-{}", app.ids.next()), app.settings.name.clone(), wanted);
    match wanted.stream {
        true => stream::respond(underway, about, app.settings.limits.keep_alive),
        false => whole(underway, &about).await.unwrap_or_else(IntoResponse::into_response),
    }
}

/// Everything of an answer at once.
async fn whole(mut underway: Underway, about: &Answer) -> Result<Response, Problem> {
    let mut looks = Vec::new();
    loop {
        match underway.next().await? {
            Update::Look { look, grids, drawing } if about.wanted.looks => {
                looks.push(convert::look(looks.len() + 1, &look, &grids, drawing.as_ref()));
            }
            Update::Done(answered) => {
                let usage = convert::usage(&answered);
                let message = Said { role: "assistant", content: &answered.text, refusal: None };
                let finish_reason = convert::finish_reason(&answered);
                return Ok(json(&ChatCompletion {
                    id: &about.id,
                    object: "chat.completion",
                    created: about.created,
                    model: &about.model,
                    choices: [Choice { index: 0, message, logprobs: None, finish_reason }],
                    usage,
                    lare: Extras { cost: usage.lare, looks: about.wanted.looks.then_some(looks) },
                }));
            }
            // What is said comes with the end.
            Update::Look { .. } | Update::Text(_) | Update::Failed(_) => {}
        }
    }
}

/// A request that the engine has taken, not yet joined with its count.
struct Accepted {
    updates: mpsc::UnboundedReceiver<Update>,
    deadline: tokio::time::Instant,
    kept: Kept,
}

impl Accepted {
    fn under(self, tracked: Tracked) -> Underway {
        let Self { updates, deadline, kept } = self;
        Underway { tracked, updates, deadline, _kept: kept }
    }
}

/// From a request's bytes to the engine's queue.
async fn accept(app: &App, request: Request, tracked: &mut Tracked) -> Result<(Accepted, Wanted), Problem> {
    let in_flight = match app.health.enter() {
        Ok(in_flight) => in_flight,
        Err(problem) => return Err(refused_unread(request, &app.settings.limits, problem).await),
    };
    let asked = understood(app, request).await?;
    if asked.wanted.stream {
        tracked.streams();
    }
    let deadline = tokio::time::Instant::now() + app.settings.limits.answer_time;
    let loading = async {
        let (mut pictures, mut held) = (Vec::new(), Vec::new());
        for (field, url) in asked.pictures {
            let loaded = app.loader.load(field, url).await?;
            pictures.push(loaded.picture);
            held.push(loaded.held);
        }
        Ok((pictures, held))
    };
    let late = |_| Problem::timeout(seconds(app.settings.limits.answer_time));
    let (pictures, held) = tokio::time::timeout_at(deadline, loading).await.map_err(late)??;
    let wanted = asked.wanted;
    let request = lare_infer::engine::Request {
        messages: asked.messages,
        pictures,
        options: asked.options,
        most_steps: app.settings.limits.steps,
        stop: asked.stop,
        replace: asked.replace,
        draw: wanted.drawings,
        deadline: Some(deadline.into_std()),
    };
    // Without a bound: the engine must not wait for a slow client, and an answer has its own.
    let (sender, updates) = mpsc::unbounded_channel();
    let sink = Box::new(move |update| sender.send(update).is_ok());
    let engine = app.engine.clone();
    // A long prompt takes its time to become tokens, and other clients must not wait for that.
    let ticket = tokio::task::spawn_blocking(move || engine.submit(request, sink)).await;
    let ticket = ticket.map_err(|_| Problem::broken())?.map_err(|refusal| {
        // The server closes its engine last: one that is closed before has failed.
        if matches!(refusal, Refusal::Closing) {
            app.health.set(Standing::Broken);
        }
        convert::refused(refusal)
    })?;
    Ok((Accepted { updates, deadline, kept: Kept { ticket, held, in_flight } }, wanted))
}

async fn understood(app: &App, request: Request) -> Result<Asked, Problem> {
    let limits = &app.settings.limits;
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared: Option<usize> = declared.and_then(|length| length.to_str().ok()?.parse().ok());
    // The text, the strings read from it and the bytes decoded from those are there at the same time.
    let held = expect_json(request.headers()).and_then(|()| match declared {
        Some(bytes) if bytes > limits.body_bytes => Err(too_large(limits)),
        _ => app.loader.budget.take(3 * declared.unwrap_or(limits.body_bytes)),
    });
    let _held = match held {
        Ok(held) => held,
        Err(problem) => return Err(refused_unread(request, limits, problem).await),
    };
    let body = request.into_body();
    let bytes = tokio::time::timeout(limits.body_time, read_body(body, limits)).await;
    let bytes = bytes.unwrap_or_else(|_| Err(Problem::slow(seconds(limits.body_time))))?;
    let (request, unknown) = convert::read(&bytes)?;
    if !unknown.is_empty() {
        tracing::debug!(?unknown, "fields that are not known were ignored");
    }
    convert::understand(request, &app.settings.name, &app.about, limits)
}

/// A page elsewhere can send anything else to a server on its reader's machine without asking, but not this type.
fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match essence.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Problem::media_type(given)),
    }
}

fn too_large(limits: &Limits) -> Problem {
    Problem::too_large(None, format!("a body has at most {} bytes", limits.body_bytes))
}

async fn read_body(body: Body, limits: &Limits) -> Result<Bytes, Problem> {
    let mut read = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece =
            piece.map_err(|error| Problem::body(format!("the body broke off: {}", shortened(&error.to_string()))))?;
        if read.len() + piece.len() > limits.body_bytes {
            drain(Body::from_stream(pieces), limits).await;
            return Err(too_large(limits));
        }
        read.extend_from_slice(&piece);
    }
    Ok(read.into())
}

/// The problem of a request whose body has not been looked at; one that waits to be told to send it is not told.
pub(crate) async fn refused_unread(request: Request, limits: &Limits, problem: Problem) -> Problem {
    if !request.headers().contains_key(header::EXPECT) {
        drain(request.into_body(), limits).await;
    }
    problem
}

/// Reads on for a while what is refused: most clients look at the answer only when they have sent everything.
async fn drain(body: Body, limits: &Limits) {
    const TIME: Duration = Duration::from_secs(5);
    let mut left = 4 * limits.body_bytes.max(1 << 20);
    let mut pieces = body.into_data_stream();
    let reading = async {
        while let Some(Ok(piece)) = pieces.next().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    };
    drop(tokio::time::timeout(TIME, reading).await); // late or not: it was tried
}

/// The status of a panic, and its line in the log.
pub(crate) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("of an unknown kind"), "a handler panicked");
    Problem::broken().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use lare_infer::Assistant;
    use lare_infer::engine::{self, Engine};
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_panic_in_one_request_is_an_error_there_and_nothing_elsewhere() {
        let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/../../weights/nano");
        let assistant = Arc::new(Assistant::from_folder(weights.as_ref()).unwrap());
        let engine = Arc::new(Engine::start(assistant, engine::Limits::default()).unwrap());
        let app = Arc::new(App::new(engine, Settings::new("lare-nano")).unwrap());
        let injected = paths().route(
            "/panic",
            get(|| async {
                if true {
                    panic!("injected")
                }
            }),
        );
        let router = layers::around(injected, app, None, not_found, no_such_method);
        let get = |path: &str| router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());
        let response = get("/panic").await.unwrap();
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key("x-request-id"));
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(error["error"]["code"], "internal_error");
        assert!(!error.to_string().contains("injected"), "the reason is for the log");
        assert_eq!(get("/v1/models").await.unwrap().status(), 200);
    }
}
