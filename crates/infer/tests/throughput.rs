//! How much more an engine answers when many ask at once: measured, not claimed, and so not part of the tests.
//!
//! ```text
//! cargo test -p lare-infer --test throughput -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use lare_data::chat::{Content, Message, Part, Role};
use lare_data::{Picture, Split, Suite, Task};
use lare_infer::engine::{Answered, Engine, Limits, Request, Update};
use lare_infer::{Assistant, Options};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Requests of one measurement.
const REQUESTS: usize = 96;
/// Requests under way at once.
const TOGETHER: usize = 16;

struct Asked {
    picture: Arc<Picture>,
    text: String,
}

/// Questions of all tasks, each on a picture of its own.
fn questions() -> Vec<Asked> {
    let suite = Suite::new();
    let tasks = Task::ALL.iter().cycle();
    let samples = (0..REQUESTS as u64).zip(tasks).map(|(index, task)| suite.sample(Split::Val, *task, index));
    samples.map(|s| Asked { picture: Arc::new((*s.picture).clone()), text: s.question.text }).collect()
}

fn request(asked: &Asked) -> Request {
    let content = Content::Parts(vec![Part::Picture, Part::Text(asked.text.clone())]);
    Request {
        messages: vec![Message { role: Role::User, content }],
        pictures: vec![asked.picture.clone()],
        options: Options::default(),
        most_steps: usize::MAX,
        stop: Vec::new(),
        replace: None,
        draw: false,
        deadline: None,
    }
}

/// Keeps `together` requests under way until all are answered; gives the answers and the time.
fn run(engine: &Engine, asked: &[Asked], together: usize) -> (Vec<Answered>, Duration) {
    let (started, (sender, ends)) = (Instant::now(), mpsc::channel());
    let (mut tickets, mut answers) = (Vec::new(), Vec::new());
    for (number, asked) in asked.iter().enumerate() {
        if number >= together {
            answers.push(ends.recv().unwrap());
        }
        let sender = sender.clone();
        let sink = move |update| match update {
            Update::Done(answered) => sender.send(*answered).is_ok(),
            Update::Failed(failure) => panic!("{failure:?}"),
            _ => true,
        };
        tickets.push(engine.submit(request(asked), Box::new(sink)).unwrap());
    }
    while answers.len() < asked.len() {
        answers.push(ends.recv().unwrap());
    }
    (answers, started.elapsed())
}

/// Prints a measurement; gives requests a second.
fn report(name: &str, (answers, time): &(Vec<Answered>, Duration)) -> f64 {
    let rate = |count: usize| count as f64 / time.as_secs_f64();
    let steps = answers.iter().map(|a| a.usage.latent_steps).sum();
    let tokens = answers.iter().map(|a| a.usage.text_tokens).sum();
    let mut firsts: Vec<f64> = answers.iter().map(|a| a.first_token.as_secs_f64() * 1e3).collect();
    firsts.sort_by(f64::total_cmp);
    let at = |share: f64| firsts[((firsts.len() - 1) as f64 * share) as usize];
    println!(
        "{name:34} {:7.1} requests/s {:7.1} latent steps/s {:7.1} text tokens/s   first token p50 {:6.1} p95 {:6.1} ms",
        rate(answers.len()),
        rate(steps),
        rate(tokens),
        at(0.5),
        at(0.95)
    );
    rate(answers.len())
}

#[test]
#[ignore = "a measurement of seconds on a machine that does nothing else"]
fn throughput() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/nano");
    let assistant = Arc::new(Assistant::from_folder(&folder).unwrap());
    let asked = questions();
    let start =
        |picture_bytes| Engine::start(assistant.clone(), Limits { picture_bytes, ..Limits::default() }).unwrap();
    for round in 1..=2 {
        println!("round {round}");
        let fresh = start(0);
        let one = report("new pictures, one at a time", &run(&fresh, &asked, 1));
        let many = report(&format!("new pictures, {TOGETHER} at once"), &run(&fresh, &asked, TOGETHER));
        println!("{:34} {:7.2} times", "", many / one);
        let known = start(1 << 30);
        drop(run(&known, &asked, TOGETHER));
        let one = report("known pictures, one at a time", &run(&known, &asked, 1));
        let many = report(&format!("known pictures, {TOGETHER} at once"), &run(&known, &asked, TOGETHER));
        println!("{:34} {:7.2} times", "", many / one);
        let stats = known.stats();
        println!(
            "mean rows of a pass {:.1}, mean pass {:.2} ms",
            stats.rows as f64 / stats.passes as f64,
            stats.pass_micros as f64 / stats.passes as f64 / 1e3
        );
    }
}
