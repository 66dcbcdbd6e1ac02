//! The looks one after another, as an animated GIF: it plays wherever a picture can be shown.

use image::{
    Delay, DynamicImage, Frame,
    codecs::gif::{GifEncoder, Repeat},
};

use super::heatmap;
use crate::{error::TraceError, picture::PictureRef, schema::Record};

/// How long each look stays, in milliseconds.
pub const LOOK_MS: u32 = 900;
/// Longest side, in pixels. GIF compresses photographs badly; this keeps four looks under a megabyte.
const LONGEST_SIDE_PX: u32 = 480;
/// 1 (best) to 30 (fastest) for the choice of the 256 colours: at 30 a frame takes half the time it takes
/// at 10, and on a dimmed picture the difference cannot be seen.
const PALETTE_SPEED: i32 = 30;

/// Draws all steps as one endless GIF, one frame each; `None` for a record without steps.
pub fn gif(record: &Record, picture: PictureRef) -> Result<Option<Vec<u8>>, TraceError> {
    if record.steps.is_empty() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, PALETTE_SPEED);
    let failed = |source| TraceError::Draw { what: "the animation", source };
    encoder.set_repeat(Repeat::Infinite).map_err(failed)?;
    for drawn in heatmap::draw(record, picture, LONGEST_SIDE_PX)? {
        let rgba = DynamicImage::ImageRgb8(drawn).into_rgba8();
        let frame = Frame::from_parts(rgba, 0, 0, Delay::from_numer_denom_ms(LOOK_MS, 1));
        encoder.encode_frame(frame).map_err(failed)?;
    }
    drop(encoder); // writes the end of the file
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;
    use image::{AnimationDecoder, codecs::gif::GifDecoder};

    #[test]
    fn the_animation_has_one_frame_per_step_in_the_pictures_shape() {
        let (record, rgb) = example::wide();
        let picture = PictureRef { width: 640, height: 384, rgb: &rgb };
        let bytes = gif(&record, picture).unwrap().unwrap();
        let decoder = GifDecoder::new(std::io::Cursor::new(bytes)).unwrap();
        let frames = decoder.into_frames().collect_frames().unwrap();
        assert_eq!(frames.len(), record.steps.len());
        for frame in frames {
            assert_eq!(frame.buffer().dimensions(), (480, 288));
            assert_eq!(frame.delay().numer_denom_ms(), (LOOK_MS, 1));
        }
    }

    #[test]
    fn a_record_without_steps_has_no_animation() {
        let (record, rgb) = example::without_steps();
        let picture = PictureRef { width: 448, height: 448, rgb: &rgb };
        assert!(gif(&record, picture).unwrap().is_none());
    }
}
