//! The shipped model gives the same answer, to the bit, asked alone, in a batch, and served among others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use lare_data::chat::{Content, Message, Part, Role};
use lare_data::{Picture, Split, Suite, Task};
use lare_infer::engine::{Engine, Limits, Request, Update};
use lare_infer::{Answer, Assistant, Batch, LookReport, Options, Question, session};
use std::path::Path;
use std::sync::{Arc, mpsc};

/// What must be equal: words, looks without their times, tokens and positions.
type Told = (String, Vec<LookReport>, lare_trace::Usage);

fn told(text: String, looks: Vec<LookReport>, usage: lare_trace::Usage) -> Told {
    (text, looks.into_iter().map(|look| LookReport { time_ms: 0.0, ..look }).collect(), usage)
}

fn ask(assistant: &Assistant, pictures: &[&Picture], texts: &[&str]) -> Vec<Told> {
    let questions = texts.iter().enumerate().map(|(picture, text)| Question::new(picture, text, Options::default()));
    let batch = Batch { pictures, questions: &questions.collect::<Vec<_>>() };
    let answers = session::answer(assistant, &batch, &mut |_| ()).unwrap();
    answers.into_iter().map(|Answer { text, looks, usage, .. }| told(text, looks, usage)).collect()
}

fn serve(engine: &Engine, picture: &Arc<Picture>, text: &str) -> (lare_infer::engine::Ticket, mpsc::Receiver<Update>) {
    let content = Content::Parts(vec![Part::Picture, Part::Text(text.to_owned())]);
    let request = Request {
        messages: vec![Message { role: Role::User, content }],
        pictures: vec![picture.clone()],
        options: Options::default(),
        most_steps: usize::MAX,
        stop: Vec::new(),
        replace: None,
        draw: false,
        deadline: None,
    };
    let (sender, updates) = mpsc::channel();
    (engine.submit(request, Box::new(move |update| sender.send(update).is_ok())).unwrap(), updates)
}

fn served(updates: &mpsc::Receiver<Update>) -> Told {
    let mut looks = Vec::new();
    for update in updates {
        match update {
            Update::Look { look, .. } => looks.push(*look),
            Update::Text(_) => {}
            Update::Done(answered) => return told(answered.text, looks, answered.usage),
            Update::Failed(failure) => panic!("{failure:?}"),
        }
    }
    panic!("no end")
}

#[test]
fn asked_alone_in_a_batch_and_served_the_answers_are_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/nano");
    let assistant = Arc::new(Assistant::from_folder(&folder).unwrap());
    let suite = Suite::new();
    let splits = [Split::Val, Split::Size];
    let samples: Vec<_> = Task::ALL
        .iter()
        .zip(0u64..)
        .map(|(task, index)| suite.sample(splits[index as usize % splits.len()], *task, index))
        .collect();
    let pictures: Vec<Arc<Picture>> = samples.iter().map(|sample| sample.picture.clone()).collect();
    let texts: Vec<&str> = samples.iter().map(|sample| sample.question.text.as_str()).collect();
    let borrowed: Vec<&Picture> = pictures.iter().map(AsRef::as_ref).collect();
    let together = ask(&assistant, &borrowed, &texts);
    let engine = Engine::start(assistant.clone(), Limits::default()).unwrap();
    let sent: Vec<_> = pictures.iter().zip(&texts).map(|(picture, text)| serve(&engine, picture, text)).collect();
    assert!(together.iter().map(|(_, looks, _)| looks.len()).sum::<usize>() > together.len(), "it looks");
    for (row, (expected, (_ticket, updates))) in together.iter().zip(&sent).enumerate() {
        assert_eq!(&served(updates), expected, "served: {}", texts[row]);
        assert_eq!(&ask(&assistant, &borrowed[row..=row], &texts[row..=row])[0], expected, "alone: {}", texts[row]);
    }
}
