//! The pieces a picture is put together from: emoji and characters, rasterised once.

use ab_glyph::{Font, FontRef, Glyph as FontGlyph, PxScale, point};
use rayon::prelude::*;
use resvg::{tiny_skia, usvg};
use serde::Deserialize;
use std::collections::BTreeMap;

use super::kinds::NAMES;

/// The sides an emoji may have, in pixels.
pub(crate) const SIDES_PX: [usize; 5] = [44, 52, 60, 68, 76];
/// The heights a capital letter may have, in pixels.
pub(crate) const CAPS_PX: [usize; 5] = [9, 10, 11, 12, 13];
/// How many fonts there are.
pub(crate) const FONTS: usize = FONT_FILES.len();

const NOTO: &str = include_str!("../../assets/noto.json");
const FLUENT: &str = include_str!("../../assets/fluent.json");
const FONT_FILES: [&[u8]; 3] = [
    include_bytes!("../../assets/DejaVuSans-Bold.subset.ttf"),
    include_bytes!("../../assets/DejaVuSansMono-Bold.subset.ttf"),
    include_bytes!("../../assets/DejaVuSerif-Bold.subset.ttf"),
];

/// One emoji at one size.
pub(crate) struct Sprite {
    /// Pixels per side.
    pub(crate) side: usize,
    /// `[side, side, 4]`, colours multiplied by alpha.
    pub(crate) rgba: Vec<u8>,
}

/// All kinds at all sizes, by one artist.
pub(crate) struct Sprites {
    sprites: Vec<Sprite>,
}

/// Who drew the emoji.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Artist {
    /// Google's Noto Emoji: everything but the `style` split.
    Noto,
    /// Microsoft's Fluent Emoji, flat: the `style` split.
    Fluent,
}

#[derive(Deserialize)]
struct IconFile {
    view_px: u32,
    icons: BTreeMap<String, String>,
}

impl Sprites {
    /// Rasterises every kind at every size, in parallel.
    #[expect(clippy::expect_used, reason = "the icons are part of this program and a test draws them all")]
    pub(crate) fn rasterise(artist: Artist) -> Sprites {
        let text = match artist {
            Artist::Noto => NOTO,
            Artist::Fluent => FLUENT,
        };
        let file: IconFile = serde_json::from_str(text).expect("committed icon file is JSON");
        let kinds: Vec<Vec<Sprite>> = NAMES
            .par_iter()
            .map(|name| {
                let body = file.icons.get(*name).expect("committed icon file has every kind");
                let view = file.view_px;
                let svg = format!(
                    "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
                     viewBox=\"0 0 {view} {view}\" width=\"{view}\" height=\"{view}\">{body}</svg>"
                );
                let tree =
                    usvg::Tree::from_str(&svg, &usvg::Options::default()).expect("committed icons are valid SVG");
                SIDES_PX.iter().map(|&side| Sprite::draw(&tree, view, side)).collect()
            })
            .collect();
        Sprites { sprites: kinds.into_iter().flatten().collect() }
    }

    /// The picture of `kind` at the size `SIDES_PX[size]`.
    pub(crate) fn get(&self, kind: usize, size: usize) -> &Sprite {
        &self.sprites[kind * SIDES_PX.len() + size]
    }
}

impl Sprite {
    fn draw(tree: &usvg::Tree, view: u32, side: usize) -> Sprite {
        let mut rgba = vec![0; side * side * 4];
        let scale = side as f32 / view as f32;
        if let Some(mut pixmap) = tiny_skia::PixmapMut::from_bytes(&mut rgba, side as u32, side as u32) {
            resvg::render(tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixmap);
        }
        Sprite { side, rgba }
    }
}

/// One character at one size in one font.
#[derive(Clone)]
pub(crate) struct Glyph {
    /// From the pen to the first column of ink.
    pub(crate) left: i32,
    /// From the baseline to the first row of ink; negative above it.
    pub(crate) top: i32,
    /// Columns of ink.
    pub(crate) width: usize,
    /// Rows of ink.
    pub(crate) height: usize,
    /// How far the pen moves.
    pub(crate) advance: i32,
    /// `[height, width]`, 255 where the pixel is all ink.
    pub(crate) ink: Vec<u8>,
}

/// Printable ASCII in every font at every size.
pub(crate) struct Glyphs {
    glyphs: Vec<Glyph>,
}

const FIRST: char = ' ';
const CHARACTERS: usize = 95;

impl Glyphs {
    /// Rasterises them all.
    #[expect(clippy::expect_used, reason = "the fonts are part of this program and a test draws them all")]
    pub(crate) fn rasterise() -> Glyphs {
        let mut glyphs = Vec::with_capacity(FONTS * CAPS_PX.len() * CHARACTERS);
        for file in FONT_FILES {
            let font = FontRef::try_from_slice(file).expect("committed font is valid");
            for cap_px in CAPS_PX {
                let scale = scale_for_cap(&font, cap_px);
                for offset in 0..CHARACTERS as u8 {
                    glyphs.push(rasterise_glyph(&font, scale, (FIRST as u8 + offset) as char));
                }
            }
        }
        Glyphs { glyphs }
    }

    /// The character in `font` at the height `CAPS_PX[cap]`; a character outside printable ASCII looks like `?`.
    pub(crate) fn get(&self, font: usize, cap: usize, character: char) -> &Glyph {
        let offset = (character as usize).wrapping_sub(FIRST as usize);
        let offset = if offset < CHARACTERS { offset } else { '?' as usize - FIRST as usize };
        &self.glyphs[(font * CAPS_PX.len() + cap) * CHARACTERS + offset]
    }
}

/// The scale at which a capital H is exactly `cap_px` high, so that its edges fall on pixel edges.
fn scale_for_cap(font: &FontRef<'_>, cap_px: usize) -> PxScale {
    let trial = 1000.0;
    let height = font.outline(font.glyph_id('H')).map_or(0.729 * trial, |outline| {
        let per_unit = trial / font.height_unscaled();
        (outline.bounds.max.y - outline.bounds.min.y).abs() * per_unit
    });
    // A hair less, so that rounding never adds a row with a trace of ink.
    PxScale::from(trial * (cap_px as f32 - 0.01) / height)
}

fn rasterise_glyph(font: &FontRef<'_>, scale: PxScale, character: char) -> Glyph {
    let id = font.glyph_id(character);
    let advance = (font.h_advance_unscaled(id) * scale.x / font.height_unscaled() + 0.5) as i32;
    let placed = FontGlyph { id, scale, position: point(0.0, 0.0) };
    let Some(outlined) = font.outline_glyph(placed) else {
        return Glyph { left: 0, top: 0, width: 0, height: 0, advance, ink: Vec::new() };
    };
    let bounds = outlined.px_bounds();
    let (width, height) = (bounds.width() as usize, bounds.height() as usize);
    let mut ink = vec![0; width * height];
    outlined.draw(|x, y, coverage| {
        if let Some(pixel) = ink.get_mut(y as usize * width + x as usize) {
            *pixel = (coverage.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
        }
    });
    Glyph { left: bounds.min.x as i32, top: bounds.min.y as i32, width, height, advance, ink }
}

/// The ink of a line of text relative to the start of its baseline.
pub(crate) struct Extent {
    pub(crate) left: i32,
    pub(crate) top: i32,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Glyphs {
    /// Where the ink of `content` is when the pen starts at the origin.
    pub(crate) fn extent(&self, font: usize, cap: usize, content: &str, spacing: i32) -> Extent {
        let (mut pen, mut left, mut top, mut right, mut bottom) = (0, i32::MAX, i32::MAX, 0, i32::MIN);
        for character in content.chars() {
            let glyph = self.get(font, cap, character);
            if glyph.width > 0 {
                left = left.min(pen + glyph.left);
                right = right.max(pen + glyph.left + glyph.width as i32);
                top = top.min(glyph.top);
                bottom = bottom.max(glyph.top + glyph.height as i32);
            }
            pen += glyph.advance + spacing;
        }
        if left > right {
            return Extent { left: 0, top: 0, width: 0, height: 0 };
        }
        Extent { left, top, width: (right - left) as usize, height: (bottom - top) as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_icon_of_both_artists_draws_something_of_its_own() {
        for artist in [Artist::Noto, Artist::Fluent] {
            let sprites = Sprites::rasterise(artist);
            let large = SIDES_PX.len() - 1;
            for (kind, name) in NAMES.iter().enumerate() {
                let rgba = &sprites.get(kind, large).rgba;
                let inked = rgba.chunks_exact(4).filter(|pixel| pixel[3] > 128).count();
                assert!(inked > rgba.len() / 4 / 8, "{artist:?} {name} is almost empty");
                for (other, twin) in NAMES.iter().enumerate().take(kind) {
                    assert_ne!(rgba, &sprites.get(other, large).rgba, "{name} is {twin}");
                }
            }
        }
    }

    #[test]
    fn a_capital_is_exactly_as_high_as_asked() {
        let glyphs = Glyphs::rasterise();
        for font in 0..FONTS {
            for (cap, px) in CAPS_PX.into_iter().enumerate() {
                assert_eq!(glyphs.get(font, cap, 'H').height, px);
            }
        }
    }
}
