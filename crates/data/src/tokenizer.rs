//! Text to token ids and back, for the nano model.
//!
//! A vocabulary of whole words that the suite and everyday questions use; every other word of ASCII letters is
//! spelled. Digits and punctuation always stand alone, so the tag `K7` is the two tokens `K` and `7`. Nothing is
//! lower-cased. A character outside printable ASCII becomes `<unk>`, one for each.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::scenes::Colour;
use crate::scenes::kinds::{Category, NAMES};

/// Id of `<pad>`.
pub const PAD: u32 = 0;
/// Id of `<unk>`.
pub const UNKNOWN: u32 = 1;
/// Id of `<question>`, before a question.
pub const QUESTION: u32 = 2;
/// Id of `<think>`, after a question: here the looks begin.
pub const THINK: u32 = 3;
/// Id of `</think>`, before an answer: here the looks have ended.
pub const THINK_END: u32 = 4;
/// Id of `<end>`, after an answer.
pub const END: u32 = 5;

const SPECIAL: [&str; 6] = ["<pad>", "<unk>", "<question>", "<think>", "</think>", "<end>"];
/// Before a piece that continues a word.
const CONTINUES: &str = "##";
/// Longer runs of letters are cut, because the search for pieces takes time cubic in their length.
const LONGEST_WORD: usize = 32;

/// Words of the suite's questions, answers and rationales besides names, colours and categories.
const SUITE_WORDS: &str = "\
above after all an and any are as at bar below but by carry chart climb column columns comes compare count \
cross crossing differ different differs digit do does down each eight end ends even every far fifth find first \
five follow four fourth framed from give go has have here highest holds household how in is it items its kind ladder \
larger largest last lead leads left letter letters like line lines look lowest makes many meet met move moves \
name names next nine no not number numbers object objects odd of on once one or other others out path piece \
place places reach read rest right row rows rung rungs same say says second seven six small smaller smallest so \
start straight tag tags take taking that the them then there these thing things third three times to trace turn \
twice two under what where which who whose why with write written yes you your zero";

/// Words that people ask questions about pictures with.
const COMMON_WORDS: &str = "\
about across again ago air also always am among another answer anything around away back background bad be \
because been before behind being beside best better between big bigger biggest both bottom boy bright bring \
called can cannot center centre change choose circle clear close closer closest cold color colors colour \
colours come corner could cut dark day describe did different direction done door draw each early earth easy \
edge eat eight else empty eye eyes face fact fall family farther fast feel few fewer field figure fill five \
fly food foot form found front full game get girl glass gone good got great ground group grow guess half hand \
hard he head hear height help her high higher him hold hot house i if image inside into just keep know \
land large late later less let light little live long longer look lot low lower made main make man may me mean \
middle might mine more most mother move much must my near nearest need never new night none nothing now off \
often old only open opposite order our outside over own page paper part pattern people person photo picture \
pictures play please point points position put question quick rain rather ready really round run school sea see \
seen sentence set several shadow shape she short shorter should show shown shows side sign size sky some \
something soon square stand stay still stop story such table tall taller tell text than thank their they \
think this those time tiny together told too took top toward towards triangle true try type until up upper us \
use very view visible walk wall want was water way we well were white wide will wind window wood word words \
work world would wrong yellow brown pink gray grey gold silver";

/// Words that also begin sentences.
const OPENERS: &str = "\
after all any are at be because before below besides both but can compare could count describe did do does each \
every explain find follow for from give go has have he her here his how i if image in is it its let list look \
make my name no none not now object of on one only or other our please point read say she should show so some \
start take tell that the their then there these they this those trace two under up was we were what when where \
which who whose why will with without would write yes you your";

/// A tokenizer file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The bytes are not a tokenizer of the `tokenizers` library.
    #[error(
        "tokenizer cannot be read\n  expected  a `tokenizer.json` as `lare_data::tokenizer::build` writes it\n  got       {reason}"
    )]
    Unreadable {
        /// What the `tokenizers` library said.
        reason: String,
    },
    /// A special token is missing or has another id.
    #[error(
        "tokenizer has special token `{token}` under the wrong id\n  expected  {expected}\n  got       {got:?}\n\nhint: use the `tokenizer.json` that came with the weights"
    )]
    Special {
        /// The token's text.
        token: &'static str,
        /// The id this crate lays out prompts with.
        expected: u32,
        /// The id in the file, if it has the token at all.
        got: Option<u32>,
    },
}

/// The nano model's tokenizer.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The text of each id.
    words: Vec<String>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If it cannot be read, or if its special tokens are not where prompts expect them.
    pub fn from_bytes(json: &[u8]) -> Result<Tokenizer, TokenizerError> {
        let unreadable = |error: tokenizers::Error| TokenizerError::Unreadable { reason: error.to_string() };
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(unreadable)?;
        // A user who types `<think>` asks about the text `<think>`; only prompts contain the token.
        inner.set_encode_special_tokens(true);
        for (expected, token) in SPECIAL.into_iter().enumerate() {
            let got = inner.token_to_id(token);
            if got != Some(expected as u32) {
                return Err(TokenizerError::Special { token, expected: expected as u32, got });
            }
        }
        let count = inner.get_vocab_size(true) as u32;
        let words = (0..count).map(|id| inner.id_to_token(id).unwrap_or_default()).collect();
        Ok(Tokenizer { inner, words })
    }

    /// The tokenizer of the suite, without a file.
    ///
    /// # Errors
    /// Never; a test builds it.
    pub fn suite() -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_bytes(build().as_bytes())
    }

    /// The ids of a text; special tokens are neither added nor recognised.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        // No part of the pipeline can fail on any text; if one ever does, the text is one unknown word.
        self.inner.encode_fast(text, false).map_or_else(|_| vec![UNKNOWN], |encoding| encoding.get_ids().to_vec())
    }

    /// The text of ids, without special tokens (but with `<unk>`). Exact for every answer and reading of the
    /// suite: tags and numbers are joined, punctuation follows its word.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let mut before = "";
        for id in ids.iter().copied().filter(|&id| id == UNKNOWN || id >= SPECIAL.len() as u32) {
            let word = self.word(id).unwrap_or("<unk>");
            match word.strip_prefix(CONTINUES) {
                Some(piece) if !piece.is_empty() => text.push_str(piece),
                _ => {
                    if !text.is_empty() && !joins(before, word) {
                        text.push(' ');
                    }
                    text.push_str(word);
                }
            }
            before = word;
        }
        text
    }

    /// How many ids there are.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.words.len()
    }

    /// The id of a token, by its exact text.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The text of one id.
    #[must_use]
    pub fn word(&self, id: u32) -> Option<&str> {
        self.words.get(id as usize).map(String::as_str)
    }
}

/// Whether two tokens are written without a space between them.
fn joins(before: &str, word: &str) -> bool {
    let only = |text: &str, test: fn(char) -> bool| text.len() == 1 && text.chars().all(test);
    let digit = only(word, |c| c.is_ascii_digit());
    let after_tag = only(before, |c| c.is_ascii_uppercase() || c.is_ascii_digit());
    let closes = only(word, |c| ".,;:?!)]}'-%/".contains(c));
    let opens = only(before, |c| "([{'-/#$".contains(c));
    (digit && after_tag) || closes || opens
}

/// Writes the suite's `tokenizer.json`, in the format of the `tokenizers` library.
#[must_use]
pub fn build() -> String {
    let mut vocabulary = Map::new();
    let mut add = |token: String| {
        let next = vocabulary.len();
        vocabulary.entry(token).or_insert(Value::from(next));
    };
    SPECIAL.into_iter().for_each(|token| add(token.to_owned()));
    let printable = || (b'!'..=b'~').map(char::from);
    printable().for_each(|character| add(character.to_string()));
    printable().filter(char::is_ascii_alphabetic).for_each(|letter| add(format!("{CONTINUES}{letter}")));
    words().into_iter().for_each(&mut add);

    let special = SPECIAL.into_iter().enumerate().map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    });
    let split = format!("[^\\x21-\\x7e]|[A-Za-z]{{{LONGEST_WORD}}}");
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": false},
            {"type": "Punctuation", "behavior": "Isolated"},
            {"type": "Digits", "individual_digits": true},
        ]},
        "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": CONTINUES, "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": SPECIAL[UNKNOWN as usize],
            "continuing_subword_prefix": CONTINUES,
            "max_input_chars_per_word": LONGEST_WORD,
            "vocab": vocabulary,
        },
    });
    format!("{file:#}\n")
}

/// All whole words, each once, in alphabetical order.
fn words() -> BTreeSet<String> {
    let plurals = Category::ALL.into_iter().flat_map(|category| category.plural().split(' '));
    let lists = [SUITE_WORDS, COMMON_WORDS];
    let mut words: BTreeSet<String> = lists.into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect();
    words.extend(NAMES.into_iter().chain(Colour::ALL.map(Colour::name)).chain(plurals).map(str::to_owned));
    words.extend(OPENERS.split_whitespace().map(|word| word[..1].to_uppercase() + &word[1..]));
    words.extend(OPENERS.split_whitespace().map(str::to_owned));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Split, Task};
    use crate::suite::Suite;

    #[test]
    fn every_text_of_the_suite_is_whole_words_and_comes_back_exactly() {
        let (suite, tokenizer) = (Suite::new(), Tokenizer::suite().unwrap());
        let whole = |text: &str| {
            for id in tokenizer.encode(text) {
                let word = tokenizer.word(id).unwrap();
                assert!(id != UNKNOWN && !word.starts_with(CONTINUES), "`{word}` in `{text}`");
            }
        };
        let exact = |text: &str| assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
        for (split, task) in Split::ALL.into_iter().flat_map(|split| Task::ALL.map(|task| (split, task))) {
            for index in 0..1_000 {
                let question = suite.question(split, task, index);
                whole(&question.text);
                exact(&question.text);
                exact(&question.answer);
                for step in &question.steps {
                    whole(&step.says);
                    exact(&step.says);
                    // Digits that follow one another are glued: the tag K0 in row 2 comes back as K02.
                    let glued = |text: &str| text.replace(' ', "");
                    assert_eq!(glued(&tokenizer.decode(&tokenizer.encode(&step.reads))), glued(&step.reads));
                }
            }
        }
    }

    #[test]
    fn a_tag_is_its_two_characters_and_is_glued_again() {
        let tokenizer = Tokenizer::suite().unwrap();
        let ids = tokenizer.encode("K7 yes");
        assert_eq!(ids, ["K", "7", "yes"].map(|word| tokenizer.id(word).unwrap()));
        assert_eq!(tokenizer.decode(&ids), "K7 yes");
        assert_eq!(tokenizer.decode(&tokenizer.encode("10 A")), "10 A");
    }

    #[test]
    fn any_printable_ascii_text_is_spelled_without_unknowns() {
        let tokenizer = Tokenizer::suite().unwrap();
        let strange: String = (' '..='~').collect::<String>() + " Zyzzyva antidisestablishmentarianism\nqwertz\t4711";
        assert!(!tokenizer.encode(&strange).contains(&UNKNOWN));
        let endless = "a".repeat(100_000);
        assert!(!tokenizer.encode(&endless).contains(&UNKNOWN));
        assert_eq!(tokenizer.decode(&tokenizer.encode("Zyzzyva")), "Zyzzyva");
    }

    #[test]
    fn each_character_outside_ascii_is_one_explicit_unknown() {
        let tokenizer = Tokenizer::suite().unwrap();
        assert_eq!(tokenizer.decode(&tokenizer.encode("café 犬\u{1}!")), "caf <unk> <unk> <unk>!");
        assert_eq!(tokenizer.encode(""), Vec::<u32>::new());
    }

    #[test]
    fn special_tokens_typed_by_a_user_are_ordinary_text() {
        let tokenizer = Tokenizer::suite().unwrap();
        let ids = tokenizer.encode("<think> </think> <end> <question> <pad>");
        assert!(ids.iter().all(|&id| id >= SPECIAL.len() as u32), "{ids:?}");
    }

    #[test]
    fn the_file_is_the_same_every_time_and_of_the_size_planned() {
        assert_eq!(build(), build());
        let size = Tokenizer::suite().unwrap().vocab_size();
        assert!((600..=900).contains(&size), "{size}");
    }

    #[test]
    fn a_file_with_other_special_tokens_is_refused_by_name() {
        let file = build().replace("<think>", "<thought>");
        let error = Tokenizer::from_bytes(file.as_bytes()).err().unwrap().to_string();
        assert!(error.contains("`<think>`"), "{error}");
        let error = Tokenizer::from_bytes(b"{}").err().unwrap().to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }
}
