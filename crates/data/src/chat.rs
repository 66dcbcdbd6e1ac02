//! Conversations with the models of a Hugging Face folder or GGUF file: everything about their text before the first tensor.
//!
//! ```text
//! messages ─ chat template (Jinja, the folder's) ─► text with one placeholder a picture
//!          ─ what each picture takes ─► text with all its image tokens ─ tokenizer.json ─► ids, and where pictures are
//! ids of an answer ─ decoder ─► text as it comes
//! ```
//!
//! The families are those of `docs/families.md`: Qwen2.5-VL, Qwen3-VL, SmolVLM, Idefics3, and for text alone Qwen2,
//! Qwen3 and Llama. What is rendered and encoded is what `transformers` 5 renders and encodes, to the id
//! (`tools/reference/chat.py`), with these differences, all on the side of safety:
//!
//! - **What people write is inert.** A control token inside a message, such as `<|im_end|>` or `<|image_pad|>`, is
//!   encoded as the plain text it is: it ends no turn and makes no picture. `transformers` encodes it as the token
//!   unless `sanitize_control_tokens=True` is given; the ids here are those of that mode. It holds for every added token
//!   but whitespace, and for strings among the template's variables. In what the assistant said it holds for special
//!   tokens alone: `<think>` of Qwen3 is not special, is part of the answer that was decoded, and templates look for it.
//!   To keep them apart, the private-use characters U+F0000 and U+F0001 are taken out of what people write. A template
//!   that builds a token from text by itself, as `lower` could, is beyond this.
//! - **No text is lost.** A template written for lists of parts shows nothing of a message that is a string, and one
//!   written for strings may show nothing of a list. Each is tried when it is loaded, and messages are given in a form
//!   it shows: a string as one part, parts of text joined. A picture for a template without parts is an error.
//! - **A template cannot run for ever**, and has no way to files, clock or network; `strftime_now` gets its time from
//!   [`RenderOptions::now`].

mod error;
mod files;
mod generation;
mod gguf;
mod images;
mod inert;
mod python;
mod template;
mod tokenizer;

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::SystemTime;

use minijinja::Value;
use minijinja::value::Serde;
use serde_json::{Map, Value as Json};

pub use error::ChatError;
pub use generation::Generation;
pub use images::{PictureTokens, Prompt};
pub use tokenizer::{Decoder, FolderTokenizer};

use files::{Folder, Object};
use images::{Images, Layout};
use inert::{Piece, Tokens};
use template::Template;

/// The families by `model_type`, and how they lay out pictures.
const FAMILIES: [(&str, Option<Layout>); 7] = [
    ("qwen2_5_vl", Some(Layout::Run)),
    ("qwen3_vl", Some(Layout::Run)),
    ("smolvlm", Some(Layout::Tiles)),
    ("idefics3", Some(Layout::Tiles)),
    ("qwen2", None),
    ("qwen3", None),
    ("llama", None),
];

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What holds for the whole conversation.
    System,
    /// Who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The role's name in templates.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

impl FromStr for Role {
    type Err = ChatError;

    /// The role of a name. Templates write whatever name they are given, so a name is never passed on unread.
    fn from_str(name: &str) -> Result<Role, ChatError> {
        let known = [Role::System, Role::User, Role::Assistant].into_iter().find(|role| role.name() == name);
        known.ok_or_else(|| ChatError::Role { got: name.to_owned() })
    }
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// A picture; which one follows from its place among the pictures given to [`Chat::encode`].
    Picture,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text alone.
    Text(String),
    /// Text and pictures, in order.
    Parts(Vec<Part>),
}

impl From<&str> for Content {
    fn from(text: &str) -> Content {
        Content::Text(text.to_owned())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Content {
        Content::Text(text)
    }
}

impl From<Vec<Part>> for Content {
    fn from(parts: Vec<Part>) -> Content {
        Content::Parts(parts)
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: Content,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<Content>) -> Message {
        Message { role, content: content.into() }
    }
}

/// How a conversation is rendered.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// Whether the text ends where the assistant is to speak. On by default.
    pub add_generation_prompt: bool,
    /// More variables of the template, by name: `enable_thinking`, `add_vision_id`. Strings in them are inert.
    pub variables: BTreeMap<String, Json>,
    /// What `strftime_now` says, in UTC; `None`: the system's clock. Llama 3.2 writes the date into its prompts, so a
    /// prompt that is to be the same tomorrow needs a time.
    pub now: Option<SystemTime>,
}

impl Default for RenderOptions {
    fn default() -> RenderOptions {
        RenderOptions { add_generation_prompt: true, variables: BTreeMap::new(), now: None }
    }
}

/// A conversation as text, with one placeholder for each picture, that remembers what of it people wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    marked: String,
}

impl Rendered {
    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        inert::unmarked(&self.marked)
    }
}

/// The text side of a model folder.
#[derive(Clone)]
pub struct Chat {
    tokenizer: FolderTokenizer,
    /// What the assistant's messages may not write: special tokens, and the one that stands for a picture.
    special: Tokens,
    template: Template,
    images: Option<Images>,
    generation: Generation,
}

impl Chat {
    /// Reads the text files of a model folder: `config.json`, `tokenizer.json`, `tokenizer_config.json`, the chat
    /// template, `generation_config.json` and the older files beside them.
    ///
    /// The template is looked for in the order of `transformers` 5. For a model with pictures: `chat_template` in
    /// `processor_config.json`, then in `chat_template.json`, then `chat_template.jinja`, then `chat_template` in
    /// `tokenizer_config.json`. For a model of text: `chat_template.jinja`, `tokenizer_config.json`, then the other
    /// two. Of several templates by name, the one named `default`.
    ///
    /// # Errors
    /// If a file is missing, cut short, has a field of the wrong type or disagrees with another, if there is no
    /// template or it is not Jinja, or if the family is not one of those above.
    pub fn from_folder(folder: &Path) -> Result<Chat, ChatError> {
        Chat::read(&Folder::new(folder))
    }

    /// Reads the text side of a GGUF file from its metadata; `path` is the file's, for messages.
    ///
    /// # Errors
    /// If a key is missing or of another type, names a kind of tokenizer that is not known, or there is no chat template.
    pub fn from_gguf(path: &Path, metadata: &Map<String, Json>) -> Result<Chat, ChatError> {
        gguf::require_template(path, metadata)?;
        Chat::read(&gguf::folder(path, metadata)?)
    }

    fn read(folder: &Folder) -> Result<Chat, ChatError> {
        let config = folder.object("config.json")?;
        let layout = layout(&config)?;
        let tokenizer = FolderTokenizer::read(folder)?;
        let images = layout.map(|layout| Images::read(layout, &tokenizer, &config)).transpose()?;
        let placeholder = images.iter().map(|images| images.token().0.to_owned());
        let special = Tokens::new(tokenizer.special().into_iter().chain(placeholder).collect());
        let template = Template::find(folder, images.is_some())?;
        let generation = Generation::read(folder, &config)?;
        Ok(Chat { tokenizer, special, template, images, generation })
    }

    /// The tokenizer of the folder.
    #[must_use]
    pub fn tokenizer(&self) -> &FolderTokenizer {
        &self.tokenizer
    }

    /// How the folder asks its model to be sampled, and the ids that end an answer.
    #[must_use]
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// The token that stands for a picture, and its id; `None` for a model of text.
    #[must_use]
    pub fn image_token(&self) -> Option<(&str, u32)> {
        self.images.as_ref().map(Images::token)
    }

    /// Renders a conversation by the folder's template.
    ///
    /// # Errors
    /// If there is no message, a picture the template has no place for, or if the template refuses the conversation,
    /// fails on it or does not end.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<Rendered, ChatError> {
        if messages.is_empty() {
            return Err(ChatError::NoMessages);
        }
        let mut context: BTreeMap<String, Value> = BTreeMap::new();
        context.extend(["tools", "documents"].map(|name| (name.to_owned(), Value::from(()))));
        for (name, token) in self.tokenizer.variables() {
            context.insert(name.to_owned(), Value::from(token));
        }
        for (name, value) in &options.variables {
            context.insert(name.clone(), Value::from(Serde(self.tokenizer.control().mark_json(value))));
        }
        let given = messages.iter().enumerate().map(|(index, message)| self.message(index, message));
        let given = given.collect::<Result<Vec<Value>, ChatError>>()?;
        context.insert("messages".to_owned(), Value::from(given));
        context.insert("add_generation_prompt".to_owned(), Value::from(options.add_generation_prompt));
        let now = options.now.unwrap_or_else(SystemTime::now);
        context.insert("strftime_now".to_owned(), template::clock(now));
        Ok(Rendered { marked: self.template.render(Value::from(context), messages.len())? })
    }

    /// The ids of a rendered conversation, each placeholder replaced by the image tokens of its picture. No token is
    /// added at either end.
    ///
    /// # Errors
    /// If there are not as many pictures as placeholders, a picture is described as another family's, or the tokenizer
    /// fails, tears image tokens apart or makes control tokens of plain text.
    pub fn encode(&self, rendered: &Rendered, pictures: &[PictureTokens]) -> Result<Prompt, ChatError> {
        let pieces = inert::pieces(&rendered.marked, self.tokenizer.control());
        let Some(images) = &self.images else {
            if !pictures.is_empty() {
                let placeholder = "place for a picture".to_owned();
                return Err(ChatError::Pictures { placeholder, placeholders: 0, pictures: pictures.len() });
            }
            return Ok(Prompt { ids: self.tokenizer.encode_pieces(&pieces)?, pictures: Vec::new() });
        };
        let expanded = images.expand(&pieces, pictures, &self.tokenizer)?;
        let pieces: Vec<Piece<'_>> = expanded.iter().map(|(text, inert)| Piece { text, inert: *inert }).collect();
        let ids = self.tokenizer.encode_pieces(&pieces)?;
        let pictures = images.locate(&ids, pictures)?;
        Ok(Prompt { ids, pictures })
    }

    /// A message as the template gets it, in a form it shows.
    fn message(&self, index: usize, message: &Message) -> Result<Value, ChatError> {
        let inert = if message.role == Role::Assistant { &self.special } else { self.tokenizer.control() };
        let content = match &message.content {
            Content::Text(text) if self.template.strings => Value::from(inert.mark(text)),
            Content::Text(text) => Value::from(vec![text_part(inert.mark(text))]),
            Content::Parts(parts) if self.template.parts => parts_value(parts, inert),
            Content::Parts(parts) => {
                let texts: Option<Vec<&str>> = parts.iter().map(Part::text).collect();
                let no_place = || ChatError::NoPictures { name: self.template.name().to_owned(), message: index };
                Value::from(inert.mark(&texts.ok_or_else(no_place)?.concat()))
            }
        };
        Ok(Value::from_pairs([("role", Value::from(message.role.name())), ("content", content)]))
    }
}

/// Parts as the template gets them.
fn parts_value(parts: &[Part], inert: &Tokens) -> Value {
    let mut given = Vec::with_capacity(parts.len());
    for run in parts.chunk_by(|a, b| a.text().is_some() && b.text().is_some()) {
        let texts: Vec<&str> = run.iter().filter_map(Part::text).collect();
        if texts.is_empty() {
            given.push(Value::from_pairs([("type", "image")]));
        }
        given.extend(inert.mark_all(&texts).into_iter().map(text_part));
    }
    Value::from(given)
}

impl Part {
    fn text(&self) -> Option<&str> {
        match self {
            Part::Text(text) => Some(text),
            Part::Picture => None,
        }
    }
}

fn text_part(text: String) -> Value {
    Value::from_pairs([("type", Value::from("text")), ("text", Value::from(text))])
}

/// How the family of a `config.json` lays out pictures, if it sees any.
fn layout(config: &Object) -> Result<Option<Layout>, ChatError> {
    if !config.found() {
        let hint = "give the folder of the model, the one with `config.json` in it";
        return Err(ChatError::Missing { name: config.name().to_owned(), expected: "the model's architecture", hint });
    }
    let got = config.string("model_type")?;
    let family = FAMILIES.into_iter().find(|(name, _)| got.as_deref() == Some(name));
    family.map(|(_, layout)| layout).ok_or_else(|| ChatError::Family {
        name: config.name().to_owned(),
        expected: FAMILIES.map(|(name, _)| name).join(", "),
        got: got.unwrap_or_else(|| "none".to_owned()),
    })
}

#[cfg(test)]
mod tests;
