//! What can go wrong with a request, in OpenAI's shape; and what can be wrong with the server's settings.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An answer that is none: a status, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status.
    pub status: StatusCode,
    /// OpenAI's kind.
    pub kind: &'static str,
    /// What is wrong, what is expected and what was got.
    pub message: String,
    /// The field it is about.
    pub param: Option<String>,
    /// For programs.
    pub code: &'static str,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code, message: message.into(), param: None, retry_after: None }
    }

    /// 400: a field has a value that cannot be.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let bad = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_value", message);
        Self { param: Some(param.into()), ..bad }
    }

    /// 400: the body is no JSON.
    pub fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_json", message)
    }

    /// 401.
    pub fn key(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", "invalid_api_key", message)
    }

    /// 403: a request to another name than this server's.
    pub fn host(got: Option<&str>) -> Self {
        let got = got.map_or("none".to_owned(), |got| format!("`{}`", shortened(got)));
        let message = format!(
            "this server answers on this machine alone, to `localhost` or 127.0.0.1; the request's `Host` is {got}; give `lare serve` --allow-host for another name"
        );
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", "unknown_host", message)
    }

    /// 404: no such path.
    pub fn route(path: &str) -> Self {
        let message = format!("nothing is served at `{}`; the API is described at /openapi.json", shortened(path));
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "not_found", message)
    }

    /// 404: no such model.
    pub fn model(got: &str, served: &str) -> Self {
        let message = format!("the model `{}` is not served; expected `{served}`", shortened(got));
        let problem = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message);
        Self { param: Some("model".into()), ..problem }
    }

    /// 405.
    pub fn method(method: &str, path: &str) -> Self {
        let message = format!("`{}` has no {method}", shortened(path));
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", message)
    }

    /// 408: the body came too slowly.
    pub fn slow(seconds: u64) -> Self {
        let message = format!("the body did not come within {seconds} seconds");
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "slow_body", message)
    }

    /// 413: the body, or a picture in it.
    pub fn too_large(param: Option<String>, message: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "too_large", message);
        Self { param, ..problem }
    }

    /// 415.
    pub fn media_type(got: Option<&str>) -> Self {
        let got = got.map_or("none".to_owned(), |got| format!("`{}`", shortened(got)));
        let message = format!("expected the content type `application/json`, got {got}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", "unsupported_media_type", message)
    }

    /// 429: there is no room for more.
    pub fn full(message: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "queue_full", message);
        Self { retry_after: Some(1), ..problem }
    }

    /// 500. The reason is for the log.
    pub fn broken() -> Self {
        let message = "the answer failed inside the server; its log has the reason under this answer's x-request-id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error", message)
    }

    /// 503.
    pub fn unavailable(code: &'static str, message: &str) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable_error", code, message);
        Self { retry_after: Some(5), ..problem }
    }

    /// 503: the server is being closed.
    pub fn closing() -> Self {
        Self::unavailable("closing", "the server is shutting down and takes no more requests")
    }

    /// 504.
    pub fn timeout(seconds: u64) -> Self {
        let message = format!("there was no answer within {seconds} seconds");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", "timeout", message)
    }

    /// The body.
    pub fn json(&self) -> serde_json::Value {
        let Self { kind, message, param, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let content_type = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (self.status, content_type, self.json().to_string()).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self); // for the log and the counters
        response
    }
}

/// The beginning of what a client sent, for a message.
pub fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// A library's message of several lines, in one.
pub fn one_line(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Settings that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Misconfigured {
    /// A name that evaluation tools take for another vendor's.
    #[error(
        "a model cannot be served as `{name}`\n  expected  a name without `{part}`, by which evaluation tools know another vendor's models\n  got       {name}\n\nhint: choose another with --name"
    )]
    Name {
        /// The name.
        name: String,
        /// What is in it.
        part: &'static str,
    },
    /// A name that is none.
    #[error(
        "a model cannot be served as `{name}`\n  expected  letters, digits, `.`, `-`, `_`, `/` or `:`\n  got       `{name}`\n\nhint: choose another with --name"
    )]
    NoName {
        /// The name.
        name: String,
    },
    /// An origin that is none.
    #[error(
        "`{origin}` is not an origin\n  expected  scheme, host and port, such as http://localhost:3000, or `*`\n  got       {origin}\n\nhint: give --cors the origin that the browser's error names"
    )]
    Origin {
        /// What was given.
        origin: String,
    },
    /// A name of a host that is none.
    #[error(
        "`{host}` is not the name of a host\n  expected  a name alone, such as lare.internal, without scheme or port\n  got       {host}\n\nhint: give --allow-host the name that stands in the browser's address"
    )]
    Host {
        /// What was given.
        host: String,
    },
    /// A key nobody could send.
    #[error(
        "an API key is empty or has a character that no header may have\n  expected  letters, digits and signs, no space\n  got       {got}\n\nhint: write one key a line"
    )]
    Key {
        /// Its length, not its text.
        got: String,
    },
    /// The certificates or threads for fetching pictures are not there.
    #[error("{0}")]
    System(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_openais_shape() {
        let problem = Problem::field("n", "1 alone");
        let expected = json!({
            "error": { "message": "1 alone", "type": "invalid_request_error", "param": "n", "code": "invalid_value" }
        });
        assert_eq!(problem.json(), expected);
    }

    #[test]
    fn what_a_client_sent_is_repeated_in_part_only() {
        assert_eq!(shortened(&"ä".repeat(500)).chars().count(), 83);
        assert_eq!(shortened("short"), "short");
    }

    #[test]
    fn lines_become_one() {
        assert_eq!(one_line("a\n  expected  1\n  got       2\n\nhint: b"), "a; expected 1; got 2; hint: b");
    }
}
