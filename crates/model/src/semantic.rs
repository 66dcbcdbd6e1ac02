//! What gives thoughts a meaning: projections into a space shared with pictures and texts, the words each thought
//! names, and a denoiser that draws what a thought holds. Used by the losses in training and by reports.
//!
//! Alignment and reconstruction objectives: the paper's (semantic augmentation); their inside: [ours].

use crate::Result;
use crate::config::{Config, Heads};
use crate::mask;
use crate::nn::{FeedForward, Linear, Weight, residual_std};
use crate::weights::{Init, Path};
use candle_core::{D, Tensor};
use lare_kernels as kernels;

/// The contrastive loss gets no sharper than this, as in CLIP.
const LEAST_TEMPERATURE: f64 = 0.01;

/// Where the middle of the pixels' range 0..1 lies in drawings, and their scale: about unit variance.
const PIXEL_MIDDLE: f32 = 0.7;
/// See [`PIXEL_MIDDLE`].
const PIXEL_GAIN: f32 = 4.0;

/// A pixel of 0..1 as drawings hold it.
pub fn to_drawing(pixel: f32) -> f32 {
    (pixel - PIXEL_MIDDLE) * PIXEL_GAIN
}

/// What a drawing holds, as a pixel; may lie outside 0..1.
pub fn from_drawing(value: f32) -> f32 {
    value / PIXEL_GAIN + PIXEL_MIDDLE
}

/// Alignment, naming and drawing.
#[derive(Clone, Debug)]
pub struct Semantic {
    thought: Linear,
    picture: Linear,
    text: Linear,
    log_temperature: Tensor, // [1]
    read: Linear,
    /// Finds what a thought holds.
    pub denoiser: Denoiser,
    read_slots: usize,
}

/// Sizes of what compares thoughts with pictures and texts.
struct Sizes {
    thought: usize, // D
    picture: usize, // Dv
    align: usize,   // A
    read_slots: usize,
    denoiser: (Clean, usize, usize), // what it denoises, its width and its blocks
}

impl Semantic {
    /// Builds it at `path`: thoughts are drawn as small pictures.
    pub fn new(path: Path, config: &Config) -> Result<Self> {
        let s = &config.semantic;
        let drawing = Clean::Drawing { side: s.drawing_px, patch_px: s.denoiser_patch_px };
        let sizes = Sizes {
            thought: config.language.width,
            picture: config.fine_width(),
            align: s.align_width,
            read_slots: s.read_slots,
            denoiser: (drawing, s.denoiser_width, s.denoiser_blocks),
        };
        Self::of_sizes(path, sizes)
    }

    /// Builds it at `path` for a pretrained model of width `D` whose vision tower's features have width `Dv`: of a thought the
    /// features that it read are found.
    pub fn of_features(path: Path, [thought, picture]: [usize; 2], heads: &Heads) -> Result<Self> {
        let features = Clean::Features { tokens: heads.tokens, width: picture };
        let sizes = Sizes {
            thought,
            picture,
            align: heads.align_width,
            read_slots: heads.read_slots,
            denoiser: (features, heads.denoiser_width, heads.denoiser_blocks),
        };
        Self::of_sizes(path, sizes)
    }

    fn of_sizes(path: Path, s: Sizes) -> Result<Self> {
        let d = s.thought;
        let project = |name, inputs| path.at(name, |p| Linear::new(p, inputs, s.align));
        let (clean, width, blocks) = s.denoiser;
        Ok(Self {
            thought: project("thought", d)?,
            picture: project("picture", s.picture)?,
            text: project("text", d)?,
            log_temperature: path.get("log_temperature", &[1], Init::Constant(0.07f64.ln()))?,
            // A thought begins as the embedding of the first word it names: the decoder can say it as it says any word.
            read: path.at("read", |p| Linear::beginning_with_identity(p, d, s.read_slots * d))?,
            denoiser: path.at("denoiser", |p| Denoiser::new(p, d, clean, [width, blocks]))?,
            read_slots: s.read_slots,
        })
    }

    /// Pooled thoughts `[B, D]` as unit vectors `[B, A]`.
    pub fn thought_point(&self, pooled: &Tensor) -> Result<Tensor> {
        unit(&self.thought.forward(pooled)?)
    }

    /// Pooled fine features `[B, Dv]` as unit vectors `[B, A]`.
    pub fn picture_point(&self, pooled: &Tensor) -> Result<Tensor> {
        unit(&self.picture.forward(pooled)?)
    }

    /// Pooled token embeddings `[B, D]` as unit vectors `[B, A]`.
    pub fn text_point(&self, pooled: &Tensor) -> Result<Tensor> {
        unit(&self.text.forward(pooled)?)
    }

    /// The learned temperature of the contrastive loss, `[1]`.
    pub fn temperature(&self) -> Result<Tensor> {
        Ok(self.log_temperature.maximum(LEAST_TEMPERATURE.ln())?.exp()?)
    }

    /// Words that each thought names.
    pub fn read_slots(&self) -> usize {
        self.read_slots
    }

    /// The words that thoughts `[B, D]` name: logits `[B, slots, V]` over the vocabulary of `embedding` `[V, D]`.
    pub fn words(&self, thoughts: &Tensor, embedding: &Weight) -> Result<Tensor> {
        let (b, d) = thoughts.dims2()?;
        let named = self.read.forward(thoughts)?.reshape((b, self.read_slots, d))?;
        embedding.product(&named, None)
    }
}

fn unit(x: &Tensor) -> Result<Tensor> {
    let norm = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    Ok(x.broadcast_div(&norm)?)
}

/// What a denoiser finds under the noise, about unit variance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clean {
    /// A small square picture, in patches: rows of pixels, `side * side * 3`.
    Drawing {
        /// Its side in pixels.
        side: usize,
        /// Of a patch.
        patch_px: usize,
    },
    /// Features of a vision tower, one after the other: `tokens * width`.
    Features {
        /// How many.
        tokens: usize,
        /// `Dv`.
        width: usize,
    },
}

impl Clean {
    /// Tokens, and numbers of each.
    fn shape(self) -> (usize, usize) {
        match self {
            Self::Drawing { side, patch_px } => ((side / patch_px).pow(2), patch_px * patch_px * 3),
            Self::Features { tokens, width } => (tokens, width),
        }
    }

    /// `[N, numbers]` to `[N, tokens, numbers of a token]`.
    fn to_tokens(self, x: &Tensor) -> Result<Tensor> {
        let (b, _) = x.dims2()?;
        let (tokens, numbers) = self.shape();
        Ok(match self {
            Self::Drawing { side, patch_px: p } => {
                let n = side / p;
                x.reshape(&[b, n, p, n, p * 3][..])?.transpose(2, 3)?.contiguous()?.reshape((b, tokens, numbers))?
            }
            Self::Features { .. } => x.reshape((b, tokens, numbers))?,
        })
    }

    /// The reverse.
    fn of_tokens(self, x: &Tensor) -> Result<Tensor> {
        let (b, tokens, numbers) = x.dims3()?;
        Ok(match self {
            Self::Drawing { side, patch_px: p } => {
                let n = side / p;
                let rows = x.reshape(&[b, n, n, p, p * 3][..])?.transpose(2, 3)?.contiguous()?;
                rows.reshape((b, tokens * numbers))?
            }
            Self::Features { .. } => x.reshape((b, tokens * numbers))?,
        })
    }
}

/// A small transformer over the tokens of what a thought holds, which predicts the noise in them (epsilon prediction, cosine
/// schedule), conditioned on a thought through adaptive norm (adaLN).
#[derive(Clone, Debug)]
pub struct Denoiser {
    patch: Linear,
    place: Tensor, // [n, W]
    condition: Linear,
    time: Linear,
    blocks: Vec<DenoiserBlock>,
    output: Linear,
    clean: Clean,
}

#[derive(Clone, Debug)]
struct DenoiserBlock {
    modulation: Linear,
    qkv: Linear,
    output: Linear,
    feed_forward: FeedForward,
}

/// Heads of the denoiser's attention: it looks at no more than a few patches.
pub(crate) const DENOISER_HEADS: usize = 4;
/// Frequencies of the time features.
const TIME_FREQUENCIES: usize = 16;

impl DenoiserBlock {
    fn new(path: Path, width: usize, depth: usize) -> Result<Self> {
        Ok(Self {
            // Starts at zero: each block is the identity at first, as in DiT.
            modulation: path.at("modulation", |p| Linear::with_std(p, width, 6 * width, 0.0)?.biased(p, 0.0))?,
            qkv: path.at("qkv", |p| Linear::new(p, width, 3 * width))?,
            output: path.at("output", |p| Linear::new(p, width, width))?,
            feed_forward: path
                .at("feed_forward", |p| FeedForward::new(p, width, 2 * width, residual_std(2 * width, depth)))?,
        })
    }

    /// `x`: `[N, n, W]`; `condition`: `[N, W]`.
    fn forward(&self, x: &Tensor, condition: &Tensor) -> Result<Tensor> {
        let (b, n, w) = x.dims3()?;
        let parts = self.modulation.forward(condition)?.reshape((b, 1, 6 * w))?.chunk(6, 2)?;
        let [shift_a, scale_a, gate_a, shift_f, scale_f, gate_f] = &parts[..] else {
            return Err(crate::Error::Arguments {
                what: "modulation",
                expected: "6 parts".into(),
                got: parts.len().to_string(),
            });
        };
        let ones = Tensor::ones(w, x.dtype(), x.device())?;
        let modulate = |x: &Tensor, shift: &Tensor, scale: &Tensor| -> Result<Tensor> {
            let x = kernels::rms_norm(x, &ones, 1e-6)?;
            Ok(x.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(shift)?)
        };
        let qkv = self.qkv.forward(&modulate(x, shift_a, scale_a)?)?;
        let head = w / DENOISER_HEADS;
        let q = qkv.narrow(2, 0, w)?.contiguous()?.reshape((b, n, DENOISER_HEADS, head))?;
        let own = qkv.narrow(2, w, 2 * w)?.contiguous()?.reshape((b, n, 2, DENOISER_HEADS, head))?;
        let sight = mask::everyone(b, vec![true; b * n].into());
        let seen = self.output.forward(&kernels::attention(&q, &own, None, &sight)?)?;
        let x = (x + seen.broadcast_mul(gate_a)?)?;
        let fed = self.feed_forward.forward(&modulate(&x, shift_f, scale_f)?)?;
        Ok((&x + fed.broadcast_mul(gate_f)?)?)
    }
}

impl Denoiser {
    fn new(path: Path, thought_width: usize, clean: Clean, [w, depth]: [usize; 2]) -> Result<Self> {
        let (tokens, numbers) = clean.shape();
        Ok(Self {
            patch: path.at("patch", |p| Linear::new(p, numbers, w))?,
            place: path.get("place", &[tokens, w], Init::Normal(0.5))?,
            condition: path.at("condition", |p| Linear::new(p, thought_width, w))?,
            time: path.at("time", |p| Linear::new(p, 2 * TIME_FREQUENCIES, w))?,
            blocks: (0..depth)
                .map(|i| path.at("blocks", |p| p.at(i, |p| DenoiserBlock::new(p, w, 2 * depth))))
                .collect::<Result<_>>()?,
            output: path.at("output", |p| Linear::with_std(p, w, numbers, 0.0))?,
            clean,
        })
    }

    /// What it finds.
    pub fn clean(&self) -> Clean {
        self.clean
    }

    /// Numbers of what it finds for one thought.
    pub fn values(&self) -> usize {
        let (tokens, numbers) = self.clean.shape();
        tokens * numbers
    }

    /// Side of a drawing in pixels; 0 where features are found.
    pub fn side(&self) -> usize {
        match self.clean {
            Clean::Drawing { side, .. } => side,
            Clean::Features { .. } => 0,
        }
    }

    /// Predicts the noise.
    ///
    /// - `noisy`: `[N, values]`, as [`Clean`] lays them out
    /// - `time`: `[N]` values in 0..1, 1 is all noise
    /// - `thoughts`: `[N, D]`
    ///
    /// Returns `[N, values]`.
    pub fn noise(&self, noisy: &Tensor, time: &[f32], thoughts: &Tensor) -> Result<Tensor> {
        let (b, _) = noisy.dims2()?;
        let patches = self.clean.to_tokens(noisy)?;
        let features =
            time.iter().flat_map(|t| (0..TIME_FREQUENCIES).map(move |f| f64::from(*t) * 1.5f64.powi(f as i32)));
        let (sin, cos): (Vec<f32>, Vec<f32>) = features.map(|a| (a.sin() as f32, a.cos() as f32)).unzip();
        let shape = (b, TIME_FREQUENCIES);
        let time = Tensor::cat(
            &[Tensor::from_vec(sin, shape, noisy.device())?, Tensor::from_vec(cos, shape, noisy.device())?],
            1,
        )?;
        let condition = (self.condition.forward(thoughts)? + self.time.forward(&time)?)?;
        let condition = condition.silu()?;
        let mut x = self.patch.forward(&patches)?.broadcast_add(&self.place)?;
        for block in &self.blocks {
            x = block.forward(&x, &condition)?;
        }
        let ones = Tensor::ones(x.dim(2)?, x.dtype(), x.device())?;
        self.clean.of_tokens(&self.output.forward(&kernels::rms_norm(&x, &ones, 1e-6)?)?)
    }
}

/// Cosine schedule: the share of the clean picture and of the noise, as amplitudes, at time 0..1.
pub fn amplitudes(time: f32) -> (f32, f32) {
    let angle = time.clamp(0.0, 1.0) * std::f32::consts::FRAC_PI_2;
    // Never quite all noise: epsilon prediction divides by the first.
    (angle.cos().max(0.02), angle.sin())
}
