//! Scenes: what is in a picture, how it is drawn, and what can be asked about it.
//!
//! A scene is first described (positions, kinds, tags: no pixels), then drawn if somebody wants to see it.
//! Questions are asked of the description, so balance and solvability are checked without drawing.

pub(crate) mod chart;
pub(crate) mod dice;
pub(crate) mod draw;
pub mod kinds;
pub(crate) mod objects;
pub(crate) mod odd;
pub(crate) mod page;
pub(crate) mod path;
pub(crate) mod questions;
pub(crate) mod sprites;
pub(crate) mod stage;

use crate::image::Picture;
use crate::sample::{Question, Region};
use draw::{Ground, Rgb, Shape};

/// From an emoji's box to the outer edge of its frame.
pub(crate) const FRAME_PX: usize = 5;
/// How thick a frame is.
pub(crate) const FRAME_LINE_PX: usize = 3;

/// The colour of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Colour {
    /// Called `red`.
    Red,
    /// Called `blue`.
    Blue,
    /// Called `green`.
    Green,
    /// Called `orange`.
    Orange,
    /// Called `purple`.
    Purple,
    /// Called `black`.
    Black,
}

impl Colour {
    /// Every colour a frame can have.
    pub const ALL: [Colour; 6] =
        [Colour::Red, Colour::Blue, Colour::Green, Colour::Orange, Colour::Purple, Colour::Black];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Colour::Red => "red",
            Colour::Blue => "blue",
            Colour::Green => "green",
            Colour::Orange => "orange",
            Colour::Purple => "purple",
            Colour::Black => "black",
        }
    }

    pub(crate) fn rgb(self) -> Rgb {
        match self {
            Colour::Red => [214, 30, 38],
            Colour::Blue => [28, 84, 214],
            Colour::Green => [22, 140, 52],
            Colour::Orange => [240, 130, 10],
            Colour::Purple => [132, 40, 170],
            Colour::Black => [16, 16, 16],
        }
    }
}

/// One emoji in a scene, with its tag.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind, an index into [`kinds::NAMES`].
    pub kind: usize,
    /// What it is called.
    pub name: &'static str,
    /// The coloured frame around it, if any.
    pub frame: Option<Colour>,
    /// Row and column of its place; in a ladder, 0 and the number of its line.
    pub slot: (usize, usize),
    /// First character of its tag.
    pub letter: char,
    /// Second character of its tag, 0 to 9.
    pub digit: u8,
    /// Whether it has a tag; without one `letter` is a space, `digit` 0 and `tag` empty.
    pub tagged: bool,
    /// Where the emoji is, without the frame.
    pub body: Region,
    /// Where the text of its tag is.
    pub tag: Region,
}

impl Object {
    /// The text of its tag: `K7`.
    #[must_use]
    pub fn tag_text(&self) -> String {
        format!("{}{}", self.letter, self.digit)
    }

    /// Emoji, frame and tag together.
    #[must_use]
    pub fn extent(&self) -> Region {
        let pad = if self.frame.is_some() { FRAME_PX as f32 } else { 0.0 };
        let body = Region {
            left: self.body.left - pad,
            top: self.body.top - pad,
            right: self.body.right + pad,
            bottom: self.body.bottom + pad,
        };
        if self.tagged { body.union(&self.tag) } else { body }
    }
}

/// A letter that belongs to no object: at the end of a line or under a bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// The letter.
    pub letter: char,
    /// Where it is.
    pub region: Region,
}

/// One scene with several questions on it.
#[derive(Clone, Debug)]
pub struct Group {
    /// The picture.
    pub picture: Picture,
    /// The emoji in it.
    pub objects: Vec<Object>,
    /// Letters in it that belong to no object.
    pub marks: Vec<Mark>,
    /// The questions.
    pub questions: Vec<Question>,
}

/// How an object is drawn, as far as a question never asks about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Look {
    /// Its side is `SIDES_PX[size]`.
    pub(crate) size: usize,
    /// What its tag is written on.
    pub(crate) plate: Option<Shape>,
}

/// A line of text in the picture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Text {
    pub(crate) content: String,
    pub(crate) font: usize,
    /// Capitals are `CAPS_PX[cap]` high.
    pub(crate) cap: usize,
    /// Where the pen starts.
    pub(crate) left: i32,
    pub(crate) baseline: i32,
    pub(crate) colour: Rgb,
    /// Pixels added between characters.
    pub(crate) spacing: i32,
}

/// Everything about a picture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scene {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Rows of places.
    pub(crate) rows: usize,
    /// Columns of places.
    pub(crate) cols: usize,
    pub(crate) ground: Ground,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) objects: Vec<Object>,
    /// One for each object.
    pub(crate) looks: Vec<Look>,
    /// Under the texts.
    pub(crate) stains: Vec<Shape>,
    pub(crate) texts: Vec<Text>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) facts: Facts,
}

/// What only one sort of scene has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Facts {
    /// Tagged objects; the categories whose digits were arranged for counting.
    Objects(Vec<objects::Focus>),
    /// Copies of one kind; the number of the one that differs.
    Odd(usize),
    /// A ladder.
    Path(path::Ladder),
    /// A bar chart among objects.
    Chart(chart::Chart),
}

/// What a question may be, besides its task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    /// Moves allowed in a chain.
    pub(crate) moves: (usize, usize),
    pub(crate) min_looks: usize,
    pub(crate) max_looks: usize,
    /// Several questions share the scene: also ask what the scene was not arranged for.
    pub(crate) shared: bool,
}

impl Scene {
    /// The letter of a place: A, B, C row by row.
    pub(crate) fn place_letter(&self, slot: (usize, usize)) -> char {
        letter(slot.0 * self.cols + slot.1)
    }

    /// How a question refers to an object: by its frame only if its kind is there twice.
    pub(crate) fn reference(&self, object: usize) -> String {
        let this = &self.objects[object];
        let twins = self.objects.iter().filter(|other| other.kind == this.kind).count();
        match this.frame {
            Some(frame) if twins > 1 => format!("the {}-framed {}", frame.name(), this.name),
            _ => format!("the {}", this.name),
        }
    }
}

/// The `number`th letter from A.
pub(crate) fn letter(number: usize) -> char {
    (b'A' + number as u8) as char
}

/// The template with its `{key}`s replaced.
pub(crate) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (key, value)| text.replace(&format!("{{{key}}}"), value))
}
