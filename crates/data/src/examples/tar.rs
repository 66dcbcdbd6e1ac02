//! WebDataset archives: members of one name beside each other are a sample, and their endings say what they are.
//!
//! | ending | |
//! |---|---|
//! | `json` | the sample as an object; keys that are missing come from the others |
//! | `txt` | its answer, as captions have it; `question.txt` and `answer.txt` say which |
//! | `cls` | its answer: the name or number of a class |
//! | `jpg`, `jpeg`, `png`, `webp`, `gif`, `bmp` | a picture, also with a part between: `KEY.0.jpg`, `KEY.left.jpg` |
//!
//! Other members are passed over, and so are pictures until they are asked for.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use tar::{Archive, EntryType};

use super::album::PictureAt;
use super::fault::{ExamplesError, Fault, FaultKind};
use super::record::{Each, Raw};
use super::{Origin, Place};

/// Largest text of a member that is read.
const MOST_BYTES: u64 = 256 << 20;
const PICTURES: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];

/// The members of one name so far.
#[derive(Default)]
struct Sample {
    key: String,
    number: usize,
    object: Map<String, Value>,
    pictures: Vec<PictureAt>,
    /// What is wrong with one of them: its ending, what is expected, what is there.
    wrong: Option<(String, &'static str, String)>,
    texts: Vec<(&'static str, String)>,
}

/// Calls `each` with every sample.
pub(super) fn each(path: &Arc<Path>, each: Each) -> Result<(), ExamplesError> {
    let failed = |error: std::io::Error| ExamplesError::Read { path: path.to_path_buf(), reason: error.to_string() };
    let damaged = |error: std::io::Error| ExamplesError::Damaged {
        path: path.to_path_buf(),
        expected: "a whole tar archive, not compressed",
        got: error.to_string(),
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    let mut archive = Archive::new(BufReader::new(File::open(path).map_err(failed)?));
    let mut sample = Sample::default();
    for member in archive.entries_with_seek().map_err(damaged)? {
        let mut member = member.map_err(damaged)?;
        if !matches!(member.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
            continue;
        }
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        // Only a seek beyond the end tells that an archive is cut short, and it does not.
        if member.raw_file_position().saturating_add(member.size()) > length {
            return Err(damaged(std::io::Error::other(format!("an end within member {name}"))));
        }
        let Some((key, ending)) = parts(&name) else { continue };
        if key != sample.key {
            let number = sample.number + usize::from(!sample.is_empty());
            let next = Sample { key: key.to_owned(), number, ..Sample::default() };
            give(std::mem::replace(&mut sample, next), path, each)?;
        }
        sample.add(ending, &name, &mut member, path).map_err(damaged)?;
    }
    give(sample, path, each)
}

/// A member's name without endings, and its endings: all behind the first dot of the last part, in small letters.
fn parts(name: &str) -> Option<(&str, String)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.').filter(|dot| *dot > 0)?;
    Some((&name[..dot], name[dot + 1..].to_ascii_lowercase()))
}

fn give(sample: Sample, path: &Arc<Path>, each: Each) -> Result<(), ExamplesError> {
    if sample.is_empty() {
        return Ok(());
    }
    let origin = Origin { file: path.clone(), place: Place::Key(sample.key.clone()) };
    if let Some((field, expected, got)) = sample.wrong {
        let (kind, id, expected) = (FaultKind::Layout, sample.key, expected.into());
        return each(Err(Fault { kind, id, origin, field, expected, got }));
    }
    let mut object = sample.object;
    let has_turns = super::record::TURNS.iter().any(|key| object.contains_key(*key));
    for (key, text) in sample.texts {
        // Beside a conversation a text is the same once more.
        if !has_turns && !object.contains_key(key) {
            object.insert(key.into(), text.into());
        }
    }
    object.entry("id").or_insert_with(|| sample.key.into());
    each(Ok(Raw {
        origin,
        number: sample.number + 1,
        value: Value::Object(object),
        inside: sample.pictures,
        implied: true,
    }))
}

impl Sample {
    fn is_empty(&self) -> bool {
        self.object.is_empty() && self.pictures.is_empty() && self.wrong.is_none() && self.texts.is_empty()
    }

    fn add(
        &mut self,
        ending: String,
        name: &str,
        member: &mut tar::Entry<impl Read>,
        path: &Arc<Path>,
    ) -> std::io::Result<()> {
        let last = ending.rsplit('.').next().unwrap_or_default();
        if PICTURES.contains(&last) {
            let (name, start, length) = (name.to_owned(), member.raw_file_position(), member.size());
            self.pictures.push(PictureAt::Bytes { file: path.clone(), name, start, length });
            return Ok(());
        }
        let key = match ending.as_str() {
            "json" => "",
            "question.txt" => "question",
            "answer.txt" | "txt" | "cls" => "answer",
            _ => return Ok(()),
        };
        let mut bytes = Vec::new();
        member.take(MOST_BYTES).read_to_end(&mut bytes)?;
        let parsed = match key {
            "" => match serde_json::from_slice(&bytes) {
                Ok(Value::Object(object)) => {
                    self.object = object;
                    None
                }
                Ok(other) => Some(("an object of JSON", super::turns::short(&other))),
                Err(error) => Some(("an object of JSON", error.to_string())),
            },
            key => match String::from_utf8(bytes) {
                Ok(text) => {
                    self.texts.push((key, text.trim().to_owned()));
                    None
                }
                Err(_) => Some(("text in UTF-8", "other bytes".to_owned())),
            },
        };
        if let Some((expected, got)) = parsed {
            self.wrong = Some((ending, expected, got));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn endings_begin_at_the_first_dot_of_the_last_part() {
        assert_eq!(parts("a/b.c/007.left.JPG"), Some(("a/b.c/007", "left.jpg".into())));
        assert_eq!(parts("./007.json"), Some(("007", "json".into())));
        assert_eq!(parts("README"), None);
        assert_eq!(parts("a/.hidden"), None);
    }
}
