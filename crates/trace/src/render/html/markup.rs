//! Small pieces of HTML: escaped text, durations, rows of numbers, pictures as data URIs.

use std::fmt::{self, Display, Write as _};

use base64::{Engine, engine::general_purpose::STANDARD};
use image::{DynamicImage, ImageFormat};

use crate::error::TraceError;

/// Text made safe for HTML, in elements and in quoted attributes alike.
pub struct Text<'a>(pub &'a str);

impl Display for Text<'_> {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                other => out.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A duration with the digits that matter: `4.2 ms`, `55 ms`, `3.1 s`.
pub(super) struct Milliseconds(pub(super) f64);

impl Display for Milliseconds {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            ms if ms < 10.0 => write!(out, "{ms:.1} ms"),
            ms if ms < 1000.0 => write!(out, "{ms:.0} ms"),
            ms => write!(out, "{:.1} s", ms / 1000.0),
        }
    }
}

/// A row of a list of numbers; `meaning` is shown on hover.
pub(super) fn number(html: &mut String, name: &str, meaning: &str, value: &str) {
    let _ = writeln!(html, "<div><dt title=\"{}\">{name}</dt><dd>{}</dd></div>", Text(meaning), Text(value));
}

/// A row with a bar, for a value from 0 to 1.
pub(super) fn share(html: &mut String, name: &str, meaning: &str, value: f64) {
    let _ = writeln!(
        html,
        "<div><dt title=\"{}\">{name}</dt><dd><span class=\"bar\" aria-hidden=\"true\"><i style=\"width:{:.1}%\"></i></span> {value:.2}</dd></div>",
        Text(meaning),
        100.0 * value
    );
}

/// The ending of a counted noun.
pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The picture as PNG inside a data URI.
pub(super) fn png_uri(picture: DynamicImage) -> Result<String, TraceError> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|source| TraceError::Draw { what: "a layer of the page", source })?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes.into_inner())))
}
