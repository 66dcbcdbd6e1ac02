//! One question on its way to an answer: what it reads, when it thinks and what it says.

use crate::look::LookReport;
use crate::options::{Options, Steps};
use crate::replaced::{Replaced, Replacing, Standin};
use crate::sampler::Sampler;
use crate::session::{Finish, picture_positions};
use crate::{Assistant, Error, Result};
use lare_data::prompt;
use lare_data::tokenizer::{END, THINK_END};
use lare_model::config::{Config, Thinking};
use lare_model::{Conversation, Ground};
use lare_trace::Usage;

/// Tokens of an answer that a question must leave room for.
const LEAST_ANSWER: usize = 8;

/// A question whose prompt is ready.
pub(crate) struct Draft<'a> {
    pub prompt: Vec<u32>,
    pub options: Options,
    pub replacing: Replacing<'a>,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
    most_steps: usize,
    #[cfg(any(test, feature = "faults"))]
    fault: bool,
}

/// A question with these words panics in the pass after its prompt: for tests of what becomes of the others.
#[cfg(any(test, feature = "faults"))]
pub const FAULT: &str = "What happens if this panics?";

impl Draft<'_> {
    /// Lays out a question, `number` names it in errors.
    pub(crate) fn new(assistant: &Assistant, text: &str, options: Options, number: usize) -> Result<Self> {
        let config = assistant.config();
        options.check(config)?;
        if text.trim().is_empty() {
            return Err(Error::EmptyQuestion { number, got: text.into() });
        }
        let prompt = prompt::lay_out(&assistant.tokenizer, text).ids;
        let most_steps = options.most_steps(config);
        let room = positions(config).saturating_sub(most_steps * config.positions_per_step() + LEAST_ANSWER);
        if prompt.len() > room {
            // Two of the prompt's tokens are its markers.
            let (most, got) = (room.saturating_sub(2), prompt.len() - 2);
            return Err(Error::LongQuestion { number, most, steps: most_steps, got });
        }
        Ok(Self {
            prompt,
            options,
            replacing: Replacing::Given(Replaced::default()),
            stop: Vec::new(),
            most_steps,
            #[cfg(any(test, feature = "faults"))]
            fault: text == FAULT,
        })
    }

    /// Slots that it may come to: prompt, steps, `</think>` and the answer, whose last token is never fed.
    pub(crate) fn most_slots(&self, config: &Config) -> usize {
        let steps = self.most_steps * config.positions_per_step();
        let all = (self.prompt.len() + steps).saturating_add(self.options.max_tokens);
        all.min(config.language.max_positions)
    }
}

/// What a question does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It reads its prompt.
    Reading,
    /// It takes a latent step.
    Thinking,
    /// It says `</think>` or feeds the token that it said last.
    Saying,
}

/// One question on its way.
pub(crate) struct Talk<'a> {
    pub conversation: Conversation,
    pub prompt: Vec<u32>,
    /// Tokens of the prompt that it has read.
    pub read: usize,
    pub doing: Doing,
    options: Options,
    replacing: Replacing<'a>,
    /// What stands in for parts of the step under way: made once, so that a step that is tried again is the same.
    pub standin: Option<Standin>,
    most_steps: usize,
    pub looks: Vec<LookReport>,
    sampler: Sampler,
    pub tokens: Vec<u32>,
    /// Where the answer begins among the tokens; `None` while steps are said.
    answer_at: Option<usize>,
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
    pub(crate) fn new(draft: Draft<'a>, conversation: Conversation) -> Self {
        let Draft { prompt, options, replacing, stop, most_steps, .. } = draft;
        Self {
            #[cfg(any(test, feature = "faults"))]
            fault: draft.fault,
            conversation,
            prompt,
            read: 0,
            doing: Doing::Reading,
            options,
            replacing,
            standin: None,
            most_steps,
            looks: Vec::new(),
            sampler: Sampler::new(options.sampling),
            tokens: Vec::new(),
            answer_at: Some(0),
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
    pub(crate) fn prepare_step(&mut self, assistant: &Assistant) {
        let grids = self.conversation.ground().scene().and_then(|scene| scene.look.grids.first());
        let grids = grids.map_or(&[][..], Vec::as_slice);
        let first = self.looks.first().map(|look| &look.thought[..]);
        let make = || self.replacing.standin(assistant, self.looks.len(), grids, first);
        if self.standin.is_none() {
            self.standin = Some(make());
        }
    }

    /// What to feed when it says something.
    pub(crate) fn next_input(&self) -> u32 {
        self.tokens.last().copied().unwrap_or(THINK_END)
    }

    /// Having read `words` of its prompt, goes on to read, think or answer; `halt` is the halting head's answer at the end.
    pub(crate) fn heard(&mut self, words: usize, halt: f32, config: &Config) {
        self.read += words;
        if self.read == self.prompt.len() {
            self.answer_at = (!config.language.says_steps).then_some(0);
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

    fn go_on(&mut self, halt_probability: f32) {
        let wants = match self.options.steps {
            Steps::Fixed(_) => true,
            Steps::Auto { threshold } => halt_probability < threshold,
        };
        self.doing = if wants && self.looks.len() < self.most_steps { Doing::Thinking } else { Doing::Saying };
    }

    /// Chooses the next token from its logits, and gives what that adds to the answer.
    pub(crate) fn says(&mut self, mut logits: Vec<f32>, assistant: &Assistant) -> Option<String> {
        // The markers before `<end>` lay out conversations; none is a word of an answer. One ends steps that are said.
        let ends_steps = self.answer_at.is_none().then(|| logits[THINK_END as usize]);
        logits.iter_mut().take(END as usize).for_each(|logit| *logit = f32::NEG_INFINITY);
        if let Some(logit) = ends_steps {
            logits[THINK_END as usize] = logit;
        }
        let token = self.sampler.pick(&logits);
        self.hear(token, assistant.config());
        let text = self.text(assistant);
        self.tell(text)
    }

    /// Takes the next token and decides whether it was the last.
    fn hear(&mut self, token: u32, config: &Config) {
        if token == END {
            self.finish = Some(Finish::End);
            return;
        }
        self.tokens.push(token);
        if token == THINK_END {
            self.answer_at = Some(self.tokens.len());
        }
        // `</think>` and all tokens but the newest have been fed.
        let used = self.prompt.len() + self.looks.len() + self.spliced(config) + self.tokens.len();
        if self.tokens.len() >= self.options.max_tokens {
            self.finish = Some(Finish::Length);
        } else if used >= positions(config) {
            self.finish = Some(Finish::Context);
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

    /// The answer so far; before it, of a model that says steps, nothing.
    fn text(&self, assistant: &Assistant) -> String {
        self.answer_at.map_or_else(String::new, |at| assistant.tokenizer.decode(&self.tokens[at..]))
    }

    /// The steps that were said as text before the answer, of a model that says steps; else empty.
    pub(crate) fn said_steps(&self, assistant: &Assistant) -> String {
        assistant.tokenizer.decode(&self.tokens[..self.answer_at.unwrap_or(self.tokens.len())])
    }

    /// Tokens that its looks appended to the context.
    fn spliced(&self, config: &Config) -> usize {
        match config.refocus.thinking {
            Thinking::Splice => self.entries_read(config),
            _ => 0,
        }
    }

    /// Entries of the memory that its looks read.
    fn entries_read(&self, config: &Config) -> usize {
        self.looks.iter().map(|look| look.chosen.len()).sum::<usize>() * config.entries_per_patch()
    }

    /// Positions of the prompt, a picture of `cells` included.
    pub(crate) fn prompt_positions(&self, config: &Config, cells: usize) -> usize {
        picture_positions(config, cells) + self.prompt.len()
    }

    /// What it cost so far.
    pub(crate) fn usage(&self, config: &Config, cells: usize) -> Usage {
        let ended = usize::from(self.finish == Some(Finish::End) && !self.stopped);
        let words = self.tokens.len();
        let appended = self.spliced(config);
        Usage {
            text_tokens: 1 + words + ended,
            latent_steps: self.looks.len(),
            refocused_visual_tokens: self.entries_read(config) - appended,
            appended_visual_tokens: appended,
            // The last token, `<end>` or not, is chosen and never fed.
            processed_positions: self.prompt_positions(config, cells) + self.looks.len() + appended + words + ended,
        }
    }
}

/// Cells of the picture that a ground holds.
pub(crate) fn cells_of(ground: &Ground) -> usize {
    ground.scene().map_or(0, |scene| scene.look.grids.iter().flatten().map(|grid| grid.cells()).sum())
}

/// Bytes at the end of a text with which one of `stop` may begin.
fn held_back(text: &str, stop: &[String]) -> usize {
    let begins = |stop: &String| {
        let lengths = stop.char_indices().map(|(at, _)| at).filter(|at| *at > 0);
        lengths.filter(|at| text.ends_with(&stop[..*at])).max().unwrap_or(0)
    };
    stop.iter().map(begins).max().unwrap_or(0)
}

/// Positions a question may fill: position 0 is the picture's, and one is kept free.
pub(crate) fn positions(config: &Config) -> usize {
    config.language.max_positions.saturating_sub(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{session, tiny};
    use lare_data::prepare;
    use lare_model::Reasoning;
    use std::sync::Arc;

    /// A question that has read its prompt and does not think.
    fn talk(assistant: &Assistant, stop: &[&str]) -> Talk<'static> {
        let options = Options { steps: Steps::Fixed(0), max_tokens: 9, ..Options::default() };
        let draft = Draft::new(assistant, "cat", options, 1).unwrap();
        let draft = Draft { stop: stop.iter().map(|stop| (*stop).to_owned()).collect(), ..draft };
        let prepared = prepare(&tiny::picture(192, 192, 1), 64, 16);
        let ground = session::ground(assistant, &session::encode(assistant, &prepared).unwrap()).unwrap();
        let slab = assistant.reasoner.language().slab(20, assistant.device()).unwrap();
        let mut talk = Talk::new(draft, Conversation::new(Arc::new(ground), slab).unwrap());
        talk.heard(talk.prompt.len(), 0.5, assistant.config());
        talk
    }

    #[test]
    fn steps_that_are_said_end_at_the_second_mark_and_are_no_part_of_the_answer() {
        let heard = |says_steps: bool, tokens: &[u32]| {
            let assistant = tiny::changed(|config| config.language.says_steps = says_steps);
            let mut talk = talk(&assistant, &[]);
            tokens.iter().for_each(|token| talk.hear(*token, assistant.config()));
            let usage = talk.usage(assistant.config(), 9);
            (talk.said_steps(&assistant), talk.text(&assistant), usage.text_tokens)
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
