//! Pretrained vision-language models from Hugging Face folders: Qwen2.5-VL, Qwen3-VL, SmolVLM and Idefics3, and the
//! language models Qwen2, Qwen3 and Llama alone, from GGUF files too: wherever a folder is taken, a file is.
//!
//! ```text
//! pixels ─ encode ─► Seen ─┐
//! ids ─────────────────────┴ open ─► Prefix ─ (ids, latents) ─► the decoder that all models here share
//! ```
//!
//! What the families compute was read in transformers 5.23 and is written down in docs/families.md; tests compare every
//! hidden state with tiny checkpoints that transformers made.

pub mod checkpoint;
pub mod fields;
pub mod gguf;
mod names;
pub mod needs;
pub mod parts;
mod qwen2_5_vl;
mod qwen3_vl;
mod smolvlm;
mod text;
mod vision;

use crate::cache::Cache;
use crate::decoder::{Decoder, Opening, Prefix, Shape};
use crate::lora::{Changed, Lora};
use crate::refocus::Grid;
use crate::rope::Place;
use crate::tap::Tap;
use crate::weights::{Moved, Path as Module, Source};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use checkpoint::{Checkpoint, Names};
use fields::Fields;
use gguf::{Gguf, is_gguf};
use lare_kernels::Format;
use names::Layout;
use std::collections::BTreeMap;
use std::path::Path;
use text::Kind;

/// The architecture's file in a folder.
pub const CONFIG: &str = "config.json";

/// A picture as its family's processor gives it.
#[derive(Clone, Debug)]
pub enum Pixels {
    /// Qwen: patches in squares that become one token each.
    Patches {
        /// `[rows * cols, channels * frames * px * px]`.
        values: Tensor,
        /// How they lie.
        grid: PatchGrid,
    },
    /// SmolVLM: tiles row by row, then the whole picture.
    Tiles {
        /// `[n, 3, S, S]`.
        values: Tensor,
    },
}

impl Pixels {
    /// `pixel_values` of the reference.
    pub fn values(&self) -> &Tensor {
        match self {
            Self::Patches { values, .. } | Self::Tiles { values } => values,
        }
    }

    /// How patches lie; tiles need not say.
    pub fn grid(&self) -> Option<PatchGrid> {
        match self {
            Self::Patches { grid, .. } => Some(*grid),
            Self::Tiles { .. } => None,
        }
    }
}

/// Patches of a picture, before any are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchGrid {
    /// From top to bottom.
    pub rows: usize,
    /// From left to right.
    pub cols: usize,
}

/// What a tower saw in one picture of `N` image tokens.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `[N, D]`, in the place of the image tokens.
    pub tokens: Tensor,
    /// `[N * E, Dv]`, the features before they were merged, the `E` of a token together: what a second look reads.
    pub fine: Tensor,
    /// Added to the image tokens behind the decoder's first layers, each `[N, D]` (DeepStack).
    pub added: Vec<Tensor>,
}

/// One picture, encoded, and how its tokens lie.
#[derive(Clone, Debug)]
pub struct Picture {
    /// What the tower saw.
    pub seen: Seen,
    /// Its image tokens, grid behind grid: one, or one a tile.
    pub grids: Vec<Grid>,
    /// Whether M-RoPE places them in rows and columns; positions just count otherwise.
    in_rows: bool,
}

impl Picture {
    /// Bytes of its tensors.
    pub fn bytes(&self) -> usize {
        let of = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        of(&self.seen.tokens) + of(&self.seen.fine) + self.seen.added.iter().map(of).sum::<usize>()
    }
}

/// A prompt, or the part of it that several rows share.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Token ids, a placeholder for each image token.
    pub ids: &'a [u32],
    /// Its pictures, in order.
    pub pictures: &'a [Picture],
}

#[derive(Clone, Debug)]
enum Tower {
    Qwen2_5Vl(qwen2_5_vl::Tower),
    Qwen3Vl(qwen3_vl::Tower),
    SmolVlm(smolvlm::Tower),
}

/// What `config.json` says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// `model_type`.
    pub family: String,
    /// The decoder.
    pub language: Shape,
    /// The placeholder of an image token; `None` for a language model alone.
    pub image_token: Option<u32>,
    layout: Layout,
    tower: Option<TowerShape>,
}

#[derive(Clone, Debug, PartialEq)]
enum TowerShape {
    Qwen2_5Vl(qwen2_5_vl::Shape),
    Qwen3Vl(qwen3_vl::Shape),
    SmolVlm(smolvlm::Shape),
}

const FAMILIES: &str = "qwen2_5_vl, qwen3_vl, smolvlm, idefics3, qwen2, qwen3 or llama";

impl Architecture {
    /// Reads `config.json`; `file` names it in errors.
    ///
    /// # Errors
    /// [`Error::ConfigSyntax`] or [`Error::Config`] with the field.
    pub fn from_json(text: &str, file: &str) -> Result<Self> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|e| Error::ConfigSyntax { file: file.into(), reason: e.to_string() })?;
        let whole = Fields::new(&value, file);
        let family = whole.text("model_type")?;
        let language = whole.within("text_config", "text_config.");
        let vision = whole.within("vision_config", "vision_config.");
        let is_image = matches!(family, "qwen2_5_vl" | "qwen3_vl" | "smolvlm" | "idefics3");
        if is_image && whole.find("vision_config").is_none() {
            return Err(whole.error(
                "vision_config",
                "the vision tower's sizes",
                "take config.json as it was published",
            ));
        }
        // The reference's defaults where no file says it.
        let tied = |default| match whole.find("tie_word_embeddings") {
            Some(_) => whole.flag_or("tie_word_embeddings", default),
            None => language.flag_or("tie_word_embeddings", default),
        };
        let shape = |kind, tied| text::shape(language, kind, tied);
        let (layout, language, tower) = match family {
            "qwen2_5_vl" => {
                let shape = shape(Kind::Qwen2, tied(false)?)?;
                let tower = TowerShape::Qwen2_5Vl(qwen2_5_vl::Shape::new(vision, shape.width)?);
                (Layout::Qwen, shape, Some(tower))
            }
            "qwen3_vl" => {
                let shape = shape(Kind::Qwen3, tied(false)?)?;
                let tower = TowerShape::Qwen3Vl(qwen3_vl::Shape::new(vision, shape.width)?);
                (Layout::Qwen, shape, Some(tower))
            }
            "smolvlm" | "idefics3" => {
                let shape = shape(Kind::Llama, whole.flag_or("tie_word_embeddings", false)?)?;
                let tower = TowerShape::SmolVlm(smolvlm::Shape::new(vision, whole, shape.width)?);
                (Layout::SmolVlm, shape, Some(tower))
            }
            "qwen2" => (Layout::Text, shape(Kind::Qwen2, tied(false)?)?, None),
            "qwen3" => (Layout::Text, shape(Kind::Qwen3, tied(false)?)?, None),
            "llama" => (Layout::Text, shape(Kind::Llama, tied(false)?)?, None),
            _ => return Err(whole.error("model_type", FAMILIES, "this family is not supported")),
        };
        let image_token = if is_image { Some(whole.token("image_token_id")?) } else { None };
        Ok(Self { family: family.into(), language, image_token, layout, tower })
    }

    /// Reads the folder's `config.json`, or the metadata of a GGUF file.
    ///
    /// # Errors
    /// Also [`Error::Read`], and [`Error::Gguf`].
    pub fn from_folder(folder: &Path) -> Result<Self> {
        if is_gguf(folder) {
            return Self::from_gguf(&Gguf::open(folder)?);
        }
        let path = folder.join(CONFIG);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::Read {
            path: path.clone(),
            reason: e.to_string(),
            hint: format!("a Hugging Face model folder holds {CONFIG} beside its weights"),
        })?;
        Self::from_json(&text, &path.display().to_string())
    }
}

/// How a folder's matrices are held, and where the model computes.
#[derive(Clone, Debug)]
pub struct Holding {
    /// What they are converted to; `None`: they stay as they are stored, on the CPU mapped.
    pub format: Option<Format>,
    /// Where they lie.
    pub device: Device,
}

impl Default for Holding {
    fn default() -> Self {
        None.into()
    }
}

impl From<Option<Format>> for Holding {
    /// On the CPU.
    fn from(format: Option<Format>) -> Self {
        Self { format, device: Device::Cpu }
    }
}

impl Holding {
    /// Calls `build` with a source on this device.
    pub(crate) fn placing<T>(&self, source: &dyn Source, build: impl FnOnce(&dyn Source) -> T) -> T {
        match &self.device {
            Device::Cpu => build(source),
            device => build(&Moved { source, device }),
        }
    }
}

/// A pretrained model.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// What it is.
    pub architecture: Architecture,
    /// The decoder.
    pub language: Decoder,
    /// Tensors in the folder that nothing uses.
    pub unused: Vec<String>,
    tower: Option<Tower>,
    device: Device,
}

impl Pretrained {
    /// Loads a folder: by default, or with `None` for a format, onto the CPU, mapped.
    ///
    /// # Errors
    /// Names the file, and the field or tensor that does not fit.
    pub fn from_folder(folder: &Path, holding: impl Into<Holding>) -> Result<Self> {
        Self::load(folder, &holding.into(), |source, architecture| Self::new(architecture, Module::root(source)))
    }

    /// The same, with low-rank changes whose parameters come from `adapters`.
    ///
    /// # Errors
    /// Also [`Error::Config`] for a pattern that fits no matrix of the model.
    pub fn adapted(folder: &Path, holding: impl Into<Holding>, lora: &Lora, adapters: &dyn Source) -> Result<Self> {
        let holding = holding.into();
        Self::load(folder, &holding, |source, architecture| {
            holding.placing(adapters, |adapters| {
                let changed = Changed::new(source, lora, adapters)?;
                let model = Self::new(architecture, Module::root(&changed))?;
                changed.refuse_idle()?;
                Ok(model)
            })
        })
    }

    /// [`Checkpoint::fingerprint`] of a folder's weights.
    ///
    /// # Errors
    /// As [`Pretrained::from_folder`] for files that cannot be read.
    pub fn fingerprint(folder: &Path) -> Result<String> {
        if is_gguf(folder) {
            return Ok(Gguf::open(folder)?.fingerprint());
        }
        let architecture = Architecture::from_folder(folder)?;
        Ok(Checkpoint::open(folder, &architecture.layout, None, |_| false)?.fingerprint())
    }

    /// Writes a folder's weights again into the folder `to`, with something added to matrices: `change` is asked for each of
    /// the model's matrices, or part of one, by its name. Gives how many were changed.
    ///
    /// # Errors
    /// As [`Pretrained::from_folder`], and [`Error::Write`].
    pub(crate) fn write_changed(
        folder: &Path,
        to: &Path,
        change: &dyn Fn(&str) -> Result<Option<Tensor>>,
    ) -> Result<usize> {
        if is_gguf(folder) {
            return Err(gguf::refuse_to_write(&Gguf::open(folder)?));
        }
        let architecture = Architecture::from_folder(folder)?;
        let layout = architecture.layout;
        let mut changes = BTreeMap::new();
        for (name, parts) in architecture.matrices()? {
            let whole = name.strip_suffix(".weight").unwrap_or(&name);
            for (stored, part) in layout.of_ours(&name, &parts).into_iter().zip(&parts) {
                let ours = if part.name.is_empty() { whole.to_owned() } else { format!("{whole}.{}", part.name) };
                if let Some(change) = change(&ours)? {
                    changes.insert(stored, change);
                }
            }
        }
        Checkpoint::open(folder, &layout, None, |_| false)?.write_changed(to, &changes)?;
        Ok(changes.len())
    }

    fn load(
        folder: &Path,
        holding: &Holding,
        build: impl FnOnce(&dyn Source, Architecture) -> Result<Self>,
    ) -> Result<Self> {
        if is_gguf(folder) {
            let gguf = Gguf::open(folder)?;
            let architecture = Architecture::from_gguf(&gguf)?;
            let weights = gguf::Weights::new(&gguf, &architecture, holding.format);
            let model = holding.placing(&weights, |weights| build(weights, architecture.clone()))?;
            weights.refuse_unused()?;
            return Ok(model);
        }
        let mut architecture = Architecture::from_folder(folder)?;
        let layout = architecture.layout;
        let checkpoint = Checkpoint::open(folder, &layout, holding.format, |_| false)?;
        architecture.language.tied &= !differs(&checkpoint, &layout)?;
        let mut model = holding.placing(&checkpoint, |checkpoint| build(checkpoint, architecture))?;
        model.unused = checkpoint.unused();
        Ok(model)
    }

    /// Builds the model, asking for each parameter by name.
    pub fn new(architecture: Architecture, path: Module) -> Result<Self> {
        let language = path.at("language", |p| Decoder::new(p, &architecture.language))?;
        let tower = match architecture.tower.clone() {
            None => None,
            Some(TowerShape::Qwen2_5Vl(s)) => {
                Some(Tower::Qwen2_5Vl(path.at("visual", |p| qwen2_5_vl::Tower::new(p, s))?))
            }
            Some(TowerShape::Qwen3Vl(s)) => Some(Tower::Qwen3Vl(path.at("visual", |p| qwen3_vl::Tower::new(p, s))?)),
            Some(TowerShape::SmolVlm(s)) => Some(Tower::SmolVlm(smolvlm::Tower::new(path, s)?)),
        };
        let device = language.device().clone();
        Ok(Self { architecture, language, unused: Vec::new(), tower, device })
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Encodes a picture, from whatever device its pixels lie on.
    ///
    /// # Errors
    /// [`Error::Arguments`] for pixels of another family's processor, or of other sizes.
    pub fn encode(&self, pixels: &Pixels, tap: &dyn Tap) -> Result<Picture> {
        let wrong = |expected: String| {
            let got = match pixels {
                Pixels::Patches { values, grid } => {
                    format!("patches {:?}, {} x {}", values.dims(), grid.rows, grid.cols)
                }
                Pixels::Tiles { values } => format!("tiles {:?}", values.dims()),
            };
            Error::Arguments { what: "pixels", expected, got }
        };
        let patches = |numbers: usize, merge: usize| match pixels {
            Pixels::Patches { values, grid }
                if values.dims() == [grid.rows * grid.cols, numbers]
                    && grid.rows.is_multiple_of(merge)
                    && grid.cols.is_multiple_of(merge) =>
            {
                Ok((values.to_device(&self.device)?, *grid))
            }
            _ => Err(wrong(format!("patches [rows * cols, {numbers}], rows and cols multiples of {merge}"))),
        };
        let on_grid = |seen, grid: PatchGrid, merge: usize| Picture {
            seen,
            grids: vec![Grid { rows: grid.rows / merge, cols: grid.cols / merge }],
            in_rows: true,
        };
        match &self.tower {
            None => Err(wrong("none: this is a language model alone".into())),
            Some(Tower::Qwen2_5Vl(tower)) => {
                let (values, grid) = patches(tower.patch_numbers(), tower.merge())?;
                Ok(on_grid(tower.encode(&values, grid, tap)?, grid, tower.merge()))
            }
            Some(Tower::Qwen3Vl(tower)) => {
                let (values, grid) = patches(tower.patch_numbers(), tower.merge())?;
                Ok(on_grid(tower.encode(&values, grid, tap)?, grid, tower.merge()))
            }
            Some(Tower::SmolVlm(tower)) => match pixels {
                Pixels::Tiles { values } => {
                    let side = tower.tokens_per_side();
                    let grids = vec![Grid { rows: side, cols: side }; values.dim(0)?];
                    Ok(Picture { seen: tower.encode(&values.to_device(&self.device)?, tap)?, grids, in_rows: false })
                }
                Pixels::Patches { .. } => Err(wrong("tiles [n, 3, S, S]".into())),
            },
        }
    }

    /// `Dv` of what a second look reads, and how many such features belong to one image token; `None` for a language model
    /// alone.
    pub fn fine(&self) -> Option<(usize, usize)> {
        let (width, merge) = match self.tower.as_ref()? {
            Tower::Qwen2_5Vl(tower) => (tower.width(), tower.merge()),
            Tower::Qwen3Vl(tower) => (tower.width(), tower.merge()),
            Tower::SmolVlm(tower) => (tower.width(), tower.merge()),
        };
        Some((width, merge * merge))
    }

    /// Image tokens of one tile and its side in pixels, of families that split pictures into tiles.
    pub fn tile(&self) -> Option<(usize, usize)> {
        match self.tower.as_ref()? {
            Tower::SmolVlm(tower) => Some((tower.tokens_per_side() * tower.tokens_per_side(), tower.tile_px())),
            _ => None,
        }
    }

    /// Side of an image token in pixels of the picture as the processor resizes it; `None` for a language model alone.
    pub fn token_px(&self) -> Option<usize> {
        Some(match self.tower.as_ref()? {
            Tower::Qwen2_5Vl(tower) => tower.token_px(),
            Tower::Qwen3Vl(tower) => tower.token_px(),
            Tower::SmolVlm(tower) => tower.token_px(),
        })
    }

    /// Places of the image tokens in `ids`.
    pub fn image_tokens(&self, ids: &[u32]) -> Vec<usize> {
        let is_image = |(_, id): &(usize, &u32)| self.architecture.image_token == Some(**id);
        ids.iter().enumerate().filter(is_image).map(|(at, _)| at).collect()
    }

    /// Where the tokens of a text stand. With M-RoPE, the tokens of a picture of `h` x `w` tokens stand at one time in rows
    /// and columns, and the text goes on behind the longer side.
    ///
    /// # Errors
    /// [`Error::Arguments`] when the image tokens do not lie as the pictures need them.
    pub fn places(&self, text: Text) -> Result<Vec<Place>> {
        let mut places: Vec<Place> = Vec::with_capacity(text.ids.len());
        let mut grids = text.pictures.iter().flat_map(|picture| &picture.grids);
        let counts = text.pictures.iter().all(|picture| !picture.in_rows);
        let (mut at, mut next) = (0, 0);
        while at < text.ids.len() {
            if counts || self.architecture.image_token != Some(text.ids[at]) {
                places.push([next; 3]);
                (at, next) = (at + 1, next + 1);
                continue;
            }
            let run = text.ids[at..].iter().take_while(|id| self.architecture.image_token == Some(**id)).count();
            let Some(grid) = grids.next().filter(|grid| grid.cells() == run) else {
                let expected = "a run of image tokens for each picture, with text between two of them";
                let got = format!("a run of {run} at token {at}, pictures of {:?} tokens", self.token_counts(text));
                return Err(Error::Arguments { what: "image tokens", expected: expected.into(), got });
            };
            let (rows, cols) = (grid.rows as u32, grid.cols as u32);
            places.extend((0..rows).flat_map(|row| (0..cols).map(move |col| [next, next + row, next + col])));
            (at, next) = (at + run, next + rows.max(cols));
        }
        Ok(places)
    }

    fn token_counts(&self, text: Text) -> Vec<usize> {
        text.pictures.iter().filter_map(|picture| picture.seen.tokens.dim(0).ok()).collect()
    }

    /// Runs `S` texts with their pictures through the decoder, each by itself: what conversations then go on from. Texts may be
    /// of different lengths.
    ///
    /// # Errors
    /// [`Error::Arguments`] when a text's image tokens are not as many as its pictures have.
    pub fn open(&self, texts: &[Text], tap: &dyn Tap) -> Result<Prefix> {
        let longest = texts.iter().map(|text| text.ids.len()).max().unwrap_or(0);
        let layers =
            texts.iter().flat_map(|text| text.pictures).map(|picture| picture.seen.added.len()).max().unwrap_or(0);
        let layers = layers.min(self.architecture.language.layers); // further ones have no layer to follow
        let (mut tokens, mut places, mut visible) = (Vec::new(), Vec::new(), Vec::new());
        let mut added = vec![Vec::new(); layers];
        for text in texts {
            let (expected, got) = (self.token_counts(*text).iter().sum::<usize>(), self.image_tokens(text.ids).len());
            if expected != got {
                let expected = format!("{expected} for {} pictures", text.pictures.len());
                return Err(Error::Arguments { what: "image tokens", expected, got: got.to_string() });
            }
            let missing = longest - text.ids.len();
            let ids = Tensor::from_slice(text.ids, (1, text.ids.len()), &self.device)?;
            let words = self.language.embed(&ids)?.squeeze(0)?; // [T, D]
            let own: Vec<&Tensor> = text.pictures.iter().map(|picture| &picture.seen.tokens).collect();
            tokens.push(self.in_place(text.ids, &words, &own)?.pad_with_zeros(0, 0, missing)?);
            for (layer, added) in added.iter_mut().enumerate() {
                let own: Vec<&Tensor> = text.pictures.iter().filter_map(|p| p.seen.added.get(layer)).collect();
                added.push(self.in_place(text.ids, &words.zeros_like()?, &own)?.pad_with_zeros(0, 0, missing)?);
            }
            places.extend(self.places(*text)?.into_iter().chain(std::iter::repeat_n([0; 3], missing)));
            visible.extend((0..longest).map(|at| at < text.ids.len()));
        }
        let added = added.iter().map(|rows| Ok(Tensor::stack(rows, 0)?)).collect::<Result<Vec<_>>>()?;
        let tokens = Tensor::stack(&tokens, 0)?;
        let opening =
            Opening { tokens: &tokens, places: &places, visible: visible.into(), causal: true, added: &added };
        self.language.over_prefix(&opening, tap)
    }

    /// `[T, D]` with the pictures' rows in the place of image tokens, in order.
    fn in_place(&self, ids: &[u32], words: &Tensor, pictures: &[&Tensor]) -> Result<Tensor> {
        if pictures.is_empty() {
            return Ok(words.clone());
        }
        let (pictures, mut taken) = (Tensor::cat(pictures, 0)?, 0);
        let (mut parts, mut at) = (Vec::new(), 0);
        let is_image = |id: &u32| self.architecture.image_token == Some(*id);
        while at < ids.len() {
            let image = is_image(&ids[at]);
            let run = ids[at..].iter().take_while(|id| is_image(id) == image).count();
            if image {
                parts.push(pictures.narrow(0, taken, run)?);
                taken += run;
            } else {
                parts.push(words.narrow(0, at, run)?);
            }
            at += run;
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// Goes on with words: `ids` `[B]` lists, shorter ones padded in front, and gives the normalised hidden states
    /// `[B, T, D]` with what else [`crate::decoder::Rows`] asks for.
    ///
    /// # Errors
    /// [`Error::Arguments`] for no ids at all, or a conversation that outgrows its context.
    pub fn go_on(
        &self,
        cache: &mut Cache,
        ids: &[Vec<u32>],
        rows: crate::decoder::Rows,
        tap: &dyn Tap,
    ) -> Result<crate::decoder::Run> {
        if ids.iter().all(Vec::is_empty) {
            return Err(Error::Arguments { what: "ids", expected: "at least one".into(), got: "none".into() });
        }
        self.language.over_words(ids, true, cache, rows, tap)
    }
}

/// Whether an output layer is stored that is not the embedding, whatever the config says of it.
fn differs(checkpoint: &Checkpoint, layout: &Layout) -> Result<bool> {
    let [embedding, head] =
        ["language.embedding", "language.head.weight"].map(|name| layout.of_ours(name, &[]).concat());
    checkpoint.differ(&embedding, &head)
}
