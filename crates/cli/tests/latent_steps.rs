//! What is trained is what is used: with the same weights, pictures and questions, the training code and the
//! inference session choose the same patches and think the same thoughts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lare_data::{Suite, Tokenizer};
use lare_infer::{Assistant, Batch, Device, Options, Question, Steps, session};
use lare_train::config::{Config, LossWeights};
use lare_train::nano::Feeder;
use std::path::Path;

#[test]
fn training_and_inference_take_the_same_latent_steps() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let assistant = Assistant::from_folder(&root.join("weights/nano")).unwrap();
    let text = std::fs::read_to_string(root.join("configs/nano.toml")).unwrap();
    let mut config = Config::from_toml(&text, "nano.toml").unwrap();
    (config.data.questions_per_picture, config.data.batches_per_block) = (4, 1);
    let (index, stage) = config.stages.iter_mut().enumerate().next_back().unwrap();
    (stage.pictures_per_batch, stage.mix[0].looks) = (2, [1, 2]);
    stage.mix.truncate(1);

    let (suite, tokenizer) = (Suite::new(), Tokenizer::from_bytes(lare_data::tokenizer::build().as_bytes()).unwrap());
    // As while the encoders learn: features of frozen ones are kept in f16.
    let batch = Feeder::new(&config, &suite, &tokenizer, Device::Cpu).unwrap().batch(index, 0, None).unwrap();
    assert!(batch.steps.contains(&1) && batch.steps.contains(&2), "rows of one and of two looks: {:?}", batch.steps);
    let mut dice = lare_train::vars::dice(0, "test", 0);
    let trained = lare_train::loss::reason(&assistant.reasoner, &batch, &LossWeights::default(), &mut dice).unwrap();

    let pictures: Vec<_> = batch.pictures.groups.iter().map(|group| &group.picture).collect();
    let mut questions = Vec::new();
    for (picture, group) in batch.pictures.groups.iter().enumerate() {
        for question in &group.questions {
            let options = Options { steps: Steps::Fixed(question.looks), ..Options::default() };
            questions.push(Question::new(picture, &question.text, options));
        }
    }
    let answers = session::answer(&assistant, &Batch { pictures: &pictures, questions: &questions }, &mut |_| ());
    let answers = answers.unwrap();
    assert_eq!(answers.len(), batch.rows.len());
    for (row, answer) in answers.iter().enumerate() {
        assert_eq!(answer.looks.len(), batch.steps[row]);
        for (k, look) in answer.looks.iter().enumerate() {
            let step = &trained.thread.steps[k];
            let chosen: Vec<usize> = step.chosen[row].iter().map(|patch| *patch as usize).collect();
            assert_eq!(look.chosen, chosen, "row {row}, step {k}");
            let thought = step.thought.get(row).unwrap().to_vec1::<f32>().unwrap();
            let far = look.thought.iter().zip(&thought).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-3, "row {row}, step {k}: thoughts differ by {far}");
        }
    }
    // The answers' first words agree wherever training counts a row as right.
    let right = trained.right.iter().filter(|right| **right).count();
    let said = batch.pictures.groups.iter().flat_map(|group| &group.questions).zip(&answers);
    let same = said.filter(|(question, answer)| question.answer == answer.text).count();
    assert_eq!(right, same, "rows right in training and in use");
}
