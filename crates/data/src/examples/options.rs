//! Answers that are offered: what is asked, and what is answered, where an answer only points at one of them.

use serde_json::Value;

/// An answer as a file has it.
pub(super) enum Answer {
    Text(String),
    /// A number, which may point at one of the choices, from 0.
    Number(u64),
}

impl Answer {
    /// Of a value that is one answer.
    pub fn of(value: &Value) -> Option<Answer> {
        match value {
            Value::String(text) => Some(Answer::Text(text.trim().to_owned())),
            Value::Number(number) => {
                Some(number.as_u64().map_or_else(|| Answer::Text(number.to_string()), Answer::Number))
            }
            Value::Bool(yes) => Some(Answer::Text(if *yes { "yes" } else { "no" }.to_owned())),
            _ => None,
        }
    }

    fn text(self) -> String {
        match self {
            Answer::Text(text) => text,
            Answer::Number(number) => number.to_string(),
        }
    }
}

/// What is asked and answered. An answer that is one of the choices, or where none are offered, stays as it is, and so does the
/// question. One that is the letter or the number of a choice says nothing without them: they are listed below the question,
/// `A. ...` a line, and the answer is the letter.
///
/// # Errors
/// What would be an answer, and what is there.
pub(super) fn asked(
    question: String,
    choices: &[String],
    answer: Answer,
) -> Result<(String, String), (String, String)> {
    if choices.is_empty() {
        return Ok((question, answer.text()));
    }
    let of_text = |text: &str| choices.iter().position(|choice| choice.trim() == text);
    let place = match &answer {
        Answer::Text(text) if text.is_empty() || of_text(text).is_some() => return Ok((question, answer.text())),
        Answer::Text(text) => letter_of(text),
        Answer::Number(number) => {
            let place = usize::try_from(*number).unwrap_or(usize::MAX);
            match of_text(&number.to_string()) {
                Some(same) if same == place => return Ok((question, answer.text())),
                Some(other) => {
                    let expected =
                        format!("the answer as text: {number} is the number of one choice and the text of another");
                    return Err((expected, format!("{number}, with choice {number} and `{}`", choices[other])));
                }
                None => Some(place),
            }
        }
    };
    let letter = place.filter(|place| *place < choices.len()).and_then(letter);
    let Some(letter) = letter else {
        let expected = format!("one of the {} choices, its letter, or its number from 0", choices.len());
        return Err((expected, answer.text()));
    };
    let listed = choices
        .iter()
        .enumerate()
        .filter_map(|(place, choice)| Some(format!("\n{}. {}", self::letter(place)?, choice.trim())));
    Ok((format!("{}{}", question.trim_end(), listed.collect::<String>()), letter.to_string()))
}

fn letter(place: usize) -> Option<char> {
    (b'A'..=b'Z').nth(place).map(char::from)
}

/// The place of a letter, also in brackets or with a dot: `(B)`, `B.`.
fn letter_of(text: &str) -> Option<usize> {
    let mut inner = text.trim_matches(|c: char| "().: ".contains(c)).chars();
    match (inner.next(), inner.next()) {
        (Some(letter), None) if letter.is_ascii_uppercase() => Some(usize::from(letter as u8 - b'A')),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_points_at_a_choice_has_the_choices_below_its_question() {
        let choices: Vec<String> = ["cat", "dog"].map(String::from).into();
        let of = |answer| asked("What?".into(), &choices, answer);
        let plain = ("What?".to_owned(), "dog".to_owned());
        assert_eq!(of(Answer::Text("dog".into())), Ok(plain));
        let listed = ("What?\nA. cat\nB. dog".to_owned(), "B".to_owned());
        for answer in [Answer::Text("B".into()), Answer::Text("(B)".into()), Answer::Number(1)] {
            assert_eq!(of(answer), Ok(listed.clone()));
        }
        for answer in [Answer::Text("C".into()), Answer::Text("bird".into()), Answer::Number(2)] {
            assert!(of(answer).is_err());
        }
        let numbers: Vec<String> = ["1", "2"].map(String::from).into();
        assert!(asked("How many?".into(), &numbers, Answer::Number(1)).is_err(), "the first, or the second?");
        assert_eq!(asked("How many?".into(), &[], Answer::Number(1)), Ok(("How many?".into(), "1".into())));
    }
}
