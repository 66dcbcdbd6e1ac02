//! Answers a batch of questions: prepare, encode, and then pass after pass until all are answered.
//!
//! ```text
//! pictures ─ prepare, encode, look ─► Ground, one a picture
//! Ground ─ prompt, step until it stops, </think>, token by token ─► text, looks       a question
//! ```
//!
//! Rows may ask about different pictures of different shapes, take different numbers of steps and say answers of
//! different lengths; none of it changes what another row answers. The same passes answer a server's requests
//! ([`crate::engine`]): with frozen weights an answer has the same bits alone, in any batch, and served.

use crate::advance::{News, advance};
use crate::look::LookReport;
use crate::model::{Model, Speaking};
use crate::options::Options;
use crate::places::{Places, on_cells};
use crate::replaced::{Replaced, Replacing};
use crate::talk::{Draft, Talk};
use crate::{Result, generator};
use lare_data::{Picture, Size};
use lare_model::Conversation;
use lare_trace::{Grid, Timing, Usage};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
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
    fn drafts(&self, model: &dyn Speaking) -> Result<Vec<Draft<'a>>> {
        let pictures = self.pictures.len();
        if let Some(question) = self.questions.iter().find(|q| q.picture >= pictures) {
            let (what, got) = ("picture of a question", question.picture.to_string());
            let expected = format!("less than {pictures}");
            return Err(lare_model::Error::Arguments { what, expected, got }.into());
        }
        let numbered = self.questions.iter().zip(1..);
        numbered
            .map(|(question, number)| draft(model, question, Size::of(self.pictures[question.picture]), number))
            .collect()
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
    /// The model said `<end>`, or what the answer was to end at.
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
    /// Which of them lie under each image token: looks are at tokens.
    pub places: Places,
    /// What the whole batch cost, in time.
    pub timing: Timing,
}

impl Answer {
    /// Its looks, at the cells of the grid.
    #[must_use]
    pub fn looks_on_cells(&self) -> Vec<LookReport> {
        self.looks.iter().map(|look| on_cells(std::slice::from_ref(&self.places), look.clone())).collect()
    }
}

/// A question that is ready to be begun with.
fn draft<'a>(model: &dyn Speaking, question: &Question<'a>, size: Size, number: usize) -> Result<Draft<'a>> {
    question.replaced.check(model.width())?;
    let messages = [generator::question(1, question.text)];
    let draft = Draft::new(model, &messages, &[size], question.options);
    let mut draft = draft.map_err(|error| error.of_question(number))?;
    draft.replacing = Replacing::Given(question.replaced);
    Ok(draft)
}

/// Refuses what [`answer`] would refuse about one question on a picture of this size, without computing anything.
///
/// # Errors
/// An empty question, one that does not fit the context, an option that cannot be.
pub fn check(model: &dyn Speaking, question: &Question, picture: Size) -> Result<()> {
    draft(model, question, picture, 1).map(drop)
}

/// A model of any kind, asked batch by batch.
pub trait Answers: Sync {
    /// How it speaks.
    fn speaking(&self) -> &dyn Speaking;

    /// As [`answer`].
    ///
    /// # Errors
    /// As [`answer`].
    fn answer(&self, batch: &Batch, on_event: &mut dyn FnMut(Event)) -> Result<Vec<Answer>>;
}

impl<M: Model> Answers for M {
    fn speaking(&self) -> &dyn Speaking {
        self
    }

    fn answer(&self, batch: &Batch, on_event: &mut dyn FnMut(Event)) -> Result<Vec<Answer>> {
        answer(self, batch, on_event)
    }
}

/// Answers every question of a batch, in the order of the questions.
///
/// # Errors
/// Before anything is computed: an empty question, one that does not fit the context, an option that cannot be.
/// Later: weights that lead to NaN.
pub fn answer<M: Model>(model: &M, batch: &Batch, on_event: &mut dyn FnMut(Event)) -> Result<Vec<Answer>> {
    let started = Instant::now();
    let drafts = batch.drafts(model)?;
    if drafts.is_empty() {
        return Ok(Vec::new());
    }
    let mut clock = Clock::from(started);
    let prepared = batch.pictures.par_iter().map(|picture| model.prepare(picture)).collect::<Result<Vec<_>>>()?;
    let mut timing = Timing { prepare: clock.lap(), ..Timing::default() };
    let views = prepared.par_iter().map(|picture| model.see(&picture.form)).collect::<Result<Vec<_>>>()?;
    timing.encode = clock.lap();
    let views: Vec<_> = views.into_iter().map(Arc::new).collect();
    // Questions on one picture that begin alike go on from the same.
    let place = |(draft, question): (&Draft, &Question)| (question.picture, draft.first.clone());
    let places: BTreeSet<(usize, Vec<u32>)> = drafts.iter().zip(batch.questions).map(place).collect();
    let ground = |(picture, first): (usize, Vec<u32>)| {
        let ground = Arc::new(model.ground(&first, std::slice::from_ref(&views[picture]))?);
        Ok(((picture, first), ground))
    };
    let grounds = places.into_par_iter().map(ground).collect::<Result<BTreeMap<_, _>>>()?;
    let begun = drafts.into_iter().zip(batch.questions).map(|(draft, question)| {
        let slab = model.decoder().slab(draft.most_slots(model), model.device())?;
        let ground = grounds[&place((&draft, question))].clone();
        Ok(Talk::new(model, draft, Conversation::new(ground, slab)?))
    });
    let mut talks = begun.collect::<Result<Vec<Talk>>>()?;
    timing.prefill = clock.lap();
    converse(model, &mut talks, &mut timing, on_event)?;
    timing.total = started.elapsed().as_secs_f64() * 1e3;

    let answered =
        |(talk, question): (Talk, &Question)| answered(model, talk, &prepared[question.picture].places, timing);
    Ok(talks.into_iter().zip(batch.questions).map(answered).collect())
}

/// Pass after pass until every row is done. A pass counts as thinking while a row thinks.
pub(crate) fn converse(
    model: &dyn Speaking,
    talks: &mut [Talk],
    timing: &mut Timing,
    on_event: &mut dyn FnMut(Event),
) -> Result<()> {
    let mut clock = Clock::from(Instant::now());
    while talks.iter().any(|talk| talk.finish.is_none()) {
        let (mut places, mut moving) = (Vec::new(), Vec::new());
        for (row, talk) in talks.iter_mut().enumerate().filter(|(_, talk)| talk.finish.is_none()) {
            places.push(row);
            moving.push(talk);
        }
        let reads = moving.iter().any(|talk| talk.is_reading());
        let thinks = moving.iter().any(|talk| talk.is_thinking());
        for (row, news) in places.into_iter().zip(advance(model, &mut moving, usize::MAX)) {
            for news in news? {
                match &news {
                    News::Looked(look) => on_event(Event::Looked { row, look }),
                    News::Said(text) => on_event(Event::Token { row, text }),
                    News::Done(finish) => on_event(Event::Done { row, finish: *finish }),
                }
            }
        }
        let part = match (reads, thinks) {
            (true, _) => &mut timing.prefill,
            (_, true) => &mut timing.think,
            _ => &mut timing.answer,
        };
        *part += clock.lap();
    }
    Ok(())
}

/// Milliseconds between one call and the next.
pub(crate) struct Clock {
    last: Instant,
}

impl From<Instant> for Clock {
    fn from(last: Instant) -> Self {
        Self { last }
    }
}

impl Clock {
    pub(crate) fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let ms = (now - self.last).as_secs_f64() * 1e3;
        self.last = now;
        ms
    }
}

/// What a question came to.
fn answered(model: &dyn Speaking, talk: Talk, places: &Places, timing: Timing) -> Answer {
    let usage = talk.usage(model);
    let finish = talk.finish.unwrap_or(Finish::Context);
    let steps = model.spelled(talk.said_steps());
    let Talk { said: text, tokens, looks, .. } = talk;
    Answer { text, steps, tokens, finish, usage, looks, grid: places.grid, places: places.clone(), timing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Steps;
    use crate::{Sampling, tiny};
    use lare_data::prompt;

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
                let other = LookReport { time_ms: a.time_ms, ..b.clone() };
                assert_eq!(*a, other, "to the bit");
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
