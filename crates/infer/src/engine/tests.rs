//! What is promised to the callers of an engine.

#[cfg(test)]
mod pretrained;

use super::*;
use crate::generator::question;
use crate::options::Steps;
use crate::talk::FAULT;
use crate::{Batch, LookReport, Question, Sampling, session, tiny};
use proptest::prelude::*;
use std::sync::mpsc::Receiver;

/// What came of a request.
#[derive(Debug)]
struct Came {
    looks: Vec<LookReport>,
    drawings: Vec<Picture>,
    text: String,
    end: Option<Update>,
}

impl Came {
    fn answered(&self) -> &Answered {
        let Some(Update::Done(answered)) = &self.end else { panic!("not answered: {:?}", self.end) };
        answered
    }

    /// Everything of an answer that must not depend on its neighbours; times do.
    fn bits(&self) -> (Vec<LookReport>, Vec<Vec<u8>>, &str, Usage) {
        let looks = self.looks.iter().map(|look| LookReport { time_ms: 0.0, ..look.clone() }).collect();
        let drawings = self.drawings.iter().map(|drawing| drawing.rgb.clone()).collect();
        (looks, drawings, &self.text, self.answered().usage)
    }
}

fn request(picture: &Arc<Picture>, text: &str, options: Options) -> Request {
    Request {
        messages: vec![question(1, text)],
        pictures: vec![picture.clone()],
        options,
        most_steps: usize::MAX,
        stop: Vec::new(),
        replace: None,
        draw: false,
        deadline: None,
    }
}

fn options(steps: usize) -> Options {
    Options { steps: Steps::Fixed(steps), max_tokens: 6, ..Options::default() }
}

fn picture(seed: u64) -> Arc<Picture> {
    let sizes = [(192, 192), (256, 130), (100, 192), (256, 256), (320, 200)];
    let (width, height) = sizes[seed as usize % sizes.len()];
    Arc::new(tiny::picture(width, height, seed))
}

fn engine(limits: Limits) -> Engine {
    Engine::start(Arc::new(tiny::assistant()), limits).unwrap()
}

/// A request on its way.
struct Sent {
    ticket: Ticket,
    updates: Receiver<Update>,
}

fn send(engine: &Engine, request: Request) -> std::result::Result<Sent, Refusal> {
    let (sender, updates) = mpsc::channel();
    let ticket = engine.submit(request, Box::new(move |update| sender.send(update).is_ok()))?;
    Ok(Sent { ticket, updates })
}

impl Sent {
    /// Waits for its end.
    fn wait(self) -> Came {
        let mut came = Came { looks: Vec::new(), drawings: Vec::new(), text: String::new(), end: None };
        for update in &self.updates {
            match update {
                Update::Look { look, drawing, .. } => {
                    came.looks.push(*look);
                    came.drawings.extend(drawing);
                }
                Update::Text(text) => came.text.push_str(&text),
                end => assert!(came.end.replace(end).is_none(), "one end"),
            }
        }
        drop(self.ticket);
        came
    }
}

fn ask(engine: &Engine, request: Request) -> Came {
    send(engine, request).unwrap().wait()
}

fn any_request() -> impl Strategy<Value = (Request, u64)> {
    let replacements = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Replacement::Zero)),
        1 => (0..9u64).prop_map(|seed| Some(Replacement::Noise { seed })),
        1 => Just(Some(Replacement::RepeatFirst)),
        1 => Just(Some(Replacement::MarkersOnly)),
        1 => (0..9u64).prop_map(|seed| Some(Replacement::RandomPatches { seed })),
    ];
    let steps =
        prop_oneof![(0..=6usize).prop_map(Steps::Fixed), (0.0..1.0f32).prop_map(|threshold| Steps::Auto { threshold })];
    let texts =
        prop::sample::subsequence(vec!["What", "is", "left", "of", "the", "red", "cup", "dog", "?", "7"], 1..=10);
    let sampling = (prop_oneof![Just(0.0f32), Just(0.8)], 0..100u64);
    let how = (replacements, steps, sampling, 1..9usize, any::<bool>(), 0..3u64);
    (0..6u64, texts, how).prop_map(|(seed, words, (replace, steps, (temperature, draws), max_tokens, draw, delay))| {
        let sampling = Sampling { temperature, top_p: 0.9, seed: draws };
        let options = Options { steps, sampling, max_tokens, nearest_words: 3 };
        let request = Request { replace, draw, ..request(&picture(seed), &words.join(" "), options) };
        (request, delay)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_has_the_same_bits_alone_and_among_others(requests in prop::collection::vec(any_request(), 2..18)) {
        let (crowd, alone) = (engine(Limits::default()), engine(Limits { rows: 1, picture_bytes: 0, ..Limits::default() }));
        let sent: Vec<Sent> = requests
            .iter()
            .map(|(request, delay)| {
                std::thread::sleep(Duration::from_millis(*delay));
                send(&crowd, request.clone()).unwrap()
            })
            .collect();
        for (sent, (request, _)) in sent.into_iter().zip(&requests) {
            let (together, single) = (sent.wait(), ask(&alone, request.clone()));
            prop_assert_eq!(together.bits(), single.bits());
            prop_assert_eq!(&together.text, &together.answered().text);
        }
    }
}

#[test]
fn what_is_served_has_the_bits_of_what_is_asked_in_a_batch() {
    let (assistant, engine) = (tiny::assistant(), engine(Limits::default()));
    let asked =
        [(0, "What is left of the cat?", 3), (1, "cat", 0), (2, "Which is left of the red cup?", 6), (0, "dog", 1)];
    let pictures: Vec<Arc<Picture>> = (0..3).map(picture).collect();
    let borrowed: Vec<&Picture> = pictures.iter().map(AsRef::as_ref).collect();
    let questions = asked.map(|(picture, text, steps)| Question::new(picture, text, options(steps)));
    let answers =
        session::answer(&assistant, &Batch { pictures: &borrowed, questions: &questions }, &mut |_| ()).unwrap();
    let sent =
        asked.map(|(picture, text, steps)| send(&engine, request(&pictures[picture], text, options(steps))).unwrap());
    for (sent, answer) in sent.into_iter().zip(answers) {
        let came = sent.wait();
        let looks: Vec<LookReport> =
            answer.looks.iter().map(|look| LookReport { time_ms: 0.0, ..look.clone() }).collect();
        assert_eq!(came.bits(), (looks, Vec::new(), answer.text.as_str(), answer.usage));
        assert_eq!((came.answered().finish, &came.answered().grids[..]), (answer.finish, &[answer.grid][..]));
    }
}

#[test]
fn many_are_answered_in_one_pass() {
    let engine = engine(Limits::default());
    let picture = picture(3);
    drop(ask(&engine, request(&picture, "cat", options(0))));
    let before = engine.stats();
    let sent: Vec<Sent> = (0..8)
        .map(|k| send(&engine, request(&picture, "What is left of the dog?", options(k % 4 + 2))).unwrap())
        .collect();
    let steps: usize = sent.into_iter().map(|sent| sent.wait().looks.len()).sum();
    let stats = engine.stats();
    let (passes, rows) = (stats.passes - before.passes, stats.rows - before.rows);
    // A thread that is held up elsewhere sends late, and is answered in passes of few rows.
    assert!(2 * rows > 3 * passes, "{rows} rows in {passes} passes");
    assert_eq!((stats.latent_steps - before.latent_steps, stats.answered), (steps as u64, 9));
    assert_eq!((stats.picture_misses, stats.picture_hits), (1, 8));
    assert_eq!(stats.passes_by_rows.iter().sum::<u64>(), stats.passes);
    assert!(stats.picture_bytes > 0 && stats.cache_bytes == 0, "{stats:?}");
}

#[test]
fn a_panic_ends_the_request_that_caused_it_and_no_other() {
    let engine = engine(Limits::default());
    let alone = ask(&engine, request(&picture(1), "What is left of the cat?", options(4)));
    let sent: Vec<Sent> = (0..9)
        .map(|number| {
            let text = if number % 4 == 2 { FAULT } else { "What is left of the cat?" };
            send(&engine, request(&picture(1), text, options(4))).unwrap()
        })
        .collect();
    for (number, sent) in sent.into_iter().enumerate() {
        let came = sent.wait();
        if number % 4 == 2 {
            let Some(Update::Failed(Failure::Broken { reason })) = &came.end else { panic!("{:?}", came.end) };
            assert!(reason.contains("asked to panic"), "{reason}");
        } else {
            assert_eq!(came.bits(), alone.bits(), "request {number}");
        }
    }
    let stats = engine.stats();
    assert_eq!((stats.answered, stats.broken, stats.cache_bytes), (8, 2, 0));
}

#[test]
fn a_full_queue_refuses_and_a_closed_engine_answers_what_it_accepted() {
    let engine = engine(Limits { queue: 3, rows: 1, ..Limits::default() });
    let mut sent = Vec::new();
    let full = loop {
        match send(&engine, request(&picture(sent.len() as u64), "What is left of the dog?", options(6))) {
            Ok(one) => sent.push(one),
            Err(refusal) => break refusal,
        }
        assert!(sent.len() < 1000, "never full");
    };
    assert!(matches!(full, Refusal::Full { waiting: 3 }), "{full}");
    engine.close();
    assert!(matches!(send(&engine, request(&picture(1), "cat", options(0))), Err(Refusal::Closing)));
    let count = sent.len() as u64;
    for sent in sent {
        assert_eq!(sent.wait().looks.len(), 6);
    }
    let stats = engine.stats();
    assert_eq!((stats.answered, stats.refused_full, stats.refused_closing), (count, 1, 1));
    assert_eq!(engine.load(), Load::default());
}

#[test]
fn who_is_gone_or_late_is_not_answered() {
    let engine = engine(Limits { rows: 2, ..Limits::default() });
    let slow = || request(&picture(3), "What is left of the dog?", options(6));
    let late = Request { deadline: Some(Instant::now()), ..slow() };
    assert!(matches!(ask(&engine, late).end, Some(Update::Failed(Failure::Timeout))));
    // The engine waits in another request's update while this one's caller goes.
    let (open, gate) = mpsc::channel::<()>();
    let holds = engine.submit(slow(), Box::new(move |_| gate.recv().is_ok())).unwrap();
    let Sent { ticket, updates } = send(&engine, slow()).unwrap();
    drop(ticket);
    drop(open);
    assert!(updates.iter().all(|update| !matches!(update, Update::Done(_))));
    drop(holds);
    // Nobody listens: the first update ends it.
    let Sent { ticket, updates } = send(&engine, slow()).unwrap();
    drop(updates);
    let came = ask(&engine, slow());
    assert_eq!(came.looks.len(), 6);
    engine.close();
    drop(ticket);
    let stats = engine.stats();
    assert_eq!((stats.answered, stats.timed_out, stats.abandoned, stats.cache_bytes), (1, 1, 3, 0));
}

#[test]
fn a_request_waits_until_its_keys_and_values_fit_and_smaller_ones_do_not_overtake_it() {
    let assistant = tiny::assistant();
    let room = |tokens| {
        let options = Options { max_tokens: tokens, ..options(6) };
        let draft = Draft::new(&assistant, &[question(1, "cat")], &[Size::of(&picture(3))], options).unwrap();
        Pool::bytes_for(&assistant, &draft)
    };
    let (small, large) = (room(1), room(1000));
    assert!(small < large);
    let engine = engine(Limits { cache_bytes: large, ..Limits::default() });
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tickets = Vec::new();
    for (number, tokens) in [1, 1000, 1, 1].into_iter().enumerate() {
        let (order, options) = (order.clone(), Options { max_tokens: tokens, ..options(6) });
        let sink = move |update: Update| {
            if matches!(update, Update::Done(_)) {
                order.lock().unwrap().push(number);
            }
            true
        };
        tickets.push(engine.submit(request(&picture(3), "cat", options), Box::new(sink)).unwrap());
    }
    engine.close();
    let order = order.lock().unwrap();
    assert!(order[..2] == [0, 1] && order.len() == 4, "{order:?}");
    let little = Engine::start(Arc::new(assistant), Limits { cache_bytes: large - 1, ..Limits::default() }).unwrap();
    let never = Options { max_tokens: 1000, ..options(6) };
    let Err(Refusal::Bad { field, reason }) = send(&little, request(&picture(3), "cat", never)) else { panic!("fits") };
    assert!(field == "max_tokens" && reason.contains(&large.to_string()), "{reason}");
}

#[test]
fn what_replaces_thoughts_is_what_the_looks_tell() {
    let engine = engine(Limits::default());
    let asked = |replace| {
        ask(&engine, Request { replace, draw: true, ..request(&picture(3), "What is left of the dog?", options(4)) })
    };
    let norm = |thought: &[f32]| thought.iter().map(|x| x * x).sum::<f32>().sqrt();
    let own = asked(None);
    assert_eq!((own.looks.len(), own.drawings.len()), (4, 4));
    assert!(asked(Some(Replacement::Zero)).looks.iter().all(|look| look.thought.iter().all(|x| *x == 0.0)));
    let noise = asked(Some(Replacement::Noise { seed: 1 }));
    assert_eq!(noise.bits(), asked(Some(Replacement::Noise { seed: 1 })).bits());
    assert_ne!(noise.looks[0].thought, asked(Some(Replacement::Noise { seed: 2 })).looks[0].thought);
    assert_ne!(noise.looks[0].thought, noise.looks[1].thought);
    assert!((norm(&noise.looks[0].thought) / norm(&own.looks[0].thought) - 1.0).abs() < 1e-4);
    let again = asked(Some(Replacement::RepeatFirst));
    assert_eq!(again.looks[0].thought, own.looks[0].thought);
    assert!(again.looks.iter().all(|look| look.thought == own.looks[0].thought));
    let random = asked(Some(Replacement::RandomPatches { seed: 3 }));
    assert!(random.looks.iter().zip(&own.looks).all(|(a, b)| a.chosen.len() == b.chosen.len()));
    assert!(random.looks.iter().zip(&own.looks).any(|(a, b)| a.chosen != b.chosen));
    let markers = asked(Some(Replacement::MarkersOnly));
    assert_eq!((markers.looks.len(), markers.answered().usage.latent_steps), (0, 0));
}

#[test]
fn steps_that_are_the_models_to_choose_end_at_the_callers_limit() {
    let engine = engine(Limits::default());
    let looks = |steps, most_steps| {
        let request = Request { most_steps, ..request(&picture(3), "cat", Options { steps, ..options(0) }) };
        ask(&engine, request).looks.len()
    };
    let auto = Steps::Auto { threshold: 1.0 };
    assert_eq!([looks(auto, usize::MAX), looks(auto, 2), looks(auto, 0)], [6, 2, 0]);
    assert_eq!(looks(Steps::Fixed(3), 2), 3, "a number is for the caller to refuse");
}

#[test]
fn a_request_that_can_never_be_answered_is_refused_by_its_field() {
    let engine = engine(Limits::default());
    let refused = |request| match send(&engine, request) {
        Err(Refusal::Bad { field, reason }) => (field, reason),
        _ => panic!("not refused as bad"),
    };
    let picture = picture(0);
    let (field, reason) = refused(request(&picture, "cat", options(7)));
    assert!(field == "steps" && reason.contains('7'), "{field} {reason}");
    let (field, _) = refused(request(&picture, " ", options(1)));
    assert_eq!(field, "messages");
    let two = Request { pictures: vec![picture.clone(), picture.clone()], ..request(&picture, "cat", options(1)) };
    assert!(refused(two).1.contains("at most 1 pictures, got 2"));
    let none = Request { pictures: Vec::new(), ..request(&picture, "cat", options(1)) };
    assert!(refused(none).1.contains("one picture"));
    assert_eq!(engine.stats().refused_bad, 4);
}
