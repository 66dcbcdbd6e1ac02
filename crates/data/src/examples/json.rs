//! A list of JSON objects, or one a line: read from front to back, an object in memory at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde::Deserializer;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::Value;

use super::fault::{ExamplesError, Fault, FaultKind};
use super::record::{Each, Raw};
use super::{Origin, Place};

/// Longest line that is read.
const MOST_BYTES: u64 = 256 << 20;
/// What editors on Windows put before a text.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Calls `each` with every object.
pub(super) fn each(path: &Arc<Path>, each: Each) -> Result<(), ExamplesError> {
    let failed = |error: std::io::Error| ExamplesError::Read { path: path.to_path_buf(), reason: error.to_string() };
    let mut text = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
    if text.fill_buf().map_err(failed)?.starts_with(MARK) {
        text.consume(MARK.len());
    }
    match first(&mut text).map_err(failed)? {
        Some(b'[') => list(path, text, each),
        _ => lines(path, text, each),
    }
}

/// The first byte that is no space. A page of spaces before it is taken.
fn first(text: &mut impl BufRead) -> std::io::Result<Option<u8>> {
    loop {
        let part = text.fill_buf()?;
        let Some(at) = part.iter().position(|byte| !byte.is_ascii_whitespace()) else {
            let length = part.len();
            if length == 0 {
                return Ok(None);
            }
            text.consume(length);
            continue;
        };
        let byte = part[at];
        // Before lines nothing is taken, so that they are counted right.
        text.consume(if byte == b'[' { at } else { 0 });
        return Ok(Some(byte));
    }
}

fn lines(path: &Arc<Path>, mut text: impl BufRead, each: Each) -> Result<(), ExamplesError> {
    let failed = |error: std::io::Error| ExamplesError::Read { path: path.to_path_buf(), reason: error.to_string() };
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = text.by_ref().take(MOST_BYTES).read_until(b'\n', &mut line).map_err(failed)?;
        if length == 0 {
            break;
        }
        if length as u64 == MOST_BYTES {
            let got = format!("line {number} of more than {MOST_BYTES} bytes");
            return Err(ExamplesError::Damaged { path: path.to_path_buf(), expected: "a line for each sample", got });
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let origin = Origin { file: path.clone(), place: Place::Line(number) };
        let parsed = serde_json::from_slice::<Value>(&line);
        each(parsed.map(|value| Raw::plain(origin.clone(), number, value)).map_err(|error| no_json(origin, &error)))?;
    }
    Ok(())
}

fn no_json(origin: Origin, error: &serde_json::Error) -> Fault {
    let id = origin.place.to_string();
    // A line is parsed alone; the parser's own count of lines says nothing.
    let got = error.to_string().replace("at line 1 column", "at column");
    let (field, expected) = ("the whole line".into(), "one object of JSON".into());
    Fault { kind: FaultKind::Layout, id, origin, field, expected, got }
}

fn list(path: &Arc<Path>, text: impl Read, each: Each) -> Result<(), ExamplesError> {
    let mut ended = None;
    let entries = Entries { path, each, ended: &mut ended };
    let mut parser = serde_json::Deserializer::from_reader(text);
    let read = parser.deserialize_seq(entries).and_then(|()| parser.end());
    match (ended, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(ExamplesError::Damaged {
            path: path.to_path_buf(),
            expected: "a list of JSON objects",
            got: error.to_string(),
        }),
        (None, Ok(())) => Ok(()),
    }
}

struct Entries<'a, 'b> {
    path: &'a Arc<Path>,
    each: Each<'b>,
    /// What ended the reading, which the parser cannot carry.
    ended: &'a mut Option<ExamplesError>,
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(value) = list.next_element::<Value>()? {
            number += 1;
            let origin = Origin { file: self.path.clone(), place: Place::Entry(number) };
            if let Err(error) = (self.each)(Ok(Raw::plain(origin, number, value))) {
                *self.ended = Some(error);
                return Err(A::Error::custom("ended"));
            }
        }
        Ok(())
    }
}

/// The first object of a file, for recognising it; `None` where there is none.
pub(super) fn peek(path: &Arc<Path>) -> Result<Option<Result<Value, Fault>>, ExamplesError> {
    let mut found = None;
    let enough = || ExamplesError::Read { path: path.to_path_buf(), reason: String::new() };
    let read = each(path, &mut |raw| {
        found = Some(raw.map(|raw| raw.value));
        Err(enough())
    });
    match (found, read) {
        (Some(found), _) => Ok(Some(found)),
        (None, read) => read.map(|()| None),
    }
}
