//! A sample of any file, as one object, to examples.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::album::PictureAt;
use super::boxes::{self, Edges, Unit};
use super::fault::{ExamplesError, Fault, FaultKind};
use super::found::Format;
use super::options::{Answer, asked};
use super::turns::{self, Slot, Turn, short};
use super::{Example, Look, Origin, Reading};
use crate::chat::{Content, Message, Part, Role};

/// Hears of every object of a file.
pub(super) type Each<'a> = &'a mut dyn FnMut(Result<Raw, Fault>) -> Result<(), ExamplesError>;

/// Keys that say that an object is a sample, and what they hold.
pub(super) const TURNS: [&str; 3] = ["conversations", "conversation", "messages"];
pub(super) const ANSWERS: [&str; 6] = ["answer", "response", "output", "solution", "caption", "text"];
pub(super) const IMAGES: [&str; 2] = ["images", "image"];
const QUESTIONS: [&str; 4] = ["question", "query", "instruction", "problem"];
const NAMES: [&str; 4] = ["id", "question_id", "uid", "__key__"];
const CHOICES: [&str; 2] = ["choices", "options"];
const BOXES: [&str; 2] = ["bboxes", "bbox"];
/// Keys without another name.
#[cfg(feature = "parquet")]
const SINGLE: [&str; 4] = ["system", "bbox_format", "rationale", "steps"];
/// The key that stands for a picture inside the file; its value is the number of it in [`Raw::inside`].
pub(super) const INSIDE: &str = "$picture";

/// A sample as a file has it.
pub(super) struct Raw {
    pub origin: Origin,
    /// Its number in the file, from 1.
    pub number: usize,
    pub value: Value,
    /// Pictures that lie in the file itself.
    pub inside: Vec<PictureAt>,
    /// Whether they are the sample's where it names none.
    pub implied: bool,
}

impl Raw {
    /// An object without pictures of its own.
    pub fn plain(origin: Origin, number: usize, value: Value) -> Raw {
        Raw { origin, number, value, inside: Vec::new(), implied: false }
    }
}

/// What is known of the file.
pub(super) struct Context<'a> {
    pub reading: &'a Reading,
    pub format: Format,
    pub folder: &'a Path,
}

impl Context<'_> {
    /// One example for each answer.
    pub fn examples(&self, raw: Raw) -> Result<Vec<Example>, Fault> {
        let number = raw.number;
        let Value::Object(object) = raw.value else {
            let got = short(&raw.value);
            let (field, expected) = ("the whole sample".into(), "an object".into());
            let id = raw.origin.place.to_string();
            return Err(Fault { kind: FaultKind::Layout, id, origin: raw.origin, field, expected, got });
        };
        let mut record = Record { id: String::new(), origin: raw.origin, object, context: self };
        record.id = record.name(number);
        record.examples(&raw.inside, raw.implied)
    }
}

/// An object, whose keys are taken one by one.
struct Record<'a> {
    id: String,
    origin: Origin,
    object: Map<String, Value>,
    context: &'a Context<'a>,
}

/// What is asked and said, with the choices where some are offered.
struct Conversation {
    /// The key it stood under, for messages.
    field: &'static str,
    turns: Vec<Turn>,
    choices: Vec<String>,
}

impl Record<'_> {
    fn fault(&self, field: &str, (kind, expected, got): (FaultKind, String, String)) -> Fault {
        Fault { kind, id: self.id.clone(), origin: self.origin.clone(), field: field.into(), expected, got }
    }

    /// Its own name, else its number.
    fn name(&mut self, number: usize) -> String {
        match self.raw(&NAMES) {
            Some((_, Value::String(text))) => text,
            Some((_, Value::Number(own))) => own.to_string(),
            _ => format!("number {number}"),
        }
    }

    /// The first of these keys that has a value. Lists and objects may be written as text, as in tables.
    fn raw(&mut self, keys: &[&'static str]) -> Option<(&'static str, Value)> {
        keys.iter().find_map(|key| self.object.remove(*key).filter(|value| !value.is_null()).map(|value| (*key, value)))
    }

    fn take<T: DeserializeOwned>(&mut self, keys: &[&'static str], expected: &str) -> Result<Option<T>, Fault> {
        let Some((key, value)) = self.raw(keys) else { return Ok(None) };
        let got = short(&value);
        let read = serde_json::from_value(unpacked(value)).map(Some);
        read.map_err(|_| self.fault(key, (FaultKind::Layout, expected.into(), got)))
    }

    fn examples(mut self, inside: &[PictureAt], implied: bool) -> Result<Vec<Example>, Fault> {
        let looks = self.looks()?;
        let (key, images) = self.raw(&IMAGES).unwrap_or((IMAGES[0], Value::Null));
        let mut conversation = self.conversation()?;
        let mut pictures = match unpacked(images) {
            Value::Null => Vec::new(),
            Value::Array(all) => all.iter().map(|one| self.picture(key, one, inside)).collect::<Result<Vec<_>, _>>()?,
            one => vec![self.picture(key, &one, inside)?],
        };
        let names = |slot: &Slot| matches!(slot, Slot::Named(_));
        if pictures.is_empty() && implied && !conversation.turns.iter().flat_map(|turn| &turn.parts).any(names) {
            pictures = inside.to_vec();
        }
        self.place(&mut conversation, pictures.len())?;
        let (messages, shown) = self.messages(&conversation, (&pictures, inside))?;
        self.answers(&messages, &shown, (conversation, looks))
    }

    /// The turns, or a question and an answer as turns.
    fn conversation(&mut self) -> Result<Conversation, Fault> {
        let keys: &[&'static str] = match self.context.format {
            Format::Llava | Format::Sharegpt => &TURNS[..2],
            Format::Messages => &TURNS[2..],
            Format::Questions => &[],
            Format::Parquet | Format::Webdataset => &TURNS,
        };
        let system = self.take::<String>(&["system"], "a text")?.filter(|text| !text.is_empty());
        let system = system.map(|text| Turn { role: Role::System, parts: vec![Slot::Text(text)] });
        let before: Vec<Turn> = system.into_iter().collect();
        if let Some((field, list)) = self.raw(keys) {
            let own = turns::turns(unpacked(list)).map_err(|refusal| self.fault(field, refusal))?;
            return Ok(Conversation { field, turns: before.into_iter().chain(own).collect(), choices: Vec::new() });
        }
        let own = self.question_and_answer()?;
        Ok(Conversation { turns: before.into_iter().chain(own.turns).collect(), ..own })
    }

    fn question_and_answer(&mut self) -> Result<Conversation, Fault> {
        let expected = |what: &str| format!("{}, or {what}", expected_keys(self.context.format));
        let question = self.take::<String>(&QUESTIONS, "a text")?.or_else(|| self.context.reading.question.clone());
        let answer = self.raw(&ANSWERS);
        let (Some(question), Some((field, answer))) = (question, answer) else {
            let keys: Vec<&str> = self.object.keys().map(String::as_str).take(12).collect();
            let got = if keys.is_empty() { "nothing more".into() } else { format!("the keys {}", keys.join(", ")) };
            let refusal =
                (FaultKind::Layout, expected("a `question` for all answers (in the config, or --question)"), got);
            return Err(self.fault("question", refusal));
        };
        let choices: Vec<String> = self.take(&CHOICES, "a list of texts")?.unwrap_or_default();
        let Some(said) = Answer::of(&answer) else {
            let refusal = (FaultKind::Layout, "one answer, as text".into(), short(&answer));
            return Err(self.fault(field, refusal));
        };
        let (question, answer) = asked(question, &choices, said)
            .map_err(|(expected, got)| self.fault(field, (FaultKind::Layout, expected, got)))?;
        let said = Turn { role: Role::Assistant, parts: vec![Slot::Text(answer)] };
        let asked = serde_json::json!([{ "role": "user", "content": question }]);
        let mut turns = turns::turns(asked).map_err(|refusal| self.fault("question", refusal))?;
        turns.push(said);
        Ok(Conversation { field, turns, choices })
    }

    /// Where no turn has a place for a picture, all stand before the first question.
    fn place(&self, conversation: &mut Conversation, pictures: usize) -> Result<(), Fault> {
        let slots = || conversation.turns.iter().flat_map(|turn| &turn.parts);
        let next = slots().filter(|slot| **slot == Slot::Next).count();
        let numbered = slots().any(|slot| matches!(slot, Slot::Number(_)));
        if next == 0 && !numbered {
            let first = conversation.turns.iter_mut().find(|turn| turn.role == Role::User);
            if let Some(first) = first {
                first.parts.splice(0..0, vec![Slot::Next; pictures]);
            }
            return Ok(());
        }
        if numbered || next == pictures {
            return Ok(());
        }
        let expected = "as many places for pictures as pictures".into();
        Err(self.fault(
            conversation.field,
            (FaultKind::Places, expected, format!("{next} places, and {pictures} pictures")),
        ))
    }

    /// The turns with their pictures, in the order in which they are shown.
    fn messages(
        &self,
        conversation: &Conversation,
        (pictures, inside): (&[PictureAt], &[PictureAt]),
    ) -> Result<(Vec<Message>, Vec<PictureAt>), Fault> {
        let (mut next, mut shown) = (pictures.iter(), Vec::new());
        let mut messages = Vec::with_capacity(conversation.turns.len());
        let field = conversation.field;
        for turn in &conversation.turns {
            let mut parts = Vec::with_capacity(turn.parts.len());
            for slot in &turn.parts {
                let picture = match slot {
                    Slot::Text(text) => {
                        parts.push(Part::Text(text.clone()));
                        continue;
                    }
                    Slot::Named(name) => Some(self.picture(field, name, inside)?),
                    Slot::Number(number) => pictures.get(*number).cloned(),
                    Slot::Next => next.next().cloned(),
                };
                shown.push(picture.ok_or_else(|| {
                    let expected = "a picture for each place".into();
                    self.fault(field, (FaultKind::Places, expected, format!("{} pictures", pictures.len())))
                })?);
                parts.push(Part::Picture);
            }
            let content = self.content(field, turn.role, parts)?;
            messages.push(Message { role: turn.role, content });
        }
        Ok((messages, shown))
    }

    /// Answers, and what holds for all of a conversation, are text alone.
    fn content(&self, field: &str, role: Role, parts: Vec<Part>) -> Result<Content, Fault> {
        if role == Role::User {
            return Ok(Content::Parts(parts));
        }
        let text = |part: Part| match part {
            Part::Text(text) => Ok(text),
            Part::Picture => Err(self
                .fault(field, (FaultKind::Turns, "pictures in questions alone".into(), "one in another turn".into()))),
        };
        Ok(Content::Text(parts.into_iter().map(text).collect::<Result<String, _>>()?))
    }

    /// One example for each answer. Each takes the pictures that were shown before it.
    fn answers(
        &self,
        messages: &[Message],
        shown: &[PictureAt],
        (conversation, looks): (Conversation, Vec<Look>),
    ) -> Result<Vec<Example>, Fault> {
        let (mut examples, mut before): (Vec<Example>, usize) = (Vec::new(), 0);
        for (at, message) in messages.iter().enumerate() {
            let answer = match &message.content {
                Content::Parts(parts) => {
                    before += parts.iter().filter(|part| **part == Part::Picture).count();
                    continue;
                }
                Content::Text(_) if message.role != Role::Assistant => continue,
                Content::Text(answer) => answer.trim(),
            };
            let wrong =
                |kind, expected: &str, got: String| Err(self.fault(conversation.field, (kind, expected.into(), got)));
            if answer.is_empty() {
                return wrong(
                    FaultKind::EmptyAnswer,
                    "an answer that says something",
                    format!("nothing, in turn {}", at + 1),
                );
            }
            if !messages[..at].iter().any(|message| message.role == Role::User) {
                return wrong(
                    FaultKind::Turns,
                    "answers each after a question",
                    format!("an answer as turn {}", at + 1),
                );
            }
            let number = examples.len() + 1;
            examples.push(Example {
                id: if number == 1 { self.id.clone() } else { format!("{}#{number}", self.id) },
                origin: self.origin.clone(),
                messages: messages[..at].to_vec(),
                pictures: shown[..before].to_vec(),
                choices: conversation.choices.clone(),
                answer: answer.to_owned(),
                looks: looks.clone(),
            });
        }
        match examples.is_empty() {
            true => {
                let got = format!("{} turns without one", messages.len());
                Err(self.fault(conversation.field, (FaultKind::Turns, "at least one answer".into(), got)))
            }
            false => Ok(examples),
        }
    }

    /// Where a picture lies: in the file itself, or under a name on this machine.
    fn picture(&self, field: &str, value: &Value, inside: &[PictureAt]) -> Result<PictureAt, Fault> {
        let wrong = |expected: &str, got: String| self.fault(field, (FaultKind::Picture, expected.into(), got));
        let own = value.get("bytes").filter(|bytes| !bytes.is_null()).unwrap_or(value);
        if let Some(number) = own.get(INSIDE).and_then(Value::as_u64) {
            let found = usize::try_from(number).ok().and_then(|number| inside.get(number));
            return found.cloned().ok_or_else(|| wrong("a picture", short(value)));
        }
        let name = value.as_str().or_else(|| value.get("path").and_then(Value::as_str));
        let Some(name) = name.filter(|name| !name.trim().is_empty()) else {
            return Err(wrong("the name of a picture", short(value)));
        };
        let path = name.strip_prefix("file://").unwrap_or(name);
        if path.contains("://") || path.starts_with("data:") {
            return Err(wrong("pictures as files", path.chars().take(40).collect()));
        }
        let base = |path: &str| Path::new(path).file_name().map(ToOwned::to_owned);
        let is_named =
            |at: &&PictureAt| matches!(at, PictureAt::Bytes { name, .. } if name == path || base(name) == base(path));
        match inside.iter().find(is_named) {
            Some(member) => Ok(member.clone()),
            None => Ok(PictureAt::File(self.context.folder.join(PathBuf::from(path)))),
        }
    }

    /// `bboxes` and `rationale`, or `steps` with both.
    fn looks(&mut self) -> Result<Vec<Look>, Fault> {
        let unit = match self.take::<String>(&["bbox_format"], "a text")? {
            None => self.context.reading.boxes,
            Some(name) => Some(Unit::named(&name).ok_or_else(|| {
                let names = Unit::ALL.map(|(_, name)| name).join(", ");
                self.fault("bbox_format", (FaultKind::Region, format!("one of {names}"), format!("`{name}`")))
            })?),
        };
        let steps: Vec<Step> = self.take(&["steps"], "a list of `says`, `reads` and `region`")?.unwrap_or_default();
        let expected = "a list of [left, top, right, bottom]";
        let boxes: Vec<Edges> = self.take::<Boxes>(&BOXES, expected)?.map(Boxes::all).unwrap_or_default();
        let says: Option<Sentences> = self.take(&["rationale"], "a sentence, or a list of them")?;
        let says = says.map(Sentences::all).unwrap_or_default();
        if steps.is_empty() {
            return self.beside(&boxes, &says, unit);
        }
        if !boxes.is_empty() || !says.is_empty() {
            let expected = "`steps`, or `bboxes` and `rationale`, and not both".into();
            return Err(self.fault("steps", (FaultKind::Layout, expected, "both".into())));
        }
        let edges: Vec<Edges> = steps.iter().filter_map(|step| step.region).collect();
        let mut spots = boxes::spots(&edges, unit).map_err(|refusal| self.fault("steps", refusal))?.into_iter();
        let look = |step: Step| Look {
            region: step.region.and_then(|_| spots.next()),
            says: step.says.unwrap_or_default(),
            reads: step.reads.unwrap_or_default(),
        };
        Ok(steps.into_iter().map(look).collect())
    }

    fn beside(&self, boxes: &[Edges], says: &[String], unit: Option<Unit>) -> Result<Vec<Look>, Fault> {
        let spots = boxes::spots(boxes, unit).map_err(|refusal| self.fault("bboxes", refusal))?;
        if !says.is_empty() && !spots.is_empty() && says.len() != spots.len() {
            let got = format!("{} and {}", spots.len(), says.len());
            let expected = "as many `bboxes` as sentences of `rationale`".into();
            return Err(self.fault("bboxes", (FaultKind::Layout, expected, got)));
        }
        let look = |k: usize| Look {
            says: says.get(k).cloned().unwrap_or_default(),
            reads: String::new(),
            region: spots.get(k).copied(),
        };
        Ok((0..says.len().max(spots.len())).map(look).collect())
    }
}

/// A list or an object that a table has as text.
fn unpacked(value: Value) -> Value {
    match &value {
        Value::String(text) if text.trim_start().starts_with(['[', '{']) => serde_json::from_str(text).unwrap_or(value),
        _ => value,
    }
}

#[derive(serde::Deserialize)]
struct Step {
    says: Option<String>,
    reads: Option<String>,
    #[serde(alias = "bbox")]
    region: Option<Edges>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Boxes {
    One(Edges),
    Many(Vec<Edges>),
}

impl Boxes {
    fn all(self) -> Vec<Edges> {
        match self {
            Self::One(edges) => vec![edges],
            Self::Many(all) => all,
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Sentences {
    One(String),
    Many(Vec<String>),
}

impl Sentences {
    fn all(self) -> Vec<String> {
        match self {
            Self::One(sentence) => vec![sentence],
            Self::Many(all) => all,
        }
    }
}

/// The keys that a sample of a format has, for messages.
pub(super) fn expected_keys(format: Format) -> &'static str {
    match format {
        Format::Llava | Format::Sharegpt => "`conversations`, a list of `from` and `value`",
        Format::Messages => "`messages`, a list of `role` and `content`",
        Format::Questions => "`question` and `answer`",
        Format::Parquet | Format::Webdataset => "`conversations`, `messages`, or `question` and `answer`",
    }
}

/// Whether a key is one that is read.
#[cfg(feature = "parquet")]
pub(super) fn is_read(key: &str) -> bool {
    let all = [&TURNS[..], &QUESTIONS, &ANSWERS, &IMAGES, &NAMES, &CHOICES, &BOXES, &SINGLE];
    all.iter().any(|keys| keys.contains(&key))
}

/// What an object is a sample of, by its keys.
pub(super) fn layout(object: &Map<String, Value>, in_list: bool) -> Option<Format> {
    let has = |keys: &[&str]| keys.iter().any(|key| object.get(*key).is_some_and(|value| !value.is_null()));
    if has(&TURNS[..2]) {
        return Some(if in_list { Format::Llava } else { Format::Sharegpt });
    }
    if has(&TURNS[2..]) {
        return Some(Format::Messages);
    }
    has(&ANSWERS).then_some(Format::Questions)
}
