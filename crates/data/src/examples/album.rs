//! Pictures where they lie: files of their own, parts of an archive, cells of a table.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::image::{self, ImageError, MAX_FILE_BYTES, Picture};

/// Where a picture lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PictureAt {
    /// A file.
    File(PathBuf),
    /// Some bytes of a file, as a member of an archive.
    Bytes {
        /// The archive.
        file: Arc<Path>,
        /// The member's name.
        name: String,
        /// Where it begins.
        start: u64,
        /// Its bytes.
        length: u64,
    },
    /// A cell of a parquet file.
    Cell {
        /// The file.
        file: Arc<Path>,
        /// The column.
        column: Arc<str>,
        /// The row, from 0.
        row: usize,
        /// Which picture of the cell, from 0.
        nth: usize,
    },
}

impl fmt::Display for PictureAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Bytes { file, name, .. } => write!(f, "{}, member {name}", file.display()),
            Self::Cell { file, column, row, nth } => {
                let which = if *nth == 0 { String::new() } else { format!(", picture {}", nth + 1) };
                write!(f, "{}, row {}, `{column}`{which}", file.display(), row + 1)
            }
        }
    }
}

/// Reads pictures, one at a time; several threads may ask at once.
#[derive(Debug, Default)]
pub struct Album {
    #[cfg(feature = "parquet")]
    columns: crate::columnar::Pictures,
}

impl Album {
    /// The picture's file as it was written.
    ///
    /// # Errors
    /// [`ImageError::Read`] where it is not there, and [`ImageError::TooLarge`].
    pub fn read(&self, at: &PictureAt) -> Result<Vec<u8>, ImageError> {
        let failed = |source: std::io::Error| ImageError::Read { name: at.to_string(), source };
        match at {
            PictureAt::File(path) => {
                let length = std::fs::metadata(path).map_err(failed)?.len();
                within(at, length)?;
                std::fs::read(path).map_err(failed)
            }
            PictureAt::Bytes { file, start, length, .. } => {
                within(at, *length)?;
                let mut file = File::open(file).map_err(failed)?;
                file.seek(SeekFrom::Start(*start)).map_err(failed)?;
                let mut bytes = Vec::new();
                file.take(*length).read_to_end(&mut bytes).map_err(failed)?;
                Ok(bytes)
            }
            PictureAt::Cell { file, column, row, nth } => self.cell((file, column), (*row, *nth)).map_err(failed),
        }
    }

    #[cfg(feature = "parquet")]
    fn cell(&self, (file, column): (&Path, &str), at: (usize, usize)) -> std::io::Result<Vec<u8>> {
        use crate::columnar::ColumnarError;
        self.columns.read(file, column, at).map_err(|error| match error {
            ColumnarError::Read { reason, .. } => reason,
            ColumnarError::Unusable { got, .. } => std::io::Error::other(got),
        })
    }

    #[cfg(not(feature = "parquet"))]
    fn cell(&self, _: (&Path, &str), _: (usize, usize)) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// The picture.
    ///
    /// # Errors
    /// As [`Album::read`] and [`image::decode`].
    pub fn open(&self, at: &PictureAt) -> Result<Picture, ImageError> {
        image::decode(&self.read(at)?, &at.to_string())
    }
}

fn within(at: &PictureAt, length: u64) -> Result<(), ImageError> {
    match length > MAX_FILE_BYTES {
        true => Err(ImageError::TooLarge { name: at.to_string(), got: format!("{length} bytes") }),
        false => Ok(()),
    }
}
