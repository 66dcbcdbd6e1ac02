//! Takes questions further, all in one pass of the decoder, wherever each stands.
//!
//! What fails with many is tried again one by one: an error or a panic is the end of the question that caused it, and of no
//! other.

use crate::look::{self, LookReport, finite, halt_probabilities};
use crate::model::Speaking;
use crate::replaced::Standin;
use crate::session::Finish;
use crate::talk::{Doing, Talk};
use crate::{Error, Result};
use candle_core::{D, Tensor};
use lare_model::conversation::{self, Change, ReplaceInPlace, hidden_of};
use lare_model::{Focus, Given, Turn};
use rayon::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Questions that are worth a thread of their own.
const LEAST_GROUP: usize = 2;
/// Elements of matrices that fit beside other things into a cache of tens of MB.
const SMALL: usize = 4 << 20;

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
struct Numbers {
    /// The halting head, where it decides something.
    halt: f32,
    look: Option<LookReport>,
    /// Where it says a token.
    logits: Option<Vec<f32>>,
}

/// One pass: gives what came of each question. Of prompts at most `most_words` tokens are read, those of earlier questions
/// first; a question that finds no room waits for the next pass.
///
/// The weights of a small model stay in the caches of every core: its questions are split among the threads, which a question's
/// bits do not depend on. The pass of a large one reads its weights once, and splits the work within.
pub(crate) fn advance(model: &dyn Speaking, talks: &mut [&mut Talk], most_words: usize) -> Vec<Result<Vec<News>>> {
    let most = if is_small(model) { rayon::current_num_threads() } else { 1 };
    let groups = (talks.len() / LEAST_GROUP).clamp(1, most.max(1));
    if groups == 1 {
        return advance_group(model, talks, most_words);
    }
    let (rows, words) = (talks.len().div_ceil(groups), most_words.div_ceil(groups));
    let groups = talks.par_chunks_mut(rows).map(|group| advance_group(model, group, words));
    groups.collect::<Vec<_>>().into_iter().flatten().collect()
}

/// Whether one core's cache holds the decoder's matrices, of which there are about `12 D^2` elements a block.
fn is_small(model: &dyn Speaking) -> bool {
    12 * model.decoder().layers() * model.width().pow(2) <= SMALL
}

fn advance_group(model: &dyn Speaking, talks: &mut [&mut Talk], most_words: usize) -> Vec<Result<Vec<News>>> {
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
    let mut members = keep(members, &mut news, |some| pass(model, some), |member, focus| member.focus = focus);
    let time_ms = started.elapsed().as_secs_f64() * 1e3;
    let mut read: Vec<Numbers> = Vec::with_capacity(members.len());
    members = keep(members, &mut news, |some| numbers(model, some, time_ms), |_, numbers| read.push(numbers));
    for (member, numbers) in members.into_iter().zip(read) {
        let place = member.place;
        news[place] = guarded(|| Ok(take_in(model, member, numbers)));
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
fn pass(model: &dyn Speaking, members: &mut [Member]) -> Result<Vec<Option<Focus>>> {
    for member in members.iter_mut().filter(|member| member.talk.is_thinking()) {
        member.talk.prepare_step(model);
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
    Ok(conversation::pass(model.decoder(), model.refocus(), &mut turns)?)
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
fn numbers(model: &dyn Speaking, members: &mut [Member], time_ms: f64) -> Result<Vec<Numbers>> {
    let decides = |member: &Member| match member.talk.doing {
        Doing::Reading => member.talk.read + member.words == member.talk.prompt.len(),
        Doing::Thinking => true,
        Doing::Saying => false,
    };
    let decide: Vec<bool> = members.iter().map(decides).collect();
    let halts = match model.refocus() {
        Some(refocus) => read_hidden(members, &decide, |hidden| halt_probabilities(refocus, hidden))?,
        None => members.iter().map(|_| None).collect(),
    };
    let halts: Vec<f32> = halts.into_iter().map(|halt| halt.unwrap_or(0.0)).collect();
    let say: Vec<bool> =
        members.iter().zip(&halts).map(|(member, halt)| member.talk.says_after(member.words, *halt)).collect();
    let logits = read_hidden(members, &say, |hidden| {
        let logits = model.decoder().logits(hidden)?; // [B, V]
        logits.sum(D::Minus1)?.to_vec1()?.into_iter().try_for_each(|sum| finite("a logit", sum).map(drop))?;
        Ok(logits.to_vec2::<f32>()?)
    })?;
    let steps = members.iter().zip(&halts).filter_map(|(member, halt)| {
        Some(look::Step { focus: member.focus.as_ref()?, halt: *halt, words: member.talk.nearest_words() })
    });
    let mut looks = look::reports(model, &steps.collect::<Vec<_>>(), time_ms)?.into_iter();
    let all = members.iter().zip(halts).zip(logits).map(|((member, halt), logits)| {
        let look = member.focus.as_ref().and_then(|_| looks.next());
        Numbers { halt, look, logits }
    });
    Ok(all.collect())
}

/// Computes something of the hidden states of those members that are picked, one result each.
fn read_hidden<T>(
    members: &[Member],
    picked: &[bool],
    read: impl FnOnce(&Tensor) -> Result<Vec<T>>,
) -> Result<Vec<Option<T>>> {
    let some = || members.iter().zip(picked).filter(|(_, picked)| **picked);
    if some().next().is_none() {
        return Ok(members.iter().map(|_| None).collect());
    }
    let hidden = hidden_of(some().map(|(member, _)| &member.talk.conversation))?;
    let mut all = read(&hidden)?.into_iter();
    Ok(picked.iter().map(|picked| if *picked { all.next() } else { None }).collect())
}

/// Tells a conversation what came of the pass, and gives what it has to tell.
fn take_in(model: &dyn Speaking, member: Member, numbers: Numbers) -> Vec<News> {
    let Member { talk, words, .. } = member;
    let mut news = Vec::new();
    if talk.is_reading() {
        talk.heard(words, numbers.halt);
    }
    if let Some(look) = numbers.look {
        news.push(News::Looked(Box::new(look.clone())));
        talk.looked(look);
    }
    if let Some(logits) = numbers.logits {
        news.extend(talk.says(logits, model).map(News::Said));
        news.extend(talk.finish.map(News::Done));
    }
    news
}
