//! The files of a model folder, each optional until somebody needs it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::ChatError;

/// Longest file that is read: many times the largest published `tokenizer.json`.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// A folder with the files of one model, or a file that stands for one.
pub struct Folder {
    path: PathBuf,
    /// The files' texts, where they are all inside one file.
    inside: Option<BTreeMap<&'static str, String>>,
}

impl Folder {
    pub fn new(path: &Path) -> Folder {
        Folder { path: path.to_owned(), inside: None }
    }

    /// Files that are all inside the file `path`, and their texts.
    pub fn inside<const N: usize>(path: &Path, files: [(&'static str, String); N]) -> Folder {
        Folder { path: path.to_owned(), inside: Some(files.into()) }
    }

    /// The folder as messages show it.
    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// A file's name as messages show it.
    pub fn name(&self, file: &str) -> String {
        match &self.inside {
            None => self.path.join(file).display().to_string(),
            Some(_) => format!("{}, as {file}", self.path.display()),
        }
    }

    /// A file's text; `None` where there is no such file.
    pub fn text(&self, file: &str) -> Result<Option<String>, ChatError> {
        if let Some(inside) = &self.inside {
            return Ok(inside.get(file).cloned());
        }
        let failed = |source| ChatError::Read { name: self.name(file), source };
        let opened = match File::open(self.path.join(file)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let mut text = String::new();
        // One byte more than allowed, so that a file of any length costs no more than that.
        let got = opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)? as u64;
        if got > MAX_FILE_BYTES {
            return Err(ChatError::TooLarge { name: self.name(file), limit: MAX_FILE_BYTES, got });
        }
        Ok(Some(text))
    }

    /// A JSON file; an empty object where there is no such file.
    pub fn object(&self, file: &str) -> Result<Object, ChatError> {
        let name = self.name(file);
        let Some(text) = self.text(file)? else {
            return Ok(Object { name, within: String::new(), fields: Map::new(), found: false });
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => Ok(Object { name, within: String::new(), fields, found: true }),
            Ok(other) => Err(ChatError::Json { name, got: shown(&other) }),
            Err(error) => Err(ChatError::Json { name, got: error.to_string() }),
        }
    }
}

/// A JSON object of a file, whose fields are read strictly. A field that is `null` counts as absent, as `transformers`
/// has it; fields nobody asks for are ignored.
pub struct Object {
    name: String,
    /// The fields around it, each with a dot after it.
    within: String,
    fields: Map<String, Value>,
    found: bool,
}

impl Object {
    /// Fields of the file `name`.
    pub fn of(name: String, fields: Map<String, Value>) -> Object {
        Object { name, within: String::new(), fields, found: true }
    }

    /// The file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the file is there at all.
    pub fn found(&self) -> bool {
        self.found
    }

    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// The error for a field that is there and cannot be used.
    pub fn wrong(&self, field: &str, expected: &'static str) -> ChatError {
        let got = self.fields.get(field).map_or_else(|| "nothing".to_owned(), shown);
        ChatError::Field { name: self.name.clone(), field: format!("{}{field}", self.within), expected, got }
    }

    /// A field as `read` takes it; `None` from `read` is the error that names `expected`.
    pub fn read<T>(
        &self,
        field: &str,
        expected: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ChatError> {
        self.get(field).map(|value| read(value).ok_or_else(|| self.wrong(field, expected))).transpose()
    }

    pub fn string(&self, field: &str) -> Result<Option<String>, ChatError> {
        self.read(field, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// The text of a token: a string, or an object whose `content` is one.
    pub fn token(&self, field: &str) -> Result<Option<String>, ChatError> {
        self.read(field, "a string, or an object with a string `content`", token_text)
    }

    pub fn id(&self, field: &str) -> Result<Option<u32>, ChatError> {
        self.read(field, "a token id", id)
    }

    /// An object within this one; an empty one where it is absent.
    pub fn object(&self, field: &str) -> Result<Object, ChatError> {
        let fields = self.read(field, "an object", |value| value.as_object().cloned())?;
        let within = format!("{}{field}.", self.within);
        let found = fields.is_some();
        Ok(Object { name: self.name.clone(), within, fields: fields.unwrap_or_default(), found })
    }
}

/// A token id, which no bool, fraction or negative number is.
pub fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// The text of a token as tokenizer files write it.
pub fn token_text(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
    Some(text.to_owned())
}

/// The beginning of a value, for messages.
pub fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    let cut: String = text.chars().take(LONGEST).collect();
    if cut.len() < text.len() { format!("{cut}...") } else { cut }
}
