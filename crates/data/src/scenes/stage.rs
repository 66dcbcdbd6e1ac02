//! What all scenes share: the picture's shape, its background, and putting an object in a place.

use super::dice::Dice;
use super::draw::{Ground, Rgb, Shape};
use super::kinds::NAMES;
use super::sprites::{CAPS_PX, FONTS, Glyphs, SIDES_PX};
use super::{Colour, FRAME_PX, Facts, Look, Mark, Object, Scene, Text};
use crate::sample::{Region, Split};

const SIDE_PX: usize = 448;
const SLOT_PX: usize = 112;
/// The shapes of the `size` split; none has more than 16 places.
const SHAPES_PX: [(usize, usize); 5] = [(448, 320), (320, 448), (640, 384), (384, 640), (512, 512)];
const PLATE_PAD_PX: usize = 3;
/// Fewest and most stains under a text.
const STAINS: (usize, usize) = (3, 8);
/// Least and most opacity of a stain, of 255.
const STAIN_ALPHA: (usize, usize) = (16, 64);
/// Between objects of neighbouring places, on each side.
const MARGIN_PX: usize = 1;

/// An empty scene of the split's shape.
pub(crate) fn empty(split: Split, dice: &mut Dice) -> Scene {
    let (width, height) = match split {
        Split::Size => SHAPES_PX[dice.below(SHAPES_PX.len())],
        _ => (SIDE_PX, SIDE_PX),
    };
    Scene {
        width,
        height,
        rows: height / SLOT_PX,
        cols: width / SLOT_PX,
        ground: ground(width, height, dice),
        shapes: Vec::new(),
        objects: Vec::new(),
        looks: Vec::new(),
        stains: Vec::new(),
        texts: Vec::new(),
        marks: Vec::new(),
        facts: Facts::Objects(Vec::new()),
    }
}

fn ground(width: usize, height: usize, dice: &mut Dice) -> Ground {
    let light = dice.between(196, 240);
    let base = [0; 3].map(|_| (light as i32 + dice.around(14)).clamp(185, 252) as u8);
    let rise = |dice: &mut Dice, span: usize| dice.around(14) * 65_536 / span as i32;
    let slope = [rise(dice, width), rise(dice, height)];
    let shapes = (0..dice.between(2, 6)).map(|_| faint(width, height, base, dice)).collect();
    Ground { base, slope, grain: dice.between(0, 5) as u32, grain_seed: dice.bits(), shapes }
}

/// A shape that is there to be ignored.
fn faint(width: usize, height: usize, base: Rgb, dice: &mut Dice) -> Shape {
    Shape {
        round: dice.percent(50),
        left: dice.below(width) as i32 - 40,
        top: dice.below(height) as i32 - 40,
        width: dice.between(24, 180) as i32,
        height: dice.between(24, 180) as i32,
        colour: base.map(|value| (i32::from(value) + dice.around(90)).clamp(0, 255) as u8),
        alpha: dice.between(16, 44) as u32,
    }
}

/// A dark colour for text and lines.
pub(crate) fn dark(dice: &mut Dice) -> Rgb {
    [0; 3].map(|_| dice.below(84) as u8)
}

/// What to put in a place.
pub(crate) struct Item {
    pub(crate) kind: usize,
    pub(crate) frame: Option<Colour>,
    pub(crate) slot: (usize, usize),
    pub(crate) tag: (char, u8),
}

struct TagStyle {
    font: usize,
    cap: usize,
    colour: Rgb,
    plate: Option<Rgb>,
    dark_ink: bool,
    /// Pixels added between the two characters.
    spacing: i32,
}

impl TagStyle {
    /// Between the ink and the edge of the plate.
    fn pad(&self) -> usize {
        if self.plate.is_some() { PLATE_PAD_PX } else { 0 }
    }
}

fn tag_style(dice: &mut Dice) -> TagStyle {
    let (font, cap) = (dice.below(FONTS), dice.below(CAPS_PX.len()));
    let ink = dark(dice);
    let paper = [0; 3].map(|_| dice.between(226, 255) as u8);
    let spacing = dice.below(4) as i32;
    let (colour, plate, dark_ink) = match dice.below(4) {
        0 | 1 => (ink, None, true),
        2 => (ink, Some(paper), true),
        _ => (paper, Some(ink), false),
    };
    TagStyle { font, cap, colour, plate, dark_ink, spacing }
}

/// Stains under a text. Without them the mean brightness of a few coarse cells tells which letter is there;
/// with them a letter is told by its strokes alone, that is, by looking closely.
fn stain(scene: &mut Scene, at: (i32, i32, i32, i32), bounds: (i32, i32), dark_ink: bool, dice: &mut Dice) {
    let (left, top, width, height) = at;
    let colour = if dark_ink { [20; 3] } else { [235; 3] };
    for _ in 0..dice.between(STAINS.0, STAINS.1) {
        let (wide, high) = (dice.between(4, 14) as i32, dice.between(4, 14) as i32);
        let x = left - 3 + dice.below((width + 6) as usize) as i32 - wide / 2;
        let y = top + dice.below(height as usize) as i32 - high / 2;
        let (first, last) = ((left - 3).max(bounds.0).max(x), (left + width + 3).min(bounds.1).min(x + wide));
        let (upper, lower) = (y.max(top - 2), (y + high).min(top + height + 1));
        let alpha = dice.between(STAIN_ALPHA.0, STAIN_ALPHA.1) as u32;
        let (width, height) = (last - first, lower - upper);
        scene.stains.push(Shape { round: dice.percent(70), left: first, top: upper, width, height, colour, alpha });
    }
}

/// Puts an object with its tag somewhere inside its place, touching nothing outside it.
pub(crate) fn put(scene: &mut Scene, glyphs: &Glyphs, item: &Item, dice: &mut Dice) {
    let style = tag_style(dice);
    let content = format!("{}{}", item.tag.0, item.tag.1);
    let ink = glyphs.extent(style.font, style.cap, &content, style.spacing);
    let plate_pad = style.pad();
    let (tag_width, tag_height) = (ink.width + 2 * plate_pad, ink.height + 2 * plate_pad);
    let pad = if item.frame.is_some() { FRAME_PX } else { 0 };
    let gap = dice.between(3, 5);
    let slot = slot_region(scene, item.slot);
    let room = (slot.3 - 2 * MARGIN_PX).saturating_sub(gap + tag_height + 2 * pad);
    let sizes = SIDES_PX.iter().filter(|side| **side <= room).count();
    let size = dice.below(sizes);
    let side = SIDES_PX[size] + 2 * pad; // with its frame
    let (block_width, block_height) = (side.max(tag_width), side + gap + tag_height);
    let free_x = (slot.2).saturating_sub(block_width + 2 * MARGIN_PX);
    let free_y = (slot.3).saturating_sub(block_height + 2 * MARGIN_PX);
    let left = slot.0 + MARGIN_PX + dice.below(free_x + 1);
    let top = slot.1 + MARGIN_PX + dice.below(free_y + 1);
    let body_left = left + (block_width - side) / 2;
    let centred = (body_left + side / 2) as i32 - tag_width as i32 / 2 + dice.around(6);
    let (first, last) = (slot.0 + MARGIN_PX, slot.0 + slot.2 - MARGIN_PX - tag_width);
    let plate_left = centred.clamp(first as i32, last as i32) as usize;
    let plate_top = top + side + gap;
    let bounds = (slot.0 as i32, (slot.0 + slot.2) as i32);
    let (plate, tag) = write_tag(scene, glyphs, (&style, &content), (plate_left, plate_top), bounds, dice);
    scene.looks.push(Look { size, plate });
    scene.objects.push(Object {
        kind: item.kind,
        name: NAMES[item.kind],
        frame: item.frame,
        slot: item.slot,
        letter: item.tag.0,
        digit: item.tag.1,
        tagged: true,
        body: Region::at(body_left + pad, top + pad, SIDES_PX[size], SIDES_PX[size]),
        tag,
    });
}

/// Writes a tag whose box, plate included, starts at `at`; stains stay within the columns `bounds`. Gives the plate,
/// which the caller draws, and where the ink is.
fn write_tag(
    scene: &mut Scene,
    glyphs: &Glyphs,
    (style, content): (&TagStyle, &str),
    at: (usize, usize),
    bounds: (i32, i32),
    dice: &mut Dice,
) -> (Option<Shape>, Region) {
    let ink = glyphs.extent(style.font, style.cap, content, style.spacing);
    let pad = style.pad();
    let (left, top) = (at.0 as i32, at.1 as i32);
    let (width, height) = ((ink.width + 2 * pad) as i32, (ink.height + 2 * pad) as i32);
    let plate = style.plate.map(|colour| Shape::bar(left, top, width, height, colour));
    scene.texts.push(Text {
        content: content.to_owned(),
        font: style.font,
        cap: style.cap,
        left: left + pad as i32 - ink.left,
        baseline: top + pad as i32 - ink.top,
        colour: style.colour,
        spacing: style.spacing,
    });
    stain(scene, (left, top, width, height), bounds, style.dark_ink, dice);
    (plate, Region::at(at.0 + pad, at.1 + pad, ink.width, ink.height))
}

/// Puts a tag that belongs to nothing somewhere inside a box of left, top, width, height.
pub(crate) fn put_lone_tag(
    scene: &mut Scene,
    glyphs: &Glyphs,
    tag: (char, u8),
    within: (usize, usize, usize, usize),
    dice: &mut Dice,
) {
    let style = tag_style(dice);
    let content = format!("{}{}", tag.0, tag.1);
    let ink = glyphs.extent(style.font, style.cap, &content, style.spacing);
    let free = |room: usize, size: usize| room.saturating_sub(size + 2 * style.pad());
    let at =
        (within.0 + dice.below(free(within.2, ink.width) + 1), within.1 + dice.below(free(within.3, ink.height) + 1));
    let bounds = (within.0 as i32, (within.0 + within.2) as i32);
    let (plate, region) = write_tag(scene, glyphs, (&style, &content), at, bounds, dice);
    scene.shapes.extend(plate);
    scene.looks.push(Look { size: 0, plate: None });
    scene.objects.push(Object {
        kind: 0,
        name: "",
        frame: None,
        slot: (0, 0),
        letter: tag.0,
        digit: tag.1,
        tagged: true,
        body: Region::at(0, 0, 0, 0),
        tag: region,
    });
}

/// Puts an object without tag or frame where `left` and `top` say.
pub(crate) fn put_bare(scene: &mut Scene, kind: usize, size: usize, slot: (usize, usize), at: (usize, usize)) {
    scene.looks.push(Look { size, plate: None });
    scene.objects.push(Object {
        kind,
        name: NAMES[kind],
        frame: None,
        slot,
        letter: ' ',
        digit: 0,
        tagged: false,
        body: Region::at(at.0, at.1, SIDES_PX[size], SIDES_PX[size]),
        tag: Region::at(at.0, at.1 + SIDES_PX[size], 0, 0),
    });
}

/// How a single letter is written.
pub(crate) struct Pen {
    pub(crate) font: usize,
    pub(crate) cap: usize,
    pub(crate) colour: Rgb,
}

/// Writes a letter that belongs to no object, its ink centred on column `centre` and starting at row `top`.
pub(crate) fn put_mark(
    scene: &mut Scene,
    glyphs: &Glyphs,
    letter: char,
    pen: &Pen,
    at: (usize, usize),
    dice: &mut Dice,
) {
    let ink = glyphs.extent(pen.font, pen.cap, &letter.to_string(), 0);
    let left = at.0 - ink.width / 2;
    let paper = (left as i32, at.1 as i32, ink.width as i32, ink.height as i32);
    stain(scene, paper, (0, scene.width as i32), true, dice);
    scene.texts.push(Text {
        content: letter.to_string(),
        font: pen.font,
        cap: pen.cap,
        left: left as i32 - ink.left,
        baseline: at.1 as i32 - ink.top,
        colour: pen.colour,
        spacing: 0,
    });
    scene.marks.push(Mark { letter, region: Region::at(left, at.1, ink.width, ink.height) });
}

/// Left, top, width and height of a place.
pub(crate) fn slot_region(scene: &Scene, slot: (usize, usize)) -> (usize, usize, usize, usize) {
    let (left, right) = (slot.1 * scene.width / scene.cols, (slot.1 + 1) * scene.width / scene.cols);
    let (top, bottom) = (slot.0 * scene.height / scene.rows, (slot.0 + 1) * scene.height / scene.rows);
    (left, top, right - left, bottom - top)
}

/// Every place, row by row.
pub(crate) fn slots(scene: &Scene) -> Vec<(usize, usize)> {
    (0..scene.rows * scene.cols).map(|number| (number / scene.cols, number % scene.cols)).collect()
}
