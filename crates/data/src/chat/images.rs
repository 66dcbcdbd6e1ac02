//! What pictures take of a prompt: one placeholder each in the rendered chat, many image tokens in the ids.

use std::ops::Range;

use super::error::ChatError;
use super::files::Object;
use super::inert::Piece;
use super::tokenizer::FolderTokenizer;

/// Most image tokens of one picture: far more than any released image processor makes.
const MAX_TOKENS: usize = 1 << 20;

/// How many image tokens a picture takes, and how they are laid out. The image processor of the folder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureTokens {
    /// Qwen: that many in one run, one for each merged patch.
    Run(usize),
    /// SmolVLM and Idefics3: tiles, row by row, and the whole picture after them; zero rows and columns for a picture
    /// that is not split.
    Tiles {
        /// Rows of tiles.
        rows: usize,
        /// Columns of tiles.
        cols: usize,
        /// Image tokens of each tile, and of the whole picture.
        tokens_per_tile: usize,
    },
}

impl PictureTokens {
    /// The lengths of its unbroken runs of image tokens, first to last.
    fn runs(&self) -> Vec<usize> {
        match *self {
            PictureTokens::Run(tokens) => vec![tokens],
            PictureTokens::Tiles { rows, cols, tokens_per_tile } => vec![tokens_per_tile; rows * cols + 1],
        }
    }

    /// All its image tokens.
    #[must_use]
    pub fn total(&self) -> usize {
        match *self {
            PictureTokens::Run(tokens) => tokens,
            PictureTokens::Tiles { rows, cols, tokens_per_tile } => {
                rows.saturating_mul(cols).saturating_add(1).saturating_mul(tokens_per_tile)
            }
        }
    }
}

/// A chat as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// All ids, `[N]`.
    pub ids: Vec<u32>,
    /// For each picture, in order, the places of its image tokens in `ids`: one range for Qwen; for SmolVLM one a tile,
    /// row by row, and the whole picture last.
    pub pictures: Vec<Vec<Range<usize>>>,
}

impl Prompt {
    /// From the first image token through the last, text between pictures included; `None` without pictures.
    /// `ids[..span.start]` comes before the first picture, `ids[..span.end]` is everything through the last one, and
    /// what follows is text alone.
    #[must_use]
    pub fn picture_span(&self) -> Option<Range<usize>> {
        let first = self.pictures.first()?.first()?;
        let last = self.pictures.last()?.last()?;
        Some(first.start..last.end)
    }
}

/// How a family lays its pictures out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Run,
    Tiles,
}

/// The image tokens of a folder.
#[derive(Clone)]
pub struct Images {
    layout: Layout,
    /// The token that stands for a picture in the template and for a patch in the ids.
    image: String,
    image_id: u32,
    /// Around each tile.
    fake: String,
    /// Before the whole picture.
    global: String,
}

impl Images {
    /// Finds the tokens: under the names `tokenizer_config.json` has for them, else as every released model calls them.
    ///
    /// # Errors
    /// If a token has no id, or `config.json` gives the image token another one.
    pub fn read(layout: Layout, tokenizer: &FolderTokenizer, config: &Object) -> Result<Images, ChatError> {
        let default = if layout == Layout::Run { "<|image_pad|>" } else { "<image>" };
        let named = |name, default: &str| tokenizer.named(name).unwrap_or(default).to_owned();
        let image = named("image_token", default);
        let image_id = id(tokenizer, &image)?;
        let images = Images {
            layout,
            image,
            image_id,
            fake: named("fake_image_token", "<fake_token_around_image>"),
            global: named("global_image_token", "<global-img>"),
        };
        if layout == Layout::Tiles {
            id(tokenizer, &images.fake)?;
            id(tokenizer, &images.global)?;
        }
        match config.id("image_token_id")? {
            Some(expected) if expected != image_id => Err(ChatError::Token {
                name: config.name().to_owned(),
                token: images.image,
                expected: format!("id {expected} (`image_token_id`)"),
                got: format!("id {image_id}"),
            }),
            _ => Ok(images),
        }
    }

    /// The token that stands for a picture in the rendered chat, and its id, which every image token has.
    pub fn token(&self) -> (&str, u32) {
        (&self.image, self.image_id)
    }

    /// Puts in the place of each placeholder what its picture takes. Placeholders in inert pieces are text.
    pub fn expand(
        &self,
        pieces: &[Piece<'_>],
        pictures: &[PictureTokens],
        tokenizer: &FolderTokenizer,
    ) -> Result<Vec<(String, bool)>, ChatError> {
        let mut layouts = Vec::with_capacity(pictures.len());
        for (index, picture) in pictures.iter().enumerate() {
            layouts.push(self.lay_out(index, picture, tokenizer)?);
        }
        let placeholders = live(pieces).map(|text| text.matches(&self.image).count()).sum();
        if placeholders != pictures.len() {
            return Err(ChatError::Pictures {
                placeholder: self.image.clone(),
                placeholders,
                pictures: pictures.len(),
            });
        }
        let mut layouts = layouts.into_iter();
        let expanded = pieces.iter().map(|piece| {
            if piece.inert {
                return (piece.text.to_owned(), true);
            }
            let mut text = String::new();
            for (index, between) in piece.text.split(&self.image).enumerate() {
                if index > 0 {
                    text.extend(layouts.next());
                }
                text.push_str(between);
            }
            (text, false)
        });
        Ok(expanded.collect())
    }

    /// What one picture takes, as text.
    fn lay_out(&self, index: usize, picture: &PictureTokens, tokenizer: &FolderTokenizer) -> Result<String, ChatError> {
        let wrong = |expected: &str| {
            let expected = expected.to_owned();
            ChatError::Picture { picture: index, expected, got: format!("{picture:?}") }
        };
        if !(1..=MAX_TOKENS).contains(&picture.total()) {
            return Err(wrong(&format!("from 1 to {MAX_TOKENS} image tokens")));
        }
        match (self.layout, *picture) {
            (Layout::Run, PictureTokens::Run(tokens)) => Ok(self.image.repeat(tokens)),
            (Layout::Tiles, PictureTokens::Tiles { rows, cols, tokens_per_tile }) => {
                if (rows == 0) != (cols == 0) {
                    return Err(wrong("rows and columns of tiles, both zero where the picture is not split"));
                }
                let patches = self.image.repeat(tokens_per_tile);
                let mut text = String::new();
                for row in 1..=rows {
                    for col in 1..=cols {
                        let tile = format!("<row_{row}_col_{col}>");
                        id(tokenizer, &tile)?;
                        text += &format!("{}{tile}{patches}", self.fake);
                    }
                    text.push('\n');
                }
                let line = if rows > 0 { "\n" } else { "" };
                Ok(format!("{text}{line}{fake}{}{patches}{fake}", self.global, fake = self.fake))
            }
            (Layout::Run, _) => Err(wrong("`Run`: the number of its image tokens")),
            (Layout::Tiles, _) => Err(wrong("`Tiles`: its rows and columns of tiles")),
        }
    }

    /// Finds the image tokens of each picture in the ids.
    pub fn locate(&self, ids: &[u32], pictures: &[PictureTokens]) -> Result<Vec<Vec<Range<usize>>>, ChatError> {
        let expected = pictures.iter().map(PictureTokens::total).sum();
        let wrong = |got| ChatError::ImageIds { token: self.image.clone(), expected, got };
        let mut places = ids.iter().enumerate().filter(|&(_, &id)| id == self.image_id).map(|(place, _)| place);
        let mut found = Vec::with_capacity(pictures.len());
        for picture in pictures {
            let mut ranges = Vec::new();
            for run in picture.runs() {
                let taken: Vec<usize> = places.by_ref().take(run).collect();
                match (taken.first(), taken.last()) {
                    (Some(&first), Some(&last)) if taken.len() == run && last + 1 - first == run => {
                        ranges.push(first..last + 1);
                    }
                    _ => return Err(wrong(format!("{} of {run} together, or others between them", taken.len()))),
                }
            }
            found.push(ranges);
        }
        match places.count() {
            0 => Ok(found),
            more => Err(wrong(format!("{more} more"))),
        }
    }
}

/// The texts in which tokens are recognised.
pub fn live<'a>(pieces: &'a [Piece<'a>]) -> impl Iterator<Item = &'a str> {
    pieces.iter().filter(|piece| !piece.inert).map(|piece| piece.text)
}

/// The id of a token a picture needs.
fn id(tokenizer: &FolderTokenizer, token: &str) -> Result<u32, ChatError> {
    tokenizer.id(token).ok_or_else(|| ChatError::Token {
        name: tokenizer.name().to_owned(),
        token: token.to_owned(),
        expected: "an id, for pictures".to_owned(),
        got: "no id".to_owned(),
    })
}
