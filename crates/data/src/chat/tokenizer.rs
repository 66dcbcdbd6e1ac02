//! The tokenizer of a model folder, and decoding as ids come.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value as Json};
use tokenizers::tokenizer::{Model as _, Normalizer as _, PreTokenizedString, PreTokenizer as _};
use tokenizers::{AddedToken, NormalizedString, OffsetReferential, OffsetType};

use super::error::ChatError;
use super::files::{Folder, Object, id, token_text};
use super::gguf;
use super::inert::{Piece, Tokens};

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";

/// What an incomplete or invalid byte sequence is decoded to.
const REPLACEMENT: char = '\u{fffd}';

/// The tokens that have a name in every tokenizer, which templates know as variables: `bos_token` and so on.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The tokenizer of a Hugging Face model folder or GGUF file.
#[derive(Clone)]
pub struct FolderTokenizer {
    inner: tokenizers::Tokenizer,
    /// The folder's `tokenizer.json`.
    name: String,
    /// Texts of tokens by the names templates and processors use.
    named: BTreeMap<String, String>,
    /// Added tokens, which no message may write.
    control: Tokens,
    control_ids: HashSet<u32>,
    /// The ids of a line end.
    newline: Vec<u32>,
}

impl FolderTokenizer {
    /// The tokenizer in the metadata of the GGUF file `path`.
    ///
    /// # Errors
    /// If a key is missing, of another type, or names a kind of tokenizer that is not known.
    pub fn from_gguf(path: &Path, metadata: &Map<String, Json>) -> Result<FolderTokenizer, ChatError> {
        FolderTokenizer::read(&gguf::folder(path, metadata)?)
    }

    /// The tokenizer of a Hugging Face model folder, without its chat template.
    ///
    /// # Errors
    /// If a file cannot be read, is not what its name says, or gives a token another id than another file does.
    pub fn from_folder(folder: &Path) -> Result<FolderTokenizer, ChatError> {
        FolderTokenizer::read(&Folder::new(folder))
    }

    /// Reads `tokenizer.json`, and from `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` the
    /// tokens it lacks and the names of tokens. As in `transformers`, the last two files are asked only where
    /// `tokenizer_config.json` has no `added_tokens_decoder`. Truncation and padding the file may ask for are turned off.
    ///
    /// # Errors
    /// If a file cannot be read, is not what its name says, or gives a token another id than another file does.
    pub(super) fn read(folder: &Folder) -> Result<FolderTokenizer, ChatError> {
        let name = folder.name(TOKENIZER);
        let refused =
            |error: tokenizers::Error| ChatError::Tokenizer { name: folder.name(TOKENIZER), got: error.to_string() };
        let hint = "take it from the model's folder; `vocab.json` and `merges.txt` alone are not read";
        let expected = "the vocabulary and how text becomes tokens";
        let text = folder.text(TOKENIZER)?.ok_or(ChatError::Missing { name: name.clone(), expected, hint })?;
        let mut inner = tokenizers::Tokenizer::from_bytes(text.as_bytes()).map_err(refused)?;
        inner.with_truncation(None).map_err(refused)?;
        inner.with_padding(None);

        let config = folder.object(CONFIG)?;
        let mut named = names(&config)?;
        let mut added = added_tokens(&config)?;
        if !config.fields().contains_key("added_tokens_decoder") {
            named.extend(names(&folder.object("special_tokens_map.json")?)?);
            added = legacy_tokens(&folder.object("added_tokens.json")?, &named, &inner)?;
        }
        let special: Vec<String> =
            NAMED.iter().filter_map(|&key| named.get(key).cloned()).chain(listed(&config)).collect();
        add(&mut inner, added).map_err(refused)??;
        // A named token without an id is only a text for the template, such as the padding of a model without padding.
        let known = special.into_iter().filter(|token| inner.token_to_id(token).is_some());
        let known: Vec<AddedToken> =
            known.filter(|token| !is_special(&inner, token)).map(|token| AddedToken::from(token, true)).collect();
        inner.add_special_tokens(known).map_err(refused)?;

        let decoder = inner.get_added_tokens_decoder();
        // A run of spaces or line ends is an added token in some vocabularies, and ordinary text.
        let control = decoder.iter().filter(|(_, token)| !token.content.trim().is_empty());
        let (control_ids, texts): (HashSet<u32>, Vec<String>) =
            control.map(|(&id, token)| (id, token.content.clone())).unzip();
        let newline = inner.encode_fast("\n", false).map_err(refused)?.get_ids().to_vec();
        Ok(FolderTokenizer { inner, name, named, control: Tokens::new(texts), control_ids, newline })
    }

    /// The file it is from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of the token the folder names so: `eos_token`, `image_token`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(String::as_str)
    }

    /// The named tokens templates know as variables.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        NAMED.into_iter().filter_map(|name| Some((name, self.named(name)?)))
    }

    /// The id of a token, by its exact text.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The text of one id as the vocabulary has it: of most tokens not what they decode to.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// How many ids there are, added tokens included. The model's embedding may have more rows.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The ids of a text in which tokens are only text, as a message is encoded.
    ///
    /// # Errors
    /// If the tokenizer fails on it.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        let plain = || -> tokenizers::Result<Vec<u32>> {
            let mut normalized = NormalizedString::from(text);
            if let Some(normalizer) = self.inner.get_normalizer() {
                normalizer.normalize(&mut normalized)?;
            }
            let mut words = PreTokenizedString::from(normalized);
            if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut words)?;
            }
            let splits = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
            let mut ids = Vec::new();
            for (word, _, _) in splits {
                ids.extend(self.inner.get_model().tokenize(word)?.into_iter().map(|token| token.id));
            }
            Ok(ids)
        };
        plain().map_err(|error| self.refused(&error))
    }

    /// The ids of a text, tokens in it recognised, none added to it.
    ///
    /// # Errors
    /// If the tokenizer fails on it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        let encoding = self.inner.encode_fast(text, false).map_err(|error| self.refused(&error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of a chat in pieces.
    ///
    /// # Errors
    /// If the tokenizer fails on it, or makes a control token of plain text.
    pub(super) fn encode_pieces(&self, pieces: &[Piece<'_>]) -> Result<Vec<u32>, ChatError> {
        let mut ids = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            ids.extend(if index == 0 { self.encode(piece.text)? } else { self.encode_within(*piece)? });
        }
        let written = pieces.iter().filter(|piece| !piece.inert).map(|piece| self.control.find(piece.text).len()).sum();
        let got = ids.iter().filter(|id| self.control_ids.contains(id)).count();
        // Fewer is possible: a token may ask to be recognised only as a word of its own.
        if got > written { Err(ChatError::Control { expected: written, got }) } else { Ok(ids) }
    }

    /// A piece that does not begin the chat. It is encoded after a line end, which is then taken off again, because
    /// some tokenizers put a space before what they take for the beginning of a text. As `transformers` does it.
    fn encode_within(&self, piece: Piece<'_>) -> Result<Vec<u32>, ChatError> {
        let encode = |text: &str| if piece.inert { self.encode_plain(text) } else { self.encode(text) };
        let ids = encode(&format!("\n{}", piece.text))?;
        match ids.strip_prefix(&self.newline[..]) {
            Some(rest) => Ok(rest.to_vec()),
            None => encode(piece.text),
        }
    }

    /// The text of ids without special tokens. Added tokens that are not special, such as `<think>` of Qwen3, stay.
    /// Spaces before punctuation are left as they are (`clean_up_tokenization_spaces` is ignored).
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        // The decoders of the library fail on no sequence of tokens; if one ever does, nothing is shown of it.
        self.inner.decode(ids, true).unwrap_or_default()
    }

    /// The added tokens.
    pub(super) fn control(&self) -> &Tokens {
        &self.control
    }

    /// The texts of the special ones among the added tokens.
    pub(super) fn special(&self) -> Vec<String> {
        let tokens = self.inner.get_added_tokens_decoder();
        tokens.into_values().filter(|token| token.special).map(|token| token.content).collect()
    }

    fn refused(&self, error: &tokenizers::Error) -> ChatError {
        ChatError::Tokenizer { name: self.name.clone(), got: error.to_string() }
    }

    /// The token of an id that [`FolderTokenizer::decode`] shows something of.
    fn shown(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id).filter(|token| !is_special(&self.inner, token))
    }
}

/// Decodes ids as they come: never half a character, and all pieces joined are [`FolderTokenizer::decode`] of all ids. All of
/// an answer must go through one tokenizer.
///
/// ```no_run
/// # use lare_data::chat::{Chat, Decoder};
/// # let chat = Chat::from_folder("model".as_ref())?;
/// let (mut decoder, mut answer) = (Decoder::default(), String::new());
/// for id in [9707, 11, 1879] {
///     answer.push_str(&decoder.push(chat.tokenizer(), id)); // often empty: half a character is kept back
/// }
/// answer.push_str(&decoder.finish(chat.tokenizer()));
/// # Ok::<(), lare_data::chat::ChatError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// The ids of the last piece, which decide whether the next begins with a space, and all ids after it.
    window: Vec<u32>,
    /// How many bytes of the window's text have been given.
    given: usize,
    /// Where in the window the ids after the last piece begin.
    chunk: usize,
    /// Whether the last token shown stands for one byte. Such bytes are decoded together with those next to them, and
    /// one that is wrong spoils them all.
    bytes: bool,
}

impl Decoder {
    /// Takes the next id and gives the text that is now certain.
    pub fn push(&mut self, tokenizer: &FolderTokenizer, id: u32) -> String {
        self.window.push(id);
        self.bytes = tokenizer.shown(id).map_or(self.bytes, |token| is_byte(&token));
        if self.bytes {
            return String::new();
        }
        let text = tokenizer.decode(&self.window);
        // What ends in the middle of a character ends in this one, and so may what is complete.
        let certain = text.trim_end_matches(REPLACEMENT).len();
        let piece = text.get(self.given..certain).unwrap_or_default().to_owned();
        if piece.is_empty() {
            return piece;
        }
        self.given = certain;
        if certain == text.len() {
            self.window.drain(..self.chunk);
            self.chunk = self.window.len();
            self.given = tokenizer.decode(&self.window).len();
        }
        piece
    }

    /// The text that was kept back: what an answer that ends in the middle of a character decodes to. After it nothing is.
    pub fn finish(&mut self, tokenizer: &FolderTokenizer) -> String {
        let rest = tokenizer.decode(&self.window).get(self.given..).unwrap_or_default().to_owned();
        *self = Self::default();
        rest
    }
}

/// Whether a token is one byte as SentencePiece spells it: `<0xE4>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Texts of tokens by name: every `..._token`, and `extra_special_tokens` where it is a dictionary.
fn names(object: &Object) -> Result<BTreeMap<String, String>, ChatError> {
    let mut named = BTreeMap::new();
    for key in object.fields().keys().filter(|key| key.ends_with("_token")) {
        // Others of this form are switches: `add_bos_token`.
        let text =
            if NAMED.contains(&key.as_str()) { object.token(key)? } else { object.get(key).and_then(token_text) };
        named.extend(text.map(|text| (key.clone(), text)));
    }
    if let Some(Json::Object(extra)) = object.get("extra_special_tokens") {
        named.extend(extra.iter().filter_map(|(key, value)| Some((key.clone(), token_text(value)?))));
    }
    Ok(named)
}

/// The special tokens that have no name.
fn listed(config: &Object) -> Vec<String> {
    let lists = ["additional_special_tokens", "extra_special_tokens"].into_iter().filter_map(|key| config.get(key));
    lists.filter_map(Json::as_array).flatten().filter_map(token_text).collect()
}

/// A token, the id a file gives it, and the file.
struct Added {
    id: u32,
    token: AddedToken,
    file: String,
}

/// `added_tokens_decoder`, by id.
fn added_tokens(config: &Object) -> Result<Vec<Added>, ChatError> {
    let decoder = config.object("added_tokens_decoder")?;
    let mut added = Vec::new();
    for key in decoder.fields().keys() {
        let token = decoder.read(key, "a token with its id as key", |value| {
            let flag = |name: &str, default| value.get(name).map_or(Some(default), Json::as_bool);
            let special = flag("special", false)?;
            let token = AddedToken::from(value.get("content")?.as_str()?, special)
                .single_word(flag("single_word", false)?)
                .lstrip(flag("lstrip", false)?)
                .rstrip(flag("rstrip", false)?)
                .normalized(flag("normalized", !special)?);
            Some(Added { id: key.parse().ok()?, token, file: config.name().to_owned() })
        })?;
        added.extend(token);
    }
    added.sort_by_key(|added| added.id);
    Ok(added)
}

/// `added_tokens.json`, by id: what `tokenizer.json` lacks, for there it says only the id.
fn legacy_tokens(
    file: &Object,
    named: &BTreeMap<String, String>,
    inner: &tokenizers::Tokenizer,
) -> Result<Vec<Added>, ChatError> {
    let mut added = Vec::new();
    for text in file.fields().keys() {
        let Some(id) = file.read(text, "a token id", id)? else { continue };
        if inner.token_to_id(text) != Some(id) {
            let special = named.values().any(|name| name == text);
            added.push(Added { id, token: AddedToken::from(text.clone(), special), file: file.name().to_owned() });
        }
    }
    added.sort_by_key(|added| added.id);
    Ok(added)
}

/// Adds tokens, or changes what is known of them; each must have or get the id its file gives it.
fn add(inner: &mut tokenizers::Tokenizer, added: Vec<Added>) -> tokenizers::Result<Result<(), ChatError>> {
    let fits = |added: &&Added| inner.token_to_id(&added.token.content).is_none_or(|id| id == added.id);
    let fitting: Vec<AddedToken> = added.iter().filter(fits).map(|added| added.token.clone()).collect();
    // All at once: the library prepares its search anew each time.
    inner.add_tokens(fitting)?;
    for Added { id, token, file } in added {
        let got = inner.token_to_id(&token.content);
        if got != Some(id) {
            let got = got.map_or_else(|| "no id".to_owned(), |got| format!("id {got}"));
            return Ok(Err(ChatError::Token { name: file, token: token.content, expected: format!("id {id}"), got }));
        }
    }
    Ok(Ok(()))
}

fn is_special(inner: &tokenizers::Tokenizer, token: &str) -> bool {
    inner.get_added_vocabulary().is_special_token(token)
}
