//! Scenes of one small bar chart among a few tagged objects.

use super::dice::Dice;
use super::draw::{Rgb, Shape};
use super::kinds::NAMES;
use super::questions::{question, step, word};
use super::sprites::{FONTS, Glyphs};
use super::stage::{self, Item, Pen};
use super::{Colour, Facts, Scene, letter};
use crate::sample::{Question, Region, Split, Task};

/// Two neighbouring bars in the order of height differ by at least this.
const STEP_PX: usize = 8;
/// The lowest bar is at least this high.
const LOWEST_PX: usize = 10;
/// Room for the letters below the bars.
const LETTERS_PX: usize = 20;
/// From the paper's edge to what is drawn on it.
const PAD_PX: usize = 6;

/// The bars from left to right.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chart {
    /// Height of each bar.
    pub(crate) heights: Vec<usize>,
    /// Where each bar is.
    pub(crate) bars: Vec<Region>,
}

/// Describes a scene with a chart.
pub(crate) fn describe(split: Split, glyphs: &Glyphs, dice: &mut Dice) -> Scene {
    let mut scene = stage::empty(split, dice);
    let (row, col) = (dice.below(scene.rows - 1), dice.below(scene.cols - 1));
    chart(&mut scene, (row, col), glyphs, dice);

    let covered = |slot: &(usize, usize)| (row..row + 2).contains(&slot.0) && (col..col + 2).contains(&slot.1);
    let mut slots: Vec<_> = stage::slots(&scene).into_iter().filter(|slot| !covered(slot)).collect();
    dice.shuffle(&mut slots);
    let mut kinds: Vec<usize> = (0..NAMES.len()).collect();
    dice.shuffle(&mut kinds);
    for (&slot, &kind) in slots.iter().zip(&kinds).take(dice.between(2, 4)) {
        let frame = dice.percent(33).then(|| Colour::ALL[dice.below(Colour::ALL.len())]);
        let tag = (letter(dice.below(16)), dice.below(10) as u8);
        stage::put(&mut scene, glyphs, &Item { kind, frame, slot, tag }, dice);
    }
    scene
}

/// Draws a chart somewhere inside the four places whose first is `slot`.
fn chart(scene: &mut Scene, slot: (usize, usize), glyphs: &Glyphs, dice: &mut Dice) {
    let first = stage::slot_region(scene, slot);
    let last = stage::slot_region(scene, (slot.0 + 1, slot.1 + 1));
    let bars = dice.between(4, 5);
    let (plot_width, plot_height) = (dice.between(100, 150), dice.between(80, 120));
    let (width, height) = (plot_width + 2 * PAD_PX, plot_height + LETTERS_PX + PAD_PX);
    let left = first.0 + dice.below(last.0 + last.2 - first.0 - width + 1);
    let top = first.1 + dice.below(last.1 + last.3 - first.1 - height + 1);
    let heights = heights(bars, plot_height - 4, dice);

    let paper = [0; 3].map(|_| dice.between(240, 255) as u8);
    let line = stage::dark(dice);
    let sheet = Shape::bar(left as i32, top as i32, width as i32, height as i32, paper);
    scene.shapes.push(sheet);
    let floor = top + PAD_PX + plot_height;
    let colours = colours(bars, dice);
    let pitch = plot_width / bars;
    let thick = pitch * dice.between(50, 75) / 100;
    let mut letters: Vec<usize> = (0..16).collect();
    dice.shuffle(&mut letters);
    let pen = Pen { font: dice.below(FONTS), cap: dice.below(3), colour: line };
    let mut drawn = Vec::with_capacity(bars);
    for bar in 0..bars {
        let centre = left + PAD_PX + pitch * bar + pitch / 2;
        let (x, y) = ((centre - thick / 2) as i32, (floor - heights[bar]) as i32);
        scene.shapes.push(Shape::bar(x, y, thick as i32, heights[bar] as i32, colours[bar]));
        drawn.push(Region::at(x as usize, y as usize, thick, heights[bar]));
        stage::put_mark(scene, glyphs, letter(letters[bar]), &pen, (centre, floor + 4), dice);
    }
    scene.shapes.push(Shape::bar((left + PAD_PX / 2) as i32, floor as i32, (plot_width + PAD_PX) as i32, 1, line));
    scene.facts = super::Facts::Chart(Chart { heights, bars: drawn });
}

/// Heights in random order, no two closer than [`STEP_PX`].
fn heights(bars: usize, most: usize, dice: &mut Dice) -> Vec<usize> {
    let slack = most - LOWEST_PX - STEP_PX * (bars - 1);
    let mut extra: Vec<usize> = (0..bars).map(|_| dice.below(slack + 1)).collect();
    extra.sort_unstable();
    let mut heights: Vec<usize> =
        extra.iter().enumerate().map(|(rank, extra)| LOWEST_PX + STEP_PX * rank + extra).collect();
    dice.shuffle(&mut heights);
    heights
}

fn colours(bars: usize, dice: &mut Dice) -> Vec<Rgb> {
    let one = dice.percent(50);
    let mut palette = Colour::ALL;
    dice.shuffle(&mut palette);
    (0..bars).map(|bar| palette[if one { 0 } else { bar }].rgb()).collect()
}

/// Asks for the letter under the bar of some rank.
pub(crate) fn ask(scene: &Scene, dice: &mut Dice) -> Option<Question> {
    const WORDINGS: [&str; 5] = [
        "In the small bar chart, which bar is {rank}?",
        "Which bar of the chart is {rank}?",
        "What letter is under the {rank} bar?",
        "Look at the bar chart. Which letter has the {rank} bar?",
        "Name the {rank} bar of the chart.",
    ];
    const RANKS: [&str; 4] = ["highest", "second highest", "lowest", "second lowest"];
    const PLACES: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];
    let Facts::Chart(chart) = &scene.facts else {
        return None;
    };
    let rank = dice.below(RANKS.len());
    let mut order: Vec<usize> = (0..chart.heights.len()).collect();
    order.sort_by_key(|&bar| chart.heights[bar]);
    let bar = match rank {
        0 => order[order.len() - 1],
        1 => order[order.len() - 2],
        2 => order[0],
        _ => order[1],
    };
    let mark = scene.marks[bar];
    let answer = mark.letter.to_string();
    let (name, place) = (RANKS[rank], PLACES[bar]);
    let steps = vec![
        step(format!("The {name} bar is the {place} from the left."), place, chart.bars[bar]),
        step(format!("Under it is the letter {answer}."), answer.clone(), mark.region),
    ];
    let text = word(&WORDINGS, &[("rank", name)], dice);
    let mut asked = question(Task::Chart, rank, text, answer, steps);
    asked.choices = Some(scene.marks.iter().map(|mark| mark.letter.to_string()).collect());
    Some(asked)
}
