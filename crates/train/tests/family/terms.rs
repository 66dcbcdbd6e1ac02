//! Every term of the loss of a pretrained model against finite differences.

use super::{FAMILIES, Place, SUITE};
use candle_core::{Device, Tensor};
use lare_data::chat::Chat;
use lare_train::batch::Batch;
use lare_train::config::LossWeights;
use lare_train::family::{Family, Shared};
use lare_train::loss;
use lare_train::subject::Subject;
use lare_train::vars::{Vars, dice, normals};
use std::sync::Arc;

fn weights_of(term: &str) -> LossWeights {
    let on = |name: &str| if name == term { 1.0 } else { 0.0 };
    LossWeights {
        answer: on("answer"),
        align: on("align"),
        rec: on("rec"),
        focus: on("focus"),
        halt: on("halt"),
        read: on("read"),
        name: 0.0,
    }
}

/// Variables with gradients everywhere, and nothing that starts at nothing, which would hide mistakes behind it.
fn setup(subject: &Family) -> Vars {
    let vars = Vars::new(9, Device::Cpu);
    vars.train(&[String::new()]);
    subject.build(&vars).unwrap();
    for (i, (name, var)) in vars.all().into_iter().enumerate() {
        if var.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() == 0.0 {
            let noise = normals(&mut dice(1, &name, i as u64), var.elem_count());
            let noise: Vec<f32> = noise.iter().map(|x| 0.05 * x).collect();
            var.set(&Tensor::from_vec(noise, var.shape(), &Device::Cpu).unwrap()).unwrap();
        }
    }
    vars
}

fn term(subject: &Family, vars: &Vars, batch: &Batch<Arc<Vec<Shared>>>, name: &str) -> Tensor {
    let (model, ()) = subject.build(vars).unwrap();
    let weights = weights_of(name);
    loss::reason(&model, batch, &weights, &mut dice(3, "loss", 0)).unwrap().terms.total(&weights).unwrap()
}

#[test]
fn every_term_has_the_gradient_that_finite_differences_give() {
    let cases = [
        ("answer", "language.blocks.1.feed_forward.down.lora_b"),
        ("answer", "language.blocks.0.qkv.value.lora_a"),
        ("answer", "refocus.qformer.blocks.0.cross_memory.weight"),
        ("align", "semantic.picture.weight"),
        ("align", "refocus.gate.weight"),
        ("rec", "semantic.denoiser.blocks.0.qkv.weight"),
        ("rec", "semantic.denoiser.place"),
        ("rec", "refocus.gate.weight"),
        ("focus", "language.blocks.1.qkv.query.lora_b"),
        ("halt", "refocus.halt.weight"),
        ("read", "semantic.read.weight"),
    ];
    for family in FAMILIES {
        let place = Place::new(family);
        let mut config = place.config();
        // Steps read all there is: which patches are the best is no smooth function of anything.
        config.refocus.as_mut().unwrap().patches = 64;
        let mut subject = Family::open(&config, &SUITE, &place.base()).unwrap();
        for (name, parameter) in cases {
            let vars = setup(&subject);
            let batch = subject.batch(0, 1, None).unwrap();
            let loss = term(&subject, &vars, &batch, name);
            let gradients = lare_kernels::backward(&loss).unwrap();
            let (_, var) = vars.all().into_iter().find(|(n, _)| n == parameter).unwrap();
            let gradient = gradients.get(&var).unwrap_or_else(|| panic!("{name}: no gradient at {parameter}")).clone();
            let length = gradient.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
            assert!(length > 1e-6, "{family}: {name}: no gradient at {parameter}");
            let start = var.as_tensor().copy().unwrap();
            let at = |factor: f32| {
                let by = (&gradient * f64::from(factor / length)).unwrap();
                var.set(&(&start + by).unwrap()).unwrap();
                term(&subject, &vars, &batch, name).to_scalar::<f32>().unwrap()
            };
            // Far enough for the difference to be seen in f32, near enough for the loss to be a line: of so many lengths the
            // best must fit, and a gradient that is wrong fits none.
            let slopes = [2e-3, 5e-3, 1e-2, 2e-2, 5e-2].map(|step| (at(step) - at(-step)) / (2.0 * step));
            let fits = slopes.iter().any(|slope| (slope / length - 1.0).abs() < 0.05);
            assert!(fits, "{family}: {name}, {parameter}: slopes {slopes:?}, gradient {length}");
            // That alone would not see entries that are missing, so it must also fit along a direction of its own.
            let scale = (gradient.elem_count() as f32).sqrt().recip();
            let values = normals(&mut dice(1, "direction", 0), gradient.elem_count());
            let values: Vec<f32> = values.iter().map(|x| x * scale).collect();
            let direction = Tensor::from_vec(values, gradient.shape(), &Device::Cpu).unwrap();
            let expected = (&gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let along = |step: f32| {
                let beside = |factor: f32| {
                    var.set(&(&start + (&direction * f64::from(factor)).unwrap()).unwrap()).unwrap();
                    term(&subject, &vars, &batch, name).to_scalar::<f32>().unwrap()
                };
                (beside(step) - beside(-step)) / (2.0 * step)
            };
            let found = [5e-3, 2e-2, 5e-2].map(along);
            let fits = found.iter().any(|found| (found - expected).abs() < 0.25 * length * scale);
            assert!(fits, "{family}: {name}, {parameter}: {found:?} beside it, not {expected}");
        }
    }
}

#[test]
fn attention_is_held_to_a_step_while_its_sentence_is_said_and_to_the_last_where_none_is() {
    for family in FAMILIES {
        let place = Place::new(family);
        let mut config = place.config();
        (config.stages[0].latent_steps, config.stages[0].spare_steps, config.stages[0].say_rest) = (0, 0, true);
        let chat = Chat::from_folder(&place.base()).unwrap();
        let said = |gaze: &[(usize, usize)], answer: &[u32], step: usize| {
            let of_step = gaze.iter().filter(|(_, k)| *k == step);
            let ids: Vec<u32> = of_step.map(|(place, _)| answer[*place + 1]).collect();
            chat.tokenizer().decode(&ids)
        };
        let mut subject = Family::open(&config, &SUITE, &place.base()).unwrap();
        for row in subject.batch(0, 0, None).unwrap().rows {
            let whole = chat.tokenizer().decode(&row.answer);
            let [first, second] = [0, 1].map(|step| said(&row.gaze, &row.answer, step));
            // The first token is said by the state before it, which is no position that was fed.
            assert!(!first.is_empty() && "It is here.".ends_with(first.trim()), "{family}: {first:?} of {whole:?}");
            assert!(second.trim().starts_with("It is") && second.trim().ends_with('.'), "{family}: {second:?}");
            assert!(whole.contains(&second) && !whole.trim().ends_with('.'), "{family}: {whole:?}");
        }
        config.stages[0].say_rest = false;
        let mut subject = Family::open(&config, &SUITE, &place.base()).unwrap();
        for row in subject.batch(0, 0, None).unwrap().rows {
            let all: Vec<(usize, usize)> = (0..row.answer.len() - 1).map(|place| (place, 1)).collect();
            assert_eq!(row.gaze, all, "{family}");
        }
    }
}

#[test]
fn what_a_step_should_look_at_is_a_share_of_all_image_tokens_tiles_and_the_whole() {
    for family in FAMILIES {
        let place = Place::new(family);
        let config = place.config();
        let mut subject = Family::open(&config, &SUITE, &place.base()).unwrap();
        let batch = subject.batch(0, 0, None).unwrap();
        for (row, picture) in batch.rows.iter().zip(batch.prompts.picture_of_row.iter()) {
            let cells: usize =
                batch.pictures[*picture as usize].pictures.iter().flat_map(|p| &p.grids).map(|g| g.cells()).sum();
            assert_eq!(row.targets.len(), 2);
            for target in &row.targets {
                assert_eq!(target.coverage.len(), cells, "{family}");
                assert!((target.coverage.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                assert_eq!(target.words.len(), 2, "the first tokens of what is said");
            }
            // A quarter of the picture: of 4 x 4 tokens 4, or of the tiles one with its 4, and one of the whole picture's 4.
            let covered = row.targets[1].coverage.iter().filter(|share| **share > 0.0).count();
            assert_eq!(covered, if family == "smolvlm" { 5 } else { 4 }, "{family}: {:?}", row.targets[1].coverage);
            assert!(row.targets[0].coverage.iter().all(|share| *share > 0.0));
        }
    }
}
