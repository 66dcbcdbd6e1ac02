//! Samples that others have written: what is read of them, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod examples {
    mod archives;
    mod exported;
    mod lines;
    mod lint;
    #[cfg(feature = "parquet")]
    mod tables;
}

use lare_data::chat::{Message, Part, Role};
use lare_data::examples::{ExamplesError, Fault, FaultKind, Reading};
use lare_data::{Example, Samples};
use std::fs;
use std::path::{Path, PathBuf};

fn put(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn read(path: &Path) -> Result<Vec<Example>, ExamplesError> {
    Samples::open(path, Reading::default())?.all()
}

/// What is wrong with the only sample of a file.
fn fault(path: &Path) -> Fault {
    match read(path) {
        Err(ExamplesError::Sample(fault)) => *fault,
        other => panic!("{other:?}"),
    }
}

fn refused(path: &Path, reading: Reading) -> String {
    Samples::open(path, reading).unwrap_err().to_string()
}

/// What a user asks of one picture.
fn asked(text: &str) -> Message {
    Message::new(Role::User, vec![Part::Picture, Part::Text(text.to_owned())])
}

fn png(width: u32, height: u32, shade: u8) -> Vec<u8> {
    let rgb = vec![shade; (width * height * 3) as usize];
    lare_data::export::png(&lare_data::Picture { width: width as usize, height: height as usize, rgb }).unwrap()
}

fn kinds(path: &Path) -> Vec<FaultKind> {
    let mut all = Vec::new();
    let samples = Samples::open(path, Reading::default()).unwrap();
    samples
        .each(&mut |read| {
            all.extend(read.err().map(|fault| fault.kind));
            Ok(())
        })
        .unwrap();
    all
}
