//! The only place where a question and an answer become token ids.
//!
//! The picture is not in these ids: it is a prefix that all questions on one picture share.
//!
//! ```text
//! prompt   <question> What is written under the dog ? <think>
//! answer   </think> K 7 <end>
//! ```

use crate::tokenizer::{END, QUESTION, THINK, THINK_END, Tokenizer};

/// The ids of one question, ready to follow a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// `<question>`, the question's words, `<think>`.
    pub ids: Vec<u32>,
}

/// Lays out a question: `<question> words <think>`.
#[must_use]
pub fn lay_out(tokenizer: &Tokenizer, question: &str) -> Prompt {
    let words = tokenizer.encode(question);
    let mut ids = Vec::with_capacity(words.len() + 2);
    ids.push(QUESTION);
    ids.extend(words);
    ids.push(THINK);
    Prompt { ids }
}

/// Lays out what the model is to say after its latent steps: `</think> answer <end>`; a model that says steps as text
/// says `</think> steps </think> answer <end>`, where no step is left as well: it could not tell the two forms apart.
#[must_use]
pub fn answer_ids(tokenizer: &Tokenizer, steps: Option<&str>, answer: &str) -> Vec<u32> {
    let mut ids = vec![THINK_END];
    if let Some(steps) = steps {
        ids.extend(tokenizer.encode(steps));
        ids.push(THINK_END);
    }
    ids.extend(tokenizer.encode(answer));
    ids.push(END);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Split, Task};
    use crate::suite::Suite;

    #[test]
    fn a_prompt_is_question_words_think_and_an_answer_is_between_its_marks() {
        let tokenizer = Tokenizer::suite().unwrap();
        let prompt = lay_out(&tokenizer, "What is written under the dog?");
        assert_eq!((prompt.ids[0], prompt.ids[prompt.ids.len() - 1]), (QUESTION, THINK));
        assert_eq!(prompt.ids.len(), 2 + 7);
        let said = [tokenizer.id("K").unwrap(), tokenizer.id("7").unwrap()];
        let answer = answer_ids(&tokenizer, None, "K7");
        assert_eq!(answer, [&[THINK_END][..], &said, &[END]].concat());
        let aloud = answer_ids(&tokenizer, Some("The dog."), "K7");
        let steps = tokenizer.encode("The dog.");
        assert_eq!(aloud, [&[THINK_END][..], &steps, &[THINK_END], &said, &[END]].concat());
        let nothing_left = answer_ids(&tokenizer, Some(""), "K7");
        assert_eq!(nothing_left, [&[THINK_END, THINK_END][..], &said, &[END]].concat());
    }

    #[test]
    fn no_prompt_of_the_suite_is_longer_than_forty_tokens() {
        let (suite, tokenizer) = (Suite::new(), Tokenizer::suite().unwrap());
        let mut longest = (0, String::new());
        for (split, task) in Split::ALL.into_iter().flat_map(|split| Task::ALL.map(|task| (split, task))) {
            for index in 0..1_000 {
                let text = suite.question(split, task, index).text;
                longest = longest.max((lay_out(&tokenizer, &text).ids.len(), text));
            }
        }
        println!("longest prompt: {longest:?}");
        assert!(longest.0 <= 40, "{longest:?}");
    }
}
