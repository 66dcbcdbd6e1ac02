//! The chat template of a folder: where it is found, and Jinja as `transformers` runs it.

use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::Value as Json;

use super::error::ChatError;
use super::files::Folder;
use super::python;

/// Where `transformers` 5 looks for the template of a model with pictures (its processor), first to last. It asks the
/// last only for models of text; here it is better than none.
const WITH_PICTURES: [&str; 4] =
    ["processor_config.json", "chat_template.json", "chat_template.jinja", "tokenizer_config.json"];
/// The same for models of text (their tokenizer), where it never asks the last two.
const OF_TEXT: [&str; 4] =
    ["chat_template.jinja", "tokenizer_config.json", "processor_config.json", "chat_template.json"];

/// The name of the template inside the engine.
const CHAT: &str = "chat";
/// Steps of the engine one rendering may take, about one for each instruction and each 64 bytes: a conversation of a
/// million characters takes some hundred thousand, a template that never ends takes a second, or 256 MB, to find out.
const FUEL: u64 = 4_000_000;
/// A text to see whether a template shows what it is given.
const PROBE: &str = "lare-probe";

/// A compiled chat template.
#[derive(Clone)]
pub struct Template {
    /// The file it is from.
    name: String,
    environment: Environment<'static>,
    /// Whether content given as a string is shown.
    pub strings: bool,
    /// Whether content given as a list of parts is shown.
    pub parts: bool,
}

/// What a template's call of `raise_exception` says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

impl Template {
    /// The template of a folder.
    ///
    /// # Errors
    /// If there is none, if a file cannot be read, or if the template is not Jinja.
    pub fn find(folder: &Folder, with_pictures: bool) -> Result<Template, ChatError> {
        let files = if with_pictures { WITH_PICTURES } else { OF_TEXT };
        for file in files {
            if let Some(source) = source(folder, file)? {
                return Template::compile(folder.name(file), &source);
            }
        }
        Err(ChatError::NoTemplate { folder: folder.shown(), expected: files.join(", then ") })
    }

    /// Compiles a template; `name` is for messages.
    ///
    /// # Errors
    /// If it is not Jinja.
    pub fn compile(name: String, source: &str) -> Result<Template, ChatError> {
        let mut environment = environment();
        // Python reads text files with one kind of line end.
        let source = without_generation(&source.replace("\r\n", "\n").replace('\r', "\n"));
        let compiled = environment.add_template_owned(CHAT, source);
        compiled.map_err(|error| ChatError::Syntax {
            name: name.clone(),
            line: error.line().unwrap_or(0),
            got: said(&error),
        })?;
        let mut template = Template { name, environment, strings: true, parts: true };
        template.probe();
        Ok(template)
    }

    /// The file it is from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Renders `messages` messages that `context` holds.
    ///
    /// # Errors
    /// If the template refuses the conversation, fails on it, or does not end.
    pub fn render(&self, context: Value, messages: usize) -> Result<String, ChatError> {
        let rendered = self.environment.get_template(CHAT).and_then(|template| template.render(context));
        rendered.map_err(|error| match raised(&error) {
            Some(Raised(got)) => ChatError::Raised { name: self.name.clone(), got: got.clone() },
            None => ChatError::Render {
                name: self.name.clone(),
                line: error.line().unwrap_or(0),
                messages,
                got: said(&error),
            },
        })
    }

    /// Finds out which forms of content the template shows: one written for lists shows nothing of a string, one
    /// written for strings nothing or Python's notation of a list, and neither says so.
    fn probe(&mut self) {
        let render = |content: Value| {
            let message = Value::from_pairs([("role", Value::from("user")), ("content", content)]);
            let context = minijinja::context! {
                messages => Value::from(vec![message]), add_generation_prompt => true,
                bos_token => "", eos_token => "", tools => (), documents => (),
                strftime_now => clock(SystemTime::UNIX_EPOCH),
            };
            // A list written out as Python or JSON has it is not shown.
            let dumped = |text: &String| text.contains("'type'") || text.contains("\"type\"");
            self.render(context, 1).ok().filter(|text| text.contains(PROBE) && !dumped(text))
        };
        let part = Value::from_pairs([("type", "text"), ("text", PROBE)]);
        let (string, parts) = (render(Value::from(PROBE)), render(Value::from(vec![part])));
        // A template that wants more than a lone question says nothing about its forms.
        if string.is_some() || parts.is_some() {
            self.strings = string.is_some();
            self.parts = parts.is_some() && (string.is_none() || string == parts);
        }
    }
}

/// The template's text in one file of a folder, if there is one.
fn source(folder: &Folder, file: &str) -> Result<Option<String>, ChatError> {
    if file.ends_with(".jinja") {
        return folder.text(file);
    }
    let expected = "a template, or templates by name with one named `default`";
    folder.object(file)?.read("chat_template", expected, |value| match value {
        Json::String(template) => Some(template.clone()),
        Json::Object(by_name) => by_name.get("default")?.as_str().map(str::to_owned),
        Json::Array(list) => {
            let default = list.iter().find(|entry| entry.get("name").and_then(Json::as_str) == Some("default"))?;
            default.get("template")?.as_str().map(str::to_owned)
        }
        _ => None,
    })
}

/// Jinja as `transformers` sets it up, with Python's methods on strings and dictionaries.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // Only changed delimiters can be refused, and these are Jinja's own.
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or_default());
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|output, _: &mut State, value| Ok(output.write_str(&python::text(value))?));
    environment.add_filter("tojson", |value: &Value, options: Kwargs| python::tojson(value, options));
    environment.add_filter("string", |value: &Value| python::text(value));
    // In Python whatever has a length and items is a sequence.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
    });
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        let message = python::text(message);
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    environment
}

/// A template without `generation` and `endgeneration`, which `transformers` adds to Jinja to find what the assistant
/// said: they render what is between them, and a variable set there is not seen after it.
fn without_generation(source: &str) -> String {
    let mut rest = source;
    let mut plain = String::with_capacity(source.len());
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        plain.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let inside = &tag[..end];
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => plain.push_str(&inside.replace("generation", " with ")),
            "endgeneration" => plain.push_str(&inside.replace("endgeneration", " endwith ")),
            _ => plain.push_str(inside),
        }
        rest = &tag[end..];
    }
    plain.push_str(rest);
    plain
}

/// What the template said by `raise_exception`, if that is why it failed.
fn raised<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Raised> {
    error.downcast_ref::<Raised>().or_else(|| raised(error.source()?))
}

/// What the engine says, without the line it adds.
fn said(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// `strftime_now` at a point in time.
pub fn clock(now: SystemTime) -> Value {
    Value::from_function(move |format: &str| python::strftime(now, format))
}
