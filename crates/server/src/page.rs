//! The page, from the binary: nothing of it comes from elsewhere, and nothing it does goes elsewhere.

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};

/// A file of the page: where it is served, its type and what is in it.
pub struct File {
    pub path: &'static str,
    content_type: &'static str,
    content: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All of it, and a picture to ask about.
pub const FILES: [File; 8] = [
    File { path: "/", content_type: HTML, content: include_bytes!("page/index.html") },
    File { path: "/page.css", content_type: CSS, content: include_bytes!("page/page.css") },
    File { path: "/page.js", content_type: SCRIPT, content: include_bytes!("page/page.js") },
    File { path: "/look.js", content_type: SCRIPT, content: include_bytes!("page/look.js") },
    File { path: "/picture.js", content_type: SCRIPT, content: include_bytes!("page/picture.js") },
    File { path: "/view.js", content_type: SCRIPT, content: include_bytes!("page/view.js") },
    File { path: "/wire.js", content_type: SCRIPT, content: include_bytes!("page/wire.js") },
    File {
        path: "/samples/desk.png",
        content_type: "image/png",
        content: include_bytes!("../../../examples/desk.png"),
    },
];

/// Scripts, styles and requests of this server alone; pictures also from what the reader drops on the page. No other site
/// may show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl File {
    /// The file. Asked for anew each time: another version of the program has another page.
    pub fn respond(&self) -> Response {
        let headers: [(HeaderName, &str); 5] = [
            (header::CONTENT_TYPE, self.content_type),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        (headers, self.content).into_response()
    }
}
