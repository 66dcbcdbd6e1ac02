//! Pictures of a request: from a URL to pixels, with every limit checked before what it limits is done.

use crate::error::{Problem, one_line};
use crate::fetch::{Fetcher, NotFetched};
use crate::limits::{Budget, Held, Limits};
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::STANDARD};
use lare_infer::Picture;
use lare_infer::image::{self, ImageError};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// With or without padding: not every client writes it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes of a decoded pixel.
const PIXEL_BYTES: u64 = 3;

/// A picture, and the memory it holds.
#[derive(Debug)]
pub struct Loaded {
    /// The picture.
    pub picture: Arc<Picture>,
    /// Given back when this is dropped.
    pub held: Held,
}

/// Makes pictures of what requests bring.
pub struct Loader {
    /// What may come.
    pub limits: Limits,
    /// Memory for it.
    pub budget: Budget,
    /// Where http URLs are allowed.
    pub fetcher: Option<Fetcher>,
    /// Pictures decoded at once.
    pub decoding: Arc<Semaphore>,
    /// Pictures fetched at once.
    pub fetching: Arc<Semaphore>,
}

impl Loader {
    /// A picture by its URL; `param` names the field.
    ///
    /// # Errors
    /// 400 for what is no picture, 413 for what is too large, 429 when there is no memory for it now.
    pub async fn load(&self, param: String, url: String) -> Result<Loaded, Problem> {
        let lower: String = url.chars().take(8).collect::<String>().to_ascii_lowercase();
        let bytes = match lower.as_str() {
            scheme if scheme.starts_with("data:") => Source::Data(url),
            scheme if scheme.starts_with("http://") || scheme == "https://" => {
                Source::Fetched(self.fetch(&param, url).await?)
            }
            _ => {
                let message = "expected a data URI: data:image/png;base64,... with PNG, JPEG or WebP";
                return Err(Problem::field(param, message));
            }
        };
        let (limits, budget) = (self.limits, self.budget.clone());
        let permit = self.decoding.clone().acquire_owned().await.map_err(|_| Problem::closing())?;
        let decoding = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            bytes.decode(&param, &limits, &budget)
        });
        decoding.await.unwrap_or_else(|panic| {
            tracing::error!(%panic, "decoding a picture failed");
            Err(Problem::broken())
        })
    }

    async fn fetch(&self, param: &str, url: String) -> Result<Vec<u8>, Problem> {
        let Some(fetcher) = self.fetcher.clone() else {
            let message = "this server fetches no pictures; send a data URI (data:image/png;base64,...)";
            return Err(Problem::field(param, message));
        };
        let permit = self.fetching.clone().acquire_owned().await.map_err(|_| Problem::closing())?;
        let held = self.budget.take(self.limits.body_bytes)?;
        let fetched = tokio::task::spawn_blocking(move || {
            let _both = (permit, held);
            fetcher.get(&url)
        });
        // The fetcher's own limit covers the transfer; this one covers resolvers that do not answer.
        let fetched = tokio::time::timeout(self.limits.fetch_time * 2, fetched).await;
        match fetched {
            Ok(Ok(Ok(bytes))) => Ok(bytes),
            Ok(Ok(Err(NotFetched::NotPublic(host)))) => {
                tracing::warn!(host, "a picture of an address that is not public was refused");
                Err(Problem::field(param, "pictures are fetched from public addresses alone"))
            }
            Ok(Ok(Err(NotFetched::TooLarge))) => Err(self.too_many_bytes(param)),
            Ok(Ok(Err(NotFetched::Failed(reason)))) => {
                tracing::info!(reason, "a picture could not be fetched");
                Err(Problem::field(param, "the picture could not be fetched"))
            }
            Ok(Err(panic)) => {
                tracing::error!(%panic, "fetching a picture failed");
                Err(Problem::broken())
            }
            Err(_) => Err(Problem::field(param, "the picture could not be fetched in time")),
        }
    }

    fn too_many_bytes(&self, param: &str) -> Problem {
        let message = format!("a picture has at most {} bytes", self.limits.body_bytes);
        Problem::too_large(Some(param.into()), message)
    }
}

/// Where a picture's bytes are.
enum Source {
    Data(String),
    Fetched(Vec<u8>),
}

impl Source {
    fn decode(self, param: &str, limits: &Limits, budget: &Budget) -> Result<Loaded, Problem> {
        match self {
            Self::Data(uri) => of_uri(param, &uri, limits, budget),
            Self::Fetched(bytes) => decode(&bytes, param, limits, budget),
        }
    }
}

/// The bytes of a data URI.
fn data(uri: &str) -> Result<Vec<u8>, String> {
    let expected = "expected data:image/png;base64,... with PNG, JPEG or WebP";
    let (head, body) = uri.split_once(',').ok_or(format!("{expected}, got a data URI without `,`"))?;
    let head = head.to_ascii_lowercase();
    if !head.starts_with("data:image/") {
        return Err(format!("{expected}, got a data URI of another type"));
    }
    if !head.ends_with(";base64") {
        return Err(format!("{expected}, got a data URI that is not base64"));
    }
    LENIENT.decode(body.trim_ascii()).map_err(|error| format!("the data URI is not base64: {error}"))
}

/// Whether the bytes begin as PNG, JPEG or WebP do. What the URI says they are does not matter.
fn is_taken(bytes: &[u8]) -> bool {
    let webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    webp || bytes.starts_with(b"\x89PNG\r\n\x1a\n") || bytes.starts_with(b"\xff\xd8\xff")
}

fn decode(bytes: &[u8], param: &str, limits: &Limits, budget: &Budget) -> Result<Loaded, Problem> {
    if !is_taken(bytes) {
        return Err(Problem::field(param, "expected a picture in PNG, JPEG or WebP"));
    }
    let refused = |error: ImageError| {
        let message = one_line(&error.to_string());
        match error {
            ImageError::TooLarge { .. } => Problem::too_large(Some(param.into()), message),
            _ => Problem::field(param, message),
        }
    };
    let (width, height) = image::dimensions(bytes, "picture").map_err(refused)?;
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.picture_pixels {
        let message = format!("a picture has at most {} pixels, got {width} x {height}", limits.picture_pixels);
        return Err(Problem::too_large(Some(param.into()), message));
    }
    let held = budget.take((pixels * PIXEL_BYTES) as usize)?;
    let picture = image::decode(bytes, "picture").map_err(refused)?;
    Ok(Loaded { picture: Arc::new(picture), held })
}

/// A picture by its data URI alone, as [`Loader::load`] decodes it.
///
/// # Errors
/// As there.
pub fn of_uri(param: &str, uri: &str, limits: &Limits, budget: &Budget) -> Result<Loaded, Problem> {
    decode(&data(uri).map_err(|why| Problem::field(param, why))?, param, limits, budget)
}

/// A drawn picture as a data URI.
pub fn data_uri(picture: &Picture) -> Option<String> {
    let png = lare_infer::png(picture).ok()?;
    Some(format!("data:image/png;base64,{}", STANDARD.encode(png)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader() -> Loader {
        let limits = Limits { picture_pixels: 100_000, ..Limits::default() };
        Loader {
            limits,
            budget: Budget::new(1 << 20),
            fetcher: None,
            decoding: Arc::new(Semaphore::new(1)),
            fetching: Arc::new(Semaphore::new(1)),
        }
    }

    fn load(url: String) -> Result<Loaded, Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(loader().load("field".into(), url))
    }

    fn png(width: usize, height: usize) -> Vec<u8> {
        lare_infer::png(&Picture { width, height, rgb: vec![9; width * height * 3] }).unwrap()
    }

    fn uri(bytes: &[u8]) -> String {
        format!("data:image/png;base64,{}", STANDARD.encode(bytes))
    }

    #[test]
    fn a_data_uri_becomes_a_picture() {
        for uri in [uri(&png(20, 30)), uri(&png(20, 30)).replace('=', ""), uri(&png(20, 30)).replace("png", "JPEG")] {
            let loaded = load(uri).unwrap();
            assert_eq!((loaded.picture.width, loaded.picture.height), (20, 30));
        }
    }

    #[test]
    fn what_is_no_picture_is_refused_by_the_fields_name() {
        let cases = [
            "",
            "picture.png",
            "file:///etc/passwd",
            "data:,x",
            "data:image/png,x",
            "data:text/html;base64,AAAA",
            "data:image/png;base64,!!!",
            "data:image/png;base64,AAAA",
            "http://example.com/a.png",
            "ftp://a/b.png",
            "data:image/png;base64",
            "data:image/svg+xml;base64,PHN2Zy8+",
        ];
        for url in cases {
            let problem = load(url.into()).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.param.as_deref()), (400, Some("field")), "{url}");
        }
        let cut = load(uri(&png(20, 30)[..60])).unwrap_err();
        assert_eq!(cut.status, 400, "{cut:?}");
    }

    #[test]
    fn a_picture_that_claims_to_be_huge_is_refused_by_its_header() {
        // A PNG of 60,000 x 60,000 pixels in a few bytes: the header is all that is read.
        let mut bomb = png(16, 16);
        bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        assert!([400, 413].contains(&load(uri(&bomb)).unwrap_err().status.as_u16()));
        let large = load(uri(&png(400, 300))).unwrap_err();
        assert_eq!(large.status, 413);
        assert!(large.message.contains("400 x 300"), "{}", large.message);
    }

    #[test]
    fn pictures_in_use_hold_memory() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let loader = loader();
        let mut held = Vec::new();
        let refused = loop {
            match runtime.block_on(loader.load("field".into(), uri(&png(300, 300)))) {
                Ok(loaded) => held.push(loaded),
                Err(problem) => break problem,
            }
        };
        assert_eq!((held.len(), refused.status.as_u16()), (3, 429));
        held.clear();
        assert!(runtime.block_on(loader.load("field".into(), uri(&png(300, 300)))).is_ok());
    }
}
