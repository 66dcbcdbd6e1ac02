//! The page, from the binary: nothing of it comes from elsewhere, and nothing it does goes elsewhere.

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};

const INDEX: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const DESK: &[u8] = include_bytes!("../../../examples/desk.png");

/// Scripts, styles and requests of this server alone; pictures also from what the reader drops on the page. No other site
/// may show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file and its type. Asked for anew each time: another version of the program has another page.
fn file(content_type: &'static str, content: impl IntoResponse) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}

/// The page.
pub async fn index() -> Response {
    file("text/html; charset=utf-8", INDEX)
}

/// How it looks.
pub async fn style() -> Response {
    file("text/css; charset=utf-8", STYLE)
}

/// What it does.
pub async fn script() -> Response {
    file("text/javascript; charset=utf-8", SCRIPT)
}

/// A picture to ask about.
pub async fn sample() -> Response {
    file("image/png", DESK)
}
