//! What goes over the wire: OpenAI's chat completions, and our own fields under `lare`.
//!
//! A request's `lare` object:
//!
//! | field | |
//! |---|---|
//! | `steps` | latent steps: a number, or `"auto"` (the default) to let the model stop when it is done |
//! | `halt_threshold` | with `"auto"`: stop when the model is this sure, 0 to 1; by default 0.5 |
//! | `trace` | whether the answer brings what each step looked at |
//! | `drawings` | with `trace`: whether each look brings the picture drawn from its thought |
//! | `intervention` | what takes the place of the thoughts: `zero`, `noise`, `repeat-first`, `markers-only`, or `random-patches` in place of the patches they read |
//!
//! An answer's `lare` object is a [`Cost`], and with `trace` has `looks` too, a [`Look`] a step. The same [`Cost`] is in
//! `usage.lare`. In a stream each look is a chunk of its own, sent as it happens: an empty delta, and `lare.look`.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;

/// `POST /v1/chat/completions`. Fields that are not here are ignored.
#[derive(Debug, Default, Deserialize)]
pub struct ChatRequest {
    /// The model's name; left out, the one there is.
    pub model: Option<String>,
    /// The conversation.
    pub messages: Option<Vec<Object<Message>>>,
    /// Most text tokens of the answer, under its old name.
    pub max_tokens: Option<u64>,
    /// The same under its new name, which wins.
    pub max_completion_tokens: Option<u64>,
    /// 0, the default, says the most likely words.
    pub temperature: Option<f32>,
    /// With a temperature: draw among the likeliest words that together have this probability.
    pub top_p: Option<f32>,
    /// Where random draws start.
    pub seed: Option<i64>,
    /// Texts that end the answer.
    pub stop: Option<Stop>,
    /// Answers wanted; 1 alone is possible.
    pub n: Option<u64>,
    /// Whether the answer comes as it is said.
    pub stream: Option<bool>,
    /// What a stream brings.
    pub stream_options: Option<Object<StreamOptions>>,
    /// Our own.
    pub lare: Option<Object<Extensions>>,
}

/// Part of [`ChatRequest`].
#[derive(Debug, Default, Deserialize)]
pub struct StreamOptions {
    /// Whether the usage comes in a chunk of its own, without choices; else it is in the last chunk.
    pub include_usage: Option<bool>,
}

/// Our own part of a request. Only here are unknown fields refused: an intervention by a misspelt name would leave the answer as
/// it is, and show that thoughts do not matter.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extensions {
    /// Latent steps.
    pub steps: Option<Steps>,
    /// With `auto`: the model stops when it is this sure.
    pub halt_threshold: Option<f32>,
    /// Whether looks are wanted.
    pub trace: Option<bool>,
    /// Whether looks bring drawings.
    pub drawings: Option<bool>,
    /// What is put in the place of thoughts or looks.
    pub intervention: Option<Intervention>,
}

/// How many latent steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Until the model is done.
    Auto,
    /// So many.
    Count(u64),
}

/// What is put in the place of thoughts or looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intervention {
    /// Zeros.
    Zero,
    /// Noise as large as a thought.
    Noise,
    /// The first thought, again and again.
    RepeatFirst,
    /// No thoughts.
    MarkersOnly,
    /// Patches drawn at random.
    RandomPatches,
}

/// Texts that end an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stop(pub Vec<String>);

/// One message.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// `system`, `developer`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: Option<Content>,
}

/// What is said: a string, or parts.
#[derive(Debug)]
pub enum Content {
    /// Text alone.
    Text(String),
    /// Text and pictures in order.
    Parts(Vec<Object<Part>>),
}

/// A part of a message.
#[derive(Debug, Deserialize)]
pub struct Part {
    /// `text` or `image_url`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a text.
    pub text: Option<String>,
    /// Of a picture.
    pub image_url: Option<ImageUrl>,
}

/// Where a picture is: `{"url": ...}`, or the URL alone.
#[derive(Debug)]
pub struct ImageUrl {
    /// A data URI, or `http` and `https` where the server fetches them.
    pub url: String,
}

/// What must be an object: a list of its fields' values in their order, which derived readers take too, is refused.
#[derive(Debug, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        deserializer.deserialize_any(Fields(PhantomData))
    }
}

/// One visitor a type that is a string or something else.
macro_rules! string_or {
    ($type:ty, $expecting:literal, $text:expr, { $($other:tt)* }) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Given;
                impl<'de> Visitor<'de> for Given {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        let read: fn(String) -> Result<$type, String> = $text;
                        read(text.to_owned()).map_err(E::custom)
                    }

                    fn visit_string<E: de::Error>(self, text: String) -> Result<$type, E> {
                        let read: fn(String) -> Result<$type, String> = $text;
                        read(text).map_err(E::custom)
                    }

                    $($other)*
                }
                deserializer.deserialize_any(Given)
            }
        }
    };
}

string_or!(Content, "a string or a list of parts", |text| Ok(Content::Text(text)), {
    fn visit_seq<A: de::SeqAccess<'de>>(self, parts: A) -> Result<Content, A::Error> {
        Vec::deserialize(de::value::SeqAccessDeserializer::new(parts)).map(Content::Parts)
    }
});

string_or!(Stop, "a string or a list of strings", |text| Ok(Stop(vec![text])), {
    fn visit_seq<A: de::SeqAccess<'de>>(self, texts: A) -> Result<Stop, A::Error> {
        Vec::deserialize(de::value::SeqAccessDeserializer::new(texts)).map(Stop)
    }
});

string_or!(ImageUrl, "an object with `url`", |url| Ok(ImageUrl { url }), {
    fn visit_map<A: de::MapAccess<'de>>(self, fields: A) -> Result<ImageUrl, A::Error> {
        /// The object's other keys, `detail` among them, say nothing to us.
        #[derive(Deserialize)]
        struct Object {
            url: String,
        }
        let object = Object::deserialize(de::value::MapAccessDeserializer::new(fields))?;
        Ok(ImageUrl { url: object.url })
    }
});

string_or!(
    Steps,
    "a number of steps or \"auto\"",
    |text| match text.as_str() {
        "auto" => Ok(Steps::Auto),
        other => Err(format!("expected a number of steps or \"auto\", got \"{other}\"")),
    },
    {
        fn visit_u64<E: de::Error>(self, count: u64) -> Result<Steps, E> {
            Ok(Steps::Count(count))
        }
    }
);

/// An answer that comes whole.
#[derive(Debug, Serialize)]
pub struct ChatCompletion<'a> {
    /// Its own.
    pub id: &'a str,
    /// `chat.completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// Who answered.
    pub model: &'a str,
    /// One.
    pub choices: [Choice<'a>; 1],
    /// What it cost.
    pub usage: Usage,
    /// What it cost in our own terms, and what it looked at.
    pub lare: Extras,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Choice<'a> {
    /// 0.
    pub index: u32,
    /// What was said.
    pub message: Said<'a>,
    /// Always null.
    pub logprobs: Option<()>,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

/// What was said.
#[derive(Debug, Serialize)]
pub struct Said<'a> {
    /// `assistant`.
    pub role: &'static str,
    /// The answer's words; never null.
    pub content: &'a str,
    /// Always null.
    pub refusal: Option<()>,
}

/// A piece of an answer that comes as it is said.
#[derive(Debug, Serialize)]
pub struct Chunk<'a> {
    /// The same in all chunks of an answer.
    pub id: &'a str,
    /// `chat.completion.chunk`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// Who answers.
    pub model: &'a str,
    /// One; none in a chunk of usage alone.
    pub choices: Vec<ChunkChoice<'a>>,
    /// What it cost; null until the end.
    pub usage: Option<Usage>,
    /// A look, or what the answer cost in our own terms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lare: Option<ChunkExtras>,
}

/// What is new.
#[derive(Debug, Serialize)]
pub struct ChunkChoice<'a> {
    /// 0.
    pub index: u32,
    /// What is new.
    pub delta: Delta<'a>,
    /// Always null.
    pub logprobs: Option<()>,
    /// `stop` or `length` in the last, null before.
    pub finish_reason: Option<&'static str>,
}

/// What is new; empty in the chunk of a look and in the last.
#[derive(Debug, Default, Serialize)]
pub struct Delta<'a> {
    /// `assistant` in the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// More of the answer's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<&'a str>,
}

/// Under `lare` in a chunk.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ChunkExtras {
    /// A step was taken.
    Look {
        /// What it saw and thought.
        look: Box<Look>,
    },
    /// The answer is complete.
    Cost(Cost),
}

/// Under `lare` in an answer.
#[derive(Debug, Serialize)]
pub struct Extras {
    /// What it cost.
    #[serde(flatten)]
    pub cost: Cost,
    /// One a latent step, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looks: Option<Vec<Look>>,
}

/// What an answer cost, in OpenAI's terms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Usage {
    /// Positions of the prompt, pictures included.
    pub prompt_tokens: usize,
    /// Text tokens and latent steps together.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// What of them was thinking.
    pub completion_tokens_details: CompletionDetails,
    /// The same in our own terms.
    pub lare: Cost,
}

/// What of the completion tokens was thinking. They are counted in `completion_tokens` too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CompletionDetails {
    /// Latent steps.
    pub reasoning_tokens: usize,
}

/// What an answer cost, in our own terms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Latent steps taken.
    pub latent_steps: usize,
    /// Entries of the visual memory that the steps read.
    pub refocused_visual_tokens: usize,
    /// Visual tokens that the steps appended to the context.
    pub appended_visual_tokens: usize,
    /// Every position the language model computed, prompt included.
    pub processed_positions: usize,
    /// From being accepted to being begun.
    pub queued_ms: f64,
    /// From being accepted to the first text token.
    pub first_token_ms: f64,
    /// From being accepted to the end.
    pub total_ms: f64,
}

/// One latent step: where it looked, and what became of its thought.
///
/// With several pictures `scores` and `chosen` count through the cells of all, one picture behind the other; `rows`, `cols`
/// and the cell's size are the first picture's, and `grids` has those of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Look {
    /// From 1.
    pub step: usize,
    /// The picture's grid.
    #[serde(flatten)]
    pub grid: Grid,
    /// Of several pictures: the grid of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grids: Vec<Grid>,
    /// Where it looked: a weight a cell, row by row; they sum to 1.
    pub scores: Vec<f32>,
    /// The cells it read again, best first: `row * cols + column`.
    pub chosen: Vec<usize>,
    /// The words nearest to the thought, by cosine similarity.
    pub nearest: Vec<Word>,
    /// The words that the thought names, with their probability.
    pub named: Vec<Word>,
    /// 0 keeps the decoder's hidden state, 1 takes what the look found.
    pub gate_mean: f32,
    /// How sure the model is, after the step, that it is done.
    pub halt_probability: f32,
    /// Time of the step.
    pub time_ms: f64,
    /// The picture drawn from the thought, a PNG as a data URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drawing: Option<String>,
}

/// How cells lie on a picture, from its top left corner.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Grid {
    /// Cells from top to bottom.
    pub rows: usize,
    /// Cells from left to right.
    pub cols: usize,
    /// A cell's width in pixels of the picture.
    pub cell_px_x: f32,
    /// Its height.
    pub cell_px_y: f32,
}

/// A word and how near it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Word {
    /// The word.
    pub text: String,
    /// Higher is nearer.
    pub score: f32,
}

/// `GET /v1/models`.
#[derive(Debug, Serialize)]
pub struct Models<'a> {
    /// `list`.
    pub object: &'static str,
    /// One.
    pub data: [Model<'a>; 1],
}

/// A model that is served.
#[derive(Debug, Serialize)]
pub struct Model<'a> {
    /// Its name in requests.
    pub id: &'a str,
    /// `model`.
    pub object: &'static str,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// `lare`.
    pub owned_by: &'static str,
    /// What it can do.
    pub lare: Abilities,
}

/// What a model can do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Abilities {
    /// Most latent steps; 0: it answers in text alone.
    pub max_steps: usize,
    /// Most pictures of a request.
    pub pictures: usize,
    /// Whether it draws its thoughts.
    pub can_draw: bool,
    /// Tokens that the same model took on average when it was trained to reason in text, where that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_reasoning_tokens: Option<f64>,
    /// What a request may hold.
    pub limits: Limits,
}

/// What a request may hold, for clients that can send less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes of its body.
    pub body_bytes: usize,
    /// Pixels of a picture.
    pub picture_pixels: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Result<ChatRequest, String> {
        let read = serde_path_to_error::deserialize::<_, Object<ChatRequest>>(value);
        read.map(|read| read.0).map_err(|error| format!("{}: {}", error.path(), error.inner()))
    }

    #[test]
    fn what_may_have_two_forms_is_read_in_both() {
        let content = |content| read(json!({ "messages": [{ "role": "user", "content": content }] }));
        assert!(content(json!("a")).is_ok());
        assert!(content(json!([{ "type": "text", "text": "a" }])).is_ok());
        assert!(content(json!([{ "type": "image_url", "image_url": "u" }])).is_ok());
        assert!(
            content(json!([{ "type": "image_url", "image_url": { "url": "u", "detail": "low", "x": 1 } }])).is_ok()
        );
        assert!(content(json!(null)).is_ok());
        for (stop, texts) in [(json!("a"), vec!["a"]), (json!(["a", "b"]), vec!["a", "b"])] {
            assert_eq!(read(json!({ "stop": stop })).unwrap().stop.unwrap().0, texts);
        }
        for (steps, read_as) in [(json!(3), Steps::Count(3)), (json!("auto"), Steps::Auto)] {
            assert_eq!(read(json!({ "lare": { "steps": steps } })).unwrap().lare.unwrap().0.steps, Some(read_as));
        }
    }

    #[test]
    fn null_is_as_good_as_left_out() {
        let all = json!({
            "max_tokens": null, "temperature": null, "top_p": null, "seed": null, "stop": null, "n": null,
            "stream": null, "stream_options": null, "lare": null, "model": null
        });
        assert!(read(all).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cases = [
            json!({ "messages": [{ "role": "user", "content": 3 }] }),
            json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": 3 }] }] }),
            json!({ "messages": [{ "content": "a" }] }),
            json!({ "messages": "a" }),
            json!({ "messages": [["user", "a"]] }),
            json!({ "messages": [{ "role": "user", "content": [["text", "a"]] }] }),
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }] }),
            json!({ "lare": [] }),
            json!({ "max_tokens": -1 }),
            json!({ "temperature": "hot" }),
            json!({ "stop": [1] }),
            json!({ "lare": { "steps": "many" } }),
            json!({ "lare": { "steps": -1 } }),
            json!({ "lare": { "intervention": "nothing" } }),
        ];
        let told: Vec<String> = cases.into_iter().map(|case| read(case).unwrap_err()).collect();
        insta::assert_snapshot!(told.join("\n"));
    }
}
