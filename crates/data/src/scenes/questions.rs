//! Questions on scenes of tagged objects.

use super::dice::Dice;
use super::kinds::Category;
use super::objects::{Focus, MOST_COUNTED, MOST_MEMBERS, Property};
use super::{Facts, Scene, Want, fill};
use crate::sample::{Question, Region, Step, Task};

/// Where a neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Left,
    Right,
    Above,
    Below,
}

impl Direction {
    pub(crate) const ALL: [Direction; 4] = [Direction::Left, Direction::Right, Direction::Above, Direction::Below];

    /// As in "the object ... the dog".
    pub(crate) fn phrase(self) -> &'static str {
        match self {
            Direction::Left => "left of",
            Direction::Right => "right of",
            Direction::Above => "above",
            Direction::Below => "below",
        }
    }
}

/// The nearest object in that direction in the same row or column.
pub(crate) fn neighbour(scene: &Scene, object: usize, direction: Direction) -> Option<usize> {
    let (row, col) = scene.objects[object].slot;
    let distance = |slot: (usize, usize)| match direction {
        Direction::Left if slot.0 == row && slot.1 < col => Some(col - slot.1),
        Direction::Right if slot.0 == row && slot.1 > col => Some(slot.1 - col),
        Direction::Above if slot.1 == col && slot.0 < row => Some(row - slot.0),
        Direction::Below if slot.1 == col && slot.0 > row => Some(slot.0 - row),
        _ => None,
    };
    let others = scene.objects.iter().enumerate();
    let near = others.filter_map(|(other, found)| distance(found.slot).map(|far| (far, other)));
    near.min().map(|(_, other)| other)
}

/// Asks one question of the task, none if this scene cannot carry one that fits.
pub(crate) fn ask(task: Task, scene: &Scene, want: Want, dice: &mut Dice) -> Option<Question> {
    match task {
        Task::Read => read(scene, dice),
        Task::Locate => locate(scene, dice),
        Task::Hop => hop(scene, want, dice),
        Task::Compare => compare(scene, dice),
        Task::Count => count(scene, want, dice),
        Task::Relate => relate(scene, want, dice),
        Task::Odd | Task::Path | Task::Chart => None,
    }
}

/// A question from its parts; `looks` follows from the steps.
pub(crate) fn question(task: Task, template: usize, text: String, answer: String, steps: Vec<Step>) -> Question {
    Question { task, text, answer, choices: None, looks: steps.len(), steps, template }
}

/// One wording, its `{key}`s filled in.
pub(crate) fn word(wordings: &[&str], values: &[(&str, &str)], dice: &mut Dice) -> String {
    dice.pick(wordings).map_or_else(String::new, |wording| fill(wording, values))
}

/// A step from its parts.
pub(crate) fn step(says: String, reads: impl Into<String>, region: Region) -> Step {
    Step { says, reads: reads.into(), region }
}

fn find(scene: &Scene, object: usize) -> Step {
    let name = scene.objects[object].name;
    step(format!("Find {}.", scene.reference(object)), name, scene.objects[object].body)
}

fn read(scene: &Scene, dice: &mut Dice) -> Option<Question> {
    const WORDINGS: [&str; 6] = [
        "What is written under {x}?",
        "What does the tag under {x} say?",
        "Read the tag of {x}.",
        "Which letter and number are under {x}?",
        "What is the tag of {x}?",
        "Look at {x}. What is written there?",
    ];
    let object = dice.below(scene.objects.len());
    let x = scene.reference(object);
    let tag = scene.objects[object].tag_text();
    let says = format!("Under {x} it says {tag}.");
    let steps = vec![step(says, tag.clone(), scene.objects[object].tag)];
    Some(question(Task::Read, 0, word(&WORDINGS, &[("x", &x)], dice), tag, steps))
}

fn locate(scene: &Scene, dice: &mut Dice) -> Option<Question> {
    const WORDINGS: [&str; 5] = [
        "Which object is {d} {x}?",
        "What is {d} {x}?",
        "Name the object {d} {x}.",
        "Which object comes next {d} {x}?",
        "Find {x}. What is {d} it?",
    ];
    let direction = Direction::ALL[dice.below(4)];
    let pairs: Vec<(usize, usize)> = (0..scene.objects.len())
        .filter_map(|object| neighbour(scene, object, direction).map(|other| (object, other)))
        .collect();
    let &(object, other) = dice.pick(&pairs)?;
    let (x, d) = (scene.reference(object), direction.phrase());
    let found = &scene.objects[other];
    let says = format!("The object {d} it is the {}.", found.name);
    let steps = vec![find(scene, object), step(says, found.name, found.body)];
    let text = word(&WORDINGS, &[("d", d), ("x", &x)], dice);
    Some(question(Task::Locate, direction as usize, text, found.name.to_owned(), steps))
}

fn times(moves: usize, dice: &mut Dice) -> String {
    match (moves, dice.below(2)) {
        (1, _) => "once".to_owned(),
        (2, 0) => "twice".to_owned(),
        _ => format!("{} times", number(moves, dice)),
    }
}

/// A number below ten as a digit or as a word.
pub(crate) fn number(value: usize, dice: &mut Dice) -> String {
    const WORDS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    match (WORDS.get(value), dice.below(2)) {
        (Some(word), 0) => (*word).to_owned(),
        _ => value.to_string(),
    }
}

/// The object standing in the place that a letter names.
pub(crate) fn at_place(scene: &Scene, letter: char) -> Option<usize> {
    scene.objects.iter().position(|object| scene.place_letter(object.slot) == letter)
}

fn hop(scene: &Scene, want: Want, dice: &mut Dice) -> Option<Question> {
    const WORDINGS: [&str; 6] = [
        "Each letter names a place, A to {last} row by row. Start at {x}; where are you after {moves}?",
        "Follow the letters {times} from {x}. Which object do you reach?",
        "Start at {x} and follow the letters {times}. Where do you end?",
        "Take {moves} from {x}, each to the place its letter names. Which object is there?",
        "From {x}, go {times} to the place the letter names. What do you reach?",
        "Where do the letters lead from {x} in {moves}?",
    ];
    let fewest = want.moves.0.max(want.min_looks.saturating_sub(1));
    // One move fewer than there are objects is the last that does not come back to the start.
    let most = want.moves.1.min(want.max_looks.saturating_sub(1)).min(scene.objects.len() - 1);
    if fewest > most {
        return None;
    }
    let moves = dice.between(fewest, most);
    let start = dice.below(scene.objects.len());
    let (mut here, mut steps) = (start, Vec::with_capacity(moves + 1));
    for _ in 0..moves {
        let object = &scene.objects[here];
        let says = format!("The {} says {}: go to place {}.", object.name, object.tag_text(), object.letter);
        steps.push(step(says, object.tag_text(), object.tag));
        here = at_place(scene, object.letter)?;
    }
    let end = &scene.objects[here];
    let place = scene.place_letter(end.slot);
    steps.push(step(format!("At place {place} is the {}.", end.name), end.name, end.body));
    let (x, how_often) = (scene.reference(start), times(moves, dice));
    let moves_text = format!("{} move{}", number(moves, dice), if moves == 1 { "" } else { "s" });
    let last = super::letter(scene.rows * scene.cols - 1).to_string();
    let values = [("x", x.as_str()), ("moves", &moves_text), ("times", &how_often), ("last", &last)];
    let text = word(&WORDINGS, &values, dice);
    Some(question(Task::Hop, moves, text, end.name.to_owned(), steps))
}

fn compare(scene: &Scene, dice: &mut Dice) -> Option<Question> {
    const WORDINGS: [&str; 5] = [
        "Whose number is {more}, the one under {x} or the one under {y}?",
        "Which has the {more} number, {x} or {y}?",
        "Compare the numbers of {x} and {y}. Whose is {more}?",
        "Is the {more} number under {x} or under {y}?",
        "Which number is {more}, that of {x} or that of {y}?",
    ];
    let objects = &scene.objects;
    let differ = |a: usize, b: usize| objects[a].kind != objects[b].kind && objects[a].digit != objects[b].digit;
    let pairs: Vec<(usize, usize)> = (0..objects.len())
        .flat_map(|a| (0..objects.len()).map(move |b| (a, b)))
        .filter(|&(a, b)| differ(a, b))
        .collect();
    let &(first, second) = dice.pick(&pairs)?;
    let larger = dice.percent(50);
    let more = if larger { "larger" } else { "smaller" };
    let winner = if (objects[first].digit > objects[second].digit) == larger { first } else { second };
    let answer = objects[winner].name.to_owned();
    let (x, y) = (scene.reference(first), scene.reference(second));
    let tags = [objects[first].tag_text(), objects[second].tag_text()];
    let reads = |tag: &str, object: usize| format!("{tag} {}", objects[object].name);
    let steps = vec![
        step(format!("Under {x} it says {}.", tags[0]), reads(&tags[0], first), objects[first].tag),
        step(
            format!("Under {y} it says {}, so the {more} number is under the {answer}.", tags[1]),
            reads(&tags[1], second),
            objects[second].tag,
        ),
    ];
    let text = word(&WORDINGS, &[("more", more), ("x", &x), ("y", &y)], dice);
    let mut asked = question(Task::Compare, usize::from(!larger), text, answer, steps);
    asked.choices = Some(vec![objects[first].name.to_owned(), objects[second].name.to_owned()]);
    Some(asked)
}

/// What to count: what the scene was arranged for or, if several questions share it, now and then
/// another property of the same categories.
fn counted(scene: &Scene, want: Want, dice: &mut Dice) -> Option<(Category, Property)> {
    let Facts::Objects(focuses) = &scene.facts else {
        return None;
    };
    let fits = |focus: &&Focus| (want.min_looks..=want.max_looks).contains(&focus.members);
    let fitting: Vec<&Focus> = focuses.iter().filter(fits).collect();
    let focus = *dice.pick(&fitting)?;
    let property =
        if want.shared && dice.percent(40) { Property::ALL[dice.below(Property::ALL.len())] } else { focus.property };
    Some((focus.category, property))
}

fn count(scene: &Scene, want: Want, dice: &mut Dice) -> Option<Question> {
    const WORDINGS: [&str; 5] = [
        "How many {c} have {p}?",
        "Count the {c} with {p}.",
        "How many of the {c} carry {p}?",
        "Look at the {c}. How many of them have {p}?",
        "What is the count of {c} with {p}?",
    ];
    let (category, property) = counted(scene, want, dice)?;
    let mut members: Vec<usize> =
        (0..scene.objects.len()).filter(|&object| Category::of(scene.objects[object].kind) == category).collect();
    members.sort_by_key(|&object| scene.objects[object].slot);
    let total = members.iter().filter(|&&object| property.holds(scene.objects[object].digit)).count();
    if members.len() > MOST_MEMBERS || total > MOST_COUNTED {
        return None;
    }
    let steps = members.iter().map(|&object| {
        let this = &scene.objects[object];
        let verdict = if property.holds(this.digit) { "yes" } else { "no" };
        let says = format!("Under {} it says {}: {verdict}.", scene.reference(object), this.tag_text());
        step(says, this.tag_text(), this.tag)
    });
    let mut steps: Vec<Step> = steps.collect();
    if let Some(last) = steps.last_mut() {
        last.says.push_str(&format!(" That makes {total}."));
    }
    let text = word(&WORDINGS, &[("c", category.plural()), ("p", property.phrase())], dice);
    let template = category as usize * Property::ALL.len() + property as usize;
    let mut asked = question(Task::Count, template, text, total.to_string(), steps);
    asked.choices = Some((0..=MOST_COUNTED).map(|value| value.to_string()).collect());
    Some(asked)
}

/// Two directions in a row, the object started from, and those passed.
struct Route {
    directions: Vec<Direction>,
    objects: Vec<usize>,
}

fn routes(scene: &Scene, relations: usize) -> Vec<Route> {
    let mut found = Vec::new();
    for start in 0..scene.objects.len() {
        for first in Direction::ALL {
            let Some(middle) = neighbour(scene, start, first) else {
                continue;
            };
            if relations == 1 {
                found.push(Route { directions: vec![first], objects: vec![start, middle] });
                continue;
            }
            for second in Direction::ALL {
                match neighbour(scene, middle, second) {
                    Some(end) if end != start => {
                        let (directions, objects) = (vec![first, second], vec![start, middle, end]);
                        found.push(Route { directions, objects });
                    }
                    _ => {}
                }
            }
        }
    }
    found
}

fn relate(scene: &Scene, want: Want, dice: &mut Dice) -> Option<Question> {
    const NEAR: [&str; 5] = [
        "What is written on the object {d1} {x}?",
        "What is the tag of the object {d1} {x}?",
        "Read the tag of the one {d1} {x}.",
        "What does the object {d1} {x} say?",
        "Find {x}. What is written on the object {d1} it?",
    ];
    const FAR: [&str; 5] = [
        "What is written on the object {d2} the one {d1} {x}?",
        "What is the tag of the object {d2} the one {d1} {x}?",
        "Read the tag of what is {d2} the object {d1} {x}.",
        "Go from {x} to the object {d1} it, then to the one {d2} that. What is written there?",
        "What does the object {d2} the one {d1} {x} say?",
    ];
    let fewest = want.min_looks.saturating_sub(1).max(1);
    let most = want.max_looks.saturating_sub(1).min(2);
    if fewest > most {
        return None;
    }
    let routes = routes(scene, dice.between(fewest, most));
    let route = dice.pick(&routes)?;
    let mut steps = vec![find(scene, route.objects[0])];
    for (&object, &direction) in route.objects[1..].iter().zip(&route.directions) {
        let this = &scene.objects[object];
        let says = format!("The object {} it is the {}.", direction.phrase(), this.name);
        steps.push(step(says, this.name, this.body));
    }
    let end = &scene.objects[route.objects[route.objects.len() - 1]];
    let tag = end.tag_text();
    if let Some(last) = steps.last_mut() {
        last.says = format!("{}, which says {tag}.", last.says.trim_end_matches('.'));
        last.reads.clone_from(&tag);
        last.region = end.tag;
    }
    let x = scene.reference(route.objects[0]);
    let d1 = route.directions[0].phrase();
    let (wordings, d2) = match route.directions.get(1) {
        Some(second) => (&FAR, second.phrase()),
        None => (&NEAR, ""),
    };
    let text = word(wordings, &[("d1", d1), ("d2", d2), ("x", &x)], dice);
    let template = route.directions.iter().fold(0, |code, direction| code * 5 + 1 + *direction as usize);
    Some(question(Task::Relate, template, text, tag, steps))
}
