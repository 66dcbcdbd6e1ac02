//! Latent steps of every family: where they stand, what they read, and that they are the model's own.

use super::weights::Weights;
use super::{Case, folders};
use candle_core::{IndexOp, Tensor};
use lare_model::config::{Choice, Memory, Refocus, Scorer, Thinking};
use lare_model::conversation::Change;
use lare_model::decoder::Rows;
use lare_model::pretrained::{Picture, Text};
use lare_model::reasoning::{Intervention, Scene};
use lare_model::{Conversation, Given, Ground, Path, Prompts, Reasoning, Refocused, Thread, Turn};
use std::sync::Arc;

/// Words behind the prefix.
const OWN: usize = 3;

pub fn settings() -> Refocus {
    Refocus {
        thinking: Thinking::Refocus,
        choice: Choice::Best,
        scorer: Scorer::MeanAttention,
        memory: Memory::Fine,
        patches: 3,
        exclude_earlier: false,
        revisit: false,
        bias: true,
        gate: true,
        max_steps: 4,
        blocks: 1,
        heads: 2,
        feed_forward: 24,
    }
}

fn refocused(case: &Case, settings: &Refocus, weights: &Weights) -> Refocused {
    Refocused::new(case.model.clone(), settings, Path::root(weights)).unwrap()
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn far(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// A prompt of the fixture that has pictures: what stands before its last words, and those.
pub struct Asked {
    first: Vec<u32>,
    own: Vec<u32>,
    pictures: Vec<Picture>,
}

impl Asked {
    fn of(case: &Case, prompt: &str) -> Self {
        let ids = case.numbers(&format!("{prompt}.input_ids"));
        let (first, own) = ids.split_at(ids.len() - OWN);
        Self { first: first.to_vec(), own: own.to_vec(), pictures: case.pictures(prompt) }
    }

    fn text(&self) -> Text<'_> {
        Text { ids: &self.first, pictures: &self.pictures }
    }
}

/// The families that see, with their prompts about pictures.
pub fn cases() -> Vec<(Case, Vec<Asked>)> {
    let open = |folder: std::path::PathBuf| {
        let case = Case::open(&folder);
        let with_pictures = case.prompts().into_iter().filter(|p| case.has(&format!("{p}.pictures")));
        let asked: Vec<Asked> = with_pictures.map(|prompt| Asked::of(&case, &prompt)).collect();
        (case, asked)
    };
    folders().into_iter().map(open).filter(|(case, _)| case.model.fine().is_some()).collect()
}

pub fn asked(model: &Refocused, texts: &[&Asked], steps: &[usize]) -> (Scene, Thread) {
    let scene = model.look(&texts.iter().map(|asked| asked.text()).collect::<Vec<_>>()).unwrap();
    let ids = texts.iter().map(|asked| asked.own.clone()).collect();
    let prompts = Prompts { ids, picture_of_row: (0..texts.len() as u32).collect() };
    let mut thread = model.prompt(&scene, &prompts).unwrap();
    model.think(&scene, &mut thread, steps).unwrap();
    (scene, thread)
}

#[test]
fn without_a_step_it_is_the_model_as_published() {
    for (case, all) in cases() {
        assert!(!all.is_empty(), "{}", case.name);
        let model = refocused(&case, &settings(), &Weights::new("", 0));
        for asked_about in &all {
            let (_, mut thread) = asked(&model, &[asked_about], &[0]);
            let logits = model.say(&mut thread, &[vec![7]]).unwrap();
            let mut cache = case.model.open(&[asked_about.text()], &()).unwrap().begin(vec![0].into());
            case.model.go_on(&mut cache, std::slice::from_ref(&asked_about.own), Rows::None, &()).unwrap();
            let plain = case.model.go_on(&mut cache, &[vec![7]], Rows::None, &()).unwrap();
            let plain = case.model.language.logits(&plain.hidden).unwrap();
            assert_eq!(flat(&logits), flat(&plain), "{}", case.name);
        }
    }
}

#[test]
fn conversations_that_stand_apart_think_and_say_what_threads_do() {
    for (case, all) in cases() {
        let model = refocused(&case, &settings(), &Weights::new("", 0));
        let grounds = all.iter().map(|asked| Arc::new(Ground::Scene(model.look(&[asked.text()]).unwrap())));
        let slab = || model.language().slab(16, &candle_core::Device::Cpu).unwrap();
        let mut apart: Vec<Conversation> = grounds.map(|ground| Conversation::new(ground, slab()).unwrap()).collect();
        let pass = |apart: &mut [Conversation], given: &dyn Fn(usize) -> Given<'static>| {
            let mut turns: Vec<Turn> =
                apart.iter_mut().enumerate().map(|(row, of)| Turn { of, given: given(row) }).collect();
            model.pass(&mut turns).unwrap()
        };
        // The first reads its prompt while the others wait, and takes a step while they read.
        let own: Vec<&'static [u32]> = all.iter().map(|asked| &*asked.own.clone().leak()).collect();
        pass(&mut apart[..1], &|row| Given::Words(own[row]));
        let step = || Given::Step(Change::default());
        pass(&mut apart, &|row| if row == 0 { step() } else { Given::Words(own[row]) });
        pass(&mut apart, &|_| step());
        pass(&mut apart, &|_| Given::Words(&[7]));
        for (row, (asked_about, conversation)) in all.iter().zip(&apart).enumerate() {
            let (_, mut thread) = asked(&model, &[asked_about], &[if row == 0 { 2 } else { 1 }]);
            let thought = &thread.steps[0].thought;
            assert!(far(conversation.first_thought().unwrap(), thought) < 2e-5, "{}, row {row}: thought", case.name);
            let expected = model.say(&mut thread, &[vec![7]]).unwrap().squeeze(1).unwrap();
            let got = model.language().logits(conversation.hidden().unwrap()).unwrap();
            let most = flat(&expected).into_iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(far(&got, &expected) <= 2e-5 * most, "{}, row {row}: logits", case.name);
        }
    }
}

#[test]
fn a_latent_stands_where_a_word_would() {
    for (case, all) in cases() {
        let model = refocused(&case, &settings(), &Weights::new("", 0));
        for asked_about in &all {
            // Thoughts that are words: the model must not be able to tell.
            let words = Tensor::new(&[[9u32, 11]], &candle_core::Device::Cpu).unwrap();
            let words = case.model.language.embed(&words).unwrap(); // [1, 2, D]
            let rms = case.model.language.embedding_rms().unwrap();
            let word = |step: usize, _: &Tensor| Ok((words.i((.., step))? / rms)?);
            let (scene, mut thread) = asked(&model, &[asked_about], &[0]);
            for _ in 0..2 {
                let change = Intervention { thought: Some(&word), patches: &[] };
                model.step(&scene, &mut thread, &[true], change).unwrap();
            }
            let logits = model.say(&mut thread, &[vec![7]]).unwrap();
            let mut cache = case.model.open(&[asked_about.text()], &()).unwrap().begin(vec![0].into());
            let ids = [&asked_about.own[..], &[9, 11, 7]].concat();
            let said = case.model.go_on(&mut cache, &[ids], Rows::None, &()).unwrap();
            let said = case.model.language.logits(&said.hidden.narrow(1, OWN + 2, 1).unwrap()).unwrap();
            let most = flat(&said).into_iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(far(&logits, &said) <= 1e-5 * most, "{}: {} of {most}", case.name, far(&logits, &said));
        }
    }
}

#[test]
fn scores_are_the_reference_s_attention_to_image_tokens() {
    for (case, _) in cases() {
        for prompt in case.prompts().into_iter().filter(|p| case.has(&format!("{p}.pictures"))) {
            // The reference's row is the last word's, which is where a first step looks from.
            let model = refocused(&case, &settings(), &Weights::new("", 0));
            let asked_about = Asked::of(&case, &prompt);
            let (_, thread) = asked(&model, &[&asked_about], &[1]);
            let layers = case.model.architecture.language.layers;
            let maps: Vec<Tensor> =
                (0..layers).map(|layer| case.get(&format!("{prompt}.attention_row.{layer}")).clone()).collect();
            let mean = flat(&Tensor::cat(&maps, 0).unwrap().mean(0).unwrap());
            let places = case.model.image_tokens(&case.numbers(&format!("{prompt}.input_ids")));
            let sum: f32 = places.iter().map(|place| mean[*place]).sum();
            let got = flat(&thread.steps[0].log_scores.exp().unwrap());
            assert_eq!(got.len(), places.len());
            for (got, place) in got.iter().zip(&places) {
                assert!((got - mean[*place] / sum).abs() < 1e-5, "{}: {prompt}: {got}", case.name);
            }
        }
    }
}

#[test]
fn a_row_of_a_batch_is_the_row_alone() {
    let kinds = [
        (Thinking::Refocus, Choice::Best, Scorer::WeightedAttention, Memory::Fine),
        (Thinking::Refocus, Choice::Window, Scorer::DotProduct, Memory::Fine),
        (Thinking::Refocus, Choice::Random, Scorer::MeanAttention, Memory::Projected),
        (Thinking::Splice, Choice::Window, Scorer::MeanAttention, Memory::Fine),
        (Thinking::Splice, Choice::First, Scorer::DotProduct, Memory::Projected),
        (Thinking::Hidden, Choice::Best, Scorer::MeanAttention, Memory::Fine),
        (Thinking::Constant, Choice::Best, Scorer::MeanAttention, Memory::Fine),
    ];
    for (case, all) in cases() {
        for (thinking, choice, scorer, memory) in kinds {
            let settings = Refocus { thinking, choice, scorer, memory, patches: 4, revisit: true, ..settings() };
            let model = refocused(&case, &settings, &Weights::new("", 0));
            let texts: Vec<&Asked> = all.iter().collect();
            let steps: Vec<usize> = (0..texts.len()).map(|row| 1 + row % 3).collect();
            let (_, mut thread) = asked(&model, &texts, &steps);
            let together = model.say(&mut thread, &vec![vec![7, 8]; texts.len()]).unwrap();
            for (row, text) in texts.iter().enumerate() {
                let (_, mut alone) = asked(&model, &[text], &steps[row..=row]);
                for step in 0..steps[row] {
                    let what = format!("{}: {thinking:?}, {choice:?}, row {row}, step {step}", case.name);
                    assert_eq!(thread.steps[step].chosen[row], alone.steps[step].chosen[0], "{what}");
                    let tokens: usize = text.pictures.iter().map(|p| p.seen.tokens.dim(0).unwrap()).sum();
                    assert!(alone.steps[step].chosen[0].iter().all(|cell| (*cell as usize) < tokens), "{what}");
                }
                let alone = model.say(&mut alone, &[vec![7, 8]]).unwrap();
                let most = flat(&alone).into_iter().fold(0f32, |most, x| most.max(x.abs()));
                let off = far(&together.narrow(0, row, 1).unwrap(), &alone);
                assert!(off <= 1e-5 * most, "{}: {thinking:?}, {choice:?}, row {row}: {off} of {most}", case.name);
            }
        }
    }
}

#[test]
fn the_answer_s_gradient_reaches_what_was_added_through_a_frozen_model() {
    for (case, all) in cases() {
        let weights = Weights::new("", 0);
        let loss_of = |weights: &Weights| {
            let model = refocused(&case, &Refocus { blocks: 2, ..settings() }, weights);
            let (_, mut thread) = asked(&model, &[&all[0]], &[3]);
            let logits = model.say(&mut thread, &[vec![7]]).unwrap().i((0, 0)).unwrap(); // [V]
            let shares = logits.exp().unwrap().sum_all().unwrap().log().unwrap();
            (shares - logits.i(5).unwrap()).unwrap()
        };
        let loss = loss_of(&weights);
        let grads = loss.backward().unwrap();
        let vars = weights.vars.borrow().clone();
        let mut checked = 0;
        for name in ["refocus.gate.weight", "refocus.qformer.blocks.1.cross_memory.weight", "refocus.qformer.step"] {
            let var = &vars[name];
            let grad = grads.get(var.as_tensor()).unwrap_or_else(|| panic!("{}: {name}: no gradient", case.name));
            // Along the gradient itself: the steepest difference is the surest to measure.
            let norm = grad.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
            assert!(norm > 1e-7, "{}: {name}: {norm}", case.name);
            let along = |sign: f64| {
                let changed = Weights::new("", 0);
                changed.shift(name, &(grad * (sign * 0.002 / f64::from(norm))).unwrap());
                loss_of(&changed).to_scalar::<f32>().unwrap()
            };
            let slope = (along(1.0) - along(-1.0)) / 0.004;
            assert!((slope - norm).abs() <= 0.05 * norm.max(1e-3), "{}: {name}: {slope}, gradient {norm}", case.name);
            checked += 1;
        }
        assert_eq!(checked, 3);
    }
}

#[test]
fn the_nearest_words_are_those_of_a_search_through_the_whole_vocabulary() {
    for folder in folders() {
        let case = Case::open(&folder);
        if case.model.fine().is_none() {
            continue; // a language model alone
        }
        let model = refocused(&case, &settings(), &Weights::new("", 0));
        let words = model.base.language.embedding().to_tensor(&candle_core::Device::Cpu).unwrap();
        let (count, width) = words.dims2().unwrap();
        let thoughts = super::weights::noise(3, 2 * width);
        let thoughts = Tensor::from_vec(thoughts, (2, width), words.device()).unwrap();
        let unit = |x: &Tensor| x.broadcast_div(&x.sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap()).unwrap();
        let expected = unit(&thoughts).matmul(&unit(&words).t().unwrap()).unwrap();
        for _ in 0..2 {
            let got = model.language().nearest_words(&thoughts).unwrap();
            assert_eq!(got.dims(), [2, count]);
            assert!(far(&got, &expected) < 1e-5, "{}: {}", case.name, far(&got, &expected));
        }
    }
}

#[test]
fn what_cannot_be_refocused_is_refused() {
    let (case, all) = cases().into_iter().next().unwrap();
    let model = refocused(&case, &settings(), &Weights::new("", 0));
    let text = Text { ids: &all[0].own, pictures: &[] };
    let message = model.look(&[text]).unwrap_err().to_string();
    assert!(message.contains("at least one picture"), "{message}");
    let message = Refocused::new(case.model, &Refocus { heads: 7, ..settings() }, Path::root(&Weights::new("", 0)));
    assert!(message.unwrap_err().to_string().contains("heads"));
    let language = folders().into_iter().map(|folder| Case::open(&folder)).find(|case| case.model.fine().is_none());
    let refused = Refocused::new(language.unwrap().model, &settings(), Path::root(&Weights::new("", 0)));
    assert!(refused.unwrap_err().to_string().contains("one that sees pictures"));
}
