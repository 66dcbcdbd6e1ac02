//! The files that show how an answer came about: the picture of all looks, and the trace.

use crate::args::Ask;
use crate::failure::Failure;
use crate::messages::Messages;
use crate::{files, strip};
use lare_data::Picture;
use lare_trace::{PictureRef, Record};
use std::path::{Path, PathBuf};

/// What was written.
#[derive(Default)]
pub struct Shown {
    /// The picture of all looks.
    pub looks: Option<PathBuf>,
    /// The trace's folder.
    pub trace: Option<PathBuf>,
}

impl Shown {
    /// Says where they are.
    pub fn note(&self, messages: &Messages) {
        if let Some(looks) = &self.looks {
            messages.note(&format!("where it looked: {}", looks.display()));
        }
        if let Some(trace) = &self.trace {
            messages.note(&format!("the whole trace: {}", trace.join("index.html").display()));
        }
    }
}

/// What is to be written of one answer.
pub struct Showing<'a> {
    /// The arguments, with a picture.
    pub ask: &'a Ask,
    /// What was asked about.
    pub picture: &'a Picture,
    /// The answer's number, from 1, among several.
    pub place: Option<usize>,
}

impl Showing<'_> {
    /// Whether anything is.
    pub fn is_wanted(&self) -> bool {
        self.ask.trace.is_some() || self.strip_path().is_some()
    }

    /// Writes the pictures and the trace that were asked for, and notes what is there in `shown`.
    pub fn write(&self, record: &Record, messages: &Messages, shown: &mut Shown) -> Result<(), Failure> {
        if let Some(folder) = &self.ask.trace {
            let folder = self.place.map_or_else(|| folder.clone(), |place| folder.join(place.to_string()));
            let (width, height) = (self.picture.width as u32, self.picture.height as u32);
            let picture = PictureRef { width, height, rgb: &self.picture.rgb };
            shown.trace = Some(lare_trace::write_folder(&folder, record, picture)?.folder);
        }
        if let Some(path) = self.strip_path() {
            shown.looks = self.write_strip(&path, record, messages)?;
        }
        Ok(())
    }

    /// A picture that nobody asked for by name is not worth failing over.
    fn write_strip(&self, path: &Path, record: &Record, messages: &Messages) -> Result<Option<PathBuf>, Failure> {
        let Some(png) = strip::png(record, self.picture)? else {
            if self.ask.looks.is_some() {
                messages.warning("it took no latent step, so there is no look to draw");
            }
            return Ok(None);
        };
        match files::write(path, &png) {
            Ok(()) => Ok(Some(path.to_owned())),
            Err(failure) if self.ask.looks.is_some() => Err(failure),
            Err(failure) => {
                let why = failure.parts.first().map(|part| part.replacen("got", "", 1)).unwrap_or_default();
                messages.warning(&format!(
                    "{}: {}; name a file with --looks, or switch it off with --no-looks",
                    failure.summary,
                    why.trim()
                ));
                Ok(None)
            }
        }
    }

    fn strip_path(&self) -> Option<PathBuf> {
        if self.ask.no_looks {
            return None;
        }
        if let Some(path) = &self.ask.looks {
            return Some(path.clone());
        }
        let wanted = self.place.is_none() && self.ask.questions.is_none() && self.ask.trace.is_none();
        let path = self.ask.picture.as_deref().filter(|path| *path != Path::new("-"));
        let stem = path.and_then(Path::file_stem);
        let stem = stem.map_or_else(|| "picture".into(), |stem| stem.to_string_lossy());
        wanted.then(|| PathBuf::from(format!("{stem}.looks.png")))
    }
}
