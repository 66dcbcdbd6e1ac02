//! From the description of a scene to its pixels. All blending is in integers.

use super::sprites::{Glyph, Glyphs, Sprite, Sprites};
use super::{Look, Scene, Text};
use crate::image::Picture;

/// Red, green and blue, 0 to 255.
pub(crate) type Rgb = [u8; 3];

/// A background: a light colour, a slope, grain, and a few faint shapes that mean nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ground {
    pub(crate) base: Rgb,
    /// Change of brightness per pixel to the right and down, in 1/65536.
    pub(crate) slope: [i32; 2],
    /// Most that the grain adds or takes.
    pub(crate) grain: u32,
    pub(crate) grain_seed: u32,
    pub(crate) shapes: Vec<Shape>,
}

/// A filled figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) round: bool,
    pub(crate) left: i32,
    pub(crate) top: i32,
    pub(crate) width: i32,
    pub(crate) height: i32,
    pub(crate) colour: Rgb,
    /// 0 invisible, 255 opaque.
    pub(crate) alpha: u32,
}

impl Shape {
    /// An opaque rectangle.
    pub(crate) fn bar(left: i32, top: i32, width: i32, height: i32, colour: Rgb) -> Shape {
        Shape { round: false, left, top, width, height, colour, alpha: 255 }
    }
}

/// Draws the scene.
pub(crate) fn draw(scene: &Scene, sprites: &Sprites, glyphs: &Glyphs) -> Picture {
    let mut canvas = Canvas::new(scene.width, scene.height);
    canvas.ground(&scene.ground);
    for shape in &scene.shapes {
        canvas.shape(shape);
    }
    // A tag on a page of tags belongs to no emoji.
    for (object, look) in scene.objects.iter().zip(&scene.looks).filter(|(o, _)| o.body.right > o.body.left) {
        canvas.object(object, look, sprites);
    }
    for stain in &scene.stains {
        canvas.shape(stain);
    }
    for text in &scene.texts {
        canvas.text(text, glyphs);
    }
    canvas.picture
}

/// A picture being drawn on; everything outside it is cut off.
pub(crate) struct Canvas {
    pub(crate) picture: Picture,
}

/// `under` with `over` laid on it, `alpha` of 255 parts.
fn blend(under: u8, over: u8, alpha: u32) -> u8 {
    ((u32::from(under) * (255 - alpha) + u32::from(over) * alpha + 127) / 255) as u8
}

impl Canvas {
    /// A black picture.
    pub(crate) fn new(width: usize, height: usize) -> Canvas {
        Canvas { picture: Picture { width, height, rgb: vec![0; width * height * 3] } }
    }

    fn ground(&mut self, ground: &Ground) {
        let mut state = ground.grain_seed;
        let (half_x, half_y) = (self.picture.width as i32 / 2, self.picture.height as i32 / 2);
        let span = 2 * ground.grain + 1;
        let base = ground.base.map(i32::from);
        for (y, row) in self.picture.rgb.chunks_exact_mut(self.picture.width * 3).enumerate() {
            let mut slope = (y as i32 - half_y) * ground.slope[1] - half_x * ground.slope[0];
            for pixel in row.chunks_exact_mut(3) {
                // A linear congruential step is random enough for grain and the fastest thing here.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let grain = (((state >> 16) * span) >> 16) as i32 - ground.grain as i32;
                let shift = (slope >> 16) + grain;
                for (value, base) in pixel.iter_mut().zip(base) {
                    *value = (base + shift).clamp(0, 255) as u8;
                }
                slope += ground.slope[0];
            }
        }
        for shape in &ground.shapes {
            self.shape(shape);
        }
    }

    /// Fills a figure.
    pub(crate) fn shape(&mut self, shape: &Shape) {
        let (width, height) = (self.picture.width as i32, self.picture.height as i32);
        let rows = shape.top.max(0)..(shape.top + shape.height).min(height);
        for y in rows {
            for x in shape.left.max(0)..(shape.left + shape.width).min(width) {
                if shape.round {
                    // Twice the distance from the centre, scaled so that the ellipse is where dx² + dy² = w² h².
                    let dx = i64::from(2 * (x - shape.left) + 1 - shape.width) * i64::from(shape.height);
                    let dy = i64::from(2 * (y - shape.top) + 1 - shape.height) * i64::from(shape.width);
                    let edge = i64::from(shape.width) * i64::from(shape.height);
                    if dx * dx + dy * dy > edge * edge {
                        continue;
                    }
                }
                let place = (y * width + x) as usize * 3;
                for (value, over) in self.picture.rgb[place..place + 3].iter_mut().zip(shape.colour) {
                    *value = blend(*value, over, shape.alpha);
                }
            }
        }
    }

    fn object(&mut self, object: &super::Object, look: &Look, sprites: &Sprites) {
        let (left, top) = (object.body.left as i32, object.body.top as i32);
        let sprite = sprites.get(object.kind, look.size);
        if let Some(colour) = object.frame {
            let side = sprite.side as i32 + 2 * super::FRAME_PX as i32;
            let (x, y) = (left - super::FRAME_PX as i32, top - super::FRAME_PX as i32);
            self.outline(x, y, side, side, super::FRAME_LINE_PX as i32, colour.rgb());
        }
        self.sprite(sprite, left, top);
        if let Some(plate) = &look.plate {
            self.shape(plate);
        }
    }

    /// The outline of a rectangle, `line` pixels wide, inside its edges.
    pub(crate) fn outline(&mut self, x: i32, y: i32, width: i32, height: i32, line: i32, colour: Rgb) {
        self.shape(&Shape::bar(x, y, width, line, colour));
        self.shape(&Shape::bar(x, y + height - line, width, line, colour));
        self.shape(&Shape::bar(x, y, line, height, colour));
        self.shape(&Shape::bar(x + width - line, y, line, height, colour));
    }

    fn sprite(&mut self, sprite: &Sprite, left: i32, top: i32) {
        for (row, line) in sprite.rgba.chunks_exact(sprite.side * 4).enumerate() {
            for (column, source) in line.chunks_exact(4).enumerate() {
                let Some(place) = self.place(left + column as i32, top + row as i32) else {
                    continue;
                };
                let keep = 255 - u32::from(source[3]);
                for (value, over) in self.picture.rgb[place..place + 3].iter_mut().zip(source) {
                    *value = ((u32::from(*value) * keep + 127) / 255 + u32::from(*over)).min(255) as u8;
                }
            }
        }
    }

    /// Writes a line of text.
    pub(crate) fn text(&mut self, text: &Text, glyphs: &Glyphs) {
        let mut pen = text.left;
        for character in text.content.chars() {
            let glyph = glyphs.get(text.font, text.cap, character);
            self.glyph(glyph, pen, text.baseline, text.colour);
            pen += glyph.advance + text.spacing;
        }
    }

    fn glyph(&mut self, glyph: &Glyph, pen: i32, baseline: i32, colour: Rgb) {
        for (row, line) in glyph.ink.chunks_exact(glyph.width.max(1)).enumerate() {
            for (column, &ink) in line.iter().enumerate() {
                let (x, y) = (pen + glyph.left + column as i32, baseline + glyph.top + row as i32);
                let Some(place) = self.place(x, y) else {
                    continue;
                };
                for (value, over) in self.picture.rgb[place..place + 3].iter_mut().zip(colour) {
                    *value = blend(*value, over, u32::from(ink));
                }
            }
        }
    }

    fn place(&self, x: i32, y: i32) -> Option<usize> {
        let inside = x >= 0 && y >= 0 && (x as usize) < self.picture.width && (y as usize) < self.picture.height;
        inside.then(|| (y as usize * self.picture.width + x as usize) * 3)
    }
}
