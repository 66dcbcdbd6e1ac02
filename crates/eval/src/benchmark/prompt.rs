//! The words that a question of a benchmark is asked with.

use super::question::{Answer, Question, Read};
use crate::grade::letter;

/// Ends a question with options.
const CHOOSE: &str = "Please select the correct answer from the options above.";
/// Ends a yes-no question that does not ask for yes or no itself.
const YES_OR_NO: &str = "Please answer yes or no.";
/// The whole prompt where question and options are in the picture.
const IN_PICTURE: &str = "Answer the following multiple-choice question in the image. Answer directly with the option \
                          letter from the given choices.";

/// The prompt of a question. With options it is that of VLMEvalKit, so that results can be held against published ones:
///
/// ```text
/// Hint: ...                 where there is one
/// Question: ...
/// Options:
/// A. ...
/// B. ...
/// Please select the correct answer from the options above.
/// ```
///
/// Its trailing blanks are left out: they say nothing. Where the options stand in the question's own text, that text is
/// given as it is, with the same last sentence. A yes-no question is asked as it is, with a sentence only where it does
/// not ask for yes or no itself. Where everything stands in the picture, the prompt says so.
///
/// The words are those of `ImageMCQDataset.build_prompt`, `MMMUProDataset.build_prompt` (the form in the picture) and, for
/// yes or no, of AMBER in `ImageYORNDataset.build_prompt`, in VLMEvalKit's `vlmeval/dataset/image_mcq.py` and
/// `image_yorn.py`.
pub(super) fn prompt(question: &Question) -> String {
    let text = question.text.trim_end();
    let hint = question.hint.as_ref().map_or(String::new(), |hint| format!("Hint: {}\n", hint.trim_end()));
    match &question.answer {
        Answer::Option { read: Read::InPicture, .. } => IN_PICTURE.to_owned(),
        Answer::Option { read: Read::InText, .. } => format!("{hint}{text}\n{CHOOSE}"),
        Answer::Option { read: Read::Below, texts, .. } => {
            let offered = texts.iter().enumerate().filter(|(_, text)| !text.is_empty());
            let options: String = offered.map(|(index, text)| format!("{}. {text}\n", letter(index))).collect();
            format!("{hint}Question: {text}\nOptions:\n{options}{CHOOSE}")
        }
        Answer::YesNo(_) if text.to_lowercase().contains("yes or no") => format!("{hint}{text}"),
        Answer::YesNo(_) => format!("{hint}{text}\n{YES_OR_NO}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::question::Place;

    fn question(text: &str, hint: Option<&str>, answer: Answer) -> Question {
        Question {
            id: "1".into(),
            index: None,
            number: 0,
            task: "a".into(),
            text: text.into(),
            hint: hint.map(str::to_owned),
            answer,
            picture: Place::File("1.png".into()),
        }
    }

    fn options(texts: &[&str], read: Read) -> Answer {
        Answer::Option { texts: texts.iter().map(|text| (*text).to_owned()).collect(), right: 0, read }
    }

    #[test]
    fn options_are_listed_with_their_letters_and_one_that_is_not_offered_leaves_a_gap() {
        let asked = question("Which one?", Some("Look twice."), options(&["a cup", "", "a dog"], Read::Below));
        assert_eq!(
            prompt(&asked),
            "Hint: Look twice.\nQuestion: Which one?\nOptions:\nA. a cup\nC. a dog\n\
             Please select the correct answer from the options above."
        );
    }

    #[test]
    fn options_that_the_model_reads_elsewhere_are_not_listed_again() {
        let asked =
            question("Which one?\nOptions: A: a cup, B: a dog\n", None, options(&["a cup", "a dog"], Read::InText));
        assert_eq!(
            prompt(&asked),
            "Which one?\nOptions: A: a cup, B: a dog\nPlease select the correct answer from the options above."
        );
        let asked = question("", None, options(&["a cup", "a dog"], Read::InPicture));
        assert!(prompt(&asked).starts_with("Answer the following multiple-choice question in the image."));
    }

    #[test]
    fn yes_or_no_is_asked_for_once() {
        let asked = question("Is there a dog?", None, Answer::YesNo(true));
        assert_eq!(prompt(&asked), "Is there a dog?\nPlease answer yes or no.");
        let asked = question("Is there a dog? Please answer Yes or No.", None, Answer::YesNo(true));
        assert_eq!(prompt(&asked), "Is there a dog? Please answer Yes or No.");
    }
}
