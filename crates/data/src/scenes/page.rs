//! Pages of tags, with no object and no question: what an encoder learns to read from.
//!
//! A scene has six to ten tags, a page a hundred, for the same work of an encoder.

use super::dice::Dice;
use super::sprites::Glyphs;
use super::{Scene, stage};
use crate::sample::Split;

/// The box that each tag lies in somewhere: room for the widest tag on its plate.
const BOX_PX: (usize, usize) = (48, 28);
const LETTERS: usize = 16;

/// A page of tags on the background of a scene.
pub(crate) fn describe(split: Split, glyphs: &Glyphs, dice: &mut Dice) -> Scene {
    let mut scene = stage::empty(split, dice);
    for row in 0..scene.height / BOX_PX.1 {
        for column in 0..scene.width / BOX_PX.0 {
            let tag = ((b'A' + dice.below(LETTERS) as u8) as char, dice.below(10) as u8);
            let within = (column * BOX_PX.0, row * BOX_PX.1, BOX_PX.0, BOX_PX.1);
            stage::put_lone_tag(&mut scene, glyphs, tag, within, dice);
        }
    }
    scene
}
