//! One conversation on its way to an answer: what it reads, when it thinks and what it says.

use crate::look::LookReport;
use crate::model::{LaidOut, Manner, Speaking, Spelling};
use crate::options::{Options, Steps};
use crate::replaced::{Replaced, Replacing, Standin, Under};
use crate::sampler::{Sampler, penalize};
use crate::session::Finish;
use crate::{Error, Result};
use lare_data::Size;
use lare_data::chat::Message;
#[cfg(any(test, feature = "faults"))]
use lare_data::chat::{Content, Part};
use lare_model::Conversation;
use lare_model::config::Thinking;
use lare_model::refocus::Refocus;
use lare_trace::Usage;
use std::collections::BTreeSet;

/// Tokens of an answer that a conversation must leave room for.
const LEAST_ANSWER: usize = 8;

/// A conversation whose prompt is ready.
pub(crate) struct Draft<'a> {
    /// What it goes on from, with its pictures.
    pub first: Vec<u32>,
    /// What it reads behind that.
    pub prompt: Vec<u32>,
    pub options: Options,
    pub replacing: Replacing<'a>,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
    most_steps: usize,
    /// Whether the number of its steps was left to the model.
    may_be_capped: bool,
    /// Slots of its own that it may fill: prompt, steps and answer.
    room: usize,
    /// Slots of what it goes on from, at most.
    ground_slots: usize,
    #[cfg(any(test, feature = "faults"))]
    fault: bool,
}

/// A question with these words panics in the pass after its prompt: for tests of what becomes of the others.
#[cfg(any(test, feature = "faults"))]
pub const FAULT: &str = "What happens if this panics?";

impl Draft<'_> {
    /// Lays out a conversation about pictures of these sizes.
    pub(crate) fn new(model: &dyn Speaking, messages: &[Message], pictures: &[Size], options: Options) -> Result<Self> {
        options.check(model)?;
        let may_be_capped = matches!(options.steps, Steps::Auto { .. });
        let options = Options { steps: model.settled(options.steps), ..options };
        let LaidOut { first, own: prompt, markers, context, ground_slots } = model.lay_out(messages, pictures)?;
        // Without a picture there is nothing to look at again.
        let most_steps = if pictures.is_empty() { 0 } else { options.most_steps(model) };
        let reserved = most_steps * positions_per_step(model) + LEAST_ANSWER;
        let prompt_tokens = first.len() + prompt.len();
        if prompt_tokens > context.saturating_sub(reserved) {
            let (most, got) = (context.saturating_sub(reserved + markers), prompt_tokens - markers);
            return Err(Error::LongQuestion { number: 1, most, steps: most_steps, got });
        }
        Ok(Self {
            room: context - first.len(),
            first,
            prompt,
            options,
            replacing: Replacing::Given(Replaced::default()),
            stop: Vec::new(),
            most_steps,
            may_be_capped,
            ground_slots,
            #[cfg(any(test, feature = "faults"))]
            fault: messages.iter().any(|message| asks_to_panic(&message.content)),
        })
    }

    /// Takes at most so many latent steps where their number is the model's to choose.
    pub(crate) fn cap_steps(&mut self, most: usize) {
        if self.may_be_capped {
            self.most_steps = self.most_steps.min(most);
        }
    }

    /// Slots of its own that it may come to: prompt, steps, what opens the answer and the answer, whose last token is never fed.
    pub(crate) fn most_slots(&self, model: &dyn Speaking) -> usize {
        let steps = self.most_steps * positions_per_step(model);
        (self.prompt.len() + steps).saturating_add(self.options.max_tokens).min(self.room)
    }

    /// Bytes of the keys and values of what it goes on from, at most.
    pub(crate) fn ground_bytes(&self, model: &dyn Speaking) -> usize {
        self.ground_slots.saturating_mul(model.decoder().slot_bytes())
    }
}

fn positions_per_step(model: &dyn Speaking) -> usize {
    model.refocus().map_or(1, Refocus::positions_per_step)
}

#[cfg(any(test, feature = "faults"))]
fn asks_to_panic(content: &Content) -> bool {
    match content {
        Content::Text(text) => text == FAULT,
        Content::Parts(parts) => parts.iter().any(|part| matches!(part, Part::Text(text) if text == FAULT)),
    }
}

/// What a conversation does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It reads its prompt.
    Reading,
    /// It takes a latent step.
    Thinking,
    /// It feeds what opens the answer, or the token that it said last, and says the next one.
    Saying,
}

/// One conversation on its way.
pub(crate) struct Talk<'a> {
    pub conversation: Conversation,
    pub prompt: Vec<u32>,
    /// Tokens of the prompt that it has read.
    pub read: usize,
    pub doing: Doing,
    manner: Manner,
    options: Options,
    replacing: Replacing<'a>,
    /// What stands in for parts of the step under way: made once, so that a step that is tried again is the same.
    pub standin: Option<Standin>,
    most_steps: usize,
    room: usize,
    pub looks: Vec<LookReport>,
    sampler: Sampler,
    pub tokens: Vec<u32>,
    /// Where the answer begins among the tokens; `None` while steps are said.
    answer_at: Option<usize>,
    spelling: Spelling,
    /// Tokens that are penalized, where any are.
    heard: BTreeSet<u32>,
    stop: Vec<String>,
    /// Whether one of the texts it was to end at ended it.
    pub stopped: bool,
    /// The answer as it was told so far.
    pub said: String,
    pub finish: Option<Finish>,
    #[cfg(any(test, feature = "faults"))]
    fault: bool,
}

impl<'a> Talk<'a> {
    /// Begins to read.
    pub(crate) fn new(model: &dyn Speaking, draft: Draft<'a>, conversation: Conversation) -> Self {
        let Draft { first, prompt, options, replacing, stop, most_steps, room, .. } = draft;
        let manner = model.manner();
        let heard = manner.penalty.map(|_| first.iter().chain(&prompt).copied().collect());
        Self {
            #[cfg(any(test, feature = "faults"))]
            fault: draft.fault,
            conversation,
            prompt,
            read: 0,
            doing: Doing::Reading,
            answer_at: manner.steps_end.is_none().then_some(0),
            manner,
            options,
            replacing,
            standin: None,
            most_steps,
            room,
            looks: Vec::new(),
            sampler: Sampler::new(options.sampling),
            tokens: Vec::new(),
            spelling: Spelling::default(),
            heard: heard.unwrap_or_default(),
            stop,
            stopped: false,
            said: String::new(),
            finish: None,
        }
    }

    /// Whether it has not read its prompt yet.
    pub(crate) fn is_reading(&self) -> bool {
        self.doing == Doing::Reading
    }

    /// Whether it takes a latent step next.
    pub(crate) fn is_thinking(&self) -> bool {
        self.doing == Doing::Thinking
    }

    /// Panics, where that was asked for.
    #[cfg(any(test, feature = "faults"))]
    pub(crate) fn fault(&self) {
        assert!(!self.fault || self.is_reading(), "this question was asked to panic");
    }

    /// Words to report near each thought.
    pub(crate) fn nearest_words(&self) -> usize {
        self.options.nearest_words
    }

    /// Makes what stands in for parts of the step it is about to take, unless it is made.
    pub(crate) fn prepare_step(&mut self, model: &dyn Speaking) {
        let Some(refocus) = model.refocus().filter(|_| self.standin.is_none()) else { return };
        let grids = self.conversation.ground().scene().and_then(|scene| scene.look.grids.first());
        let grids = grids.map_or(&[][..], Vec::as_slice);
        let first = self.looks.first().map(|look| &look.thought[..]);
        let under = Under { refocus, width: model.width(), grids, first };
        self.standin = Some(self.replacing.standin(&under, self.looks.len()));
    }

    /// What to feed when it says something.
    pub(crate) fn next_input(&self) -> u32 {
        // Without an opening, the first token is chosen before anything is fed.
        self.tokens.last().copied().or(self.manner.opening).unwrap_or_default()
    }

    /// Whether a token is to be chosen at the end of a pass in which it reads `words` of its prompt, and after which the halting
    /// head answers `halt`.
    pub(crate) fn says_after(&self, words: usize, halt: f32) -> bool {
        let opens = self.manner.opening.is_none();
        match self.doing {
            Doing::Reading => opens && self.read + words == self.prompt.len() && !self.thinks_on(0, halt),
            Doing::Thinking => opens && !self.thinks_on(self.looks.len() + 1, halt),
            Doing::Saying => true,
        }
    }

    /// Having read `words` of its prompt, goes on to read, think or answer; `halt` is the halting head's answer at the end.
    pub(crate) fn heard(&mut self, words: usize, halt: f32) {
        self.read += words;
        if self.read == self.prompt.len() {
            self.go_on(halt);
        }
    }

    /// Takes in the step it took and decides whether to look once more.
    pub(crate) fn looked(&mut self, look: LookReport) {
        let halt = look.halt_probability;
        self.standin = None;
        self.looks.push(look);
        self.go_on(halt);
    }

    fn go_on(&mut self, halt: f32) {
        self.doing = if self.thinks_on(self.looks.len(), halt) { Doing::Thinking } else { Doing::Saying };
    }

    /// Whether it takes a step after `taken` of them.
    fn thinks_on(&self, taken: usize, halt: f32) -> bool {
        let wants = match self.options.steps {
            Steps::Fixed(_) => true,
            Steps::Auto { threshold } => halt < threshold,
        };
        wants && taken < self.most_steps
    }

    /// Chooses the next token from its logits, and gives what that adds to the answer.
    pub(crate) fn says(&mut self, mut logits: Vec<f32>, model: &dyn Speaking) -> Option<String> {
        let ends_steps = self.manner.steps_end.filter(|_| self.answer_at.is_none());
        let silent = |id: &u32| !self.manner.ends.contains(id) && ends_steps != Some(*id);
        for id in (0..self.manner.first_word).filter(silent) {
            logits[id as usize] = f32::NEG_INFINITY;
        }
        if let Some(penalty) = self.manner.penalty {
            penalize(&mut logits, &self.heard, penalty);
        }
        let token = self.sampler.pick(&logits);
        self.hear(token, model);
        let text = if self.answer_at.is_some() { self.spelling.text.clone() } else { String::new() };
        self.tell(text)
    }

    /// Takes the next token and decides whether it was the last.
    fn hear(&mut self, token: u32, model: &dyn Speaking) {
        if self.manner.ends.contains(&token) {
            self.finish = Some(Finish::End);
        } else {
            self.tokens.push(token);
            if self.manner.penalty.is_some() {
                self.heard.insert(token);
            }
            match self.answer_at {
                Some(at) => model.hear(&self.tokens[at..], &mut self.spelling),
                None if self.manner.steps_end == Some(token) => self.answer_at = Some(self.tokens.len()),
                None => {}
            }
            // What opens the answer and all tokens but the newest have been fed.
            let used = self.prompt.len() + self.looks.len() + self.spliced(model) + self.tokens.len();
            if self.tokens.len() >= self.options.max_tokens {
                self.finish = Some(Finish::Length);
            } else if used >= self.room {
                self.finish = Some(Finish::Context);
            }
        }
        if self.finish.is_some() {
            model.hear_no_more(&mut self.spelling);
        }
    }

    /// What of an answer is new. What may be the beginning of a text that ends it is held back until that is known.
    fn tell(&mut self, mut text: String) -> Option<String> {
        let ends = self.stop.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop.as_str()));
        if let Some(end) = ends.min() {
            text.truncate(end);
            (self.stopped, self.finish) = (true, Some(Finish::End));
        }
        if self.finish.is_none() {
            text.truncate(text.len() - held_back(&text, &self.stop));
        }
        let more = text.strip_prefix(&self.said).filter(|more| !more.is_empty()).map(str::to_owned);
        self.said = text;
        more
    }

    /// The tokens of the steps that were said before the answer, of a model that says steps; else none.
    pub(crate) fn said_steps(&self) -> &[u32] {
        &self.tokens[..self.answer_at.unwrap_or(self.tokens.len())]
    }

    /// Tokens that its looks appended to the context.
    fn spliced(&self, model: &dyn Speaking) -> usize {
        match model.refocus() {
            Some(refocus) if refocus.settings().thinking == Thinking::Splice => self.entries_read(refocus),
            _ => 0,
        }
    }

    /// Entries of the memory that its looks read.
    fn entries_read(&self, refocus: &Refocus) -> usize {
        self.looks.iter().map(|look| look.chosen.len()).sum::<usize>() * refocus.entries_per_patch()
    }

    /// Positions of the prompt, pictures included.
    pub(crate) fn prompt_positions(&self) -> usize {
        self.conversation.ground().prefix().visible.len() + self.prompt.len()
    }

    /// What it cost so far.
    pub(crate) fn usage(&self, model: &dyn Speaking) -> Usage {
        let opening = usize::from(self.manner.opening.is_some());
        let ended = usize::from(self.finish == Some(Finish::End) && !self.stopped);
        let words = self.tokens.len();
        let appended = self.spliced(model);
        let read = model.refocus().map_or(0, |refocus| self.entries_read(refocus));
        // The last token, one that ends the answer or not, is chosen and never fed.
        let fed = (opening + words + ended).saturating_sub(1);
        Usage {
            text_tokens: opening + words + ended,
            latent_steps: self.looks.len(),
            refocused_visual_tokens: read - appended,
            appended_visual_tokens: appended,
            processed_positions: self.prompt_positions() + self.looks.len() + appended + fed,
        }
    }
}

/// Bytes at the end of a text with which one of `stop` may begin.
fn held_back(text: &str, stop: &[String]) -> usize {
    let begins = |stop: &String| {
        let lengths = stop.char_indices().map(|(at, _)| at).filter(|at| *at > 0);
        lengths.filter(|at| text.ends_with(&stop[..*at])).max().unwrap_or(0)
    };
    stop.iter().map(begins).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::question;
    use crate::{Assistant, tiny};
    use lare_data::tokenizer::{END, THINK_END};

    /// A question that has read its prompt and does not think.
    fn talk(assistant: &Assistant, stop: &[&str]) -> Talk<'static> {
        let options = Options { steps: Steps::Fixed(0), max_tokens: 9, ..Options::default() };
        let picture = tiny::picture(192, 192, 1);
        let draft = Draft::new(assistant, &[question(1, "cat")], &[Size::of(&picture)], options).unwrap();
        let draft = Draft { stop: stop.iter().map(|stop| (*stop).to_owned()).collect(), ..draft };
        let ground = tiny::ground(assistant, &picture);
        let slab = assistant.decoder().slab(20, assistant.device()).unwrap();
        let mut talk = Talk::new(assistant, draft, Conversation::new(ground, slab).unwrap());
        talk.heard(talk.prompt.len(), 0.5);
        talk
    }

    #[test]
    fn steps_that_are_said_end_at_the_second_mark_and_are_no_part_of_the_answer() {
        let heard = |says_steps: bool, tokens: &[u32]| {
            let assistant = tiny::changed(|config| config.language.says_steps = says_steps);
            let mut talk = talk(&assistant, &[]);
            tokens.iter().for_each(|token| talk.hear(*token, &assistant));
            let steps = assistant.tokenizer.decode(talk.said_steps());
            (steps, talk.spelling.text.clone(), talk.usage(&assistant).text_tokens)
        };
        let assistant = tiny::assistant();
        let [dog, cat] = ["dog", "cat"].map(|word| assistant.tokenizer.encode(word)[0]);
        let both = ("dog".to_owned(), "cat".to_owned(), 5);
        assert_eq!(heard(true, &[dog, THINK_END, cat, END]), both);
        // Cut off in its steps, it has no answer yet.
        assert_eq!(heard(true, &[dog, cat]), ("dog cat".to_owned(), String::new(), 3));
        assert_eq!(heard(true, &[THINK_END, cat, END]), (String::new(), "cat".to_owned(), 4));
        assert_eq!(heard(false, &[dog, cat, END]), (String::new(), "dog cat".to_owned(), 4));
    }

    /// What is told after each piece of a text, and how it ends.
    fn told(stop: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let assistant = tiny::assistant();
        let (mut talk, mut whole, mut told) = (talk(&assistant, stop), String::new(), Vec::new());
        for (number, piece) in pieces.iter().enumerate() {
            whole.push_str(piece);
            if number + 1 == pieces.len() {
                talk.finish.get_or_insert(Finish::Length);
            }
            told.extend(talk.tell(whole.clone()));
            if talk.stopped {
                break;
            }
        }
        assert_eq!(told.concat(), talk.said);
        (told, talk.stopped)
    }

    #[test]
    fn an_answer_ends_at_a_text_that_straddles_tokens_and_does_not_tell_it() {
        let owned = |told: &[&str]| told.iter().map(|piece| (*piece).to_owned()).collect::<Vec<_>>();
        assert_eq!(told(&["\n\n"], &["a", " b\n", "\nc"]), (owned(&["a", " b"]), true));
        assert_eq!(told(&["\n\n"], &["a", " b\n", "c"]), (owned(&["a", " b", "\nc"]), false));
        assert_eq!(told(&["\n\n"], &["a", " b\n"]), (owned(&["a", " b\n"]), false));
        assert_eq!(told(&["xyz", "yq"], &["ax", "y", "q", "z"]), (owned(&["a", "x"]), true));
        assert_eq!(told(&["b"], &["abc"]), (owned(&["a"]), true));
        assert_eq!(told(&["é"], &["caf", "é"]), (owned(&["caf"]), true));
        assert_eq!(told(&[""], &["a", "b"]), (owned(&["a", "b"]), false));
    }
}
