//! The same promises, of models from Hugging Face folders and GGUF files, with and without an adapter.

use super::*;
use crate::generator::{Generator, Said, Weights};
use crate::model::Speaking as _;
use crate::places::on_cells;
use crate::tiny::Random;
use lare_data::chat::{Part, Role};
use lare_model::config::{Choice, Memory, Refocus, Scorer, Thinking};
use lare_model::pretrained::Pretrained;
use lare_model::{Lora, Path as Module, Refocused};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SEEING: [&str; 3] = ["qwen2_5_vl", "qwen3_vl", "smolvlm"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// A folder as users have it: text files of fixtures/chat, weights of fixtures/folders.
fn folder(family: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["chat", "folders"] {
        for entry in fs::read_dir(fixtures().join(part).join(family)).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
        }
    }
    folder
}

fn published(family: &str) -> Generator {
    Generator::from_folder(folder(family).path(), None, None).unwrap()
}

/// With an adapter of random numbers.
fn adapted(family: &str, thinking: Thinking) -> Generator {
    let folder = folder(family);
    let lora = Lora { rank: 2, alpha: 4.0, targets: vec!["language.blocks.*.output".into()] };
    let base = Pretrained::adapted(folder.path(), None, &lora, &Random).unwrap();
    let settings = Refocus {
        thinking,
        choice: Choice::Best,
        scorer: Scorer::MeanAttention,
        memory: Memory::Fine,
        patches: 3,
        exclude_earlier: false,
        revisit: true,
        bias: true,
        gate: true,
        max_steps: 4,
        blocks: 1,
        heads: 2,
        feed_forward: 24,
    };
    let refocused = Refocused::new(base, &settings, Module::root(&Random)).unwrap();
    Generator::of(folder.path(), Weights::Refocused(Box::new(refocused))).unwrap()
}

fn read_alone() -> Generator {
    Generator::from_folder(&fixtures().join("gguf/qwen3.gguf"), None, None).unwrap()
}

fn start(generator: Generator, limits: Limits) -> (Arc<Generator>, Engine) {
    let generator = Arc::new(generator);
    (generator.clone(), Engine::start(generator, limits).unwrap())
}

/// One message about pictures.
fn about(pictures: &[u64], text: &str, options: Options) -> Request {
    let pictures: Vec<Arc<Picture>> = pictures.iter().map(|seed| small(*seed)).collect();
    let messages = vec![question(pictures.len(), text)];
    Request { messages, pictures, ..request(&small(0), text, options) }
}

fn small(seed: u64) -> Arc<Picture> {
    let sizes = [(64, 64), (90, 40), (40, 90), (120, 61)];
    let (width, height) = sizes[seed as usize % sizes.len()];
    Arc::new(tiny::picture(width, height, seed))
}

fn asked(generator: &Generator, request: &Request) -> Said {
    let pictures: Vec<&Picture> = request.pictures.iter().map(AsRef::as_ref).collect();
    generator.answer(&request.messages, &pictures, &request.options, &mut |_| ()).unwrap()
}

/// What [`Came::bits`] says of a served answer, of one that was asked for.
fn bits(generator: &Generator, request: &Request, said: &Said) -> (Vec<LookReport>, String, Usage) {
    let places: Vec<_> = request.pictures.iter().map(|p| generator.places(Size::of(p)).unwrap()).collect();
    let looks = said.looks.iter().map(|look| on_cells(&places, LookReport { time_ms: 0.0, ..look.clone() }));
    (looks.collect(), said.text.clone(), said.usage)
}

fn served(came: &Came) -> (Vec<LookReport>, String, Usage) {
    let (looks, _, text, usage) = came.bits();
    (looks, text.to_owned(), usage)
}

fn any_conversation(sees: bool, thinks: bool) -> impl Strategy<Value = (Request, bool, u64)> {
    let replacements = if thinks {
        prop_oneof![
            4 => Just(None),
            1 => Just(Some(Replacement::Zero)),
            1 => (0..9u64).prop_map(|seed| Some(Replacement::Noise { seed })),
            1 => Just(Some(Replacement::RepeatFirst)),
            1 => Just(Some(Replacement::MarkersOnly)),
            1 => (0..9u64).prop_map(|seed| Some(Replacement::RandomPatches { seed })),
        ]
        .boxed()
    } else {
        Just(None).boxed()
    };
    let steps = if thinks {
        prop_oneof![(0..=4usize).prop_map(Steps::Fixed), (0.0..1.0f32).prop_map(|threshold| Steps::Auto { threshold })]
            .boxed()
    } else {
        Just(Options::default().steps).boxed()
    };
    let pictures = prop::collection::vec(0..4u64, 0..if sees { 4 } else { 1 });
    let texts =
        prop::sample::select(vec!["What is this?", "ass é 漢字 🙂", "x", "Which of the two is larger, and why?"]);
    let earlier = prop::option::of(prop::sample::select(vec!["Be short.", "Hello"]));
    let sampling = (prop_oneof![Just(0.0f32), Just(0.9)], 0..100u64);
    let how = (replacements, steps, sampling, 1..20usize, prop::bool::weighted(0.2), 0..3u64);
    (pictures, texts, earlier, how).prop_map(|(pictures, text, earlier, how)| {
        let (replace, steps, (temperature, seed), max_tokens, leaves, delay) = how;
        let sampling = Sampling { temperature, top_p: 0.9, seed };
        let options = Options { steps, sampling, max_tokens, nearest_words: 2 };
        let mut request = Request { replace, ..about(&pictures, text, options) };
        if let Some(earlier) = earlier {
            let before = [Message::new(Role::User, earlier), Message::new(Role::Assistant, "Yes.")];
            request.messages.splice(0..0, before);
        }
        (request, leaves, delay)
    })
}

/// Answers of a crowd whose members come, stay or leave are those of each alone, and those that are asked for without an engine.
fn the_same_bits(generator: Generator, requests: &[(Request, bool, u64)]) {
    let (generator, crowd) = start(generator, Limits::default());
    let alone = Limits { rows: 1, picture_bytes: 0, ..Limits::default() };
    let alone = Engine::start(generator.clone(), alone).unwrap();
    let sent: Vec<Sent> = requests
        .iter()
        .map(|(request, _, delay)| {
            std::thread::sleep(Duration::from_millis(*delay));
            send(&crowd, request.clone()).unwrap()
        })
        .collect();
    for (sent, (request, leaves, _)) in sent.into_iter().zip(requests) {
        if *leaves {
            drop(sent);
            continue;
        }
        let together = sent.wait();
        assert_eq!(together.text, together.answered().text);
        assert_eq!(served(&together), served(&ask(&alone, request.clone())));
        let looks_left_alone = request.replace.is_none();
        if looks_left_alone {
            assert_eq!(served(&together), bits(&generator, request, &asked(&generator, request)));
        }
    }
    crowd.close();
    assert_eq!((crowd.stats().broken, crowd.stats().cache_bytes), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]

    #[test]
    fn a_published_models_answer_has_the_same_bits_alone_and_among_others(
        family in prop::sample::select(SEEING.to_vec()),
        requests in prop::collection::vec(any_conversation(true, false), 2..14),
    ) {
        the_same_bits(published(family), &requests);
    }

    #[test]
    fn an_adapted_models_answer_has_the_same_bits_alone_and_among_others(
        family in prop::sample::select(SEEING.to_vec()),
        thinking in prop::sample::select(vec![Thinking::Refocus, Thinking::Splice]),
        requests in prop::collection::vec(any_conversation(true, true), 2..14),
    ) {
        the_same_bits(adapted(family, thinking), &requests);
    }

    #[test]
    fn a_language_models_answer_has_the_same_bits_alone_and_among_others(
        requests in prop::collection::vec(any_conversation(false, false), 2..14),
    ) {
        the_same_bits(read_alone(), &requests);
    }
}

#[test]
fn a_panic_ends_one_request_of_a_pretrained_model() {
    for family in SEEING {
        let (_, engine) = start(adapted(family, Thinking::Refocus), Limits::default());
        let alone = ask(&engine, about(&[1], "What is this?", options(3)));
        assert_eq!(alone.looks.len(), 3, "{family}");
        let sent: Vec<Sent> = (0..6)
            .map(|number| {
                let text = if number % 3 == 1 { FAULT } else { "What is this?" };
                send(&engine, about(&[1], text, options(3))).unwrap()
            })
            .collect();
        for (number, sent) in sent.into_iter().enumerate() {
            let came = sent.wait();
            match (number % 3, &came.end) {
                (1, Some(Update::Failed(Failure::Broken { reason }))) => assert!(reason.contains("asked to panic")),
                (0 | 2, Some(Update::Done(_))) => assert_eq!(came.bits(), alone.bits(), "{family}: {number}"),
                (_, other) => panic!("{family}: {number}: {other:?}"),
            }
        }
        let stats = engine.stats();
        assert_eq!((stats.answered, stats.broken, stats.cache_bytes), (5, 2, 0), "{family}");
    }
}

#[test]
fn pictures_are_known_by_what_is_shown_of_them_and_grounds_by_their_words_too() {
    let (_, engine) = start(published("qwen2_5_vl"), Limits::default());
    let counts = |request: Request| {
        let before = engine.stats();
        drop(ask(&engine, request));
        let after = engine.stats();
        (after.picture_misses - before.picture_misses, after.picture_hits - before.picture_hits)
    };
    assert_eq!(counts(about(&[1, 2], "What is this?", options(0))), (2, 0));
    assert_eq!(counts(about(&[1, 2], "Another question", options(0))), (0, 2));
    // The same pictures in another order, and behind other words, have been seen but not read.
    assert_eq!(counts(about(&[2, 1], "What is this?", options(0))), (0, 2));
    let mut behind = about(&[1], "What is this?", options(0));
    behind.messages[0].content = vec![Part::Text("Look:".into()), Part::Picture, Part::Text("What?".into())].into();
    assert_eq!(counts(behind), (0, 1));
    assert_eq!(counts(about(&[3], "What is this?", options(0))), (1, 0));
    assert_eq!(counts(about(&[], "Hello", options(0))), (0, 0));
    // Two pictures that look alike in size are not taken for each other.
    let said = |seed| ask(&engine, about(&[seed], "What is this?", options(0))).text;
    let (_, fresh) = start(published("qwen2_5_vl"), Limits { picture_bytes: 0, ..Limits::default() });
    for seed in [1, 5, 9] {
        assert_eq!(said(seed), ask(&fresh, about(&[seed], "What is this?", options(0))).text, "{seed}");
    }
}

#[test]
fn the_budget_counts_what_a_pretrained_model_keeps_of_its_prompt() {
    let generator = published("smolvlm");
    let bytes = |request: &Request| {
        let sizes: Vec<Size> = request.pictures.iter().map(|picture| Size::of(picture)).collect();
        let draft = Draft::new(&generator, &request.messages, &sizes, request.options).unwrap();
        (Pool::bytes_for(&generator, &draft), draft.first.len())
    };
    let [one, two] = [&[1][..], &[1, 2]].map(|pictures| about(pictures, "What is this?", options(0)));
    let ((of_one, first), (of_two, both)) = (bytes(&one), bytes(&two));
    assert!(both > first && of_two - of_one >= (both - first) * generator.decoder().slot_bytes());
    let (_, engine) = start(generator, Limits { cache_bytes: of_one, ..Limits::default() });
    assert!(matches!(ask(&engine, one).end, Some(Update::Done(_))));
    let Err(Refusal::Bad { field, reason }) = send(&engine, two) else { panic!("fits") };
    assert!(field == "max_tokens" && reason.contains(&of_two.to_string()), "{reason}");
}

#[test]
fn a_prompt_that_fills_the_context_is_refused_and_an_answer_ends_at_it() {
    let (generator, engine) = start(read_alone(), Limits::default());
    let context = generator.base().architecture.language.max_positions;
    let long = |words: usize| about(&[], &"x ".repeat(words), Options { max_tokens: usize::MAX, ..options(0) });
    let Err(Refusal::Bad { field, reason }) = send(&engine, long(context)) else { panic!("fits") };
    assert!(field == "messages" && reason.contains("too long"), "{reason}");
    let came = ask(&engine, long(1));
    let answered = came.answered();
    assert!(answered.finish == Finish::End || answered.usage.processed_positions <= context, "{answered:?}");
}

#[test]
fn what_a_published_model_cannot_do_is_refused_by_its_field() {
    let (_, engine) = start(published("smolvlm"), Limits::default());
    let refused = |engine: &Engine, request| match send(engine, request) {
        Err(Refusal::Bad { field, reason }) => (field, reason),
        _ => panic!("not refused as bad"),
    };
    let plain = || about(&[1], "What is this?", options(0));
    let steps = refused(&engine, Request { options: options(2), ..plain() });
    assert!(steps.0 == "steps" && steps.1.contains("adapter"), "{steps:?}");
    assert_eq!(refused(&engine, Request { replace: Some(Replacement::Zero), ..plain() }).0, "replace");
    assert_eq!(refused(&engine, Request { draw: true, ..plain() }).0, "draw");
    assert_eq!((engine.about().max_steps, engine.about().pictures, engine.about().can_draw), (0, 8, false));
    let (_, reader) = start(read_alone(), Limits::default());
    assert!(refused(&reader, plain()).1.contains("at most 0 pictures"));
    let (_, thinker) = start(adapted("smolvlm", Thinking::Refocus), Limits::default());
    let steps = refused(&thinker, Request { options: options(5), ..plain() });
    assert!(steps.1.contains("0 to 4, the adapter's"), "{steps:?}");
    // Without a picture there is nothing to look at again.
    assert_eq!(ask(&thinker, about(&[], "Hello", options(4))).looks.len(), 0);
}

#[test]
fn no_piece_of_a_streamed_answer_is_half_a_character() {
    let (_, engine) = start(published("qwen2_5_vl"), Limits::default());
    let mut replaced = 0;
    for seed in 0..12 {
        let sampling = Sampling { temperature: 5.0, top_p: 1.0, seed };
        let request = about(&[], "ass", Options { sampling, max_tokens: 24, ..options(0) });
        let Sent { ticket: _ticket, updates } = send(&engine, request).unwrap();
        let mut pieces = Vec::new();
        let whole = updates.iter().find_map(|update| match update {
            Update::Text(text) => {
                pieces.push(text);
                None
            }
            Update::Done(answered) => Some(answered.text),
            other => panic!("{other:?}"),
        });
        let whole = whole.unwrap();
        assert_eq!(pieces.concat(), whole);
        // A replacement character is the end of what no more could complete: never of a piece that more comes behind.
        let cut = pieces.iter().rev().skip(1).filter(|piece| piece.ends_with('\u{fffd}')).count();
        assert_eq!(cut, 0, "{pieces:?}");
        replaced += usize::from(whole.contains('\u{fffd}'));
    }
    assert!(replaced > 0, "draws at random come to halves of characters");
}
