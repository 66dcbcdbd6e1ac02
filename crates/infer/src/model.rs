//! What answering needs of a model, and all in which kinds of models differ: those of `lare train` ([`crate::Assistant`]) and
//! pretrained ones ([`crate::generator::Generator`]). What comes between is the same for all of them.
//!
//! ```text
//! conversation ─ lay_out ─► first, own words ──────────────┐
//! pictures ─ prepare ─► form, places ─ see ─► seen ─ ground ┴─► Ground ─ passes ─► tokens ─ hear ─► text
//! ```

pub(crate) mod nano;
mod pretrained;

use crate::Result;
use crate::draw::Drawing;
use crate::options::Steps;
use crate::places::Places;
use candle_core::{Device, Tensor};
use lare_data::chat::{Decoder as Decoding, Message};
use lare_data::{Picture, Size};
use lare_model::Ground;
use lare_model::decoder::Decoder;
use lare_model::refocus::Refocus;
use lare_trace::Word;
use std::sync::Arc;

/// The hash of something that is kept for later requests.
pub type Key = [u8; 32];

/// How a model speaks: everything about it but its eyes.
pub trait Speaking: Send + Sync {
    /// Its own name.
    fn name(&self) -> &str;

    /// Its decoder.
    fn decoder(&self) -> &Decoder;

    /// Where its tensors lie.
    fn device(&self) -> &Device;

    /// `D`.
    fn width(&self) -> usize;

    /// Its latent step, if it was taught one.
    fn refocus(&self) -> Option<&Refocus>;

    /// What was taught to take latent steps, `model` or `adapter`: whose limits errors name.
    fn taught(&self) -> &'static str;

    /// When it stops thinking: as it is told to. `Auto` of a model that was not taught when to stop takes the latent steps that
    /// it was trained with: an untrained head says one half to everything, and would stop it before the first.
    fn settled(&self, steps: Steps) -> Steps {
        steps
    }

    /// How its answers begin and end.
    fn manner(&self) -> Manner;

    /// Most pictures of one conversation.
    fn most_pictures(&self) -> usize;

    /// Lays out a conversation about pictures of these sizes as tokens.
    ///
    /// # Errors
    /// For a conversation or pictures that this model cannot take.
    fn lay_out(&self, messages: &[Message], pictures: &[Size]) -> Result<LaidOut>;

    /// Takes up the newest of an answer's tokens into its text.
    fn hear(&self, answer: &[u32], spelling: &mut Spelling);

    /// Steps that were said as text before an answer, of a model that says steps.
    fn spelled(&self, _steps: &[u32]) -> String {
        String::new()
    }

    /// Takes up what was held back because more could have belonged to it.
    fn hear_no_more(&self, spelling: &mut Spelling);

    /// A token as a word of a report.
    fn word(&self, id: u32) -> String;

    /// The words that thoughts `[B, D]` name through a reading head, `[B]` lists; empty ones without such a head.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn named(&self, thoughts: &Tensor) -> Result<Vec<Vec<Word>>>;

    /// Whether it can draw its thoughts.
    fn can_draw(&self) -> bool {
        false
    }

    /// What its drawings show.
    fn drawn(&self) -> Option<Drawn> {
        None
    }

    /// Draws thoughts, as [`crate::draw::thoughts`].
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn draw(&self, _thoughts: &[&[f32]], _seed: u64) -> Result<Vec<Drawing>> {
        Ok(Vec::new())
    }
}

/// A whole model: how it speaks, and how it sees.
pub trait Model: Speaking + 'static {
    /// A picture as its encoder takes it.
    type Form: Send + Sync + 'static;
    /// What its encoder sees in one picture.
    type Seen: Send + Sync + 'static;

    /// Whether one picture comes to many grounds, by the words before it: then what was seen is worth keeping beside them.
    const KEEPS_SEEN: bool;

    /// Brings a picture into its form.
    ///
    /// # Errors
    /// For a picture that its processor refuses.
    fn prepare(&self, picture: &Picture) -> Result<Prepared<Self::Form>>;

    /// The hash of a form: of everything the encoder is shown.
    fn key_of(&self, form: &Self::Form) -> Key;

    /// Encodes a picture.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn see(&self, form: &Self::Form) -> Result<Self::Seen>;

    /// Bytes of what was seen.
    fn bytes_of(&self, seen: &Self::Seen) -> usize;

    /// What conversations that begin with `first` and these pictures go on from.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn ground(&self, first: &[u32], seen: &[Arc<Self::Seen>]) -> Result<Ground>;
}

/// What a drawing shows: a square of the picture, as the denoiser learns it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// Side of the drawing in pixels.
    pub side: usize,
    /// How many times smaller than the picture in its form the drawing is.
    pub shrink: f32,
    /// Side of a cell in pixels of the picture in its form.
    pub cell_px: f32,
}

/// A picture that is ready to be encoded.
pub struct Prepared<F> {
    /// As the encoder takes it.
    pub form: F,
    /// Where its cells lie on it.
    pub places: Places,
}

/// How a model's answers begin and end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manner {
    /// Fed before an answer's first token; none where the state after the prompt or the last thought says that token.
    pub opening: Option<u32>,
    /// Each of them ends an answer, and is no part of it.
    pub ends: Vec<u32>,
    /// Of a model that says steps before its answer, what it says between them.
    pub steps_end: Option<u32>,
    /// Tokens from here on are words; of those before, an answer has none but the two above.
    pub first_word: u32,
    /// What logits of tokens that were read or said already are divided by, as [`crate::sampler::penalize`] does.
    pub penalty: Option<f32>,
    /// Tokens of an answer, unless a request says otherwise.
    pub answer_tokens: Option<usize>,
}

/// A conversation as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaidOut {
    /// What is read together with the pictures, up to the last of them: what conversations may share.
    pub first: Vec<u32>,
    /// What is read behind that.
    pub own: Vec<u32>,
    /// Tokens of both that are not what people wrote, as far as that is told apart.
    pub markers: usize,
    /// Most tokens of both, thoughts and the answer together.
    pub context: usize,
    /// Slots that `first` and the pictures take, at most.
    pub ground_slots: usize,
}

/// The text of an answer so far.
#[derive(Clone, Debug, Default)]
pub struct Spelling {
    /// What is certain of it.
    pub text: String,
    /// What is not, such as half a character.
    pub(crate) decoding: Decoding,
}
