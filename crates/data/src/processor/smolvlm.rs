//! SmolVLM and Idefics3: square tiles, and the whole picture in one tile more.

use std::borrow::Cow;

use rayon::prelude::*;

use super::resize::{Filter, resize};
use super::{Levels, Size, View};
use crate::image::Picture;
use crate::sample::Region;

/// No side is longer after the first resize, whatever the config says.
const LONGEST_PX: usize = 4096;

/// The settings of SmolVLM's image processor, sizes at least 1.
#[derive(Clone, Debug, PartialEq)]
pub struct SmolVlm {
    /// What the longer side is brought to first, up or down: `size.longest_edge`.
    pub longest_px: usize,
    /// Side of a tile: `max_image_size.longest_edge`. The vision encoder's `image_size` has to be the same.
    pub tile_px: usize,
    /// Whether a picture is split into tiles, or only shown whole: `do_image_splitting`.
    pub split: bool,
}

impl SmolVlm {
    /// The size of the first resize: the longer side as configured, the shorter one even, both 4096 at most.
    fn longest_edge(&self, picture: Size) -> Size {
        let even = |side: usize| (side + side % 2).max(1);
        let longest = with_longer_side(picture, self.longest_px, even);
        if longest.width.max(longest.height) > LONGEST_PX {
            return with_longer_side(longest, LONGEST_PX, |side| side.max(1));
        }
        longest
    }

    /// The size of the second resize, after which tiles fill the picture.
    fn whole_tiles(&self, resized: Size) -> Size {
        // A side of one pixel can be rounded to 0 on the way, where the reference fails; we give it its tile.
        let up = |side: usize| side.max(1).div_ceil(self.tile_px) * self.tile_px;
        with_longer_side(resized, up(resized.width.max(resized.height)), up)
    }

    /// Rows and columns of tiles.
    pub(super) fn tiles(&self, picture: Size) -> [usize; 2] {
        let tiled = self.whole_tiles(self.longest_edge(picture));
        if !self.split || tiled == Size::square(self.tile_px) {
            return [0, 0];
        }
        [tiled.height / self.tile_px, tiled.width / self.tile_px]
    }

    /// How many values a picture becomes; not as an integer, because a config can ask for any number of them.
    pub(super) fn values(&self, picture: Size) -> f64 {
        let Size { width, height } = self.whole_tiles(self.longest_edge(picture));
        3.0 * (width as f64 * height as f64 + (self.tile_px as f64).powi(2))
    }

    /// Each tile, then the whole.
    pub(super) fn views(&self, picture: Size, token_px: usize) -> Vec<View> {
        let [rows, cols] = self.tiles(picture);
        let tokens = self.tile_px / token_px;
        // Pixels that do not fill a token at the right and bottom of a tile are dropped by the patch embedding.
        let seen = (tokens * token_px) as f64 / self.tile_px as f64;
        let span = |side: usize, tile: usize, tiles: usize| {
            let part = side as f64 / tiles as f64;
            ((part * tile as f64) as f32, (part * (tile as f64 + seen)) as f32)
        };
        let view = |(row, rows): (usize, usize), (col, cols): (usize, usize)| {
            let ((left, right), (top, bottom)) = (span(picture.width, col, cols), span(picture.height, row, rows));
            View { region: Region { left, top, right, bottom }, rows: tokens, cols: tokens }
        };
        let tiles = (0..rows).flat_map(|row| (0..cols).map(move |col| ((row, rows), (col, cols))));
        tiles.chain([((0, 1), (0, 1))]).map(|(row, col)| view(row, col)).collect()
    }

    /// Values `[tiles, 3, S, S]` and their shape.
    pub(super) fn pixel_values(&self, picture: &Picture, filter: Filter, levels: &Levels) -> (Vec<f32>, Vec<usize>) {
        let [rows, cols] = self.tiles(Size::of(picture));
        // Up to three resizes in a row, each rounded to levels: the reference sees no more of the picture than this.
        let mut resized = resize(picture, self.longest_edge(Size::of(picture)), filter);
        if self.split {
            let tiled = self.whole_tiles(Size::of(&resized));
            resized = resize_again(resized, tiled, filter);
        }
        let tile_values = 3 * self.tile_px.pow(2);
        let mut pixel_values = vec![0.0; (rows * cols + 1) * tile_values];
        let (tiles, whole) = pixel_values.split_at_mut(rows * cols * tile_values);
        tiles.par_chunks_exact_mut(tile_values).enumerate().for_each(|(tile, values)| {
            let corner = (tile / cols * cols * self.tile_px + tile % cols) * self.tile_px;
            self.tile(&resized.rgb[corner * 3..], resized.width, levels, values);
        });
        let resized = resize_again(resized, Size::square(self.tile_px), filter);
        self.tile(&resized.rgb, self.tile_px, levels, whole);
        (pixel_values, vec![rows * cols + 1, 3, self.tile_px, self.tile_px])
    }

    /// One tile in the order channel, row, column, from a picture that begins at its corner.
    fn tile(&self, rgb: &[u8], width: usize, levels: &Levels, tile: &mut [f32]) {
        for (channel, (values, levels)) in tile.chunks_exact_mut(self.tile_px.pow(2)).zip(&levels.0).enumerate() {
            for (values, line) in values.chunks_exact_mut(self.tile_px).zip(rgb.chunks(width * 3)) {
                for (value, pixel) in values.iter_mut().zip(line.chunks_exact(3)) {
                    *value = levels[usize::from(pixel[channel])];
                }
            }
        }
    }
}

/// A size of the same shape whose longer side (the width of a square) is `longer` and whose other side is then adjusted.
///
/// Through the ratio of width to height and cut to whole pixels, as in the reference: `width / ratio` can fall below the
/// whole number that exact arithmetic gives.
fn with_longer_side(size: Size, longer: usize, adjust: impl Fn(usize) -> usize) -> Size {
    let ratio = size.width as f64 / size.height as f64;
    if size.width >= size.height {
        Size { width: longer, height: adjust((longer as f64 / ratio) as usize) }
    } else {
        Size { width: adjust((longer as f64 * ratio) as usize), height: longer }
    }
}

/// As [`resize`], of what may be resized already.
fn resize_again(picture: Cow<'_, Picture>, to: Size, filter: Filter) -> Cow<'_, Picture> {
    match picture {
        Cow::Borrowed(picture) => resize(picture, to, filter),
        Cow::Owned(picture) if Size::of(&picture) == to => Cow::Owned(picture),
        Cow::Owned(picture) => Cow::Owned(resize(&picture, to, filter).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size([width, height]: [usize; 2]) -> Size {
        Size { width, height }
    }

    #[test]
    fn sizes_and_tiles_are_those_of_the_reference() {
        // Width and height, longest edge, side of a tile; width and height after the first and the second resize, and
        // rows and columns of tiles, by transformers' functions.
        let cases = [
            ([640, 480], 2048, 512, [2048, 1536], [2048, 1536], [3, 4]),
            ([480, 640], 2048, 512, [1536, 2048], [1536, 2048], [4, 3]),
            ([640, 640], 2048, 512, [2048, 2048], [2048, 2048], [4, 4]),
            ([3000, 400], 2048, 512, [2048, 274], [2048, 512], [1, 4]),
            ([400, 3000], 2048, 512, [274, 2048], [512, 2048], [4, 1]),
            ([500, 333], 1456, 364, [1456, 970], [1456, 1092], [3, 4]),
            ([333, 500], 1456, 364, [970, 1456], [1092, 1456], [4, 3]),
            ([100, 70], 4096, 364, [4096, 2868], [4368, 3276], [9, 12]),
            ([1000, 600], 5000, 512, [4096, 2457], [4096, 2560], [5, 8]),
            ([600, 1000], 5000, 512, [2457, 4096], [2560, 4096], [8, 5]),
            ([1001, 1000], 5000, 364, [4096, 4092], [4368, 4368], [12, 12]),
            ([16384, 1], 2048, 512, [2048, 1], [2048, 512], [1, 4]),
            ([1, 16384], 2048, 512, [1, 2048], [512, 2048], [4, 1]),
            ([320, 300], 384, 384, [384, 360], [384, 384], [0, 0]),
        ];
        for (picture, longest_px, tile_px, first, second, tiles) in cases {
            let smolvlm = SmolVlm { longest_px, tile_px, split: true };
            let longest = smolvlm.longest_edge(size(picture));
            assert_eq!(longest, size(first), "{picture:?}");
            assert_eq!(smolvlm.whole_tiles(longest), size(second), "{picture:?}");
            assert_eq!(smolvlm.tiles(size(picture)), tiles, "{picture:?}");
        }
    }

    #[test]
    fn a_line_of_pixels_gets_a_tile_across_where_the_reference_has_none() {
        // 49.0 * (1.0 / 49.0) is below 1.
        let smolvlm = SmolVlm { longest_px: 49, tile_px: 7, split: true };
        assert_eq!(smolvlm.tiles(size([1, 49])), [7, 1]);
        assert_eq!(smolvlm.tiles(size([49, 1])), [1, 7]);
    }

    proptest! {
        #[test]
        fn views_cover_the_picture_tile_by_tile(
            width in 1_usize..3000, height in 1_usize..3000, across in 1_usize..6, tokens in 1_usize..9,
        ) {
            let smolvlm = SmolVlm { longest_px: across * 24, tile_px: 24, split: true };
            let [rows, cols] = smolvlm.tiles(size([width, height]));
            let views = smolvlm.views(size([width, height]), 24 / tokens);
            prop_assert_eq!(views.len(), rows * cols + 1);
            for (tile, view) in views.iter().take(rows * cols).enumerate() {
                let Region { left, top, right, bottom } = view.region;
                let (row, col) = (tile / cols, tile % cols);
                prop_assert_eq!(left, (width as f64 * col as f64 / cols as f64) as f32);
                prop_assert_eq!(top, (height as f64 * row as f64 / rows as f64) as f32);
                prop_assert!(left < right && right <= width as f32 && top < bottom && bottom <= height as f32);
            }
        }
    }
}
