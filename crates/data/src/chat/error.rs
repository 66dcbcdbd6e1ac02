//! What can go wrong between a model folder and token ids.

/// A model folder, a conversation or a rendered chat that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// A file the folder must have.
    #[error("`{name}` is missing\n  expected  {expected}\n  got       no such file\n\nhint: {hint}")]
    Missing {
        /// The file.
        name: String,
        /// What it holds.
        expected: &'static str,
        /// How to get it.
        hint: &'static str,
    },
    /// A file that is there and could not be read.
    #[error("`{name}` cannot be read: {source}\n\nhint: check its permissions, and that it is UTF-8 text")]
    Read {
        /// The file.
        name: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file longer than any of its kind.
    #[error(
        "`{name}` is too large\n  expected  at most {limit} bytes\n  got       {got} bytes\n\nhint: this is not the file its name says"
    )]
    TooLarge {
        /// The file.
        name: String,
        /// Most bytes that are read.
        limit: u64,
        /// Its bytes.
        got: u64,
    },
    /// A file that is not JSON, or ends early.
    #[error(
        "`{name}` is not complete JSON\n  expected  a JSON object\n  got       {got}\n\nhint: fetch the file again; an unfinished download ends in the middle"
    )]
    Json {
        /// The file.
        name: String,
        /// What the parser said, with line and column.
        got: String,
    },
    /// A field of the wrong type, or out of range.
    #[error(
        "`{name}` has an unusable `{field}`\n  expected  {expected}\n  got       {got}\n\nhint: compare it with the file that came with the weights"
    )]
    Field {
        /// The file.
        name: String,
        /// The field, with the fields around it: `text_config.eos_token_id`.
        field: String,
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        got: String,
    },
    /// A `tokenizer.json` the `tokenizers` library does not take.
    #[error(
        "tokenizer `{name}` cannot be used\n  expected  a `tokenizer.json` of the `tokenizers` library\n  got       {got}\n\nhint: fetch the file again; an unfinished download ends in the middle"
    )]
    Tokenizer {
        /// The file.
        name: String,
        /// What the library said.
        got: String,
    },
    /// Two files of a folder disagree on a token, or one that is needed has no id.
    #[error(
        "`{name}` and the tokenizer disagree on token `{token}`\n  expected  {expected}\n  got       {got}\n\nhint: take all files of the folder from one model"
    )]
    Token {
        /// The file that asks for it.
        name: String,
        /// The token's text.
        token: String,
        /// What the file says.
        expected: String,
        /// What the tokenizer says.
        got: String,
    },
    /// A family whose prompts this crate does not lay out.
    #[error(
        "`{name}` has an unknown `model_type`\n  expected  one of {expected}\n  got       {got}\n\nhint: use a model of one of these families"
    )]
    Family {
        /// The file.
        name: String,
        /// The families.
        expected: String,
        /// What the file says.
        got: String,
    },
    /// No file of the folder has a chat template.
    #[error(
        "model folder `{folder}` has no chat template\n  expected  {expected}\n  got       none of them\n\nhint: take `chat_template.jinja` from the instruction-tuned model; a base model has none"
    )]
    NoTemplate {
        /// The folder.
        folder: String,
        /// Where templates are looked for, first to last.
        expected: String,
    },
    /// A template that is not Jinja, or uses Jinja this crate has not.
    #[error(
        "chat template `{name}` has an error in line {line}\n  expected  a Jinja template\n  got       {got}\n\nhint: fetch the file again, or take the template from the model it was trained with"
    )]
    Syntax {
        /// The file.
        name: String,
        /// The line, from 1; 0 where it is not known.
        line: usize,
        /// What the template engine said.
        got: String,
    },
    /// The template called `raise_exception`.
    #[error(
        "chat template `{name}` refuses this conversation\n  expected  what the template was written for\n  got       {got}\n\nhint: change the order or the roles of the messages as the template says"
    )]
    Raised {
        /// The file.
        name: String,
        /// What the template said.
        got: String,
    },
    /// A template that fails on this conversation.
    #[error(
        "chat template `{name}` fails in line {line}\n  expected  to render {messages} messages\n  got       {got}\n\nhint: try plain user and assistant messages, or another template"
    )]
    Render {
        /// The file.
        name: String,
        /// The line, from 1; 0 where it is not known.
        line: usize,
        /// How many messages it was given.
        messages: usize,
        /// What the template engine said.
        got: String,
    },
    /// A template without room for pictures, and a message with one.
    #[error(
        "chat template `{name}` has no place for pictures\n  expected  messages of text\n  got       a picture in message {message}\n\nhint: use a vision-language model, or leave the picture out"
    )]
    NoPictures {
        /// The file.
        name: String,
        /// The message, from 0.
        message: usize,
    },
    /// A conversation without a message.
    #[error("the conversation is empty\n  expected  at least one message\n  got       none\n\nhint: ask something")]
    NoMessages,
    /// A role that no family knows.
    #[error(
        "message has an unknown role\n  expected  `system`, `user` or `assistant`\n  got       `{got}`\n\nhint: give the instruction as `system` and the question as `user`"
    )]
    Role {
        /// What was given.
        got: String,
    },
    /// As many places for pictures as pictures are needed.
    #[error(
        "the chat and its pictures do not agree\n  expected  {pictures} `{placeholder}` in the rendered chat, one for each picture given\n  got       {placeholders}\n\nhint: give one picture for each image part, in order"
    )]
    Pictures {
        /// The token that stands for a picture.
        placeholder: String,
        /// How often it stands in the rendered chat.
        placeholders: usize,
        /// How many pictures were given.
        pictures: usize,
    },
    /// A picture described in a way that is not this family's.
    #[error(
        "picture {picture} is not described as this model sees pictures\n  expected  {expected}\n  got       {got}\n\nhint: prepare pictures with the image processor of the same folder"
    )]
    Picture {
        /// The picture, from 0.
        picture: usize,
        /// What the family needs.
        expected: String,
        /// What was given.
        got: String,
    },
    /// After encoding, image tokens do not stand where they were laid out.
    #[error(
        "the tokenizer does not keep image tokens apart\n  expected  {expected} ids of `{token}`, in unbroken runs\n  got       {got}\n\nhint: use the `tokenizer.json` that came with the weights"
    )]
    ImageIds {
        /// The image token.
        token: String,
        /// How many were laid out.
        expected: usize,
        /// What the tokenizer gave.
        got: String,
    },
    /// Plain text came out as a control token, so that a user could write one.
    #[error(
        "the tokenizer makes control tokens of plain text\n  expected  {expected} of them, the template's own\n  got       {got}\n\nhint: use the `tokenizer.json` that came with the weights"
    )]
    Control {
        /// How many the template wrote.
        expected: usize,
        /// How many came out.
        got: usize,
    },
}
