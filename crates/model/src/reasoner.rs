//! The nano backbone with latent refocusing: encode and first look; the rest is [`Reasoning`].
//!
//! ```text
//! pixels ─ encode ─► Views ─ look ─► Scene
//! ```

use crate::Result;
use crate::backbone::nano::Nano;
pub use crate::backbone::nano::Views;
use crate::config::{Config, Context, Thinking};
use crate::decoder::Decoder;
use crate::reasoning::{Cells, Reasoning, Scene};
use crate::refocus::Refocus;
use crate::semantic::Semantic;
use crate::weights::Path;
use candle_core::Tensor;

/// The whole model.
#[derive(Clone, Debug)]
pub struct Reasoner {
    /// Encoders and decoder.
    pub backbone: Nano,
    /// The latent step.
    pub refocus: Refocus,
    /// Alignment and drawing.
    pub semantic: Semantic,
    config: Config,
}

impl Reasoner {
    /// Builds the model, asking for each parameter by name.
    pub fn new(config: &Config, path: Path) -> Result<Self> {
        Ok(Self {
            backbone: Nano::new(path, config)?,
            refocus: path.at("refocus", |p| Refocus::new(p, config.around(), &config.refocus))?,
            semantic: path.at("semantic", |p| Semantic::new(p, config))?,
            config: config.clone(),
        })
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Encodes pictures of one shape, `[S, height, width, 3]` in 0..1.
    pub fn encode(&self, pixels: &Tensor) -> Result<Views> {
        self.backbone.encode(pixels)
    }

    /// The first look: the decoder reads the coarse tokens, and refocusing prepares its memory.
    pub fn look(&self, views: &Views) -> Result<Scene> {
        let coarse = self.backbone.coarse_tokens(views)?;
        let fine = self.backbone.fine_features(views)?;
        let prefix = self.backbone.first_look(views, &coarse, &fine)?;
        let (_, p, _) = coarse.dims3()?;
        let hidden = prefix.hidden.narrow(1, 0, p)?.contiguous()?;
        let memory = match self.config.refocus.thinking {
            Thinking::Splice => self.backbone.merged(&fine)?,
            _ => fine,
        };
        let grids = views.grids.iter().map(|grid| vec![*grid]).collect();
        let look = self.refocus.prepare([&coarse, &hidden, &memory], views.visible()?, grids)?;
        let cells = match self.config.language.context {
            Context::Coarse => Cells::All,
            Context::CoarseAndFine => Cells::Details,
        };
        Ok(Scene { prefix, look, cells })
    }
}

impl Reasoning for Reasoner {
    fn language(&self) -> &Decoder {
        &self.backbone.language
    }

    fn refocus(&self) -> &Refocus {
        &self.refocus
    }
}
