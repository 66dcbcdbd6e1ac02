//! Scenes of tagged objects: who is where, whose letter names whose place, which digits they carry.

use super::dice::Dice;
use super::kinds::{Category, NAMES};
use super::sprites::Glyphs;
use super::stage::{self, Item};
use super::{Colour, Facts, Scene};
use crate::sample::Split;

/// A property of a digit that a question can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    Even,
    Odd,
    AboveFour,
    BelowFive,
}

impl Property {
    pub(crate) const ALL: [Property; 4] = [Property::Even, Property::Odd, Property::AboveFour, Property::BelowFive];

    /// Whether a digit has it; each property holds for five of the ten.
    pub(crate) fn holds(self, digit: u8) -> bool {
        match self {
            Property::Even => digit.is_multiple_of(2),
            Property::Odd => !digit.is_multiple_of(2),
            Property::AboveFour => digit > 4,
            Property::BelowFive => digit < 5,
        }
    }

    /// As in "how many have ...".
    pub(crate) fn phrase(self) -> &'static str {
        match self {
            Property::Even => "an even number",
            Property::Odd => "an odd number",
            Property::AboveFour => "a number above 4",
            Property::BelowFive => "a number below 5",
        }
    }
}

/// A category whose digits are arranged so that the answer to a counting question is balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Focus {
    pub(crate) category: Category,
    pub(crate) property: Property,
    /// Objects of the category in the scene.
    pub(crate) members: usize,
    /// How many of them have the property.
    pub(crate) answer: usize,
}

/// The largest answer to a counting question.
pub(crate) const MOST_COUNTED: usize = 4;
/// The most objects of the category asked about.
pub(crate) const MOST_MEMBERS: usize = 5;

impl Focus {
    /// The answer is drawn first and evenly, then the number of objects that could have it.
    pub(crate) fn draw(category: Category, looks: (usize, usize), dice: &mut Dice) -> Focus {
        let most = looks.1.min(MOST_MEMBERS);
        let answer = dice.between(0, MOST_COUNTED.min(most));
        let members = dice.between(answer.max(looks.0).max(1), most);
        let property = Property::ALL[dice.below(Property::ALL.len())];
        Focus { category, property, members, answer }
    }
}

/// What a scene of objects must have.
pub(crate) struct Plan {
    /// Fewest objects, whatever the split says.
    pub(crate) least: usize,
    pub(crate) focuses: Vec<Focus>,
}

/// Describes a scene of tagged objects.
pub(crate) fn describe(split: Split, plan: Plan, glyphs: &Glyphs, dice: &mut Dice) -> Scene {
    let mut scene = stage::empty(split, dice);
    let mut slots = stage::slots(&scene);
    let (fewest, most) = if split == Split::Dense { (11, 14) } else { (6, 10) };
    let focused: usize = plan.focuses.iter().map(|focus| focus.members).sum();
    let most = most.min(slots.len() - 1).max(fewest);
    let count = dice.between(fewest.max(plan.least), most).max(focused + 1).min(slots.len());

    let (kinds, digits) = cast(count, &plan.focuses, dice);
    let frames = frames(&kinds, dice);
    dice.shuffle(&mut slots);
    slots.truncate(count);
    let next = cycle(count, dice);
    for object in 0..count {
        let letter = scene.place_letter(slots[next[object]]);
        let item =
            Item { kind: kinds[object], frame: frames[object], slot: slots[object], tag: (letter, digits[object]) };
        stage::put(&mut scene, glyphs, &item, dice);
    }
    scene.facts = Facts::Objects(plan.focuses);
    scene
}

/// Kinds and digits of all objects; the members of the focused categories come first.
fn cast(count: usize, focuses: &[Focus], dice: &mut Dice) -> (Vec<usize>, Vec<u8>) {
    let (mut kinds, mut digits) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for focus in focuses {
        let mut members: Vec<usize> = focus.category.kinds().collect();
        dice.shuffle(&mut members);
        kinds.extend(&members[..focus.members]);
        digits.extend((0..focus.members).map(|member| digit_with(focus.property, member < focus.answer, dice)));
    }
    let free = |kind: &usize| focuses.iter().all(|focus| focus.category != Category::of(*kind));
    let mut others: Vec<usize> = (0..NAMES.len()).filter(free).collect();
    dice.shuffle(&mut others);
    let focused = kinds.len();
    kinds.extend(others.into_iter().take(count - focused));
    digits.extend((focused..count).map(|_| dice.below(10) as u8));
    if count >= focused + 2 && dice.percent(30) {
        kinds[count - 1] = kinds[count - 2];
    }
    (kinds, digits)
}

fn digit_with(property: Property, wanted: bool, dice: &mut Dice) -> u8 {
    let fitting: Vec<u8> = (0..10).filter(|digit| property.holds(*digit) == wanted).collect();
    dice.pick(&fitting).copied().unwrap_or(0)
}

/// A third of the objects get frames; two of one kind get frames of different colours.
fn frames(kinds: &[usize], dice: &mut Dice) -> Vec<Option<Colour>> {
    let mut palette = Colour::ALL;
    let mut frames = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let twins = kinds.iter().filter(|other| *other == kind).count() > 1;
        dice.shuffle(&mut palette);
        frames.push((twins || dice.percent(33)).then_some(palette[0]));
    }
    // Twins are last in the cast, and `palette[1]` is not the colour the last one got.
    if let [.., first, second] = kinds
        && first == second
    {
        frames[kinds.len() - 2] = Some(palette[1]);
    }
    frames
}

/// One random cycle through all objects: `next[object]` is whose place its letter names.
fn cycle(count: usize, dice: &mut Dice) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    dice.shuffle(&mut order);
    let mut next = vec![0; count];
    for position in 0..count {
        next[order[position]] = order[(position + 1) % count];
    }
    next
}
