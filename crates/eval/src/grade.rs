//! From what a model said to right, wrong or unparsed. Pure, and never a guess on the model's behalf.
//!
//! An answer that names none of what was asked for, or several of it without saying which is meant, is `unparsed`. It
//! counts as not right, and it is counted: a model that cannot be read is not a model that is wrong.

use serde::{Deserialize, Serialize};

/// What came of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It names what was asked for.
    Correct,
    /// It names something else of the kind asked for.
    Wrong,
    /// It names nothing of the kind, or several without a choice.
    Unparsed,
}

/// What is right, and what could be an answer at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// One of lettered options.
    Option {
        /// Their texts; the first is `A`.
        texts: Vec<String>,
        /// Index of the right one.
        right: usize,
    },
    /// Yes or no.
    YesNo {
        /// Whether yes is right.
        yes: bool,
    },
    /// Exactly these words, as the refocus suite asks for; case and a full stop do not matter.
    Words {
        /// The right ones.
        right: String,
        /// What else could be an answer.
        form: Form,
    },
}

/// What an answer in words looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// One of a few.
    OneOf(Vec<String>),
    /// A letter and a digit.
    Tag,
    /// A whole number.
    Number,
    /// Anything that is not empty.
    Any,
}

/// What a model said, read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reading {
    Is(usize),
    /// More than one, whatever else it says.
    Several,
    Unclear,
}

impl Expected {
    /// The right answer, for people.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Option { texts, right } => match texts.get(*right) {
                Some(text) => format!("{}. {text}", letter(*right)),
                None => letter(*right).to_string(),
            },
            Self::YesNo { yes } => if *yes { "yes" } else { "no" }.into(),
            Self::Words { right, .. } => right.clone(),
        }
    }

    /// Grades one answer.
    #[must_use]
    pub fn grade(&self, said: &str) -> Outcome {
        let outcome = |reading, right| match reading {
            Reading::Is(read) if read == right => Outcome::Correct,
            Reading::Is(_) => Outcome::Wrong,
            Reading::Several | Reading::Unclear => Outcome::Unparsed,
        };
        match self {
            Self::Option { texts, right } => outcome(option(concluded(said), texts), *right),
            Self::YesNo { yes } => outcome(yes_or_no(concluded(said)), usize::from(*yes)),
            Self::Words { right, form } => {
                let said = plain(said);
                if said == plain(right) {
                    Outcome::Correct
                } else if form.fits(&said) {
                    Outcome::Wrong
                } else {
                    Outcome::Unparsed
                }
            }
        }
    }
}

impl Form {
    fn fits(&self, said: &str) -> bool {
        match self {
            Self::OneOf(all) => all.iter().any(|one| plain(one) == said),
            Self::Tag => matches!(said.as_bytes(), [l, d] if l.is_ascii_alphabetic() && d.is_ascii_digit()),
            Self::Number => !said.is_empty() && said.bytes().all(|b| b.is_ascii_digit()),
            Self::Any => !said.is_empty(),
        }
    }
}

/// The letter of an option.
pub(crate) fn letter(index: usize) -> char {
    char::from(b'A' + (index % 26) as u8)
}

/// Lower case, one space between words, no full stop at the end.
fn plain(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ").trim_end_matches('.').trim_end().to_owned()
}

/// Words with what surrounds them taken off: `**(B).**` is `B`; the sign of a number stays.
fn words(said: &str) -> Vec<&str> {
    said.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '/' | '{' | '}'))
        .map(|word| {
            let bare = word.trim_start_matches(|c: char| !c.is_alphanumeric());
            let before = &word[..word.len() - bare.len()];
            let is_signed = before.ends_with(['-', '+']) && bare.starts_with(|c: char| c.is_ascii_digit());
            let word = if is_signed { &word[before.len() - 1..] } else { bare };
            word.trim_end_matches(|c: char| !c.is_alphanumeric())
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// What follows a model's thinking, where it marks that as thinking; else all it said.
fn concluded(said: &str) -> &str {
    said.rsplit_once("</think>").map_or(said, |(_, answer)| answer)
}

/// What an answer is announced by, in lower case.
const SIGNS: [&str; 13] = [
    "answer is",
    "answer:",
    "answer**:",
    "answer would be",
    "answer should be",
    "answer must be",
    "correct option is",
    "correct choice is",
    "best option is",
    "best choice is",
    "final choice is",
    "<answer>",
    "\\boxed{",
];

/// What follows the last of the signs, up to the end of its tag.
fn after_signs(said: &str) -> Option<&str> {
    let lower = said.to_lowercase();
    if lower.len() != said.len() {
        return None; // places in one are not places in the other
    }
    let at = SIGNS.iter().filter_map(|sign| lower.rfind(sign).map(|at| at + sign.len())).max()?;
    let rest = said.get(at..)?.split("</").next()?;
    let mut rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ':' | '*' | '$' | '"' | '`'));
    for before in ["\\text{", "\\textbf{", "\\mathrm{", "\\mathbf{", "option ", "Option ", "choice ", "letter "] {
        rest = rest.strip_prefix(before).unwrap_or(rest);
    }
    Some(rest)
}

/// Words after which an option is not the one that is chosen.
const NEGATIONS: [&str; 5] = ["not", "isn't", "isn’t", "except", "never"];

/// Words that join what is named before to what is named after.
const JOINTS: [&str; 5] = ["or", "and", "nor", "&", "+"];

/// Yes is 1. What is announced decides, else the first word, else the only one of the two that occurs.
fn yes_or_no(said: &str) -> Reading {
    let is = |word: &&str| match word.to_lowercase().as_str() {
        "yes" => Some(1),
        "no" => Some(0),
        _ => None,
    };
    let first = |said: &str| {
        let words = words(said);
        let joined = words.get(1).is_some_and(|word| JOINTS.contains(&word.to_lowercase().as_str()));
        match (words.first().and_then(is), words.get(2).and_then(is)) {
            (Some(_), Some(_)) if joined => Reading::Several,
            (Some(first), _) => Reading::Is(first),
            _ => Reading::Unclear,
        }
    };
    let readings =
        [after_signs(said).map_or(Reading::Unclear, first), first(said), only(words(said).iter().filter_map(is))];
    readings.into_iter().find(|reading| *reading != Reading::Unclear).unwrap_or(Reading::Unclear)
}

/// The only value that occurs.
fn only(mut all: impl Iterator<Item = usize>) -> Reading {
    match all.next() {
        Some(first) if all.all(|other| other == first) => Reading::Is(first),
        _ => Reading::Unclear,
    }
}

/// Which option an answer chooses: what it announces ("the answer is (C)"), else the letter it consists of or begins
/// with, else the text it begins with, else the only option that it names by letter, else by text.
fn option(said: &str, texts: &[String]) -> Reading {
    let said = said.trim();
    let readings =
        [announced(said, texts), leading(said, texts), begun(said, texts), lettered(said, texts), named(said, texts)];
    readings.into_iter().find(|reading| *reading != Reading::Unclear).unwrap_or(Reading::Unclear)
}

/// The option of a word such as `B`, `b)` or `(B)`.
fn option_of(word: &str, count: usize) -> Option<usize> {
    let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
    let [byte] = bare.as_bytes() else {
        return None;
    };
    // A lower-case letter is one only where marks say so, or nothing else is said: "a" is a word.
    let marked = word.len() > 1;
    let index = usize::from(byte.to_ascii_uppercase().checked_sub(b'A')?);
    ((byte.is_ascii_uppercase() || marked) && index < count).then_some(index)
}

/// What an answer announces, if it is an option.
fn announced(said: &str, texts: &[String]) -> Reading {
    let Some(rest) = after_signs(said) else {
        return Reading::Unclear;
    };
    let readings = [leading(rest, texts), bare(rest, texts), named(rest.lines().next().unwrap_or_default(), texts)];
    readings.into_iter().find(|reading| *reading != Reading::Unclear).unwrap_or(Reading::Unclear)
}

/// A capital letter that something announced, and that goes on to a reason: `B because A is too light`.
fn bare(rest: &str, texts: &[String]) -> Reading {
    let all: Vec<&str> = rest.split_whitespace().collect();
    match all.first().and_then(|first| option_of(first, texts.len())).filter(|_| !is_article(&all, 0)) {
        Some(_) if goes_on_with_another(rest, texts.len()) => Reading::Several,
        Some(index) => Reading::Is(index),
        None => Reading::Unclear,
    }
}

/// An answer that is a letter, has one for its first line, or begins with one that marks set apart: `B`, `B.`,
/// `(b) a dog`, `**C**`, `A: red`.
fn leading(said: &str, texts: &[String]) -> Reading {
    let Some(first) = said.split_whitespace().next() else {
        return Reading::Unclear;
    };
    let first = first
        .split_once(':')
        .map_or(first, |(letter, _)| if letter.is_empty() { first } else { &first[..=letter.len()] });
    let of_line = |line: &str| {
        let is_word = line.split_whitespace().count() == 1;
        option_of(&line.trim().to_ascii_uppercase(), texts.len()).filter(|_| is_word)
    };
    let mut alone = said.lines().filter(|line| !line.trim().is_empty()).map(of_line);
    if let Some(Some(index)) = alone.next() {
        // A letter a line is a list of them.
        return if alone.flatten().all(|other| other == index) { Reading::Is(index) } else { Reading::Several };
    }
    // "A dog" begins with an article.
    match option_of(first, texts.len()).filter(|_| first.len() > 1) {
        Some(_) if goes_on_with_another(said, texts.len()) => Reading::Several,
        Some(index) => Reading::Is(index),
        None => Reading::Unclear,
    }
}

/// The option whose text an answer begins with, as a sentence of its own: "Red. The car is ...", "Yes, there is no car".
fn begun(said: &str, texts: &[String]) -> Reading {
    let said = said.trim_start_matches(|c: char| !c.is_alphanumeric() && !matches!(c, '-' | '+')).to_lowercase();
    let is_begun = |text: &str| {
        let is_yes_or_no = matches!(text, "yes" | "no");
        let mut rest = said.strip_prefix(text).unwrap_or("x").chars();
        // "red, blue" lists, and "3.5" is not 3.
        let ends = |sign: char| matches!(sign, '.' | ';' | ':' | '*' | '\n') || (sign == ',' && is_yes_or_no);
        rest.next().is_none_or(ends) && rest.next().is_none_or(|sign| !sign.is_alphanumeric())
    };
    let plain: Vec<String> = texts.iter().map(|text| plain(text)).collect();
    let begun = (0..texts.len()).filter(|i| plain[*i].chars().count() > 1 && is_begun(&plain[*i]));
    begun.max_by_key(|i| plain[*i].len()).map_or(Reading::Unclear, Reading::Is)
}

/// Whether an answer that begins with a letter joins another to it: "B, C", "(A) or (B)".
fn goes_on_with_another(said: &str, count: usize) -> bool {
    let all: Vec<&str> = said.split_whitespace().collect();
    let is_joint = |at: usize| all.get(at).is_some_and(|word| JOINTS.contains(&word.to_lowercase().as_str()));
    let next = 1 + usize::from(is_joint(1));
    let listed = all[0].trim_end_matches('*').ends_with([',', '/', '&']);
    // "B, A is too light" goes on about another letter, and does not choose it.
    let ends = || all[next].len() > 1 || all.len() == next + 1 || is_joint(next + 1);
    let is_letter = all.get(next).is_some_and(|word| option_of(word, count).is_some());
    is_letter && !is_article(&all, next) && (is_joint(1) || (listed && ends()))
}

/// Whether "A" or "I" at a place is a word and no letter: another follows that does not speak of letters, as in "A dog".
fn is_article(all: &[&str], at: usize) -> bool {
    // "A is right" and "A or B" mean the letter.
    const AFTER_A_LETTER: [&str; 6] = ["or", "and", "nor", "is", "because", "since"];
    let is_word = |next: &&str| next.starts_with(char::is_alphanumeric) && !AFTER_A_LETTER.contains(next);
    matches!(all.get(at), Some(&"A" | &"I")) && all.get(at + 1).is_some_and(is_word)
}

/// The only option whose letter stands anywhere, set apart or in upper case, and is not denied.
fn lettered(said: &str, texts: &[String]) -> Reading {
    let all: Vec<&str> = said.split_whitespace().collect();
    let is_denied = |at: usize| at > 0 && NEGATIONS.contains(&all[at - 1].to_lowercase().as_str());
    let letters = all.iter().enumerate().filter(|(at, _)| !is_article(&all, *at) && !is_denied(*at));
    only(letters.filter_map(|(_, word)| option_of(word, texts.len())))
}

/// The only option whose text stands in the answer as whole words and is not denied; a text inside a longer one that also
/// stands there does not count, and neither does a text of one letter: "a" is a word of most answers.
fn named(said: &str, texts: &[String]) -> Reading {
    let said = format!(" {} ", words(said).join(" ").to_lowercase());
    let text = |index: usize| format!(" {} ", words(&texts[index]).join(" ").to_lowercase());
    let is_denied = |text: &str| NEGATIONS.iter().any(|not| said.contains(&format!(" {not}{text}")));
    let is_letter = |text: &str| matches!(text.trim().as_bytes(), [] | [b'a'..=b'z']);
    let stands = |i: &usize| !is_letter(&text(*i)) && said.contains(&text(*i));
    let found: Vec<usize> = (0..texts.len()).filter(stands).collect();
    let inside = |i: usize| found.iter().any(|j| text(*j).len() > text(i).len() && text(*j).contains(&text(i)));
    only(found.iter().copied().filter(|i| !inside(*i) && !is_denied(&text(*i))))
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Correct, Unparsed, Wrong};
    use super::*;

    fn options() -> Vec<String> {
        ["red", "dark red", "a dog on the grass", "none of these"].map(String::from).to_vec()
    }

    #[test]
    fn options_are_read_from_what_models_really_say() {
        let expected = Expected::Option { texts: options(), right: 1 };
        for (said, outcome) in [
            ("B", Correct),
            ("B.", Correct),
            ("(B)", Correct),
            ("b)", Correct),
            ("**B**", Correct),
            ("B: dark red", Correct),
            ("B:dark red", Correct),
            ("B. dark red", Correct),
            ("dark red", Correct),
            ("Dark red.", Correct),
            ("The answer is B.", Correct),
            ("The answer is (B), because A is too light.", Correct),
            ("Answer: B", Correct),
            ("**Answer**: B", Correct),
            ("The final answer is $\\boxed{B}$.", Correct),
            ("A is too light and C is no colour.\nAnswer: B", Correct),
            ("At first I thought the answer is A. No: the answer is B", Correct),
            ("The car in the picture is dark red", Correct),
            ("I would choose option B", Correct),
            ("b", Correct),
            ("The answer is b", Correct),
            ("(B), A is too light", Correct),
            ("It is not A but B", Correct),
            ("A - no, wait: B", Unparsed),
            ("The answer is not B.", Unparsed),
            ("It isn't B", Unparsed),
            ("The car is not dark red", Unparsed),
            ("B, C", Unparsed),
            ("(A) or (B)", Unparsed),
            ("(B) and (C)", Unparsed),
            ("A. or B.", Unparsed),
            ("The answer is (A) or (B)", Unparsed),
            ("A Dark Red car", Correct),
            ("A 3D model", Unparsed),
            ("The answer is dark red.", Correct),
            ("It is not red but dark red", Correct),
            ("A", Wrong),
            ("red", Wrong),
            ("C. a dog on the grass", Wrong),
            ("A dog on the grass", Wrong),
            ("The answer is A", Wrong),
            ("(d)", Wrong),
            ("", Unparsed),
            ("E", Unparsed),
            ("A or B", Unparsed),
            ("I think A is right", Wrong),
            ("It is either red or a dog on the grass", Unparsed),
            ("A car can be seen", Unparsed),
            ("I cannot tell", Unparsed),
            ("blue", Unparsed),
            ("Both B and C are right", Unparsed),
        ] {
            assert_eq!(expected.grade(said), outcome, "{said:?}");
        }
    }

    /// What users of evaluation harnesses report as read wrongly.
    #[test]
    fn options_are_read_where_harnesses_miss_them() {
        let expected = Expected::Option { texts: options(), right: 1 };
        for (said, outcome) in [
            ("Answer: **B**", Correct),
            ("Answer: $B", Correct),
            ("ANSWER IS B. A is incorrect.", Correct),
            ("I considered (A), but it is incorrect. Final answer: B.", Correct),
            ("The correct answer is B. Here is why: option A is too light, option C is no colour.", Correct),
            ("The correct answer is b.", Correct),
            ("The correct option is **B**, since A is too light.", Correct),
            ("The answer should be (B), not (A)", Correct),
            ("<think>A looks right. Or C?</think>\n\nB", Correct),
            ("<think>...</think><answer>B</answer>", Correct),
            ("<answer>\n(B) dark red\n</answer>", Correct),
            ("The final answer is $\\boxed{\\text{B}}$. A is too light.", Correct),
            ("B\n\nExplanation: option A is too light, and C is no colour.", Correct),
            ("**B**\n\nThe car is not red (A).", Correct),
            ("Dark red. A red car would be lighter.", Correct),
            ("So the energy \\boxed{\\langle H\\rangle}. **Answer: B**", Correct),
            ("The answer is B</s>", Correct),
            ("The answer is B because A is too light.", Correct),
            ("The answer is A or B", Unparsed),
            ("The answer is A dog on the grass", Wrong),
            ("Answer: AB", Unparsed),
            ("A\nB\nC\nD", Unparsed),
            ("Answer: A ... actually, ANSWER: B", Correct),
            ("Notice the bumper", Unparsed),
        ] {
            assert_eq!(expected.grade(said), outcome, "{said:?}");
        }
    }

    #[test]
    fn the_sign_of_a_number_is_part_of_it() {
        let texts = ["-5", "5", "3 apples"].map(String::from).to_vec();
        let right = |said: &str, right: usize| Expected::Option { texts: texts.clone(), right }.grade(said) == Correct;
        assert!(right("-5", 0) && right("5", 1) && right("It is (-5).", 0) && right("- 3 apples", 2));
        assert!(!right("5.5", 1) && right("5. There are five of them.", 1));
    }

    #[test]
    fn options_that_are_words_of_most_answers_are_not_found_in_them() {
        let of = |all: &[&str], right: usize, said: &str| {
            let texts = all.iter().map(|text| (*text).to_owned()).collect();
            Expected::Option { texts, right }.grade(said)
        };
        assert_eq!(of(&["m", "a"], 1, "It shows a dog"), Unparsed);
        assert_eq!(of(&["yes", "no"], 0, "Yes, there is no dog."), Correct);
        assert_eq!(of(&["yes", "no"], 0, "No. It is a cat."), Wrong);
        // Ten options, as MMMU-Pro has them: "I" is a word.
        let ten: Vec<String> = (1..=10).map(|n| format!("{n} apples")).collect();
        let ten: Vec<&str> = ten.iter().map(String::as_str).collect();
        assert_eq!(of(&ten, 2, "The answer is C because I counted them."), Correct);
        assert_eq!(of(&ten, 2, "I would say C"), Correct);
        assert_eq!(of(&ten, 8, "I am not sure"), Unparsed);
    }

    #[test]
    fn yes_and_no_are_read_and_nothing_is_taken_for_either() {
        let expected = Expected::YesNo { yes: true };
        for (said, outcome) in [
            ("yes", Correct),
            ("Yes, there is a cat.", Correct),
            ("**Yes**", Correct),
            ("The answer is yes.", Correct),
            ("No", Wrong),
            ("no, there is no cat", Wrong),
            ("There is no cat in the picture.", Wrong),
            ("Yes, the photograph depicts a gravestone with a death notice.", Correct),
            ("Answer: Yes. There is no doubt.", Correct),
            ("There is no doubt that the answer is yes", Correct),
            ("<think>No?</think><answer>Yes</answer>", Correct),
            ("\\boxed{yes}", Correct),
            ("Yes and no", Unparsed),
            ("It could be yes or no", Unparsed),
            ("A cat sits on a mat", Unparsed),
            ("nothing", Unparsed),
            ("", Unparsed),
        ] {
            assert_eq!(expected.grade(said), outcome, "{said:?}");
        }
    }

    #[test]
    fn words_are_right_as_a_whole_and_wrong_only_in_their_form() {
        let words = |right: &str, form| Expected::Words { right: right.into(), form };
        let one_of = Form::OneOf(vec!["cat".into(), "hot dog".into()]);
        for (expected, said, outcome) in [
            (words("K7", Form::Tag), "K7", Correct),
            (words("K7", Form::Tag), " k7. ", Correct),
            (words("K7", Form::Tag), "K1", Wrong),
            (words("K7", Form::Tag), "K77", Unparsed),
            (words("K7", Form::Tag), "It is K7", Unparsed),
            (words("3", Form::Number), "3", Correct),
            (words("3", Form::Number), "13", Wrong),
            (words("3", Form::Number), "three", Unparsed),
            (words("hot dog", one_of.clone()), "hot  dog", Correct),
            (words("hot dog", one_of.clone()), "cat", Wrong),
            (words("hot dog", one_of), "dog", Unparsed),
            (words("left", Form::Any), "right", Wrong),
            (words("left", Form::Any), " ", Unparsed),
        ] {
            assert_eq!(expected.grade(said), outcome, "{said:?}");
        }
    }

    #[test]
    fn the_right_answer_can_be_shown() {
        let texts = vec!["red".into(), "blue".into()];
        assert_eq!(Expected::Option { texts, right: 1 }.text(), "B. blue");
        assert_eq!(Expected::YesNo { yes: false }.text(), "no");
    }
}
