//! The picture a trace is drawn on.

use crate::{
    error::{Invalid, TraceError},
    schema::Record,
};

/// A picture as plain bytes: this crate decodes no files and knows no other picture type.
///
/// It is the original picture, in the orientation and size that the record states.
#[derive(Debug, Clone, Copy)]
pub struct PictureRef<'a> {
    /// Width, in pixels.
    pub width: u32,
    /// Height, in pixels.
    pub height: u32,
    /// `width * height` pixels, row by row, three bytes each.
    pub rgb: &'a [u8],
}

impl PictureRef<'_> {
    /// Checks that the bytes fit the size and that the size is the one the record speaks of.
    ///
    /// Every renderer starts here: a heatmap on a picture of another shape would point at the wrong thing.
    pub(crate) fn check(&self, record: &Record) -> Result<(), TraceError> {
        let (width, height) = (record.input.width, record.input.height);
        if (self.width, self.height) != (width, height) {
            let got = format!("{} x {} px", self.width, self.height);
            return Err(Invalid::new("picture", format!("{width} x {height} px, as input says"), got)
                .hint("pass the picture that was asked about, upright and before any resizing")
                .into());
        }
        let expected = width as usize * height as usize * 3;
        if self.rgb.len() != expected {
            let rule = format!("{width} * {height} * 3 = {expected} bytes");
            return Err(Invalid::new("picture.rgb", rule, format!("{} bytes", self.rgb.len()))
                .hint("three bytes a pixel, row by row, no alpha")
                .into());
        }
        Ok(())
    }
}
