//! What a vision tower saw in pictures, kept while there is room: it is frozen, so it sees the same again.

use crate::Result;
use candle_core::{Device, Tensor};
use lare_data::chat::PictureTokens;
use lare_data::{Layout, Picture, Processor, Region, Size};
use lare_model::pretrained::{self, PatchGrid, Pixels, Pretrained};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A picture, encoded.
#[derive(Debug)]
pub struct Sight {
    /// What the tower saw.
    pub picture: pretrained::Picture,
    /// Its size, upright.
    pub size: Size,
    /// What it takes of a prompt.
    pub tokens: PictureTokens,
    /// What each image token shows, in pixels of the picture.
    pub cells: Vec<Region>,
}

impl Sight {
    fn bytes(&self) -> usize {
        let seen = &self.picture.seen;
        let all = [&seen.tokens, &seen.fine].into_iter().chain(&seen.added);
        all.map(|tensor| tensor.elem_count() * size_of::<f32>()).sum()
    }
}

/// Sizes of a model that say how many image tokens a picture takes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    token_px: usize,
    per_token: usize,
    per_tile: usize,
}

impl Shape {
    /// Of a model that sees; of another all are 0.
    pub fn of(model: &Pretrained) -> Self {
        Self {
            token_px: model.token_px().unwrap_or(0),
            per_token: model.fine().map_or(1, |(_, per_token)| per_token),
            per_tile: model.tile().map_or(0, |(tokens, _)| tokens),
        }
    }

    fn tokens(self, layout: Layout) -> PictureTokens {
        match layout {
            Layout::Grid { rows, cols } => PictureTokens::Run(rows * cols / self.per_token),
            Layout::Tiles { rows, cols } => PictureTokens::Tiles { rows, cols, tokens_per_tile: self.per_tile },
        }
    }
}

/// Sights by name, the ones not used for longest given up first.
pub struct Sights {
    /// Turns pictures into pixels.
    pub processor: Processor,
    shape: Shape,
    most_bytes: usize,
    held: usize,
    turn: u64,
    known: BTreeMap<String, (Arc<Sight>, u64)>,
}

impl Sights {
    /// Keeps at most so many bytes.
    pub fn new(processor: Processor, shape: Shape, most_bytes: usize) -> Self {
        Self { processor, shape, most_bytes, held: 0, turn: 0, known: BTreeMap::new() }
    }

    /// What a picture of this size takes of a prompt.
    ///
    /// # Errors
    /// For sizes that the processor refuses, and a processor that is not this model's.
    pub fn tokens(&self, size: Size) -> Result<PictureTokens> {
        self.processor.views(size, self.shape.token_px)?;
        Ok(self.shape.tokens(self.processor.layout(size)?))
    }

    /// The sight of this name, which is one picture's; `open` gives the picture where it is not known.
    ///
    /// # Errors
    /// As `open`, and for a picture that the processor refuses.
    pub fn of(
        &mut self,
        model: &Pretrained,
        name: &str,
        open: &mut dyn FnMut() -> Result<Picture>,
    ) -> Result<Arc<Sight>> {
        self.turn += 1;
        if let Some((sight, used)) = self.known.get_mut(name) {
            *used = self.turn;
            return Ok(sight.clone());
        }
        let sight = Arc::new(self.encode(model, &open()?)?);
        self.held += sight.bytes();
        self.known.insert(name.to_owned(), (sight.clone(), self.turn));
        while self.held > self.most_bytes && self.known.len() > 1 {
            let oldest = self.known.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| name.clone());
            if let Some((given_up, _)) = oldest.and_then(|name| self.known.remove(&name)) {
                self.held -= given_up.bytes();
            }
        }
        Ok(sight)
    }

    fn encode(&self, model: &Pretrained, picture: &Picture) -> Result<Sight> {
        let processed = self.processor.process(picture)?;
        let views = self.processor.views(processed.picture, self.shape.token_px)?;
        let values = Tensor::from_vec(processed.pixel_values, &processed.shape[..], &Device::Cpu)?;
        let pixels = match processed.layout {
            Layout::Grid { rows, cols } => Pixels::Patches { values, grid: PatchGrid { rows, cols } },
            Layout::Tiles { .. } => Pixels::Tiles { values },
        };
        Ok(Sight {
            picture: model.encode(&pixels, &())?,
            size: processed.picture,
            tokens: self.shape.tokens(processed.layout),
            cells: views.iter().flat_map(lare_data::View::tokens).collect(),
        })
    }
}
