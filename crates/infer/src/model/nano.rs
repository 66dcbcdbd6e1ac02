//! The models of `lare train`: one picture, one question, words of a small vocabulary.

use super::{Drawn, Key, LaidOut, Manner, Model, Prepared, Speaking, Spelling};
use crate::draw::{self, Drawing};
use crate::look::{best, softmax};
use crate::places::Places;
use crate::{Assistant, Error, Result};
use candle_core::{Device, Tensor};
use lare_data::chat::{Content, Message, Part, Role};
use lare_data::tokenizer::{END, THINK_END};
use lare_data::{Picture, Size, prompt};
use lare_model::config::{Config, Context};
use lare_model::decoder::Decoder;
use lare_model::refocus::Refocus;
use lare_model::{Ground, Reasoning, Views};
use lare_trace::{Grid, Word};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Tokens of a prompt that are its markers.
const MARKERS: usize = 2;

impl Speaking for Assistant {
    fn name(&self) -> &str {
        self.name()
    }

    fn decoder(&self) -> &Decoder {
        self.reasoner.language()
    }

    fn device(&self) -> &Device {
        self.device()
    }

    fn width(&self) -> usize {
        self.config().language.width
    }

    fn refocus(&self) -> Option<&Refocus> {
        Some(&self.reasoner.refocus)
    }

    fn taught(&self) -> &'static str {
        "model"
    }

    fn manner(&self) -> Manner {
        Manner {
            opening: Some(THINK_END),
            ends: vec![END],
            steps_end: self.config().language.says_steps.then_some(THINK_END),
            first_word: END + 1,
            ..Manner::default()
        }
    }

    fn most_pictures(&self) -> usize {
        1
    }

    fn lay_out(&self, messages: &[Message], pictures: &[Size]) -> Result<LaidOut> {
        let text = question(messages, pictures.len())?;
        if text.trim().is_empty() {
            return Err(Error::EmptyQuestion { number: 1, got: text });
        }
        let config = self.config();
        Ok(LaidOut {
            first: Vec::new(),
            own: prompt::lay_out(&self.tokenizer, &text).ids,
            markers: MARKERS,
            // Position 0 is the picture's, and one is kept free.
            context: config.language.max_positions.saturating_sub(2),
            ground_slots: picture_positions(config, config.vision.max_cells),
        })
    }

    fn hear(&self, answer: &[u32], spelling: &mut Spelling) {
        spelling.text = self.tokenizer.decode(answer);
    }

    fn hear_no_more(&self, _: &mut Spelling) {}

    fn spelled(&self, steps: &[u32]) -> String {
        self.tokenizer.decode(steps)
    }

    fn word(&self, id: u32) -> String {
        self.tokenizer.word(id).unwrap_or_default().to_owned()
    }

    fn named(&self, thoughts: &Tensor) -> Result<Vec<Vec<Word>>> {
        let words = self.reasoner.semantic.words(thoughts, self.decoder().embedding())?;
        let words: Vec<Vec<Vec<f32>>> = words.to_vec3()?;
        let of_slots = |slots: Vec<Vec<f32>>| slots.iter().flat_map(|logits| best(self, &softmax(logits), 1)).collect();
        Ok(words.into_iter().map(of_slots).collect())
    }

    fn can_draw(&self) -> bool {
        true
    }

    fn drawn(&self) -> Option<Drawn> {
        let Config { semantic, vision, .. } = self.config();
        let (shrink, cell_px) = (semantic.shrink() as f32, vision.cell_px as f32);
        Some(Drawn { side: semantic.drawing_px, shrink, cell_px })
    }

    fn draw(&self, thoughts: &[&[f32]], seed: u64) -> Result<Vec<Drawing>> {
        draw::thoughts(self, thoughts, seed)
    }
}

impl Model for Assistant {
    type Form = lare_data::Prepared;
    type Seen = Views;

    const KEEPS_SEEN: bool = false;

    fn prepare(&self, picture: &Picture) -> Result<Prepared<lare_data::Prepared>> {
        let vision = &self.config().vision;
        let form = lare_data::prepare(picture, vision.cell_px, vision.max_cells);
        let places = Places::of_cells(grid(self.config(), picture, &form));
        Ok(Prepared { form, places })
    }

    fn key_of(&self, form: &lare_data::Prepared) -> Key {
        let mut hasher = Sha256::new();
        hasher.update((form.width as u64).to_le_bytes());
        hasher.update((form.height as u64).to_le_bytes());
        hasher.update(&form.rgb);
        hasher.finalize().into()
    }

    fn see(&self, form: &lare_data::Prepared) -> Result<Views> {
        let pixels: Vec<f32> = form.rgb.iter().map(|byte| f32::from(*byte) / 255.0).collect();
        let pixels = Tensor::from_vec(pixels, (1, form.height, form.width, 3), self.device())?;
        Ok(self.reasoner.encode(&pixels)?)
    }

    fn bytes_of(&self, _: &Views) -> usize {
        0 // not kept
    }

    fn ground(&self, _: &[u32], seen: &[Arc<Views>]) -> Result<Ground> {
        let [views] = seen else {
            let (what, expected) = ("pictures of a conversation", "1".to_owned());
            return Err(lare_model::Error::Arguments { what, expected, got: seen.len().to_string() }.into());
        };
        Ok(Ground::Scene(self.reasoner.look(views)?))
    }
}

/// Context positions that a picture of so many cells takes.
pub(crate) fn picture_positions(config: &Config, cells: usize) -> usize {
    match config.language.context {
        Context::Coarse => cells,
        Context::CoarseAndFine => cells * (1 + config.merged_per_patch()),
    }
}

/// The cells as they lie on the original picture. Resizing rounds to whole pixels, so each axis has its own scale.
fn grid(config: &Config, picture: &Picture, prepared: &lare_data::Prepared) -> Grid {
    let cell = |original: usize, inner: usize| (config.vision.cell_px * original) as f32 / inner.max(1) as f32;
    Grid {
        rows: prepared.rows,
        cols: prepared.cols,
        cell_px_x: cell(picture.width, prepared.inner_width),
        cell_px_y: cell(picture.height, prepared.inner_height),
        fine_per_cell: config.entries_per_patch(),
    }
}

/// The question of a conversation: one message about one picture, and its text.
fn question(messages: &[Message], pictures: usize) -> Result<String> {
    let refused = |expected, got| Err(Error::Conversation { expected, got });
    let mut asked = messages.iter().filter(|message| message.role != Role::System);
    let (Some(message), None) = (asked.next(), asked.next()) else {
        let count = messages.iter().filter(|message| message.role != Role::System).count();
        return refused("one question, in one message of the role `user`", format!("{count} messages"));
    };
    if pictures != 1 {
        return refused("one picture", format!("{pictures} pictures"));
    }
    Ok(match &message.content {
        Content::Text(text) => text.clone(),
        Content::Parts(parts) => {
            let texts = parts.iter().filter_map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Picture => None,
            });
            texts.collect::<Vec<_>>().join(" ")
        }
    })
}
