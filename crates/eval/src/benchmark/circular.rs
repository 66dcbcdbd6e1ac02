//! Circular evaluation: a question is asked once in every rotation of its options, so that a liking for a letter does not
//! count as knowledge.
//!
//! MMBench's own files hold the rotations as rows of their own, numbered `index + 1000000 * rotation` (VLMEvalKit's
//! `mcq_circular_eval` and lmms-eval's `MMBench_Evaluator.eval_result` group them by `index % 1e6`). They are used where
//! they are there, with the picture of the first row. Elsewhere the options move up by one place a rotation, as
//! VLMEvalKit's `CIRCULAR` in `vlmeval/tools.py` moves them; like there, questions whose options speak of letters
//! ("both A and B") are asked in one order alone.

use super::options::index_of;
use super::question::{Answer, Question, Read};
use std::collections::HashMap;

/// Numbers of rows with a rotation are those of the question plus a multiple of this.
const OFFSET: u64 = 1_000_000;

/// A question, and the rows that repeat it with its options in other orders.
#[derive(Debug)]
pub(super) struct Group {
    /// The question.
    pub first: Question,
    /// The other rows, in the order of their numbers.
    pub others: Vec<Question>,
}

impl Group {
    /// In how many orders of its options the question is asked in circular evaluation.
    pub fn orders(&self) -> usize {
        match &self.first.answer {
            _ if !self.others.is_empty() => 1 + self.others.len(),
            Answer::Option { texts, .. } if rotates(&self.first) => texts.len(),
            _ => 1,
        }
    }

    /// The question in one of its orders; 0 is the first.
    pub fn order(&self, number: usize) -> Question {
        match (number.checked_sub(1), &self.first.answer) {
            (Some(other), _) if !self.others.is_empty() => {
                let other = self.others.get(other).unwrap_or(&self.first);
                Question { picture: self.first.picture.clone(), ..other.clone() }
            }
            (Some(_), Answer::Option { texts, right, read }) => {
                let (count, mut texts) = (texts.len().max(1), texts.clone());
                texts.rotate_left(number % count);
                let right = (right + count - number % count) % count;
                Question { answer: Answer::Option { texts, right, read: *read }, ..self.first.clone() }
            }
            _ => self.first.clone(),
        }
    }
}

/// Puts questions and the rows that repeat them together; their order stays.
pub(super) fn groups(questions: Vec<Question>) -> Vec<Group> {
    let is_first = |question: &Question| question.index.is_none_or(|index| index < OFFSET);
    let (first, later): (Vec<Question>, Vec<Question>) = questions.into_iter().partition(is_first);
    let places: HashMap<u64, usize> =
        first.iter().enumerate().filter_map(|(place, question)| Some((question.index?, place))).collect();
    let mut groups: Vec<Group> = first.into_iter().map(|first| Group { first, others: Vec::new() }).collect();
    for question in later {
        let place = question.index.and_then(|index| places.get(&(index % OFFSET)));
        match place.map(|place| &mut groups[*place]).filter(|group| reorders(&group.first, &question)) {
            Some(group) => group.others.push(question),
            None => groups.push(Group { first: question, others: Vec::new() }),
        }
    }
    for group in &mut groups {
        group.others.sort_by_key(|question| question.index);
    }
    groups
}

/// Whether the second asks the same with the same options.
fn reorders(first: &Question, second: &Question) -> bool {
    let sorted = |question: &Question| match &question.answer {
        Answer::Option { texts, .. } => {
            let mut texts = texts.clone();
            texts.sort_unstable();
            Some(texts)
        }
        Answer::YesNo(_) => None,
    };
    first.text == second.text && sorted(first).is_some() && sorted(first) == sorted(second)
}

/// Whether the options can stand in another order: listed by the prompt, all offered, and none speaking of letters.
fn rotates(question: &Question) -> bool {
    match &question.answer {
        Answer::Option { texts, read: Read::Below, .. } => {
            texts.len() > 1 && texts.iter().all(|text| !text.is_empty() && !speaks_of_letters(text, texts.len()))
        }
        _ => false,
    }
}

/// Whether an option names several options by their letters, or is itself letters in their order.
fn speaks_of_letters(text: &str, count: usize) -> bool {
    let words = text.split(|c: char| !c.is_ascii_alphabetic());
    let mut named: Vec<usize> = words.filter_map(index_of).filter(|index| *index < count).collect();
    named.sort_unstable();
    named.dedup();
    named.len() > 1 || "ABCDEFGHIJKLMNOPQRSTUVWXYZ".contains(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::question::Place;

    fn question(index: u64, texts: &[&str], right: usize) -> Question {
        Question {
            id: index.to_string(),
            index: Some(index),
            number: index as usize,
            task: "a".into(),
            text: "Which one?".into(),
            hint: None,
            answer: Answer::Option {
                texts: texts.iter().map(|text| (*text).to_owned()).collect(),
                right,
                read: Read::Below,
            },
            picture: Place::File(format!("{index}.png").into()),
        }
    }

    fn parts(question: &Question) -> (Vec<String>, String) {
        let Answer::Option { texts, right, .. } = &question.answer else { panic!("no options") };
        (texts.clone(), texts[*right].clone())
    }

    #[test]
    fn every_rotation_moves_the_options_and_keeps_the_right_one() {
        let group = &groups(vec![question(1, &["a", "b", "c", "d"], 2)])[0];
        assert_eq!(group.orders(), 4);
        let orders: Vec<String> = (0..4).map(|order| parts(&group.order(order)).0.concat()).collect();
        assert_eq!(orders, ["abcd", "bcda", "cdab", "dabc"]);
        assert!((0..4).all(|order| parts(&group.order(order)).1 == "c"));
    }

    #[test]
    fn rows_that_repeat_a_question_are_its_orders_and_show_its_picture() {
        let repeated = question(2_000_001, &["c", "a", "b"], 1);
        let all = vec![question(1, &["a", "b", "c"], 0), repeated, question(1_000_001, &["b", "c", "a"], 2)];
        let groups = groups(all);
        assert_eq!((groups.len(), groups[0].orders()), (1, 3));
        let second = groups[0].order(1);
        assert_eq!((second.id.as_str(), &second.picture), ("1000001", &groups[0].first.picture));
        assert!((0..3).all(|order| parts(&groups[0].order(order)).1 == "a"));
    }

    #[test]
    fn large_numbers_alone_are_no_rotations() {
        let other = Question { text: "Who?".into(), ..question(1_000_001, &["a", "b"], 0) };
        let groups = groups(vec![question(1, &["a", "b"], 0), other, question(3_000_007, &["a", "b"], 0)]);
        assert_eq!(groups.len(), 3);
        assert!(groups.iter().all(|group| group.orders() == 2));
    }

    #[test]
    fn options_that_speak_of_letters_or_stand_elsewhere_keep_their_order() {
        for texts in [&["red", "blue", "both A and B"][..], &["A", "B"], &["red", "", "blue"], &["red"]] {
            let group = &groups(vec![question(1, texts, 0)])[0];
            assert_eq!((group.orders(), group.order(0)), (1, group.first.clone()), "{texts:?}");
        }
        for texts in [&["a type A star", "red"][..], &["Plan B.", "no"]] {
            assert_eq!(groups(vec![question(1, texts, 0)])[0].orders(), 2, "{texts:?}");
        }
        let mut elsewhere = question(1, &["a", "b"], 0);
        let Answer::Option { read, .. } = &mut elsewhere.answer else { panic!("no options") };
        *read = Read::InText;
        let yes = Question { answer: Answer::YesNo(true), ..question(2, &[], 0) };
        assert!(groups(vec![elsewhere, yes]).iter().all(|group| group.orders() == 1));
    }
}
