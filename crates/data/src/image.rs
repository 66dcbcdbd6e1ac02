//! From bytes to a picture, and from a picture to the size a model sees.
//!
//! Limits are checked on the header, before any pixel is decoded, so a small file that claims to be huge costs
//! nothing. What cannot be shown faithfully is refused by name.

mod jpeg;

use std::io::Cursor;
use std::path::Path;

use ::image::codecs::gif::GifDecoder;
use ::image::codecs::png::PngDecoder;
use ::image::codecs::webp::WebPDecoder;
use ::image::imageops::{FilterType, resize};
use ::image::metadata::Orientation;
use ::image::{AnimationDecoder, DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb};

use crate::sample::Region;

/// Longest side of a picture that is read.
pub const MAX_SIDE_PX: u32 = 16_384;
/// Most pixels of a picture that is read: a little above what cameras of 64 megapixels write.
pub const MAX_PIXELS: u64 = 65_000_000;
/// Largest file that is read.
pub const MAX_FILE_BYTES: u64 = 256 << 20;
/// Memory one decoder may take before it has told the picture's size, and beside the picture afterwards: a colour profile
/// or a text can be packed a thousandfold.
const DECODER_BYTES: u64 = 64 << 20;
/// Sides below this show nothing that a model could answer about.
const LEAST_USEFUL_PX: u32 = 16;
/// The shorter side of a prepared picture, in cells.
const LEAST_CELLS: usize = 3;

/// An RGB picture, 8 bits a channel.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`, row by row.
    pub rgb: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}

/// A picture that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file could not be read at all.
    #[error("picture `{name}` cannot be read: {source}\n\nhint: check the path and its permissions")]
    Read {
        /// The file.
        name: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The bytes are in none of the formats we read.
    #[error(
        "`{name}` is not a picture this program reads\n  expected  PNG, JPEG, GIF, WebP or BMP\n  got       {got}\n\nhint: convert it, for example to PNG"
    )]
    Format {
        /// The file.
        name: String,
        /// How the data begins.
        got: String,
    },
    /// The header claims more than we are willing to decode.
    #[error(
        "picture `{name}` is too large\n  expected  at most {MAX_SIDE_PX} pixels a side, {MAX_PIXELS} in all, {MAX_FILE_BYTES} bytes of file\n  got       {got}\n\nhint: scale it down first; models see far less than this"
    )]
    TooLarge {
        /// The file.
        name: String,
        /// What the header or the file system says.
        got: String,
    },
    /// The data ends early or is damaged.
    #[error(
        "picture `{name}` is truncated or damaged\n  expected  a complete {format} file\n  got       {got}\n\nhint: fetch or export it again"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Its format.
        format: String,
        /// What the decoder said.
        got: String,
    },
    /// A valid file that uses something we do not show faithfully.
    #[error(
        "picture `{name}` uses something this program does not read\n  expected  RGB, grey or palette, with or without alpha\n  got       {got}\n\nhint: convert it to an 8-bit RGB PNG"
    )]
    Unsupported {
        /// The file.
        name: String,
        /// What it uses.
        got: String,
    },
}

/// A picture and what its user should know about how it was read.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The picture, upright.
    pub picture: Picture,
    /// Such as `animated: only the first frame is used`.
    pub notes: Vec<String>,
}

/// Reads a picture from a file.
///
/// # Errors
/// If the file cannot be read, or as [`decode`].
pub fn open(path: &Path) -> Result<Picture, ImageError> {
    let name = path.display().to_string();
    let read = |source| ImageError::Read { name: path.display().to_string(), source };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ImageError::TooLarge { name, got: format!("{bytes} bytes") });
    }
    decode(&std::fs::read(path).map_err(read)?, &name)
}

/// Reads a picture from memory; `name` is for messages.
///
/// # Errors
/// If it is in no format we read, too large, truncated, damaged or uses what we cannot show.
pub fn decode(bytes: &[u8], name: &str) -> Result<Picture, ImageError> {
    decode_noted(bytes, name).map(|opened| opened.picture)
}

/// As [`decode`], and says what was done to the picture on the way.
///
/// # Errors
/// As [`decode`].
pub fn decode_noted(bytes: &[u8], name: &str) -> Result<Opened, ImageError> {
    let format = ::image::guess_format(bytes).ok().filter(|format| is_read(*format));
    let Some(format) = format else {
        return Err(ImageError::Format { name: name.to_owned(), got: beginning(bytes) });
    };
    let failed = |error: ::image::ImageError| decoding_error(name, format, &error);
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        let got = format!("{} bytes without an end marker", bytes.len());
        return Err(ImageError::Damaged { name: name.to_owned(), format: "JPEG".to_owned(), got });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits(0));
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(name, (width, height))?;
    // 16-bit RGBA and as much again for the decoder's own work.
    decoder.set_limits(limits(u64::from(width) * u64::from(height) * 16)).map_err(failed)?;
    let orientation = decoder.orientation().map_err(failed)?;
    let mut notes = Vec::new();
    if width.min(height) < LEAST_USEFUL_PX {
        notes.push(format!("{width} x {height} pixels: too small to show anything; the answer is a guess"));
    }
    let mut image = match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, name)?,
        _ => DynamicImage::from_decoder(decoder).map_err(failed)?,
    };
    if orientation != Orientation::NoTransforms {
        image.apply_orientation(orientation);
        notes.push("turned upright as its EXIF orientation says".to_owned());
    }
    if is_animated(bytes, format) {
        notes.push("animated: only the first frame is used".to_owned());
    }
    let (picture, transparent) = on_white(image);
    if transparent {
        notes.push("transparent: shown on white".to_owned());
    }
    Ok(Opened { picture, notes })
}

/// Width and height in pixels as the header says, read without decoding anything.
///
/// # Errors
/// As [`decode`], as far as the header tells.
pub fn dimensions(bytes: &[u8], name: &str) -> Result<(u32, u32), ImageError> {
    let format = ::image::guess_format(bytes).ok().filter(|format| is_read(*format));
    let Some(format) = format else {
        return Err(ImageError::Format { name: name.to_owned(), got: beginning(bytes) });
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits(0));
    let decoder = reader.into_decoder().map_err(|error| decoding_error(name, format, &error))?;
    let (width, height) = decoder.dimensions();
    check_size(name, (width, height))?;
    Ok((width, height))
}

fn is_read(format: ImageFormat) -> bool {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
    matches!(format, Png | Jpeg | Gif | WebP | Bmp)
}

/// Of memory alone: sides are checked by [`check_size`], whose message gives them.
fn limits(picture_bytes: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES + picture_bytes);
    limits
}

fn check_size(name: &str, (width, height): (u32, u32)) -> Result<(), ImageError> {
    let pixels = u64::from(width) * u64::from(height);
    if width > MAX_SIDE_PX || height > MAX_SIDE_PX || pixels > MAX_PIXELS {
        return Err(ImageError::TooLarge { name: name.to_owned(), got: format!("{width} x {height} pixels") });
    }
    if pixels == 0 {
        return Err(ImageError::Unsupported {
            name: name.to_owned(),
            got: format!("a picture of {width} x {height} pixels"),
        });
    }
    Ok(())
}

fn decoding_error(name: &str, format: ImageFormat, error: &::image::ImageError) -> ImageError {
    let (name, got) = (name.to_owned(), error.to_string());
    match error {
        ::image::ImageError::Limits(_) => ImageError::TooLarge { name, got },
        ::image::ImageError::Unsupported(_) => ImageError::Unsupported { name, got },
        _ => ImageError::Damaged { name, format: format!("{format:?}").to_uppercase(), got },
    }
}

/// The first bytes, as text where they are text.
fn beginning(bytes: &[u8]) -> String {
    match &bytes[..bytes.len().min(16)] {
        [] => "no data".to_owned(),
        first => format!("{} bytes beginning `{}`", bytes.len(), first.escape_ascii()),
    }
}

/// Whether the end marker is there. The decoder fills a cut JPEG with grey and says nothing, so we look.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2; // after the start marker
    loop {
        let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) else {
            return false;
        };
        at += offset + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xd9) => return true,
            // Stuffed data, restart markers, fill bytes: no length follows.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(0xff) => {}
            Some(_) => {
                let Some(length) = bytes.get(at + 1..at + 3) else {
                    return false;
                };
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}

fn is_animated(bytes: &[u8], format: ImageFormat) -> bool {
    let data = Cursor::new(bytes);
    match format {
        ImageFormat::Png => {
            PngDecoder::with_limits(data, limits(0)).is_ok_and(|decoder| decoder.is_apng().unwrap_or(false))
        }
        ImageFormat::WebP => WebPDecoder::new(data).is_ok_and(|decoder| decoder.has_animation()),
        ImageFormat::Gif => GifDecoder::new(data).is_ok_and(|decoder| decoder.into_frames().nth(1).is_some()),
        _ => false,
    }
}

/// Eight bits, three channels; what is transparent shows white. Tells whether anything was: many programs write an
/// alpha channel that says nothing.
fn on_white(image: DynamicImage) -> (Picture, bool) {
    let (width, height) = (image.width() as usize, image.height() as usize);
    if !image.color().has_alpha() {
        return (Picture { width, height, rgb: image.into_rgb8().into_raw() }, false);
    }
    let over = |value: u8, alpha: u8| {
        let alpha = u32::from(alpha);
        ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let rgba = image.into_rgba8();
    let mut rgb = Vec::with_capacity(width * height * 3);
    for pixel in rgba.pixels() {
        rgb.extend([0, 1, 2].map(|channel| over(pixel[channel], pixel[3])));
    }
    let transparent = rgba.pixels().any(|pixel| pixel[3] < u8::MAX);
    (Picture { width, height, rgb }, transparent)
}

/// A picture as the nano model sees it: whole cells, not more of them than it can hold.
#[derive(Clone, PartialEq)]
pub struct Prepared {
    /// Pixels per row: `cols` cells.
    pub width: usize,
    /// Rows of pixels: `rows` cells.
    pub height: usize,
    /// `[height, width, 3]`.
    pub rgb: Vec<u8>,
    /// Rows of cells.
    pub rows: usize,
    /// Columns of cells.
    pub cols: usize,
    /// Model pixels per picture pixel.
    pub scale: f32,
    /// Columns of pixels that show the picture; the rest is padding.
    pub inner_width: usize,
    /// Rows of pixels that show the picture; the rest is padding.
    pub inner_height: usize,
}

impl Prepared {
    /// Where a box of the picture is in model pixels.
    #[must_use]
    pub fn to_model(&self, region: &Region) -> Region {
        region.scaled(self.scale)
    }

    /// Where a box of model pixels is in the picture.
    #[must_use]
    pub fn to_picture(&self, region: &Region) -> Region {
        region.scaled(1.0 / self.scale)
    }
}

/// Scales and pads a picture for a model that reads cells of `cell_px` and at most `max_cells` of them.
///
/// A shorter side under three cells is scaled up; a picture of too many cells is scaled down, keeping its
/// shape; right and bottom are padded with the mean colour of the border. A picture that already is a whole
/// number of cells and within bounds is left as it is, pixel for pixel. Very long pictures end up one cell high.
#[must_use]
pub fn prepare(picture: &Picture, cell_px: usize, max_cells: usize) -> Prepared {
    let (cell_px, max_cells) = (cell_px.max(1), max_cells.max(1));
    let scale = scale_to_fit(picture.width.max(1), picture.height.max(1), cell_px, max_cells);
    // A side cannot need more cells than fit beside one row of the other.
    let scaled = |side: usize| {
        let rounded = (side as f64 * scale).round() as usize;
        rounded.clamp(1, max_cells * cell_px)
    };
    let (inner_width, inner_height) = (scaled(picture.width), scaled(picture.height));
    let inner = if (inner_width, inner_height) == (picture.width, picture.height) {
        picture.rgb.clone()
    } else {
        resized(picture, inner_width, inner_height)
    };
    let (cols, rows) = (inner_width.div_ceil(cell_px), inner_height.div_ceil(cell_px));
    let (width, height) = (cols * cell_px, rows * cell_px);
    let rgb = pad(inner, inner_width, inner_height, width, height);
    Prepared { width, height, rgb, rows, cols, scale: scale as f32, inner_width, inner_height }
}

/// The scale that brings the shorter side to three cells if it is less, then, if that is too many cells, the
/// largest scale that is not.
fn scale_to_fit(width: usize, height: usize, cell_px: usize, max_cells: usize) -> f64 {
    let least = (LEAST_CELLS * cell_px) as f64;
    let wanted = (least / width.min(height) as f64).max(1.0);
    let cells = |side: usize| (side as f64 * wanted / cell_px as f64).ceil();
    if cells(width) * cells(height) <= max_cells as f64 {
        return wanted;
    }
    // With this many rows, so many columns fit; the picture must fit into both.
    let fits = |rows: usize| {
        let cols = max_cells / rows;
        ((cols * cell_px) as f64 / width as f64).min((rows * cell_px) as f64 / height as f64)
    };
    (1..=max_cells).map(fits).fold(0.0, f64::max).min(wanted)
}

/// Another size, averaging over what falls together and interpolating over what falls apart.
fn resized(picture: &Picture, width: usize, height: usize) -> Vec<u8> {
    // Borrowed: a large photograph need not be in memory twice.
    let source: Option<ImageBuffer<Rgb<u8>, &[u8]>> =
        ImageBuffer::from_raw(picture.width as u32, picture.height as u32, &picture.rgb[..]);
    // A picture without its bytes has no pixels to show; white is what transparency shows too.
    source.map_or_else(
        || vec![255; width * height * 3],
        |source| resize(&source, width as u32, height as u32, FilterType::Triangle).into_raw(),
    )
}

/// Adds columns to the right and rows below in the mean colour of the border.
fn pad(inner: Vec<u8>, inner_width: usize, inner_height: usize, width: usize, height: usize) -> Vec<u8> {
    if (inner_width, inner_height) == (width, height) {
        return inner;
    }
    let colour = border_colour(&inner, inner_width, inner_height);
    let mut rgb: Vec<u8> = colour.iter().copied().cycle().take(width * height * 3).collect();
    for (target, source) in rgb.chunks_exact_mut(width * 3).zip(inner.chunks_exact(inner_width * 3)) {
        target[..inner_width * 3].copy_from_slice(source);
    }
    rgb
}

fn border_colour(rgb: &[u8], width: usize, height: usize) -> [u8; 3] {
    let (mut sums, mut count) = ([0_u64; 3], 0);
    for (place, pixel) in rgb.chunks_exact(3).enumerate() {
        let (row, col) = (place / width, place % width);
        if row == 0 || col == 0 || row == height - 1 || col == width - 1 {
            count += 1;
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += u64::from(*value);
            }
        }
    }
    sums.map(|sum| (sum / count.max(1)) as u8)
}

#[cfg(test)]
mod tests;
