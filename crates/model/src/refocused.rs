//! A pretrained model with latent refocusing: its prompts up to their last picture are the scene; the rest is
//! [`Reasoning`].
//!
//! ```text
//! pixels ─ encode ─► Picture ─┐
//! ids ────────────────────────┴ look ─► Scene
//! ```
//!
//! Cells are the image tokens of all pictures of a prompt, one picture behind the other. What a second look reads is
//! what the vision tower saw before patches were merged into image tokens ([`Memory::Fine`]): with Qwen 4 features a
//! token, with SmolVLM as many as its connector shuffles into one.

use crate::config::{Heads, Memory, Thinking};
use crate::decoder::{Decoder, Prefix};
use crate::pretrained::{Picture, Pretrained, Text};
use crate::reasoning::{Cells, Reasoning, Scene};
use crate::refocus::{Around, Refocus};
use crate::semantic::Semantic;
use crate::weights::Path;
use crate::{Error, Result};
use candle_core::Tensor;

/// A pretrained model and the latent step that was added to it.
#[derive(Clone, Debug)]
pub struct Refocused {
    /// The model as it was published, or adapted.
    pub base: Pretrained,
    /// The latent step.
    pub refocus: Refocus,
    /// What gives thoughts a meaning in training; answers need none of it.
    pub semantic: Option<Semantic>,
}

impl Refocused {
    /// Adds a latent step, asking for its parameters by name.
    ///
    /// # Errors
    /// [`Error::Arguments`] for a language model alone, and for heads that do not divide its width.
    pub fn new(base: Pretrained, settings: &crate::config::Refocus, path: Path) -> Result<Self> {
        let shape = &base.architecture.language;
        let Some((fine_width, per_token)) = base.fine() else {
            let got = base.architecture.family.clone();
            return Err(Error::Arguments { what: "model to refocus", expected: "one that sees pictures".into(), got });
        };
        if settings.heads == 0 || !shape.width.is_multiple_of(settings.heads) {
            let (expected, got) = (format!("a divisor of {}", shape.width), settings.heads.to_string());
            return Err(Error::Arguments { what: "heads of the LQ-Former", expected, got });
        }
        let (memory_width, per_patch) = match (settings.memory, settings.thinking) {
            (Memory::Projected, _) => (shape.width, 1),
            // As the model itself merges them: one token of all features of a place.
            (Memory::Fine, Thinking::Splice) => (fine_width * per_token, 1),
            (Memory::Fine, _) => (fine_width, per_token),
        };
        let maps = shape.layers * shape.heads;
        let around = Around { width: shape.width, maps, norm_eps: shape.norm_eps, memory_width, per_patch };
        let refocus = path.at("refocus", |p| Refocus::new(p, around, settings))?;
        Ok(Self { base, refocus, semantic: None })
    }

    /// The same with what gives thoughts a meaning, asking for its parameters by name.
    ///
    /// # Errors
    /// For parameters that are not there.
    pub fn with_heads(self, heads: &Heads, path: Path) -> Result<Self> {
        let (fine_width, _) = self.base.fine().unwrap_or_default();
        let widths = [self.base.architecture.language.width, fine_width];
        let semantic = path.at("semantic", |p| Semantic::of_features(p, widths, heads))?;
        Ok(Self { semantic: Some(semantic), ..self })
    }

    /// Reads the texts with their pictures, and prepares what steps will read again.
    ///
    /// # Errors
    /// [`Error::Arguments`] for a text without a picture, or whose image tokens are not as many as its pictures have.
    pub fn look(&self, texts: &[Text]) -> Result<Scene> {
        if let Some(row) = texts.iter().position(|text| text.pictures.is_empty()) {
            let (expected, got) = ("at least one picture in each".into(), format!("none in text {row}"));
            return Err(Error::Arguments { what: "texts to look at", expected, got });
        }
        let prefix = self.base.open(texts, &())?;
        let (places, visible) = self.cells(texts)?;
        let hidden = hidden_of_cells(&prefix, &places)?;
        let real: Vec<f32> = visible.iter().map(|real| f32::from(u8::from(*real))).collect();
        let real = Tensor::from_vec(real, places.shape(), places.device())?;
        let of_pictures = |part: &dyn Fn(&Picture) -> Tensor, per_cell: usize| -> Result<Tensor> {
            let p = visible.len() / texts.len();
            let of_text = |text: &Text| -> Result<Tensor> {
                let parts: Vec<Tensor> = text.pictures.iter().map(part).collect();
                let all = Tensor::cat(&parts, 0)?; // [P' * E, Dv]
                Ok(all.pad_with_zeros(0, 0, p * per_cell - all.dim(0)?)?)
            };
            Ok(Tensor::stack(&texts.iter().map(of_text).collect::<Result<Vec<_>>>()?, 0)?)
        };
        let tokens = of_pictures(&|picture| picture.seen.tokens.clone(), 1)?; // [S, P, D]
        let per_token = self.base.fine().map_or(1, |(_, per_token)| per_token);
        let mut fine = of_pictures(&|picture| picture.seen.fine.clone(), per_token)?; // [S, P * E, Dv]
        if self.refocus.settings().thinking == Thinking::Splice {
            let (s, p, _) = tokens.dims3()?;
            fine = fine.reshape((s, p, ()))?;
        }
        let grids = texts.iter().map(|text| text.pictures.iter().flat_map(|p| p.grids.clone()).collect()).collect();
        let look = self.refocus.prepare([&tokens, &hidden, &fine], visible.into(), grids)?;
        Ok(Scene { prefix, look, cells: Cells::Among { places, real } })
    }

    /// Where image tokens stand in the prefix, `[S, P]`, and which cells are real, `[S * P]`.
    fn cells(&self, texts: &[Text]) -> Result<(Tensor, Vec<bool>)> {
        let places: Vec<Vec<usize>> = texts.iter().map(|text| self.base.image_tokens(text.ids)).collect();
        let p = places.iter().map(Vec::len).max().unwrap_or(0);
        let padded = places.iter().flat_map(|own| (0..p).map(|cell| own.get(cell).map_or(0, |place| *place as u32)));
        let padded: Vec<u32> = padded.collect();
        let visible: Vec<bool> = places.iter().flat_map(|own| (0..p).map(|cell| cell < own.len())).collect();
        Ok((Tensor::from_vec(padded, (texts.len(), p), self.base.device())?, visible))
    }
}

/// The last hidden states of image tokens, `[S, P, D]`.
fn hidden_of_cells(prefix: &Prefix, places: &Tensor) -> Result<Tensor> {
    let ((s, p), (_, _, d)) = (places.dims2()?, prefix.hidden.dims3()?);
    let places = places.unsqueeze(2)?.broadcast_as((s, p, d))?.contiguous()?;
    Ok(prefix.hidden.contiguous()?.gather(&places, 1)?)
}

impl Reasoning for Refocused {
    fn language(&self) -> &Decoder {
        &self.base.language
    }

    fn refocus(&self) -> &Refocus {
        &self.refocus
    }
}
