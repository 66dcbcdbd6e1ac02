//! What holds for every request: a name it may call the server by, an id, a line in the log, a key, headers, and that a panic is an answer.

use crate::app::App;
use crate::error::{Misconfigured, Problem, shortened};
use crate::host;
use crate::metrics::Outcome;
use crate::routes::{panicked, refused_unread};
use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use lare_infer::load::sha256;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use subtle::{Choice, ConstantTimeEq};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument;

/// A request's name in the log, in its answer's head and, where its client gave one, at the client.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The name of a request that its client may choose.
const MOST_ID_BYTES: usize = 128;

/// Puts paths behind all layers: from the outside in, the log, panics, names, other origins, keys.
pub(crate) fn around<F, T, G, U>(
    paths: Router<Arc<App>>,
    app: Arc<App>,
    cors: Option<CorsLayer>,
    not_found: F,
    no_such_method: G,
) -> Router
where
    F: Handler<T, Arc<App>>,
    G: Handler<U, Arc<App>>,
    T: 'static,
    U: 'static,
{
    let mut router = paths
        .fallback(not_found)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(app.clone(), authorise));
    if let Some(cors) = cors {
        router = router.layer(cors);
    }
    router
        .layer(from_fn_with_state(app.clone(), called_by_name))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), observe))
        .with_state(app)
}

/// The layer for pages of these origins; none for none.
///
/// # Errors
/// An origin that is none.
pub(crate) fn cors(origins: &[String]) -> Result<Option<CorsLayer>, Misconfigured> {
    if origins.is_empty() {
        return Ok(None);
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let origin = |origin: &String| match HeaderValue::from_str(origin) {
            Ok(value) if is_origin(origin) => Ok(value),
            _ => Err(Misconfigured::Origin { origin: origin.clone() }),
        };
        AllowOrigin::list(origins.iter().map(origin).collect::<Result<Vec<_>, _>>()?)
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, REQUEST_ID])
        .expose_headers([REQUEST_ID])
        .max_age(Duration::from_secs(600));
    Ok(Some(layer))
}

/// Scheme, host, perhaps a port, and nothing behind.
fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', ',']))
}

async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = given(request.headers()).unwrap_or_else(|| app.ids.next());
    request.extensions_mut().insert(RequestId(id.clone()));
    let (begun, method, path) = (Instant::now(), request.method().clone(), shortened(request.uri().path()));
    let span = tracing::info_span!("request", id);
    let mut response = next.run(request).instrument(span).await;
    let (status, ms) = (response.status().as_u16(), begun.elapsed().as_secs_f64() * 1e3);
    let problem = response.extensions().get::<Problem>().map(|problem| problem.message.as_str());
    match problem {
        Some(problem) => tracing::info!(id, %method, ?path, status, ms, problem, "request"),
        None => tracing::debug!(id, %method, ?path, status, ms, "request"),
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The id that the client chose, where it can stand in a log.
fn given(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (!id.is_empty() && id.len() <= MOST_ID_BYTES && id.bytes().all(plain)).then(|| id.to_owned())
}

async fn called_by_name(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // A request whose first line has a whole URL names its host there.
    let host = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let host = host.or_else(|| Some(request.headers().get(header::HOST)?.to_str().ok()?.to_owned()));
    let known = match app.guarded.load(Ordering::Relaxed) {
        true => host::check(host.as_deref(), &app.settings.hosts),
        false => Ok(()),
    };
    match known {
        Ok(()) => next.run(request).await,
        Err(problem) => refused_unread(request, &app.settings.limits, problem).await.into_response(),
    }
}

async fn authorise(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let asked = request.uri().path().starts_with("/v1/") && !app.keys.is_empty();
    match asked.then(|| key(request.headers(), &app.keys)) {
        Some(Err(problem)) => {
            if request.uri().path() == "/v1/chat/completions" {
                app.metrics.ended(Outcome::unauthorized);
            }
            refused_unread(request, &app.settings.limits, problem).await.into_response()
        }
        Some(Ok(())) | None => next.run(request).await,
    }
}

/// Compares the hash of the key that came with every hash there is, in a time that tells nothing.
fn key(headers: &HeaderMap, known: &[String]) -> Result<(), Problem> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = given.and_then(|given| {
        let (scheme, key) = given.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let Some(key) = bearer else {
        return Err(Problem::key("this server wants a key: send the header `Authorization: Bearer KEY`"));
    };
    let hash = sha256(key.as_bytes());
    let equal = known.iter().fold(Choice::from(0), |found, known| found | known.as_bytes().ct_eq(hash.as_bytes()));
    match bool::from(equal) {
        true => Ok(()),
        false => Err(Problem::key("the key is not one of this server's")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(authorization).unwrap())])
    }

    #[test]
    fn one_of_the_keys_is_enough_and_nothing_else_is() {
        let known = ["one", "two"].map(|key| sha256(key.as_bytes()));
        for good in ["Bearer one", "bearer two", "BEARER  two"] {
            assert!(key(&headers(good), &known).is_ok(), "{good}");
        }
        let hash = format!("Bearer {}", sha256(b"one"));
        for bad in ["Bearer on", "Bearer onee", "Bearer ", "Basic one", "one", &hash] {
            assert_eq!(key(&headers(bad), &known).unwrap_err().status, 401, "{bad}");
        }
        assert!(key(&HeaderMap::new(), &known).is_err());
    }

    #[test]
    fn an_id_that_could_forge_a_line_of_the_log_is_not_taken() {
        let id = |text: &str| given(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(text).unwrap())]));
        assert_eq!(id("a-b_c.1:2").as_deref(), Some("a-b_c.1:2"));
        for bad in ["", "a b", "a\tb", "\"", &"x".repeat(129)] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_origin_has_a_scheme_and_no_path() {
        let ok = |origin: &str| cors(&[origin.to_owned()]).is_ok();
        assert!(ok("http://localhost:3000") && ok("https://a.example") && ok("*"));
        assert!(!ok("localhost:3000") && !ok("http://a/b") && !ok("null") && !ok("https://"));
        assert!(cors(&[]).unwrap().is_none());
    }

    #[test]
    fn ids_are_not_given_twice() {
        let ids = crate::app::Ids::default();
        let given: HashSet<String> = (0..1000).map(|_| ids.next()).collect();
        assert_eq!(given.len(), 1000);
    }
}
