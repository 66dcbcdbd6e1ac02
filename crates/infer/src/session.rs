//! Answers a batch of questions: prepare, encode, first look, prompt, think, say.
//!
//! ```text
//! pictures ─ prepare, encode by shape ─► Views ─ look ─► Scene ─ prompt ─► Thread
//!                                                       Thread ─ step until each row stops ─► Thread, looks
//!                                                       Thread ─ </think>, then token by token ─► text
//! ```
//!
//! Rows may ask about different pictures of different shapes, take different numbers of steps and say answers of
//! different lengths; none of it changes what another row answers, but for a tie that rounding decides (the blocking of
//! products follows the number of rows).

use crate::look::{LookReport, Step, finite, halt_probabilities};
use crate::options::{Options, Steps};
use crate::replaced::{self, Replaced};
use crate::sampler::Sampler;
use crate::{Assistant, Error, Result};
use candle_core::{D, Tensor};
use lare_data::tokenizer::{END, THINK_END};
use lare_data::{Picture, Prepared, prepare, prompt};
use lare_model::config::{Config, Context, Thinking};
use lare_model::reasoning::{Intervention, ReplaceThought, Scene};
use lare_model::{Prompts, Reasoning, Thread, Views};
use lare_trace::{Grid, Timing, Usage};
use std::collections::BTreeMap;
use std::time::Instant;

/// One question on one of the batch's pictures.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Index into [`Batch::pictures`].
    pub picture: usize,
    /// The question's words.
    pub text: &'a str,
    /// How it is answered.
    pub options: Options,
    /// What a causal test puts in the place of the model's own thoughts and looks.
    pub replaced: Replaced<'a>,
}

impl<'a> Question<'a> {
    /// A question that is answered as the model answers it.
    #[must_use]
    pub fn new(picture: usize, text: &'a str, options: Options) -> Self {
        Self { picture, text, options, replaced: Replaced::default() }
    }
}

/// What is answered together.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Pictures of any shapes.
    pub pictures: &'a [&'a Picture],
    /// Questions on them.
    pub questions: &'a [Question<'a>],
}

impl<'a> Batch<'a> {
    /// Its questions, checked and ready.
    fn rows(&self, assistant: &Assistant) -> Result<Vec<Row<'a>>> {
        let pictures = self.pictures.len();
        if let Some(question) = self.questions.iter().find(|q| q.picture >= pictures) {
            let (what, got) = ("picture of a question", question.picture.to_string());
            let expected = format!("less than {pictures}");
            return Err(lare_model::Error::Arguments { what, expected, got }.into());
        }
        let numbered = self.questions.iter().zip(1..);
        numbered.map(|(question, number)| Row::new(assistant, question, number)).collect()
    }
}

/// What happens while a batch is answered, as it happens. `row` counts questions from 0.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A row took a latent step.
    Looked {
        /// The question.
        row: usize,
        /// What it saw and thought.
        look: &'a LookReport,
    },
    /// A row said more.
    Token {
        /// The question.
        row: usize,
        /// The text that came in addition; joined, these are the answer.
        text: &'a str,
    },
    /// A row is done.
    Done {
        /// The question.
        row: usize,
        /// Why.
        finish: Finish,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said `<end>`.
    End,
    /// `max_tokens` was reached.
    Length,
    /// The context was full.
    Context,
}

/// What came of one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The answer's words.
    pub text: String,
    /// The steps that were said as text before them, of a model that says steps; else empty.
    pub steps: String,
    /// All token ids that were said, those of steps and the `</think>` after them included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// What it cost, in tokens and positions.
    pub usage: Usage,
    /// Its latent steps.
    pub looks: Vec<LookReport>,
    /// How the patches lie on the original picture.
    pub grid: Grid,
    /// What the whole batch cost, in time.
    pub timing: Timing,
}

/// Context positions that a picture of so many cells takes.
#[must_use]
pub fn picture_positions(config: &Config, cells: usize) -> usize {
    match config.language.context {
        Context::Coarse => cells,
        Context::CoarseAndFine => cells * (1 + config.merged_per_patch()),
    }
}

/// Refuses what [`answer`] would refuse about one question, without computing anything.
///
/// # Errors
/// An empty question, one that does not fit the context, an option that cannot be.
pub fn check(assistant: &Assistant, question: &Question) -> Result<()> {
    Row::new(assistant, question, 1).map(drop)
}

/// Answers every question of a batch, in the order of the questions.
///
/// # Errors
/// Before anything is computed: an empty question, one that does not fit the context, an option that cannot be.
/// Later: weights that lead to NaN.
pub fn answer(assistant: &Assistant, batch: &Batch, on_event: &mut dyn FnMut(Event)) -> Result<Vec<Answer>> {
    let started = Instant::now();
    let mut rows = batch.rows(assistant)?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let vision = &assistant.config().vision;
    let prepared: Vec<Prepared> = batch.pictures.iter().map(|p| prepare(p, vision.cell_px, vision.max_cells)).collect();
    let mut clock = Clock { last: started };
    let mut timing = Timing { prepare: clock.lap(), ..Timing::default() };

    let (views, slot_of_picture) = encode(assistant, &prepared)?;
    timing.encode = clock.lap();
    let scene = assistant.reasoner.look(&views)?;
    let ids = rows.iter().map(|r| r.prompt.clone()).collect();
    let picture_of_row = batch.questions.iter().map(|q| slot_of_picture[q.picture]).collect();
    let mut thread = assistant.reasoner.prompt(&scene, &Prompts { ids, picture_of_row })?;
    timing.prefill = clock.lap();
    think(assistant, &scene, &mut thread, &mut rows, on_event)?;
    timing.think = clock.lap();
    say(assistant, &mut thread, &mut rows, on_event)?;
    timing.answer = clock.lap();
    timing.total = started.elapsed().as_secs_f64() * 1e3;

    let finished = rows.into_iter().zip(batch.questions);
    Ok(finished
        .map(|(row, q)| row.answer(assistant, batch.pictures[q.picture], &prepared[q.picture], timing))
        .collect())
}

/// Milliseconds between one call and the next.
struct Clock {
    last: Instant,
}

impl Clock {
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let ms = (now - self.last).as_secs_f64() * 1e3;
        self.last = now;
        ms
    }
}

/// Tokens of an answer that a question must leave room for.
const LEAST_ANSWER: usize = 8;

/// One question on its way.
struct Row<'a> {
    prompt: Vec<u32>,
    options: Options,
    replaced: Replaced<'a>,
    most_steps: usize,
    thinking: bool,
    looks: Vec<LookReport>,
    sampler: Sampler,
    tokens: Vec<u32>,
    /// Where the answer begins among the tokens; `None` while steps are said.
    answer_at: Option<usize>,
    said: String,
    finish: Option<Finish>,
}

impl<'a> Row<'a> {
    fn new(assistant: &Assistant, question: &Question<'a>, number: usize) -> Result<Self> {
        let (config, options, replaced) = (assistant.config(), question.options, question.replaced);
        options.check(config)?;
        replaced.check(config)?;
        if question.text.trim().is_empty() {
            return Err(Error::EmptyQuestion { number, got: question.text.into() });
        }
        let prompt = prompt::lay_out(&assistant.tokenizer, question.text).ids;
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
            replaced,
            most_steps,
            thinking: true,
            looks: Vec::new(),
            sampler: Sampler::new(options.sampling),
            tokens: Vec::new(),
            answer_at: (!config.language.says_steps).then_some(0),
            said: String::new(),
            finish: None,
        })
    }

    /// Decides whether to look once more, given what the halting head says now. A row that stopped never goes on.
    fn go_on(&mut self, halt_probability: f32) -> bool {
        let wants = match self.options.steps {
            Steps::Fixed(_) => true,
            Steps::Auto { threshold } => halt_probability < threshold,
        };
        self.thinking = self.thinking && wants && self.looks.len() < self.most_steps;
        self.thinking
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

    /// The answer so far; before it, of a model that says steps, nothing.
    fn text(&self, assistant: &Assistant) -> String {
        self.answer_at.map_or_else(String::new, |at| assistant.tokenizer.decode(&self.tokens[at..]))
    }

    /// What to feed next; nothing when done.
    fn next_input(&self) -> Vec<u32> {
        match (self.finish, self.tokens.last()) {
            (Some(_), _) => Vec::new(),
            (None, None) => vec![THINK_END],
            (None, Some(token)) => vec![*token],
        }
    }

    fn answer(self, assistant: &Assistant, picture: &Picture, prepared: &Prepared, timing: Timing) -> Answer {
        let config = assistant.config();
        let grid = grid(config, picture, prepared);
        let ended = usize::from(self.finish == Some(Finish::End));
        let words = self.tokens.len();
        let appended = self.spliced(config);
        let usage = Usage {
            text_tokens: 1 + words + ended,
            latent_steps: self.looks.len(),
            refocused_visual_tokens: self.entries_read(config) - appended,
            appended_visual_tokens: appended,
            // The last token, `<end>` or not, is chosen and never fed.
            processed_positions: picture_positions(config, grid.cells())
                + self.prompt.len()
                + self.looks.len()
                + appended
                + words
                + ended,
        };
        let finish = self.finish.unwrap_or(Finish::Context);
        let steps = &self.tokens[..self.answer_at.unwrap_or(words)];
        let steps = assistant.tokenizer.decode(steps);
        Answer { text: self.said, steps, tokens: self.tokens, finish, usage, looks: self.looks, grid, timing }
    }
}

/// Positions a row may fill: position 0 is the picture's, and a row that is done stands at one position more while
/// the others go on.
fn positions(config: &Config) -> usize {
    config.language.max_positions.saturating_sub(2)
}

/// The cells as they lie on the original picture. Resizing rounds to whole pixels, so each axis has its own scale.
pub(crate) fn grid(config: &Config, picture: &Picture, prepared: &Prepared) -> Grid {
    let cell = |original: usize, inner: usize| (config.vision.cell_px * original) as f32 / inner.max(1) as f32;
    Grid {
        rows: prepared.rows,
        cols: prepared.cols,
        cell_px_x: cell(picture.width, prepared.inner_width),
        cell_px_y: cell(picture.height, prepared.inner_height),
        fine_per_cell: config.entries_per_patch(),
    }
}

/// Encodes pictures of equal shape together; gives the views and where each picture is in them.
fn encode(assistant: &Assistant, prepared: &[Prepared]) -> Result<(Views, Vec<u32>)> {
    let mut shapes: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (picture, p) in prepared.iter().enumerate() {
        shapes.entry((p.height, p.width)).or_default().push(picture);
    }
    let (mut parts, mut slot_of_picture, mut slot) = (Vec::with_capacity(shapes.len()), vec![0; prepared.len()], 0);
    for ((height, width), pictures) in shapes {
        let pixels: Vec<f32> =
            pictures.iter().flat_map(|p| &prepared[*p].rgb).map(|byte| f32::from(*byte) / 255.0).collect();
        let pixels = Tensor::from_vec(pixels, (pictures.len(), height, width, 3), assistant.device())?;
        parts.push(assistant.reasoner.encode(&pixels)?);
        for picture in pictures {
            slot_of_picture[picture] = slot;
            slot += 1;
        }
    }
    Ok((Views::stack(&parts)?, slot_of_picture))
}

/// Takes latent steps until every row has stopped.
fn think(
    assistant: &Assistant,
    scene: &Scene,
    thread: &mut Thread,
    rows: &mut [Row],
    on_event: &mut dyn FnMut(Event),
) -> Result<()> {
    let mut halt = halt_probabilities(assistant, thread)?;
    loop {
        let thinking: Vec<bool> = rows.iter_mut().zip(&halt).map(|(row, halt)| row.go_on(*halt)).collect();
        if !thinking.contains(&true) {
            return Ok(());
        }
        let mut clock = Clock { last: Instant::now() };
        let k = thread.steps.len();
        let patches: Vec<_> = rows.iter().map(|row| row.replaced.patches_at(k)).collect();
        let given: Vec<_> = rows.iter().map(|row| row.replaced.thought_at(k)).collect();
        let replace = |_: usize, own: &Tensor| replaced::thoughts(own, &given);
        let thought: Option<ReplaceThought> = if given.iter().any(Option::is_some) { Some(&replace) } else { None };
        assistant.reasoner.step(scene, thread, &thinking, Intervention { thought, patches: &patches })?;
        halt = halt_probabilities(assistant, thread)?;
        let time_ms = clock.lap();
        let step = Step::read(assistant, scene, thread, &halt, time_ms)?;
        for (row, _) in thinking.iter().enumerate().filter(|(_, thinking)| **thinking) {
            let look = step.report(assistant, row, rows[row].options.nearest_words)?;
            on_event(Event::Looked { row, look: &look });
            rows[row].looks.push(look);
        }
    }
}

/// Says `</think>` and then token after token until every row is done.
fn say(assistant: &Assistant, thread: &mut Thread, rows: &mut [Row], on_event: &mut dyn FnMut(Event)) -> Result<()> {
    while rows.iter().any(|r| r.finish.is_none()) {
        let inputs: Vec<Vec<u32>> = rows.iter().map(Row::next_input).collect();
        let logits = assistant.reasoner.say(thread, &inputs)?.squeeze(1)?; // [B, V]
        let finite_sum = logits.sum(D::Minus1)?.to_vec1::<f32>()?;
        for (place, (row, mut logits)) in rows.iter_mut().zip(logits.to_vec2::<f32>()?).enumerate() {
            if row.finish.is_some() {
                continue;
            }
            finite("a logit", finite_sum[place])?;
            // The markers before `<end>` lay out conversations; none is a word of an answer. One ends steps that are said.
            let ends_steps = row.answer_at.is_none().then(|| logits[THINK_END as usize]);
            logits.iter_mut().take(END as usize).for_each(|logit| *logit = f32::NEG_INFINITY);
            if let Some(logit) = ends_steps {
                logits[THINK_END as usize] = logit;
            }
            let token = row.sampler.pick(&logits);
            row.hear(token, assistant.config());
            let text = row.text(assistant);
            if let Some(more) = text.strip_prefix(&row.said).filter(|more| !more.is_empty()) {
                on_event(Event::Token { row: place, text: more });
            }
            row.said = text;
            if let Some(finish) = row.finish {
                on_event(Event::Done { row: place, finish });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sampling, tiny};

    fn options(steps: usize) -> Options {
        let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 1 };
        Options { steps: Steps::Fixed(steps), sampling, max_tokens: 5, nearest_words: 3 }
    }

    fn ask(pictures: &[&Picture], questions: &[Question]) -> Vec<Answer> {
        answer(&tiny::assistant(), &Batch { pictures, questions }, &mut |_| ()).unwrap()
    }

    #[test]
    fn a_row_in_a_batch_answers_as_the_row_alone() {
        let (wide, tall) = (tiny::picture(256, 130, 1), tiny::picture(100, 192, 2));
        let texts = ["What is written under the dog?", "cat", "Which is left of the red cup, the dog or the cat?"];
        let question = |picture, text, steps| Question::new(picture, text, options(steps));
        let together = [question(0, texts[0], 2), question(1, texts[1], 4), question(0, texts[2], 0)];
        let batch = ask(&[&wide, &tall], &together);
        for (row, q) in batch.iter().zip(&together) {
            let alone = ask(&[[&wide, &tall][q.picture]], &[Question { picture: 0, ..*q }]);
            let alone = &alone[0];
            assert_eq!((&row.text, row.usage, row.grid), (&alone.text, alone.usage, alone.grid));
            assert_eq!(row.looks.len(), alone.looks.len());
            for (a, b) in row.looks.iter().zip(&alone.looks) {
                assert_eq!(a.chosen, b.chosen);
                let far = a.thought.iter().zip(&b.thought).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far < 1e-4, "thoughts differ by {far}");
            }
        }
    }

    #[test]
    fn every_step_and_token_is_counted() {
        let picture = tiny::picture(256, 192, 3);
        let assistant = tiny::assistant();
        let question = Question::new(0, "What is left of the cat?", options(3));
        let answer = &ask(&[&picture], &[question])[0];
        let prompt = prompt::lay_out(&assistant.tokenizer, question.text).ids.len();
        let said = answer.tokens.len() + usize::from(answer.finish == Finish::End);
        assert_eq!(answer.usage.latent_steps, 3);
        assert_eq!(answer.usage.refocused_visual_tokens, 3 * 3 * 16);
        assert_eq!(answer.usage.text_tokens, 1 + said);
        assert_eq!(answer.usage.processed_positions, 12 + prompt + 3 + said);
    }

    #[test]
    fn a_spliced_look_counts_what_it_appends() {
        let picture = tiny::picture(256, 192, 3);
        let assistant = tiny::spliced();
        let question = Question::new(0, "What is left of the cat?", options(1));
        let batch = Batch { pictures: &[&picture], questions: &[question] };
        let answer = &answer(&assistant, &batch, &mut |_| ()).unwrap()[0];
        let prompt = prompt::lay_out(&assistant.tokenizer, question.text).ids.len();
        let said = answer.tokens.len() + usize::from(answer.finish == Finish::End);
        // 3 patches of 16 fine features each, read by being in the context and by nothing else.
        assert_eq!((answer.usage.appended_visual_tokens, answer.usage.refocused_visual_tokens), (3 * 16, 0));
        assert_eq!(answer.usage.processed_positions, 12 + prompt + 1 + 3 * 16 + said);
    }

    #[test]
    fn steps_that_are_said_end_at_the_second_mark_and_are_no_part_of_the_answer() {
        let heard = |says_steps: bool, tokens: &[u32]| {
            let assistant = tiny::changed(|config| config.language.says_steps = says_steps);
            let question = Question::new(0, "cat", Options { max_tokens: 9, ..options(0) });
            let mut row = Row::new(&assistant, &question, 1).unwrap();
            tokens.iter().for_each(|token| row.hear(*token, assistant.config()));
            let text = row.text(&assistant);
            row.said.clone_from(&text);
            let picture = tiny::picture(192, 192, 1);
            let vision = &assistant.config().vision;
            let prepared = prepare(&picture, vision.cell_px, vision.max_cells);
            let answer = row.answer(&assistant, &picture, &prepared, Timing::default());
            (answer.steps, answer.text, answer.usage.text_tokens)
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

    #[test]
    fn where_it_looked_sums_to_one_over_the_pictures_own_cells() {
        let (small, large) = (tiny::picture(192, 192, 4), tiny::picture(256, 256, 5));
        let question = |picture| Question::new(picture, "cat", options(2));
        for answer in ask(&[&small, &large], &[question(0), question(1)]) {
            for look in &answer.looks {
                assert_eq!(look.scores.len(), answer.grid.cells());
                assert!((look.scores.iter().sum::<f32>() - 1.0).abs() < 1e-4);
                assert!(look.chosen.iter().all(|p| *p < answer.grid.cells()));
            }
        }
    }

    #[test]
    fn the_halting_threshold_decides_how_often_it_looks() {
        let picture = tiny::picture(192, 192, 6);
        let steps = |threshold| {
            let options = Options { steps: Steps::Auto { threshold }, ..options(0) };
            ask(&[&picture], &[Question::new(0, "cat", options)])[0].looks.len()
        };
        // The tiny model's halting head is untrained: it always says one half.
        assert_eq!((steps(0.0), steps(0.4), steps(1.0)), (0, 0, 6));
    }

    #[test]
    fn events_tell_the_same_as_the_answer() {
        let picture = tiny::picture(192, 192, 7);
        let assistant = tiny::assistant();
        let question = Question::new(0, "cat", options(2));
        let (mut looks, mut text, mut done) = (0, String::new(), 0);
        let batch = Batch { pictures: &[&picture], questions: &[question] };
        let answers = answer(&assistant, &batch, &mut |event| match event {
            Event::Looked { .. } => looks += 1,
            Event::Token { text: more, .. } => text.push_str(more),
            Event::Done { .. } => done += 1,
        });
        let answers = answers.unwrap();
        assert_eq!((looks, text.as_str(), done), (2, answers[0].text.as_str(), 1));
    }

    #[test]
    fn a_picture_that_was_scaled_has_its_cells_in_its_own_pixels() {
        let picture = tiny::picture(1600, 900, 8);
        let answer = &ask(&[&picture], &[Question::new(0, "cat", options(1))])[0];
        let (grid, cells) = (answer.grid, answer.grid.rows * answer.grid.cols);
        assert!(cells <= 16, "{grid:?}");
        assert!(grid.cols as f32 * grid.cell_px_x >= 1600.0 && grid.rows as f32 * grid.cell_px_y >= 900.0, "{grid:?}");
        assert!((grid.cell_px_x / grid.cell_px_y - 1.0).abs() < 0.02, "{grid:?}");
    }

    #[test]
    fn what_cannot_be_answered_is_refused_before_anything_is_computed() {
        let picture = tiny::picture(192, 192, 9);
        let refused = |text: &str, options| {
            let batch = Batch { pictures: &[&picture], questions: &[Question::new(0, text, options)] };
            answer(&tiny::assistant(), &batch, &mut |_| ()).unwrap_err().to_string()
        };
        assert!(refused("  ", options(1)).contains("question 1 is empty"));
        assert!(refused(&"cat ".repeat(500), options(1)).contains("got       500 tokens"));
        assert!(refused("cat", options(7)).contains("`steps` cannot be 7"));
        let hot = Options { sampling: Sampling { temperature: f32::NAN, ..Sampling::default() }, ..options(1) };
        assert!(refused("cat", hot).contains("temperature"));
    }

    #[test]
    fn an_answer_ends_where_the_context_does() {
        let picture = tiny::picture(192, 192, 10);
        let options = Options { max_tokens: 100_000, ..options(6) };
        let answer = &ask(&[&picture], &[Question::new(0, "cat", options)])[0];
        assert!(answer.tokens.len() < tiny::assistant().config().language.max_positions);
    }
}
