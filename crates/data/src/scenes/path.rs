//! Scenes of a ladder: four lines with rungs between neighbours, an object above and a letter below each line.

use super::dice::Dice;
use super::draw::{Rgb, Shape};
use super::kinds::NAMES;
use super::questions::{question, step, word};
use super::sprites::{FONTS, Glyphs, SIDES_PX};
use super::stage::{self, Pen};
use super::{Facts, Scene, Want, letter};
use crate::sample::{Question, Region, Split, Step, Task};

/// Lines of a ladder.
const LINES: usize = 4;
/// Fewest and most levels of rungs.
pub(crate) const LEVELS: (usize, usize) = (2, 4);
/// Free pixels around the ladder.
const BORDER_PX: usize = 6;
/// From the emoji to its line, and from the line to its letter.
const GAP_PX: usize = 4;
/// From the end of a line to the nearest level.
const TAIL_PX: usize = 10;
/// Room for a letter.
const LETTER_PX: usize = 16;

/// Where lines and rungs are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ladder {
    /// Column of the first line's centre.
    left: usize,
    /// From line to line.
    pitch: usize,
    /// First row of the lines.
    top: usize,
    /// Height of a level.
    level: usize,
    /// For each level, whether there is a rung to the right of lines 0, 1 and 2.
    pub(crate) rungs: Vec<[bool; LINES - 1]>,
}

/// What one level does to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Left,
    Right,
    Straight,
}

impl Turn {
    fn name(self) -> &'static str {
        match self {
            Turn::Left => "left",
            Turn::Right => "right",
            Turn::Straight => "straight",
        }
    }
}

fn turn(rungs: &[bool; LINES - 1], line: usize) -> Turn {
    if line > 0 && rungs[line - 1] {
        Turn::Left
    } else if line < LINES - 1 && rungs[line] {
        Turn::Right
    } else {
        Turn::Straight
    }
}

fn follow(turn: Turn, line: usize) -> usize {
    match turn {
        Turn::Left => line - 1,
        Turn::Right => line + 1,
        Turn::Straight => line,
    }
}

/// Rungs of one level: none touch, and a level without any is rare.
fn rungs(dice: &mut Dice) -> [bool; LINES - 1] {
    match dice.below(13) {
        0 => [false; LINES - 1],
        1..=3 => [true, false, false],
        4..=6 => [false, true, false],
        7..=9 => [false, false, true],
        _ => [true, false, true],
    }
}

/// Rungs that lead from `start` to a line drawn evenly from those in reach.
fn rungs_from(start: usize, levels: usize, dice: &mut Dice) -> Vec<[bool; LINES - 1]> {
    let ends: Vec<usize> = (0..LINES).filter(|end| end.abs_diff(start) <= levels).collect();
    let wanted = dice.pick(&ends).copied().unwrap_or(start);
    loop {
        let drawn: Vec<_> = (0..levels).map(|_| rungs(dice)).collect();
        if drawn.iter().fold(start, |line, level| follow(turn(level, line), line)) == wanted {
            return drawn;
        }
    }
}

/// Describes a ladder. The first object is the one that a test question starts from.
pub(crate) fn describe(split: Split, want: Want, glyphs: &Glyphs, dice: &mut Dice) -> Scene {
    let mut scene = stage::empty(split, dice);
    let fewest = LEVELS.0.max(want.min_looks.saturating_sub(1));
    let levels = dice.between(fewest, LEVELS.1.min(want.max_looks.saturating_sub(1)));
    let start = dice.below(LINES);
    let rungs = rungs_from(start, levels, dice);
    let size = dice.below(3);
    let side = SIDES_PX[size];

    let most_pitch = ((scene.width - side - 2 * BORDER_PX) / (LINES - 1)).min(112);
    let pitch = dice.between(side + 8, most_pitch);
    let around = 2 * BORDER_PX + side + 2 * GAP_PX + 2 * TAIL_PX + LETTER_PX;
    let level = dice.between(44, ((scene.height - around) / levels).min(80));
    let width = pitch * (LINES - 1) + side;
    let height = around - 2 * BORDER_PX + level * levels;
    let x = BORDER_PX + dice.below(scene.width - width - 2 * BORDER_PX + 1);
    let y = BORDER_PX + dice.below(scene.height - height - 2 * BORDER_PX + 1);
    let ladder = Ladder { left: x + side / 2, pitch, top: y + side + GAP_PX, level, rungs };

    rule(&mut scene, &ladder, dice);
    let mut kinds: Vec<usize> = (0..NAMES.len()).collect();
    dice.shuffle(&mut kinds);
    let mut letters: Vec<usize> = (0..16).collect();
    dice.shuffle(&mut letters);
    let colour = stage::dark(dice);
    for line in (0..LINES).map(|offset| (start + offset) % LINES) {
        stage::put_bare(&mut scene, kinds[line], size, (0, line), (x + line * pitch, y));
    }
    for (line, &drawn) in letters.iter().enumerate().take(LINES) {
        let pen = Pen { font: dice.below(FONTS), cap: dice.below(5), colour };
        let at = (ladder.left + line * pitch, ladder.bottom() + GAP_PX);
        stage::put_mark(&mut scene, glyphs, letter(drawn), &pen, at, dice);
    }
    scene.facts = Facts::Path(ladder);
    scene
}

impl Ladder {
    /// First row below the lines.
    fn bottom(&self) -> usize {
        self.top + 2 * TAIL_PX + self.level * self.rungs.len()
    }

    /// The part of a level that decides where a line goes: the line and, on each side, where a rung would leave it.
    fn neighbourhood(&self, level: usize, line: usize) -> Region {
        let reach = self.pitch / 4;
        let left = (self.left + line * self.pitch).saturating_sub(reach);
        Region::at(left, self.top + TAIL_PX + level * self.level, 2 * reach, self.level)
    }
}

/// Draws the lines and rungs into the scene.
fn rule(scene: &mut Scene, ladder: &Ladder, dice: &mut Dice) {
    let colour: Rgb = stage::dark(dice);
    let thick = dice.between(2, 3);
    let x = |line: usize| (ladder.left + line * ladder.pitch - thick / 2) as i32;
    for line in 0..LINES {
        let height = (ladder.bottom() - ladder.top) as i32;
        scene.shapes.push(Shape::bar(x(line), ladder.top as i32, thick as i32, height, colour));
    }
    for (number, level) in ladder.rungs.iter().enumerate() {
        for line in (0..LINES - 1).filter(|&line| level[line]) {
            let middle = ladder.top + TAIL_PX + number * ladder.level + ladder.level / 2;
            let y = middle as i32 + dice.around(ladder.level / 5);
            scene.shapes.push(Shape::bar(x(line), y, (ladder.pitch + thick) as i32, thick as i32, colour));
        }
    }
}

/// Asks where a line ends: the one the ladder was arranged for or, if questions share the scene, any.
pub(crate) fn ask(scene: &Scene, want: Want, dice: &mut Dice) -> Option<Question> {
    const WORDINGS: [&str; 5] = [
        "Follow the line from {x}, taking every rung you meet. Which letter does it end at?",
        "Start at {x} and climb down the ladder, crossing every rung. Which letter do you reach?",
        "Which letter does the path from {x} lead to, taking every rung?",
        "Go down from {x} and take each rung you meet. Where do you end?",
        "Trace the ladder down from {x}, crossing each rung. What letter is at the end?",
    ];
    let Facts::Path(ladder) = &scene.facts else {
        return None;
    };
    let looks = ladder.rungs.len() + 1;
    if !(want.min_looks..=want.max_looks).contains(&looks) {
        return None;
    }
    let start = if want.shared { dice.below(LINES) } else { 0 };
    let mut line = scene.objects[start].slot.1;
    let mut steps: Vec<Step> = Vec::with_capacity(looks);
    for (level, rungs) in ladder.rungs.iter().enumerate() {
        let turned = turn(rungs, line);
        let says = match turned {
            Turn::Straight => "Here no rung is met: go straight down.".to_owned(),
            side => format!("Here a rung leads to the {}.", side.name()),
        };
        let region = ladder.neighbourhood(level, line);
        line = follow(turned, line);
        steps.push(step(says, format!("{} {}", turned.name(), line + 1), region));
    }
    let end = scene.marks[line];
    let answer = end.letter.to_string();
    steps.push(step(format!("The line ends at {answer}."), answer.clone(), end.region));
    let x = scene.reference(start);
    let mut asked = question(Task::Path, 0, word(&WORDINGS, &[("x", &x)], dice), answer, steps);
    asked.choices = Some(scene.marks.iter().map(|mark| mark.letter.to_string()).collect());
    Some(asked)
}
