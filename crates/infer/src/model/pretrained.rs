//! Pretrained models, as they were published or with an adapter: any conversation that the folder's template takes.

use super::{Key, LaidOut, Manner, Model, Prepared, Speaking, Spelling};
use crate::generator::Generator;
use crate::options::Steps;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use lare_data::chat::{Message, RenderOptions};
use lare_data::{Picture, Size};
use lare_model::Ground;
use lare_model::decoder::Decoder;
use lare_model::pretrained::{self, Pixels, Text};
use lare_model::refocus::Refocus;
use lare_trace::Word;
use sha2::{Digest, Sha256};
use std::sync::Arc;

impl Speaking for Generator {
    fn name(&self) -> &str {
        &self.name
    }

    fn decoder(&self) -> &Decoder {
        &self.base().language
    }

    fn device(&self) -> &Device {
        self.base().device()
    }

    fn width(&self) -> usize {
        self.base().architecture.language.width
    }

    fn refocus(&self) -> Option<&Refocus> {
        self.refocused().map(|refocused| &refocused.refocus)
    }

    fn taught(&self) -> &'static str {
        "adapter"
    }

    fn settled(&self, steps: Steps) -> Steps {
        match (steps, self.auto_steps) {
            (Steps::Auto { .. }, Some(own)) => Steps::Fixed(own),
            _ => steps,
        }
    }

    /// Of the folder's `generation_config.json`, the end tokens, the repetition penalty and the length hold. Whether tokens
    /// are drawn, and how, is for those who ask: by default the likeliest is taken.
    fn manner(&self) -> Manner {
        let generation = self.chat.generation();
        Manner {
            ends: generation.eos.clone(),
            penalty: generation.repetition_penalty.map(|penalty| penalty as f32),
            answer_tokens: generation.max_new_tokens.map(|tokens| tokens as usize),
            ..Manner::default()
        }
    }

    fn most_pictures(&self) -> usize {
        if self.base().fine().is_some() { usize::MAX } else { 0 }
    }

    fn lay_out(&self, messages: &[Message], pictures: &[Size]) -> Result<LaidOut> {
        let tokens = pictures.iter().map(|size| self.tokens_of(*size)).collect::<Result<Vec<_>>>()?;
        let rendered = self.chat.render(messages, &RenderOptions::default())?;
        let mut first = self.chat.encode(&rendered, &tokens)?.ids;
        let behind_the_last = self.base().image_tokens(&first).last().map_or(0, |place| place + 1);
        let own = first.split_off(behind_the_last);
        if own.is_empty() {
            let (expected, got) = ("a word behind the last picture", "none: the chat template adds none".into());
            return Err(Error::Conversation { expected, got });
        }
        let context = self.base().architecture.language.max_positions;
        Ok(LaidOut { ground_slots: first.len(), first, own, markers: 0, context })
    }

    fn hear(&self, answer: &[u32], spelling: &mut Spelling) {
        if let Some(newest) = answer.last() {
            let more = spelling.decoding.push(self.chat.tokenizer(), *newest);
            spelling.text.push_str(&more);
        }
    }

    fn hear_no_more(&self, spelling: &mut Spelling) {
        let more = spelling.decoding.finish(self.chat.tokenizer());
        spelling.text.push_str(&more);
    }

    /// Of tokens without a text of their own, their name.
    fn word(&self, id: u32) -> String {
        match self.chat.tokenizer().decode(&[id]) {
            text if text.trim().is_empty() => self.chat.tokenizer().token(id).unwrap_or_default(),
            text => text.trim().to_owned(),
        }
    }

    fn named(&self, thoughts: &Tensor) -> Result<Vec<Vec<Word>>> {
        Ok(vec![Vec::new(); thoughts.dims2()?.0])
    }
}

impl Model for Generator {
    type Form = Pixels;
    type Seen = pretrained::Picture;

    const KEEPS_SEEN: bool = true;

    fn prepare(&self, picture: &Picture) -> Result<Prepared<Pixels>> {
        Ok(Prepared { form: self.pixels_of(picture)?, places: self.places(Size::of(picture))? })
    }

    fn key_of(&self, form: &Pixels) -> Key {
        let mut hasher = Sha256::new();
        let grid = form.grid().map_or([0, 0], |grid| [grid.rows, grid.cols]);
        for size in form.values().dims().iter().chain(&grid) {
            hasher.update((*size as u64).to_le_bytes());
        }
        // Values that cannot be read are not encoded either: the tower says what is wrong with them.
        let values = form.values().flatten_all().and_then(|values| values.to_vec1::<f32>()).unwrap_or_default();
        values.iter().for_each(|value| hasher.update(value.to_le_bytes()));
        hasher.finalize().into()
    }

    fn see(&self, form: &Pixels) -> Result<pretrained::Picture> {
        Ok(self.base().encode(form, &())?)
    }

    fn bytes_of(&self, seen: &pretrained::Picture) -> usize {
        seen.bytes()
    }

    fn ground(&self, first: &[u32], seen: &[Arc<pretrained::Picture>]) -> Result<Ground> {
        if first.is_empty() {
            return Ok(Ground::Prefix(self.decoder().no_prefix(self.device())?));
        }
        let pictures: Vec<pretrained::Picture> = seen.iter().map(|picture| (**picture).clone()).collect();
        let text = Text { ids: first, pictures: &pictures };
        Ok(match self.refocused() {
            Some(refocused) => Ground::Scene(refocused.look(&[text])?),
            None => Ground::Prefix(self.base().open(&[text], &())?),
        })
    }
}
