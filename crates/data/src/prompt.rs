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

/// Lays out what the model is to say after its looks: `</think> answer <end>`.
#[must_use]
pub fn answer_ids(tokenizer: &Tokenizer, answer: &str) -> Vec<u32> {
    let words = tokenizer.encode(answer);
    let mut ids = Vec::with_capacity(words.len() + 2);
    ids.push(THINK_END);
    ids.extend(words);
    ids.push(END);
    ids
}
