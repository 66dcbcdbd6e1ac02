//! A picture as Qwen2.5-VL, Qwen3-VL, SmolVLM and Idefics3 see it: the same values, to the bit, as the image processors
//! of transformers 5.23 compute with torchvision, from the `preprocessor_config.json` beside the weights.
//!
//! - Qwen: resized to whole squares of patches, about as many pixels as the picture has; flat patches.
//! - SmolVLM and Idefics3: resized to whole square tiles, then the tiles and a view of the whole in one tile more.
//!
//! Letters: `P` patches of a picture before merging, `S` pixels a side of a tile. Sizes go as [`Size`], never as two
//! numbers, because half of the reference says height first and the other half width first.

mod config;
mod error;
mod qwen;
mod resize;
mod smolvlm;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use error::ProcessorError;
pub use qwen::Qwen;
pub use smolvlm::SmolVlm;

use crate::image::Picture;
use crate::sample::Region;
use resize::{Filter, resize};

/// Most values of one processed picture, 2 GiB of them: a little above what the largest picture we read can need at its
/// own size, so only a config that asks for enlarging without end goes over it.
const MOST_VALUES: f64 = (1_u64 << 29) as f64;

/// Width and height of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Size {
    /// A picture as wide as it is high.
    #[must_use]
    pub fn square(side: usize) -> Size {
        Size { width: side, height: side }
    }

    /// The size of a picture.
    #[must_use]
    pub fn of(picture: &Picture) -> Size {
        Size { width: picture.width, height: picture.height }
    }
}

/// An image processor of a model, as its config describes it.
///
/// ```
/// use lare_data::{Layout, Picture, Processor, Size};
///
/// let json = r#"{"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 3136, "max_pixels": 12845056}"#;
/// let processor = Processor::from_json(json, "preprocessor_config.json")?;
/// let picture = Picture { width: 300, height: 100, rgb: vec![90; 300 * 100 * 3] };
/// let processed = processor.process(&picture)?;
/// assert_eq!(processed.layout, Layout::Grid { rows: 8, cols: 22 });
/// assert_eq!(processed.shape, [8 * 22, 3 * 2 * 14 * 14]);
///
/// let views = processor.views(Size::of(&picture), 28)?; // patch_size * spatial_merge_size of the model
/// assert_eq!((views[0].rows, views[0].cols), (4, 11));
/// assert_eq!(views[0].token(3, 10).right, 300.0);
/// # Ok::<(), lare_data::ProcessorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Processor {
    family: Family,
    filter: Filter,
    levels: Levels,
    /// For messages.
    file: String,
}

/// What differs between the families: the size a picture is brought to, and the order of its values.
#[derive(Clone, Debug, PartialEq)]
pub enum Family {
    /// Qwen2.5-VL and Qwen3-VL (and Qwen2-VL, whose processor they share).
    Qwen(Qwen),
    /// SmolVLM and Idefics3.
    SmolVlm(SmolVlm),
}

/// How a picture is cut into pieces; what a prompt has to say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Qwen: the two last numbers of `image_grid_thw`; the first is 1 for a picture.
    Grid {
        /// Rows of patches, before merging.
        rows: usize,
        /// Columns of patches, before merging.
        cols: usize,
    },
    /// SmolVLM and Idefics3. After the tiles follows one view of the whole picture.
    Tiles {
        /// Rows of tiles; 0 where the picture is not split, and the view of the whole is all there is.
        rows: usize,
        /// Columns of tiles; 0 where the picture is not split.
        cols: usize,
    },
}

/// A picture as values a vision encoder takes.
#[derive(Clone, Debug)]
pub struct Processed {
    /// `pixel_values` of the reference, flat.
    pub pixel_values: Vec<f32>,
    /// Qwen: `[P, 3 * temporal_patch_size * patch_size * patch_size]`, patches in the order of the reference: the
    /// `merge_size` squared patches of one image token one after the other. SmolVLM: `[tiles, 3, S, S]`, tiles row by
    /// row, then the whole.
    pub shape: Vec<usize>,
    /// How the picture was cut.
    pub layout: Layout,
    /// Of the picture before resizing: what [`Processor::views`] takes.
    pub picture: Size,
}

/// A part of the picture that becomes `rows * cols` image tokens, row by row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// What the tokens show, in pixels of the picture before resizing. Where image tokens do not fill a tile to its edge,
    /// as in SmolVLM-2.2B, this is a little less than the tile.
    pub region: Region,
    /// Rows of image tokens.
    pub rows: usize,
    /// Columns of image tokens.
    pub cols: usize,
}

impl View {
    /// Where the image token of this row and column is, in pixels of the picture before resizing.
    #[must_use]
    pub fn token(&self, row: usize, col: usize) -> Region {
        let Region { left, top, right, bottom } = self.region;
        let at = |from: f32, to: f32, part: usize, parts: usize| {
            (f64::from(from) + f64::from(to - from) * part as f64 / parts as f64) as f32
        };
        Region {
            left: at(left, right, col, self.cols),
            top: at(top, bottom, row, self.rows),
            right: at(left, right, col + 1, self.cols),
            bottom: at(top, bottom, row + 1, self.rows),
        }
    }

    /// Where each image token of this view is, in the order of the prompt.
    pub fn tokens(&self) -> impl Iterator<Item = Region> + '_ {
        (0..self.rows).flat_map(move |row| (0..self.cols).map(move |col| self.token(row, col)))
    }
}

impl Processor {
    /// Reads the config of a model folder: the `image_processor` object of `processor_config.json` where there is one,
    /// else `preprocessor_config.json`. The reference prefers them in this order too.
    ///
    /// # Errors
    /// If neither file describes an image processor, or as [`Processor::from_json`].
    pub fn open(folder: &Path) -> Result<Processor, ProcessorError> {
        config::open(folder)
    }

    /// Reads the text of a `preprocessor_config.json`, or of a `processor_config.json` with an `image_processor` object;
    /// `file` is for messages.
    ///
    /// What is left out or null has the default of the reference's class. Keys that the reference's class does not read
    /// are not read here either.
    ///
    /// # Errors
    /// If it is none of these, names a class we do not have, or asks for something we do not compute.
    pub fn from_json(text: &str, file: &str) -> Result<Processor, ProcessorError> {
        config::parse(text, file)
    }

    /// The settings that differ between families, to compare with the model's config.
    #[must_use]
    pub fn family(&self) -> &Family {
        &self.family
    }

    /// The same with `do_image_splitting` as given: without it, SmolVLM sees one tile of the whole picture, in fewer
    /// tokens. Qwen has no tiles and stays as it is.
    #[must_use]
    pub fn with_image_splitting(mut self, split: bool) -> Processor {
        if let Family::SmolVlm(smolvlm) = &mut self.family {
            smolvlm.split = split;
        }
        self
    }

    /// How a picture of this size is cut, without its pixels.
    ///
    /// # Errors
    /// If the picture has no pixels or is too long for its width, or its values would not fit into memory.
    pub fn layout(&self, picture: Size) -> Result<Layout, ProcessorError> {
        Ok(self.plan(picture)?.layout(picture))
    }

    /// Resizes, normalises and cuts a picture.
    ///
    /// # Errors
    /// As [`Processor::layout`], or if the picture has not as many bytes as its size says.
    pub fn process(&self, picture: &Picture) -> Result<Processed, ProcessorError> {
        let size = Size::of(picture);
        let plan = self.plan(size)?;
        if picture.rgb.len() != size.width * size.height * 3 {
            return Err(ProcessorError::Picture {
                expected: format!("{} x {} x 3 bytes", size.width, size.height),
                got: format!("{} bytes", picture.rgb.len()),
                hint: "pass the pixels row by row, three bytes each",
            });
        }
        let (pixel_values, shape) = match plan {
            Plan::Qwen(qwen, to) => qwen.pixel_values(&resize(picture, to, self.filter), &self.levels),
            Plan::SmolVlm(smolvlm) => smolvlm.pixel_values(picture, self.filter, &self.levels),
        };
        Ok(Processed { pixel_values, shape, layout: plan.layout(size), picture: size })
    }

    /// The parts of a picture that become image tokens, in the order of the prompt: for Qwen the whole as one view, for
    /// SmolVLM each tile, row by row, and at the end the whole.
    ///
    /// `token_px` is the side of an image token in pixels of the resized picture, from the model's config: `patch_size *
    /// spatial_merge_size` for Qwen, `patch_size * scale_factor` for SmolVLM.
    ///
    /// # Errors
    /// As [`Processor::layout`], or if model and processor disagree about `token_px`.
    pub fn views(&self, picture: Size, token_px: usize) -> Result<Vec<View>, ProcessorError> {
        let disagree = |field: &str, holds: usize| ProcessorError::Field {
            file: self.file.clone(),
            field: field.to_owned(),
            expected: format!("what holds an image token of {token_px} pixels a side, as the model's config says"),
            got: holds.to_string(),
            hint: "use the config.json and the file above that were published with these weights".to_owned(),
        };
        match self.plan(picture)? {
            Plan::Qwen(qwen, to) if qwen.token_px() == token_px => Ok(qwen.views(picture, to)),
            Plan::Qwen(qwen, _) => Err(disagree("patch_size * merge_size", qwen.token_px())),
            Plan::SmolVlm(smolvlm) if (1..=smolvlm.tile_px).contains(&token_px) => Ok(smolvlm.views(picture, token_px)),
            Plan::SmolVlm(smolvlm) => Err(disagree("max_image_size.longest_edge", smolvlm.tile_px)),
        }
    }

    /// How many image tokens a picture of this size takes in a prompt; `token_px` as for [`Processor::views`].
    ///
    /// # Errors
    /// As [`Processor::views`].
    pub fn image_tokens(&self, picture: Size, token_px: usize) -> Result<usize, ProcessorError> {
        Ok(self.views(picture, token_px)?.iter().map(|view| view.rows * view.cols).sum())
    }

    /// Decides, without touching a pixel, what will be done with a picture and whether that is possible.
    fn plan(&self, picture: Size) -> Result<Plan<'_>, ProcessorError> {
        let refuse = |expected: String, hint: &'static str| {
            let got = format!("{} x {} pixels", picture.width, picture.height);
            ProcessorError::Picture { expected, got, hint }
        };
        if picture.width == 0 || picture.height == 0 {
            return Err(refuse("at least one pixel".to_owned(), "pass a picture that shows something"));
        }
        let (plan, values) = match &self.family {
            Family::Qwen(qwen) => {
                let resized = qwen.resized(picture).ok_or_else(|| {
                    let expected = format!("one side at most {} times the other", qwen::MOST_RATIO);
                    refuse(expected, "cut the picture into parts")
                })?;
                (Plan::Qwen(qwen, resized), qwen.values(resized))
            }
            Family::SmolVlm(smolvlm) => (Plan::SmolVlm(smolvlm), smolvlm.values(picture)),
        };
        if values > MOST_VALUES {
            let expected = format!("at most {MOST_VALUES} values after resizing as `size` in {} says", self.file);
            return Err(refuse(expected, "give `size` the value it had when the model was published"));
        }
        Ok(plan)
    }
}

/// A picture that can be processed, and how.
#[derive(Clone, Copy)]
enum Plan<'a> {
    /// Brought to this size.
    Qwen(&'a Qwen, Size),
    SmolVlm(&'a SmolVlm),
}

impl Plan<'_> {
    fn layout(self, picture: Size) -> Layout {
        match self {
            Plan::Qwen(qwen, resized) => {
                let [rows, cols] = qwen.grid(resized);
                Layout::Grid { rows, cols }
            }
            Plan::SmolVlm(smolvlm) => {
                let [rows, cols] = smolvlm.tiles(picture);
                Layout::Tiles { rows, cols }
            }
        }
    }
}

/// What each level of each channel becomes: rescaling and normalising, `[3][256]`.
#[derive(Clone)]
struct Levels([[f32; 256]; 3]);

impl Levels {
    /// The reference fuses both steps: mean and deviation are brought to the scale of levels, and one subtraction and one
    /// division are left, all in f32. None if something is not finite.
    fn new(mean: [f64; 3], std: [f64; 3], rescale_factor: f64) -> Option<Levels> {
        let scaled = |value: f64| value as f32 * (1.0 / rescale_factor) as f32;
        if !std.iter().all(|std| scaled(*std).is_finite()) {
            return None; // would make every level 0
        }
        let mut levels = [[0.0; 256]; 3];
        for ((channel, mean), std) in levels.iter_mut().zip(mean).zip(std) {
            for (level, value) in channel.iter_mut().enumerate() {
                *value = (level as f32 - scaled(mean)) / scaled(std);
            }
        }
        levels.as_flattened().iter().all(|value| value.is_finite()).then_some(Levels(levels))
    }
}

impl std::fmt::Debug for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [red, green, blue] = self.0.map(|channel| (channel[0], channel[255]));
        write!(f, "Levels({red:?}, {green:?}, {blue:?})")
    }
}
