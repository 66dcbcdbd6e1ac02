//! JPEG as libjpeg-turbo decodes it, to the bit: the reference's processors are given what Pillow reads with that library, and
//! other decoders, which the standard allows to round and to interpolate colours as they like, are off by up to 55 levels.

use ::image::{DynamicImage, RgbImage};
use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder, JpegError, PixelFormat};

use super::{DECODER_BYTES, ImageError, MAX_PIXELS, MAX_SIDE_PX};

/// Most passes over a progressive picture. Encoders write about ten; a small file with thousands takes minutes.
const MAX_SCANS: usize = 200;
/// Bytes a pixel that decoding may take: three channels of coefficients in 16 bits, of samples, and what is given back.
const PIXEL_BYTES: u64 = 24;

/// Decodes a picture whose size was checked; it is not turned upright.
pub(super) fn decode(bytes: &[u8], name: &str) -> Result<DynamicImage, ImageError> {
    let refused = |error: JpegError| {
        let (name, got) = (name.to_owned(), error.to_string());
        match error {
            JpegError::LimitExceeded { .. } | JpegError::AllocationFailed { .. } => ImageError::TooLarge { name, got },
            JpegError::Unsupported(_) => ImageError::Unsupported { name, got },
            _ => ImageError::Damaged { name, format: "JPEG".to_owned(), got },
        }
    };
    let limits = DecodeLimits {
        max_width: MAX_SIDE_PX as usize,
        max_height: MAX_SIDE_PX as usize,
        max_pixels: MAX_PIXELS,
        max_scans: MAX_SCANS,
        max_memory: Some(DECODER_BYTES + PIXEL_BYTES * MAX_PIXELS),
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(refused)?;
    let inks = matches!(decoder.jpeg_color_space(), ColorSpace::Cmyk | ColorSpace::Ycck);
    decoder.set_output_format(if inks { PixelFormat::Cmyk } else { PixelFormat::Rgb });
    // As libjpeg does: a damaged place is shown as it can be.
    decoder.set_lenient(true);
    let image = decoder.decode_image().map_err(refused)?;
    let (width, height) = (image.width as u32, image.height as u32);
    let rgb = if inks { without_inks(&image.data) } else { image.data };
    let filled = RgbImage::from_raw(width, height, rgb).map(DynamicImage::from);
    filled.ok_or_else(|| refused(JpegError::UnexpectedEof))
}

/// Inks, four bytes a pixel and inverted as Adobe's programs write them, as Pillow mixes them.
fn without_inks(cmyk: &[u8]) -> Vec<u8> {
    let mixed = |ink: u8, white: u8| {
        let product = u32::from(255 - ink) * u32::from(white) + 128;
        white - (((product >> 8) + product) >> 8) as u8
    };
    cmyk.as_chunks::<4>().0.iter().flat_map(|[c, m, y, k]| [c, m, y].map(|ink| mixed(*ink, *k))).collect()
}
