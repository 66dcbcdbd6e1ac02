//! Scenes of copies of one object, all with the same tag but one.

use super::dice::Dice;
use super::kinds::NAMES;
use super::questions::{number as number_text, question, step, word};
use super::sprites::Glyphs;
use super::stage::{self, Item};
use super::{Facts, Scene, Want, letter};
use crate::sample::{Question, Split, Task};

/// Fewest and most copies.
pub(crate) const COPIES: (usize, usize) = (4, 6);
/// Letters a tag may have.
const LETTERS: usize = 16;

/// Describes a scene of copies; every place is equally likely to hold the odd one.
pub(crate) fn describe(split: Split, want: Want, glyphs: &Glyphs, dice: &mut Dice) -> Scene {
    let mut scene = stage::empty(split, dice);
    let mut slots = stage::slots(&scene);
    dice.shuffle(&mut slots);
    let copies = dice.between(COPIES.0.max(want.min_looks), COPIES.1.min(want.max_looks));
    let kind = dice.below(NAMES.len());
    let (place, digit) = (dice.below(LETTERS), dice.below(10));
    let odd_tag = if dice.percent(50) {
        (letter((place + dice.between(1, LETTERS - 1)) % LETTERS), digit as u8)
    } else {
        (letter(place), ((digit + dice.between(1, 9)) % 10) as u8)
    };
    for (copy, &slot) in slots.iter().take(copies).enumerate() {
        let tag = if copy == 0 { odd_tag } else { (letter(place), digit as u8) };
        stage::put(&mut scene, glyphs, &Item { kind, frame: None, slot, tag }, dice);
    }
    scene.facts = Facts::Odd(0);
    scene
}

/// Asks for the row or the column of the odd one. Every copy is visited: before the third is read, nobody can
/// know which of two tags is the odd one.
pub(crate) fn ask(scene: &Scene, want: Want, dice: &mut Dice) -> Option<Question> {
    const WORDINGS: [&str; 5] = [
        "One of these differs from the others: which of the {n} {line}s is it in?",
        "All tags but one are the same. In which of the {n} {line}s is the other one?",
        "Find the tag that is different. Which of the {n} {line}s is it in?",
        "Which of the {n} {line}s holds the odd one out?",
        "One tag is not like the rest. Which {line} of {n} is it in?",
    ];
    let Facts::Odd(odd) = scene.facts else {
        return None;
    };
    if !(want.min_looks..=want.max_looks).contains(&scene.objects.len()) {
        return None;
    }
    let by_row = dice.percent(50);
    let line = if by_row { "row" } else { "column" };
    let number = |slot: (usize, usize)| if by_row { slot.0 + 1 } else { slot.1 + 1 };
    let mut order: Vec<usize> = (0..scene.objects.len()).collect();
    order.sort_by_key(|&object| scene.objects[object].slot);
    let mut steps: Vec<_> = order
        .iter()
        .map(|&object| {
            let this = &scene.objects[object];
            let (place, tag) = (number(this.slot), this.tag_text());
            step(format!("In {line} {place} it says {tag}."), format!("{tag} {place}"), this.tag)
        })
        .collect();
    let answer = number(scene.objects[odd].slot).to_string();
    if let Some(last) = steps.last_mut() {
        last.says.push_str(&format!(" The odd one is in {line} {answer}."));
    }
    let lines = if by_row { scene.rows } else { scene.cols };
    let text = word(&WORDINGS, &[("n", &number_text(lines, dice)), ("line", line)], dice);
    let mut asked = question(Task::Odd, usize::from(!by_row), text, answer, steps);
    asked.choices = Some((1..=lines).map(|line| line.to_string()).collect());
    Some(asked)
}
