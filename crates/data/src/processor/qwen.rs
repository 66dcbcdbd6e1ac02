//! Qwen2.5-VL and Qwen3-VL: whole squares of patches, flat.

use rayon::prelude::*;

use super::{Levels, Size, View};
use crate::image::Picture;
use crate::sample::Region;

/// The longest picture that is taken, as the ratio of its sides.
pub(super) const MOST_RATIO: f64 = 200.0;

/// The settings of Qwen's image processor, all at least 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Qwen {
    /// Side of a patch, in pixels of the resized picture.
    pub patch_size: usize,
    /// Side of the square of patches that becomes one image token.
    pub merge_size: usize,
    /// Frames in a patch; a still picture repeats its only one.
    pub temporal_patch_size: usize,
    /// Fewest pixels of the resized picture; smaller ones are enlarged.
    pub min_pixels: usize,
    /// Most pixels of the resized picture, except that one image token always is there.
    pub max_pixels: usize,
}

impl Qwen {
    /// Side of an image token, in pixels of the resized picture.
    #[must_use]
    pub fn token_px(&self) -> usize {
        self.patch_size * self.merge_size
    }

    /// The size that a picture is brought to: whole image tokens, within the limits, nearly of the same shape. None if
    /// one side is more than 200 times the other.
    ///
    /// `smart_resize` of the reference, operation by operation: an expression rearranged is a size that differs for
    /// some picture.
    pub(super) fn resized(&self, picture: Size) -> Option<Size> {
        let (width, height) = (picture.width as f64, picture.height as f64);
        if width.max(height) / width.min(height) > MOST_RATIO {
            return None;
        }
        let token = self.token_px() as f64;
        let (min, max) = (self.min_pixels as f64, self.max_pixels as f64);
        let rounded = |side: f64| (side / token).round_ties_even() * token;
        let pixels = rounded(width) * rounded(height);
        let whole_tokens = |side: f64| {
            if pixels > max {
                let shrink = ((height * width) / max).sqrt();
                ((side / shrink / token).floor() * token).max(token)
            } else if pixels < min {
                let grow = (min / (height * width)).sqrt();
                (side * grow / token).ceil() * token
            } else {
                rounded(side)
            }
        };
        Some(Size { width: whole_tokens(width) as usize, height: whole_tokens(height) as usize })
    }

    /// Rows and columns of patches of a resized picture, before merging.
    pub(super) fn grid(&self, resized: Size) -> [usize; 2] {
        [resized.height / self.patch_size, resized.width / self.patch_size]
    }

    /// How many values a resized picture has; not as an integer, because a config can ask for any number of them.
    pub(super) fn values(&self, resized: Size) -> f64 {
        resized.width as f64 * resized.height as f64 * (3 * self.temporal_patch_size) as f64
    }

    /// The whole, in the merged tokens of what it is resized to.
    pub(super) fn views(&self, picture: Size, resized: Size) -> Vec<View> {
        let region = Region::at(0, 0, picture.width, picture.height);
        vec![View { region, rows: resized.height / self.token_px(), cols: resized.width / self.token_px() }]
    }

    /// Values `[P, 3 * temporal * patch * patch]` of a resized picture, and their shape.
    pub(super) fn pixel_values(&self, resized: &Picture, levels: &Levels) -> (Vec<f32>, Vec<usize>) {
        let [rows, cols] = self.grid(Size::of(resized));
        let patch_values = 3 * self.temporal_patch_size * self.patch_size.pow(2);
        let mut pixel_values = vec![0.0; rows * cols * patch_values];
        // A band of patches as high as one image token is contiguous in both orders.
        let bands = pixel_values.par_chunks_exact_mut(self.merge_size * cols * patch_values);
        bands.zip(resized.rgb.par_chunks_exact(self.token_px() * resized.width * 3)).for_each(|(values, rgb)| {
            for (place, patch) in values.chunks_exact_mut(patch_values).enumerate() {
                let (token, row, col) = self.place_in_band(place);
                let corner = row * self.patch_size * resized.width + (token * self.merge_size + col) * self.patch_size;
                self.patch(&rgb[corner * 3..], resized.width, levels, patch);
            }
        });
        (pixel_values, vec![rows * cols, patch_values])
    }

    /// Of the patch at this place of a band: the column of its image token, and its row and column in that.
    fn place_in_band(&self, place: usize) -> (usize, usize, usize) {
        let (token, inside) = (place / self.merge_size.pow(2), place % self.merge_size.pow(2));
        (token, inside / self.merge_size, inside % self.merge_size)
    }

    /// One patch in the order channel, frame, row, column, from a picture that begins at its corner.
    fn patch(&self, rgb: &[u8], width: usize, levels: &Levels, patch: &mut [f32]) {
        let frame_values = self.patch_size.pow(2);
        let channels = patch.chunks_exact_mut(self.temporal_patch_size * frame_values).zip(&levels.0);
        for (channel, (frames, levels)) in channels.enumerate() {
            let (first, repeated) = frames.split_at_mut(frame_values);
            for (values, line) in first.chunks_exact_mut(self.patch_size).zip(rgb.chunks(width * 3)) {
                for (value, pixel) in values.iter_mut().zip(line.chunks_exact(3)) {
                    *value = levels[usize::from(pixel[channel])];
                }
            }
            repeated.chunks_exact_mut(frame_values).for_each(|frame| frame.copy_from_slice(first));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn qwen(token_px: usize, min_pixels: usize, max_pixels: usize) -> Qwen {
        Qwen { patch_size: token_px / 2, merge_size: 2, temporal_patch_size: 2, min_pixels, max_pixels }
    }

    #[test]
    fn sizes_are_those_of_smart_resize() {
        // Width, height, side of a token, limits, and what transformers' smart_resize(height, width, ...) gives, turned
        // to width, height.
        let cases = [
            (640, 480, 28, 3136, 12845056, 644, 476),
            (480, 640, 28, 3136, 12845056, 476, 644),
            (4000, 3000, 28, 3136, 1003520, 1148, 840),
            (3000, 4000, 32, 65536, 16777216, 3008, 4000),
            (28, 20, 8, 256, 768, 32, 16), // both sides half-way: to even
            (12, 28, 8, 64, 768, 16, 32),
            (20, 4, 8, 64, 4096, 24, 8), // one side rounds to nothing
            (1, 1, 28, 3136, 12845056, 56, 56),
            (7, 1400, 28, 3136, 12845056, 28, 812),
            (1400, 7, 28, 3136, 12845056, 812, 28),
            (200, 1, 28, 3136, 12845056, 812, 28),
            (16384, 82, 28, 3136, 12845056, 16380, 84),
            (10, 1999, 8, 64, 512, 8, 312), // one token is kept across, and the limit is passed
            (5000, 5000, 28, 784, 784, 28, 28),
            (100, 60, 28, 3136, 3136, 56, 28),
            (1165, 65, 10, 69601, 69602, 1120, 70), // rounded it is too small, so it is enlarged, past the upper limit
        ];
        for (width, height, token_px, min, max, expected_width, expected_height) in cases {
            let expected = Size { width: expected_width, height: expected_height };
            assert_eq!(qwen(token_px, min, max).resized(Size { width, height }), Some(expected), "{width} x {height}");
        }
    }

    proptest! {
        #[test]
        fn sizes_are_whole_tokens_within_the_limits(
            width in 1_usize..20_000, height in 1_usize..20_000, half in 1_usize..40, min in 1_usize..100_000, room in 1_usize..100_000,
        ) {
            let (picture, turned) = (Size { width, height }, Size { width: height, height: width });
            let qwen = qwen(half * 2, min, min + room);
            let Some(to) = qwen.resized(picture) else {
                prop_assert!(width.max(height) > 200 * width.min(height));
                return Ok(());
            };
            prop_assert!(width.max(height) <= 200 * width.min(height));
            let token = qwen.token_px();
            prop_assert!(to.width > 0 && to.width % token == 0 && to.height > 0 && to.height % token == 0);
            prop_assert_eq!(qwen.resized(turned), Some(Size { width: to.height, height: to.width }));
            // What decides is the picture rounded to whole tokens: one of 1165 x 65 with tokens of 10 is 69,600 pixels then, so it
            // is enlarged to at least 69,601, by the reference too, although it has more. Enlarging rounds up and shrinking rounds
            // down: neither limit is passed by what brought the picture there, except by a picture one token wide.
            let rounded = |side: usize| (side as f64 / token as f64).round_ties_even() as usize * token;
            let (area, decides) = (to.width * to.height, rounded(width) * rounded(height));
            if decides > qwen.max_pixels {
                prop_assert!(area <= qwen.max_pixels || to.width.min(to.height) == token);
            } else if decides < qwen.min_pixels {
                prop_assert!(area >= qwen.min_pixels);
            } else {
                prop_assert_eq!(area, decides);
            }
        }

        #[test]
        fn a_picture_of_whole_tokens_within_the_limits_stays(half in 1_usize..40, cols in 1_usize..60, rows in 1_usize..60) {
            let qwen = qwen(half * 2, 1, 1 << 40);
            let picture = Size { width: cols * half * 2, height: rows * half * 2 };
            prop_assert_eq!(qwen.resized(picture), Some(picture));
        }
    }
}
