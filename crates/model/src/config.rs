//! The architecture of the nano model: one strict file, no defaults, validated before a tensor is made.

use crate::decoder::Shape;
use crate::refocus::Around;
use crate::rope::Rope;
use crate::semantic::DENOISER_HEADS;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Everything that decides the shapes of the weights and what a forward pass computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name shown in answers, traces and reports.
    pub name: String,
    /// How a picture becomes features.
    pub vision: Vision,
    /// The decoder.
    pub language: Language,
    /// The latent step.
    pub refocus: Refocus,
    /// What gives the latents meaning in training and lets a report draw them.
    pub semantic: Semantic,
}

/// Two encoders that share nothing: the first look reads a shrunk picture, so it cannot leak what only a second
/// look may see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vision {
    /// Side of the square of picture that one coarse image token stands for, in pixels.
    pub cell_px: usize,
    /// Most cells a picture may have; larger pictures are scaled down.
    pub max_cells: usize,
    /// Fine features along one side of a cell.
    pub fine_per_side: usize,
    /// Side, in fine features, of the square that enters the context as one token where fine features do (`context`, `splice`),
    /// as `spatial_merge_size` of Qwen2-VL. The LQ-Former reads them unmerged.
    pub spatial_merge: usize,
    /// How many times the picture is shrunk, along each side, before the first look.
    pub coarse_shrink: usize,
    /// Channels of the fine encoder's three downsampling stages; the last is `Dv`.
    pub fine_channels: [usize; 3],
    /// 3 x 3 residual blocks after the last fine stage.
    pub fine_blocks: usize,
    /// Channels of the coarse encoder's first three stages; the fourth gives `D`.
    pub coarse_channels: [usize; 3],
    /// Frequencies of the two-dimensional position features, per axis.
    pub position_frequencies: usize,
}

/// What the decoder has in its context besides the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// The coarse tokens alone: details can be had only by refocusing.
    Coarse,
    /// The coarse tokens and every fine feature: the natural form of the baselines that never look again.
    CoarseAndFine,
}

/// A pre-norm decoder with rotary positions, grouped-query attention and SwiGLU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Language {
    /// `V`, tokens in the vocabulary.
    pub vocabulary: usize,
    /// `D`.
    pub width: usize,
    /// `L`.
    pub layers: usize,
    /// `H`.
    pub heads: usize,
    /// `G`, a divisor of `H`.
    pub kv_heads: usize,
    /// Inner width of the feed-forward.
    pub feed_forward: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square inside norms.
    pub norm_eps: f64,
    /// Most text and latent positions of one conversation.
    pub max_positions: usize,
    /// What the picture contributes to the context.
    pub context: Context,
    /// Whether steps of a rationale that are not latent are said as text, between the `</think>` that ends the latent ones
    /// and a second one before the answer: with none latent, text chain-of-thought.
    pub says_steps: bool,
}

impl Language {
    /// The decoder that this describes.
    pub fn shape(&self) -> Shape {
        let head_width = self.width / self.heads.max(1);
        Shape {
            vocabulary: self.vocabulary,
            width: self.width,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_width,
            feed_forward: self.feed_forward,
            norm_eps: self.norm_eps,
            max_positions: self.max_positions,
            qkv_bias: false,
            qk_norm: false,
            tied: true,
            rope: Rope::new(self.rope_theta, head_width),
        }
    }
}

/// Where the scores come from that pick the patches of the next look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scorer {
    /// Mean over layers and heads of the attention row from the current position to the picture: to its fine features where
    /// the context has them. A model that does not look has scores too, which the focus loss can hold to a region.
    MeanAttention,
    /// The same with one learned weight per layer and head.
    WeightedAttention,
    /// A dot product between projections of the hidden state and of the coarse tokens' last hidden states.
    DotProduct,
}

/// What the LQ-Former reads at the chosen patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// The tokens that the language model saw.
    Projected,
    /// The vision encoder's features before merging: a second look sees more than the first.
    Fine,
}

/// What a latent step feeds back: the method, or one of the baselines it is compared with, over the same forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thinking {
    /// What the LQ-Former reads at the chosen patches, blended with the hidden state: latent refocusing.
    Refocus,
    /// The hidden state itself, without a look (Coconut, arXiv 2412.06769).
    Hidden,
    /// A learned vector for each step, whatever was asked (pause tokens, arXiv 2310.02226).
    Constant,
    /// The hidden state, after the memory at the chosen patches was appended to the context as tokens (as in interleaved
    /// latent visual-text reasoning); with a window of patches, a crop.
    Splice,
}

impl Thinking {
    /// Whether a step scores and reads patches.
    #[must_use]
    pub fn looks(self) -> bool {
        matches!(self, Self::Refocus | Self::Splice)
    }
}

/// Which patches a step reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Those with the highest scores, wherever they lie.
    Best,
    /// The square of neighbouring patches with the highest sum of scores, as many as fit `patches`.
    Window,
    /// Those of the first step, at every step.
    First,
    /// Such a square at a random place, whatever the scores say: what choosing is worth. Drawn anew at each step.
    Random,
}

/// The latent step; METHOD section 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refocus {
    /// What a step feeds back.
    pub thinking: Thinking,
    /// Which patches it reads.
    pub choice: Choice,
    /// Where the scores come from.
    pub scorer: Scorer,
    /// What is read at the chosen patches.
    pub memory: Memory,
    /// `R`, patches re-read per step.
    pub patches: usize,
    /// Choose patches again only where fewer than `patches` have not been chosen at an earlier step.
    pub exclude_earlier: bool,
    /// Learn from the hidden state how much having looked at a patch counts for or against looking there again.
    pub revisit: bool,
    /// Add the log of the scores to the cross-attention, so that the answer loss ranks the chosen patches.
    pub bias: bool,
    /// Blend the thought with the hidden state through a learned gate; otherwise the thought alone.
    pub gate: bool,
    /// Most latent steps of one answer.
    pub max_steps: usize,
    /// Blocks of the LQ-Former.
    pub blocks: usize,
    /// Heads of the LQ-Former.
    pub heads: usize,
    /// Inner width of its feed-forward.
    pub feed_forward: usize,
}

/// Projections and denoiser; METHOD section 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Semantic {
    /// Width of the space in which thoughts, pictures and texts are compared.
    pub align_width: usize,
    /// Words that each thought is asked to name, at most.
    pub read_slots: usize,
    /// Side of the small picture that is drawn back from a thought, in pixels.
    pub drawing_px: usize,
    /// Side of the square of picture around the focus that the drawing shows, in pixels of the prepared picture.
    pub drawing_span_px: usize,
    /// Side of the denoiser's patches, in pixels of the drawing.
    pub denoiser_patch_px: usize,
    /// Width of the denoiser.
    pub denoiser_width: usize,
    /// Blocks of the denoiser.
    pub denoiser_blocks: usize,
}

/// Low-rank changes to frozen matrices of a pretrained model (LoRA): which matrices, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// `r`.
    pub rank: usize,
    /// What `B A` is multiplied with, times `r`.
    pub alpha: f64,
    /// Patterns of names such as `language.blocks.0.qkv.query`, with `*` for any text.
    pub targets: Vec<String>,
}

/// What gives the thoughts of a pretrained model a meaning: projections, and a denoiser of the features that a thought read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heads {
    /// Width of the space in which thoughts, pictures and texts are compared.
    pub align_width: usize,
    /// Tokens that each thought is asked to name, at most.
    pub read_slots: usize,
    /// Tokens that the features of what a step read are pooled to, for the denoiser to find.
    pub tokens: usize,
    /// Width of the denoiser.
    pub denoiser_width: usize,
    /// Blocks of the denoiser.
    pub denoiser_blocks: usize,
}

/// A field, whether it holds, what would, what stands there.
type Check = (&'static str, bool, &'static str, String);

fn within(count: usize, most: usize) -> bool {
    (1..=most).contains(&count)
}

/// More channels of an encoder, or of the denoiser, are a slip.
const MOST_CHANNELS: usize = 4_096;

/// A model of more parameters than this is a slip in a config: it would fill any machine's memory before it failed.
const MOST_PARAMETERS: u64 = 1 << 37;

impl Refocus {
    /// What does not depend on the model around it.
    fn checks(&self) -> [Check; 4] {
        [
            ("refocus.patches", within(self.patches, 65_536), "1 to 65536", self.patches.to_string()),
            ("refocus.max_steps", within(self.max_steps, 1_024), "1 to 1024", self.max_steps.to_string()),
            ("refocus.blocks", within(self.blocks, 64), "1 to 64", self.blocks.to_string()),
            ("refocus.feed_forward", within(self.feed_forward, 1 << 20), "1 to 1048576", self.feed_forward.to_string()),
        ]
    }

    /// Positions of the context that one step takes at most, of a memory with so many entries a patch.
    #[must_use]
    pub fn positions_per_step(&self, entries_per_patch: usize) -> usize {
        match self.thinking {
            Thinking::Splice => self.patches.saturating_mul(entries_per_patch).saturating_add(1),
            _ => 1,
        }
    }

    /// The first field that makes no sense in any model: its name, what would be accepted, and what stands there.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, &'static str, String)> {
        let (field, _, expected, got) = self.checks().into_iter().find(|(_, holds, ..)| !holds)?;
        Some((field, expected, got))
    }
}

impl Heads {
    /// The first field that makes no sense: its name, what would be accepted, and what stands there.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, &'static str, String)> {
        let w = self.denoiser_width;
        let checks: [Check; 5] = [
            ("semantic.align_width", within(self.align_width, 65_536), "1 to 65536", self.align_width.to_string()),
            ("semantic.read_slots", within(self.read_slots, 64), "1 to 64", self.read_slots.to_string()),
            ("semantic.tokens", within(self.tokens, 1_024), "1 to 1024", self.tokens.to_string()),
            (
                "semantic.denoiser_width",
                within(w, MOST_CHANNELS) && w.is_multiple_of(DENOISER_HEADS),
                "1 to 4096, a multiple of 4 (its heads)",
                w.to_string(),
            ),
            ("semantic.denoiser_blocks", within(self.denoiser_blocks, 64), "1 to 64", self.denoiser_blocks.to_string()),
        ];
        let (field, _, expected, got) = checks.into_iter().find(|(_, holds, ..)| !holds)?;
        Some((field, expected, got))
    }
}

impl Semantic {
    /// How many times smaller than the picture a drawing is.
    pub fn shrink(&self) -> usize {
        self.drawing_span_px / self.drawing_px
    }
}

impl Config {
    /// Reads and checks a config. `file` names it in errors.
    pub fn from_toml(text: &str, file: &str) -> Result<Self> {
        let config: Self =
            toml::from_str(text).map_err(|e| Error::ConfigSyntax { file: file.into(), reason: e.to_string() })?;
        config.validate(file)?;
        Ok(config)
    }

    /// The same config as text that [`Config::from_toml`] reads back.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::ConfigSyntax { file: "config".into(), reason: e.to_string() })
    }

    /// Refuses sizes that cannot work together.
    ///
    /// # Errors
    /// [`Error::Config`] with the field, what would be accepted and what stands there.
    pub fn validate(&self, file: &str) -> Result<()> {
        for (field, holds, expected, got) in self.checks() {
            if !holds {
                return Err(Error::Config {
                    file: file.into(),
                    field: field.into(),
                    expected: expected.into(),
                    got,
                    hint: "change this field, or start from a config in configs/".into(),
                });
            }
        }
        Ok(())
    }

    /// Each field that others depend on, or that is a slip when it is huge.
    fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::from(self.vision_checks());
        checks.extend(self.language_checks());
        checks.extend(self.refocus_checks());
        checks.extend(self.semantic_checks());
        checks
    }

    fn vision_checks(&self) -> [Check; 8] {
        let v = &self.vision;
        let channels = |channels: &[usize]| channels.iter().all(|c| within(*c, MOST_CHANNELS));
        let stride = v.cell_px.checked_div(v.fine_per_side).unwrap_or(0);
        let merges = v.spatial_merge > 0 && v.fine_per_side.is_multiple_of(v.spatial_merge);
        let shrunk = v.coarse_shrink > 0 && v.cell_px == 16 * v.coarse_shrink;
        let (fine, coarse) = ("cell_px / 16 (the fine encoder's stride)", "cell_px / 16 (the coarse encoder's stride)");
        [
            ("vision.fine_per_side", stride == 16, fine, v.fine_per_side.to_string()),
            ("vision.spatial_merge", merges, "a divisor of fine_per_side", v.spatial_merge.to_string()),
            ("vision.coarse_shrink", shrunk, coarse, v.coarse_shrink.to_string()),
            ("vision.fine_channels", channels(&v.fine_channels), "1 to 4096 each", format!("{:?}", v.fine_channels)),
            (
                "vision.coarse_channels",
                channels(&v.coarse_channels),
                "1 to 4096 each",
                format!("{:?}", v.coarse_channels),
            ),
            ("vision.fine_blocks", v.fine_blocks <= 64, "at most 64", v.fine_blocks.to_string()),
            ("vision.max_cells", within(v.max_cells, 65_536), "1 to 65536", v.max_cells.to_string()),
            (
                "vision.position_frequencies",
                within(v.position_frequencies, 64),
                "1 to 64",
                v.position_frequencies.to_string(),
            ),
        ]
    }

    fn language_checks(&self) -> [Check; 10] {
        let l = &self.language;
        let head_even = l.heads > 0 && l.width.is_multiple_of(l.heads) && (l.width / l.heads).is_multiple_of(2);
        let shared = l.kv_heads > 0 && l.heads.is_multiple_of(l.kv_heads);
        let steps = self.refocus.max_steps.saturating_mul(self.positions_per_step());
        let room = l.max_positions > steps.saturating_add(16) && l.max_positions <= 1 << 24;
        let least = self.least_parameters();
        [
            ("language.width", within(l.width, 65_536), "1 to 65536", l.width.to_string()),
            ("language.heads", head_even, "a divisor of width that leaves an even head width", l.heads.to_string()),
            ("language.kv_heads", shared, "a divisor of heads", l.kv_heads.to_string()),
            ("language.layers", within(l.layers, 1_024), "1 to 1024", l.layers.to_string()),
            ("language.layers", least < MOST_PARAMETERS, "fewer than 2^37 parameters", format!("about {least}")),
            ("language.feed_forward", within(l.feed_forward, 1 << 20), "1 to 1048576", l.feed_forward.to_string()),
            (
                "language.rope_theta",
                l.rope_theta.is_finite() && l.rope_theta > 0.0,
                "a finite number above 0",
                l.rope_theta.to_string(),
            ),
            ("language.norm_eps", l.norm_eps > 0.0 && l.norm_eps < 1.0, "above 0, below 1", l.norm_eps.to_string()),
            (
                "language.max_positions",
                room,
                "more than 16 beside refocus.max_steps steps, each 1 position and what is spliced in; at most 2^24",
                l.max_positions.to_string(),
            ),
            ("language.vocabulary", (8..=1 << 24).contains(&l.vocabulary), "8 to 2^24", l.vocabulary.to_string()),
        ]
    }

    fn refocus_checks(&self) -> Vec<Check> {
        let r = &self.refocus;
        let heads = r.heads > 0 && self.language.width.is_multiple_of(r.heads);
        let patches = within(r.patches, self.vision.max_cells);
        let mut checks = vec![
            ("refocus.heads", heads, "a divisor of language.width", r.heads.to_string()),
            ("refocus.patches", patches, "1 to vision.max_cells", r.patches.to_string()),
        ];
        checks.extend(r.checks());
        checks
    }

    fn semantic_checks(&self) -> [Check; 7] {
        let s = &self.semantic;
        let denoiser = within(s.denoiser_width, MOST_CHANNELS) && s.denoiser_width.is_multiple_of(DENOISER_HEADS);
        let whole_patches = s.denoiser_patch_px > 0 && s.drawing_px.is_multiple_of(s.denoiser_patch_px);
        let whole_shrink =
            s.drawing_px > 0 && s.drawing_span_px >= s.drawing_px && s.drawing_span_px.is_multiple_of(s.drawing_px);
        [
            ("semantic.align_width", within(s.align_width, 65_536), "1 to 65536", s.align_width.to_string()),
            ("semantic.read_slots", within(s.read_slots, 64), "1 to 64", s.read_slots.to_string()),
            ("semantic.drawing_px", within(s.drawing_px, 1_024), "1 to 1024", s.drawing_px.to_string()),
            (
                "semantic.denoiser_width",
                denoiser,
                "1 to 4096, a multiple of 4 (its heads)",
                s.denoiser_width.to_string(),
            ),
            ("semantic.denoiser_blocks", within(s.denoiser_blocks, 64), "1 to 64", s.denoiser_blocks.to_string()),
            ("semantic.denoiser_patch_px", whole_patches, "a divisor of drawing_px", s.denoiser_patch_px.to_string()),
            ("semantic.drawing_span_px", whole_shrink, "a multiple of drawing_px", s.drawing_span_px.to_string()),
        ]
    }

    /// Fewer parameters than the decoder's layers have.
    fn least_parameters(&self) -> u64 {
        let l = &self.language;
        let (width, inner) = (l.width as u64, l.feed_forward as u64);
        width
            .saturating_mul(width.saturating_mul(2).saturating_add(inner.saturating_mul(3)))
            .saturating_mul(l.layers as u64)
    }

    /// `Dv`, width of one fine feature.
    pub fn fine_width(&self) -> usize {
        let [_, _, last] = self.vision.fine_channels;
        last
    }

    /// `Dh`, width of one attention head of the decoder.
    pub fn head_width(&self) -> usize {
        self.language.width / self.language.heads
    }

    /// Memory entries at one patch: what the LQ-Former reads there, or the tokens that a step splices in.
    pub fn entries_per_patch(&self) -> usize {
        match (self.refocus.memory, self.refocus.thinking) {
            (Memory::Projected, _) => 1,
            (Memory::Fine, Thinking::Splice) => self.merged_per_patch(),
            (Memory::Fine, _) => self.vision.fine_per_side.saturating_mul(self.vision.fine_per_side),
        }
    }

    /// What refocusing must know of this model.
    pub fn around(&self) -> Around {
        let l = &self.language;
        let memory_width = match (self.refocus.memory, self.refocus.thinking) {
            (Memory::Projected, _) => l.width,
            (Memory::Fine, Thinking::Splice) => self.merged_width(),
            (Memory::Fine, _) => self.fine_width(),
        };
        let maps = l.layers * l.heads;
        Around { width: l.width, maps, norm_eps: l.norm_eps, memory_width, per_patch: self.entries_per_patch() }
    }

    /// Tokens that the fine features of one patch are in the context.
    pub fn merged_per_patch(&self) -> usize {
        let side = self.vision.fine_per_side.checked_div(self.vision.spatial_merge).unwrap_or(0);
        side.saturating_mul(side)
    }

    /// Width of that many fine features side by side, before they are projected.
    pub fn merged_width(&self) -> usize {
        self.fine_width().saturating_mul(self.vision.spatial_merge).saturating_mul(self.vision.spatial_merge)
    }

    /// Positions of the context that one latent step takes at most.
    pub fn positions_per_step(&self) -> usize {
        self.refocus.positions_per_step(self.entries_per_patch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Config {
        Config::from_toml(include_str!("../tests/tiny.toml"), "tiny.toml").unwrap()
    }

    #[test]
    fn a_config_survives_being_written_and_read() {
        let config = tiny();
        assert_eq!(Config::from_toml(&config.to_toml().unwrap(), "again").unwrap(), config);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let text = tiny().to_toml().unwrap().replace("cell_px", "cell_pixels");
        let message = Config::from_toml(&text, "x.toml").unwrap_err().to_string();
        assert!(message.contains("cell_pixels"), "{message}");
    }

    #[test]
    fn sizes_that_cannot_be_built_are_refused_by_name() {
        type Change = fn(&mut Config);
        let cases: [(&str, Change); 9] = [
            ("language.max_positions", |c| c.refocus.thinking = Thinking::Splice),
            ("vision.fine_channels", |c| c.vision.fine_channels[1] = 0),
            ("vision.coarse_channels", |c| c.vision.coarse_channels[2] = 99_999_999_999),
            ("language.rope_theta", |c| c.language.rope_theta = f64::NAN),
            ("refocus.feed_forward", |c| c.refocus.feed_forward = 0),
            ("semantic.align_width", |c| c.semantic.align_width = 0),
            ("semantic.read_slots", |c| c.semantic.read_slots = 0),
            ("semantic.denoiser_width", |c| c.semantic.denoiser_width = 25),
            ("semantic.denoiser_blocks", |c| c.semantic.denoiser_blocks = 100),
        ];
        for (field, change) in cases {
            let mut config = tiny();
            change(&mut config);
            let message = config.validate("x.toml").unwrap_err().to_string();
            assert!(message.contains(field), "{field}: {message}");
        }
    }

    #[test]
    fn heads_that_do_not_divide_the_width_are_refused() {
        let mut config = tiny();
        config.language.heads = 5;
        let message = config.validate("x.toml").unwrap_err().to_string();
        assert!(message.contains("language.heads") && message.contains("got       5"), "{message}");
    }
}
