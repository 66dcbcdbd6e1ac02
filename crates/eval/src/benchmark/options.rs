//! Options and the letters that name them.

use super::table::Row;
use crate::Result;
use crate::grade::letter;

/// Columns of options in the layouts that have a column an option.
pub(super) const LETTERS: [&str; 26] = [
    "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M", "N", "O", "P", "Q", "R", "S", "T", "U", "V", "W",
    "X", "Y", "Z",
];

/// Texts of the columns `A` to `Z`, up to the last that has one. A gap is an empty text: it keeps its letter and is not
/// offered.
pub(super) fn of_columns(row: &Row) -> Vec<String> {
    let mut texts: Vec<String> =
        LETTERS.iter().map(|letter| row.maybe(letter).unwrap_or_default().to_owned()).collect();
    texts.truncate(texts.iter().rposition(|text| !text.is_empty()).map_or(0, |last| last + 1));
    texts
}

/// Options of a list, which must be as many as there are letters for.
pub(super) fn of_list(row: &Row, column: &str, texts: Vec<String>) -> Result<Vec<String>> {
    if (1..=LETTERS.len()).contains(&texts.len()) {
        return Ok(texts);
    }
    Err(row.unusable(column, &format!("1 to {} options", LETTERS.len()), &texts.len().to_string()))
}

/// The index that a letter names: `B` is 1.
pub(super) fn index_of(letter: &str) -> Option<usize> {
    match letter.trim().as_bytes() {
        [byte @ b'A'..=b'Z'] => Some(usize::from(byte - b'A')),
        _ => None,
    }
}

/// The option that the letter in `column` names.
///
/// # Errors
/// Where it names none of those that are offered.
pub(super) fn right(row: &Row, column: &str, texts: &[String]) -> Result<usize> {
    let said = row.text(column)?;
    let offered = |index: &usize| texts.get(*index).is_some_and(|text| !text.is_empty());
    index_of(said).filter(offered).ok_or_else(|| {
        let letters: Vec<String> = (0..texts.len()).filter(offered).map(|index| letter(index).to_string()).collect();
        row.unusable(column, &format!("the letter of an option: {}", letters.join(", ")), said)
    })
}

/// Options inside a text, such as `Options: A: red, B: blue` or `(A) red (B) blue`; none where fewer than two are marked.
/// Marks are searched after the last `Options:` or `Choices:`, if there is one.
pub(super) fn in_text(text: &str) -> Vec<String> {
    let start = ["Options:", "Choices:"].iter().filter_map(|word| Some(text.rfind(word)? + word.len())).max();
    let part = &text[start.unwrap_or(0)..];
    let marks: [fn(char) -> String; 4] =
        [|c| format!("{c})"), |c| format!("{c}:"), |c| format!("{c}."), |c| format!("({c})")];
    // Of equally many marks the last form wins: `A)` also stands in `(A)`.
    let found = marks.iter().map(|mark| after_marks(part, part, mark));
    found.max_by_key(Vec::len).filter(|texts| texts.len() > 1).unwrap_or_default()
}

/// Options marked `(a)`, `(b)`, ... in either case; none where fewer than two are marked.
pub(super) fn in_brackets(text: &str) -> Vec<String> {
    let texts = after_marks(&text.to_ascii_uppercase(), text, &|c| format!("({c})"));
    if texts.len() > 1 { texts } else { Vec::new() }
}

/// The texts after the marks of `A`, `B`, ..., each up to the next mark. Marks are searched in `seen`, whose places are
/// those of `text`, one after the other; a mark that begins with its letter is none inside a word.
fn after_marks(seen: &str, text: &str, mark: &dyn Fn(char) -> String) -> Vec<String> {
    let mut marks: Vec<(usize, usize)> = Vec::new();
    for letter in 'A'..='Z' {
        let mark = mark(letter);
        let from = marks.last().map_or(0, |(_, end)| *end);
        let apart = |at: &usize| mark.starts_with('(') || !seen[..*at].ends_with(char::is_alphanumeric);
        let Some(at) = seen[from..].match_indices(&mark).map(|(at, _)| from + at).find(apart) else {
            break;
        };
        marks.push((at, at + mark.len()));
    }
    let ends = marks.iter().skip(1).map(|(start, _)| *start).chain([text.len()]);
    let clean = |text: &str| text.trim().trim_end_matches([',', ';']).trim_end().to_owned();
    marks.iter().zip(ends).map(|((_, start), end)| clean(&text[*start..end])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_in_the_text_of_a_question_in_every_form_they_have_there() {
        for (text, texts) in [
            ("Which colour?\nOptions: A: red, B: dark, dull blue, C: grey", &["red", "dark, dull blue", "grey"][..]),
            ("Which?\nChoices:\n(A) a cup\n(B) a dog (small)\n(C) none", &["a cup", "a dog (small)", "none"]),
            ("Which of A and B?\nOptions:\nA. x\nB. y\nC. z\nD. w", &["x", "y", "z", "w"]),
            ("Is A: better?\nOptions: A) yes B) no", &["yes", "no"]),
            ("What is written?", &[]),
            ("Options: A: red", &[]),
            ("The NASA: what? Options: NASA: B: C:", &[]),
        ] {
            assert_eq!(in_text(text), texts, "{text}");
        }
    }

    #[test]
    fn options_in_brackets_are_found_in_either_case() {
        assert_eq!(in_brackets("(a) Open (b) Closed"), ["Open", "Closed"]);
        assert_eq!(in_brackets("(A) In the box(B) Out of it "), ["In the box", "Out of it"]);
        assert_eq!(in_brackets("(a) Open"), [""; 0]);
        assert_eq!(in_brackets("Open or closed"), [""; 0]);
    }

    #[test]
    fn a_letter_names_an_option_and_nothing_else_does() {
        assert_eq!(["A", " C ", "Z"].map(index_of), [Some(0), Some(2), Some(25)]);
        assert_eq!(["a", "AB", "", "1", "É"].map(index_of), [None; 5]);
    }
}
