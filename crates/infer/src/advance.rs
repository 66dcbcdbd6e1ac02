//! Takes questions further, all in one pass of the decoder, wherever each stands.
//!
//! What fails with many is tried again one by one: an error or a panic is the end of the question that caused it, and of no
//! other.

use crate::look::{self, LookReport, finite, halt_probabilities};
use crate::replaced::Standin;
use crate::session::Finish;
use crate::talk::{Doing, Talk};
use crate::{Assistant, Error, Result};
use candle_core::{D, Tensor};
use lare_model::conversation::{Change, ReplaceInPlace, hidden_of};
use lare_model::{Focus, Given, Reasoning, Turn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// What came of a question in one pass.
pub(crate) enum News {
    /// It took a latent step.
    Looked(Box<LookReport>),
    /// It said more.
    Said(String),
    /// It is done.
    Done(Finish),
}

/// A question that takes part in a pass.
struct Member<'t, 'q> {
    /// Its place among the questions.
    place: usize,
    talk: &'t mut Talk<'q>,
    /// Tokens of its prompt that it reads.
    words: usize,
    focus: Option<Focus>,
}

/// What was read out of the tensors for one question.
#[derive(Default)]
struct Numbers {
    /// The halting head, where it decides something.
    halt: f32,
    look: Option<LookReport>,
    logits: Vec<f32>,
}

/// One pass: gives what came of each question. Of prompts at most `most_words` tokens are read, those of earlier questions
/// first; a question that finds no room waits for the next pass.
pub(crate) fn advance(assistant: &Assistant, talks: &mut [&mut Talk], most_words: usize) -> Vec<Result<Vec<News>>> {
    let started = Instant::now();
    let mut news: Vec<Result<Vec<News>>> = talks.iter().map(|_| Ok(Vec::new())).collect();
    let mut room = most_words;
    let mut members = Vec::with_capacity(talks.len());
    for (place, talk) in talks.iter_mut().enumerate() {
        let words = if talk.is_reading() { (talk.prompt.len() - talk.read).min(room) } else { 0 };
        room -= words;
        if talk.is_reading() && words == 0 {
            continue;
        }
        members.push(Member { place, talk, words, focus: None });
    }
    let mut members = keep(members, &mut news, |some| pass(assistant, some), |member, focus| member.focus = focus);
    let time_ms = started.elapsed().as_secs_f64() * 1e3;
    let mut read: Vec<Numbers> = Vec::with_capacity(members.len());
    members = keep(members, &mut news, |some| numbers(assistant, some, time_ms), |_, numbers| read.push(numbers));
    for (member, numbers) in members.into_iter().zip(read) {
        let place = member.place;
        news[place] = guarded(|| Ok(take_in(assistant, member, numbers)));
    }
    news
}

/// Runs a phase for all members at once or, where that fails, for each alone. `take` gets what came of each; those that fail
/// alone are left out from here on.
fn keep<'t, 'q, R>(
    mut members: Vec<Member<'t, 'q>>,
    news: &mut [Result<Vec<News>>],
    run: impl Fn(&mut [Member<'t, 'q>]) -> Result<Vec<R>>,
    mut take: impl FnMut(&mut Member<'t, 'q>, R),
) -> Vec<Member<'t, 'q>> {
    if members.is_empty() {
        return members;
    }
    if let Ok(all) = guarded(|| run(&mut members)) {
        members.iter_mut().zip(all).for_each(|(member, came)| take(member, came));
        return members;
    }
    let mut kept = Vec::with_capacity(members.len());
    for mut member in members {
        match guarded(|| run(std::slice::from_mut(&mut member))) {
            Ok(came) => {
                came.into_iter().for_each(|came| take(&mut member, came));
                kept.push(member);
            }
            Err(error) => news[member.place] = Err(error),
        }
    }
    kept
}

/// A panic becomes an error. What was half done is not looked at again: conversations move only when a pass succeeds.
pub(crate) fn guarded<R>(run: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Error::Panic { reason: text.unwrap_or("no message").to_owned() })
    })
}

/// The pass itself.
fn pass(assistant: &Assistant, members: &mut [Member]) -> Result<Vec<Option<Focus>>> {
    for member in members.iter_mut().filter(|member| member.talk.is_thinking()) {
        member.talk.prepare_step(assistant);
    }
    #[cfg(any(test, feature = "faults"))]
    members.iter().for_each(|member| member.talk.fault());
    let inputs: Vec<u32> = members.iter().map(|member| member.talk.next_input()).collect();
    let mut turns = Vec::with_capacity(members.len());
    for (member, input) in members.iter_mut().zip(&inputs) {
        let (words, talk) = (member.words, &mut *member.talk);
        let given = match talk.doing {
            Doing::Reading => Given::Words(&talk.prompt[talk.read..talk.read + words]),
            Doing::Thinking => Given::Step(change(talk.standin.as_ref())),
            Doing::Saying => Given::Words(std::slice::from_ref(input)),
        };
        turns.push(Turn { of: &mut talk.conversation, given });
    }
    Ok(assistant.reasoner.pass(&mut turns)?)
}

fn change(standin: Option<&Standin>) -> Change<'_> {
    let Some(standin) = standin else {
        return Change::default();
    };
    let thought: Option<ReplaceInPlace> =
        if standin.thinks() { Some(Box::new(|own| standin.think(own))) } else { None };
    Change { thought, patches: standin.patches.clone() }
}

/// Reads out what the pass means for each: steps as numbers, whether to halt, the logits of what to say.
fn numbers(assistant: &Assistant, members: &mut [Member], time_ms: f64) -> Result<Vec<Numbers>> {
    let decides = |member: &Member| match member.talk.doing {
        Doing::Reading => member.talk.read + member.words == member.talk.prompt.len(),
        Doing::Thinking => true,
        Doing::Saying => false,
    };
    let mut halts = read_hidden(members, decides, |hidden| halt_probabilities(assistant, hidden))?;
    let says = |member: &Member| member.talk.doing == Doing::Saying;
    let mut logits = read_hidden(members, says, |hidden| {
        let logits = assistant.reasoner.language().logits(hidden)?; // [B, V]
        logits.sum(D::Minus1)?.to_vec1()?.into_iter().try_for_each(|sum| finite("a logit", sum).map(drop))?;
        Ok(logits.to_vec2::<f32>()?)
    })?;
    let mut all = Vec::with_capacity(members.len());
    let mut steps = Vec::new();
    for member in &*members {
        let halt = if decides(member) { halts.next().unwrap_or(0.0) } else { 0.0 };
        let logits = if says(member) { logits.next().unwrap_or_default() } else { Vec::new() };
        let step = |focus| look::Step { focus, halt, words: member.talk.nearest_words() };
        steps.extend(member.focus.as_ref().map(step));
        all.push(Numbers { halt, look: None, logits });
    }
    let mut looks = look::reports(assistant, &steps, time_ms)?.into_iter();
    for (numbers, member) in all.iter_mut().zip(&*members) {
        numbers.look = member.focus.as_ref().and_then(|_| looks.next());
    }
    Ok(all)
}

/// Computes something of the hidden states of those members that `which` picks, one result each, in their order.
fn read_hidden<T>(
    members: &[Member],
    which: impl Fn(&Member) -> bool,
    read: impl FnOnce(&Tensor) -> Result<Vec<T>>,
) -> Result<std::vec::IntoIter<T>> {
    let some: Vec<&Member> = members.iter().filter(|member| which(member)).collect();
    if some.is_empty() {
        return Ok(Vec::new().into_iter());
    }
    let hidden = hidden_of(some.iter().map(|member| &member.talk.conversation))?;
    Ok(read(&hidden)?.into_iter())
}

/// Tells a question what came of the pass, and gives what it has to tell.
fn take_in(assistant: &Assistant, member: Member, numbers: Numbers) -> Vec<News> {
    let Member { talk, words, .. } = member;
    let mut news = Vec::new();
    match talk.doing {
        Doing::Reading => talk.heard(words, numbers.halt, assistant.config()),
        Doing::Thinking => {
            if let Some(look) = numbers.look {
                news.push(News::Looked(Box::new(look.clone())));
                talk.looked(look);
            }
        }
        Doing::Saying => {
            news.extend(talk.says(numbers.logits, assistant).map(News::Said));
            news.extend(talk.finish.map(News::Done));
        }
    }
    news
}
