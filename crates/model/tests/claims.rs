//! Claims about the whole model, on a tiny one with fixed pseudo-random weights.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod weights;

use candle_core::{Device, IndexOp, Tensor};
use lare_model::config::{Choice, Context, Memory, Scorer, Thinking};
use lare_model::decoder::{Opening, Rows};
use lare_model::reasoning::{Intervention, Scene};
use lare_model::{Config, Init, Path, Prompts, Reasoner, Reasoning, Source, Views};
use std::collections::BTreeMap;
use weights::{Weights, noise};

fn tiny() -> Config {
    Config::from_toml(include_str!("tiny.toml"), "tiny.toml").unwrap()
}

fn model(config: &Config) -> Reasoner {
    Reasoner::new(config, Path::root(&Weights::new("", 0))).unwrap()
}

fn pixels(seed: u64, h: usize, w: usize) -> Tensor {
    let values = noise(seed, h * w * 3).iter().map(|x| (0.5 + 0.3 * x).clamp(0.0, 1.0)).collect();
    Tensor::from_vec::<_, f32>(values, (1, h, w, 3), &Device::Cpu).unwrap()
}

fn scene(model: &Reasoner, pictures: &[Tensor]) -> Scene {
    let views: Vec<Views> = pictures.iter().map(|p| model.encode(p).unwrap()).collect();
    model.look(&Views::stack(&views).unwrap()).unwrap()
}

fn prompts(ids: &[&[u32]], pictures: &[u32]) -> Prompts {
    Prompts { ids: ids.iter().map(|p| p.to_vec()).collect(), picture_of_row: pictures.into() }
}

fn numbers(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn rms(t: &Tensor) -> f32 {
    t.sqr().unwrap().mean_all().unwrap().sqrt().unwrap().to_scalar().unwrap()
}

fn farthest(a: &Tensor, b: &Tensor) -> f32 {
    numbers(a).iter().zip(numbers(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Logits of an answer after thinking.
fn answer(model: &Reasoner, scene: &Scene, prompts: &Prompts, steps: &[usize], said: &[&[u32]]) -> Tensor {
    let mut thread = model.prompt(scene, prompts).unwrap();
    model.think(scene, &mut thread, steps).unwrap();
    model.say(&mut thread, &said.iter().map(|s| s.to_vec()).collect::<Vec<_>>()).unwrap()
}

fn variants() -> Vec<(&'static str, Config)> {
    let mut all = vec![("plain", tiny())];
    let mut add = |name, change: &dyn Fn(&mut Config)| {
        let mut config = tiny();
        change(&mut config);
        all.push((name, config));
    };
    add("mean attention", &|c| c.refocus.scorer = Scorer::MeanAttention);
    add("weighted attention", &|c| c.refocus.scorer = Scorer::WeightedAttention);
    add("every patch", &|c| c.refocus.patches = c.vision.max_cells);
    add("projected memory", &|c| c.refocus.memory = Memory::Projected);
    add("fine context", &|c| c.language.context = Context::CoarseAndFine);
    add("no gate, no bias", &|c| (c.refocus.gate, c.refocus.bias) = (false, false));
    add("merged fine context", &|c| (c.language.context, c.vision.spatial_merge) = (Context::CoarseAndFine, 2));
    add("attention to a fine context", &|c| {
        (c.language.context, c.refocus.scorer) = (Context::CoarseAndFine, Scorer::WeightedAttention);
    });
    add("hidden state that attends", &|c| {
        (c.refocus.thinking, c.refocus.scorer) = (Thinking::Hidden, Scorer::WeightedAttention);
    });
    add("fresh patches", &|c| c.refocus.exclude_earlier = true);
    add("no memory of where it looked", &|c| c.refocus.revisit = false);
    add("hidden state", &|c| c.refocus.thinking = Thinking::Hidden);
    add("constants", &|c| c.refocus.thinking = Thinking::Constant);
    add("splice", &|c| (c.refocus.thinking, c.language.max_positions) = (Thinking::Splice, 512));
    add("window", &|c| (c.refocus.choice, c.refocus.patches) = (Choice::Window, 5));
    add("anywhere", &|c| (c.refocus.choice, c.refocus.patches) = (Choice::Random, 5));
    add("first look again", &|c| c.refocus.choice = Choice::First);
    all
}

#[test]
fn zero_latent_steps_is_the_plain_model() {
    let ask = prompts(&[&[2, 9, 11, 3]], &[0]);
    let picture = [pixels(1, 128, 128)];
    for (name, config) in variants() {
        let model = |seed| Reasoner::new(&config, Path::root(&Weights::new("refocus.", seed))).unwrap();
        let said = |model: Reasoner| answer(&model, &scene(&model, &picture), &ask, &[0], &[&[4, 12, 13]]);
        let (one, two) = (numbers(&said(model(1))), numbers(&said(model(2))));
        assert_eq!(one, two, "{name}: refocusing weights reached an answer without a latent step");
    }

    // The decoder by itself, with nothing of refocusing around it.
    let one = Reasoner::new(&tiny(), Path::root(&Weights::new("refocus.", 1))).unwrap();
    let first = answer(&one, &scene(&one, &picture), &ask, &[0], &[&[4, 12, 13]]);
    let language = &one.backbone.language;
    let views = one.encode(&picture[0]).unwrap();
    let coarse = one.backbone.coarse_tokens(&views).unwrap();
    let visible = views.visible().unwrap();
    let places = vec![[0; 3]; visible.len()];
    let opening = Opening { tokens: &coarse, places: &places, visible, causal: false, added: &[] };
    let mut cache = language.over_prefix(&opening, &()).unwrap().begin(vec![0].into());
    let mut run = |ids: &[u32]| {
        let x = language.embed(&Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu).unwrap()).unwrap();
        language.over_slots(&x, &[vec![true; ids.len()]], &mut cache, Rows::None, &()).unwrap().hidden
    };
    run(&[2, 9, 11, 3]);
    let plain = language.logits(&run(&[4, 12, 13])).unwrap();
    assert_eq!(numbers(&first), numbers(&plain));
}

#[test]
fn latent_steps_change_the_answer() {
    let model = model(&tiny());
    let scene = scene(&model, &[pixels(1, 128, 128)]);
    let ask = prompts(&[&[2, 9, 11, 3]], &[0]);
    let none = answer(&model, &scene, &ask, &[0], &[&[4]]);
    let two = answer(&model, &scene, &ask, &[2], &[&[4]]);
    assert!(farthest(&none, &two) > 1e-3);
}

#[test]
fn a_row_in_a_batch_equals_the_row_alone() {
    for (name, config) in variants() {
        let model = model(&config);
        // Pictures of different shapes, prompts of different lengths, different numbers of steps.
        let pictures = [pixels(1, 128, 192), pixels(2, 192, 128), pixels(3, 256, 256)];
        let asked: [&[u32]; 4] = [&[2, 9, 3], &[2, 9, 11, 20, 3], &[2, 7, 8, 3], &[2, 30, 31, 32, 33, 34, 3]];
        let (of, steps) = ([2, 0, 1, 0], [3, 0, 1, 5]);
        let said: [&[u32]; 4] = [&[4, 12], &[4], &[4, 13, 14], &[4, 15]];
        let together = answer(&model, &scene(&model, &pictures), &prompts(&asked, &of), &steps, &said);
        for row in 0..4 {
            let own = scene(&model, &pictures[of[row] as usize..=of[row] as usize]);
            let alone = answer(&model, &own, &prompts(&asked[row..=row], &[0]), &steps[row..=row], &said[row..=row]);
            let length = said[row].len();
            let difference = farthest(&together.i((row, ..length)).unwrap(), &alone.i(0).unwrap());
            assert!(difference < 2e-5, "{name}, row {row}: {difference}");
        }
    }
}

#[test]
fn cached_decode_equals_full_forward() {
    let model = model(&tiny());
    let scene = scene(&model, &[pixels(5, 128, 128)]);
    let ask = prompts(&[&[2, 9, 11, 3]], &[0]);
    let full = answer(&model, &scene, &ask, &[2], &[&[4, 12, 13, 14]]);
    let mut thread = model.prompt(&scene, &ask).unwrap();
    model.think(&scene, &mut thread, &[2]).unwrap();
    for (i, id) in [4u32, 12, 13, 14].into_iter().enumerate() {
        let step = model.say(&mut thread, &[vec![id]]).unwrap();
        let difference = farthest(&full.i((.., i..=i)).unwrap(), &step);
        assert!(difference < 2e-5, "token {i}: {difference}");
    }
}

#[test]
fn future_tokens_do_not_change_past_logits() {
    let model = model(&tiny());
    let scene = scene(&model, &[pixels(5, 128, 128)]);
    let ask = prompts(&[&[2, 9, 11, 3]], &[0]);
    let one = answer(&model, &scene, &ask, &[1], &[&[4, 12, 13, 14]]);
    let two = answer(&model, &scene, &ask, &[1], &[&[4, 12, 20, 21]]);
    assert_eq!(numbers(&one.i((.., ..2)).unwrap()), numbers(&two.i((.., ..2)).unwrap()));
    assert!(farthest(&one.i((.., 2..)).unwrap(), &two.i((.., 2..)).unwrap()) > 1e-3);
}

#[test]
fn scores_are_a_distribution_over_the_real_cells_and_the_best_are_chosen() {
    for (name, config) in variants() {
        let model = model(&config);
        let scene = scene(&model, &[pixels(1, 128, 192), pixels(3, 256, 256)]);
        let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3], &[2, 8, 3]], &[0, 1])).unwrap();
        model.think(&scene, &mut thread, &[2, 2]).unwrap();
        for step in &thread.steps {
            let scores = step.log_scores.exp().unwrap().to_vec2::<f32>().unwrap();
            assert!(scores.iter().all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-4), "{name}: {scores:?}");
            assert!(step.chosen[0].iter().all(|p| *p < 6), "{name}: padding was chosen: {:?}", step.chosen[0]);
            let of = |p: u32| scores[1][p as usize];
            let expected = match (config.refocus.thinking.looks(), config.refocus.choice) {
                (false, _) => 0,
                (true, Choice::Window | Choice::Random) => 4, // two by two
                (true, _) => config.refocus.patches.min(16),
            };
            assert_eq!(step.chosen[1].len(), expected, "{name}");
            let best_first = step.chosen[1].windows(2).all(|w| of(w[0]) >= of(w[1]));
            assert!(best_first || config.refocus.choice == Choice::First, "{name}: not best first");
        }
        if config.refocus.choice == Choice::First {
            assert_eq!(thread.steps[0].chosen, thread.steps[1].chosen);
        }
        if config.refocus.exclude_earlier {
            assert!(thread.steps[1].chosen[1].iter().all(|p| !thread.steps[0].chosen[1].contains(p)));
        }
    }
}

#[test]
fn random_looks_are_whole_squares_in_different_places() {
    let mut config = tiny();
    (config.refocus.choice, config.refocus.patches) = (Choice::Random, 4);
    let model = model(&config);
    let scene = scene(&model, &[pixels(3, 256, 256)]);
    let asked: Vec<[u32; 3]> = (5..17).map(|word| [2, word, 3]).collect();
    let asked: Vec<&[u32]> = asked.iter().map(|ids| &ids[..]).collect();
    let mut thread = model.prompt(&scene, &prompts(&asked, &[0; 12])).unwrap();
    model.think(&scene, &mut thread, &[2; 12]).unwrap();
    let squares: std::collections::BTreeSet<Vec<u32>> = thread
        .steps
        .iter()
        .flat_map(|step| &step.chosen)
        .map(|look| {
            let mut cells = look.clone();
            cells.sort_unstable();
            cells
        })
        .collect();
    assert!(squares.len() > 2, "{squares:?}");
    let together = |s: &Vec<u32>| s.len() == 4 && s[1] == s[0] + 1 && s[2] == s[0] + 4 && s[3] == s[0] + 5;
    assert!(squares.iter().all(together), "{squares:?}");
}

#[test]
fn a_first_look_is_repeated_whole_and_once_in_a_picture_smaller_than_a_look() {
    let mut config = tiny();
    config.refocus.choice = Choice::First;
    let model = model(&config);
    let scene = scene(&model, &[pixels(1, 64, 128)]);
    let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
    model.think(&scene, &mut thread, &[4]).unwrap();
    let looks: Vec<&Vec<u32>> = thread.steps.iter().map(|step| &step.chosen[0]).collect();
    assert_eq!(looks[0].len(), 2, "both cells of the picture, fewer than {}", config.refocus.patches);
    assert!(looks.iter().all(|look| *look == looks[0]), "{looks:?}");
}

#[test]
fn thoughts_enter_at_the_norm_of_the_embeddings() {
    let model = model(&tiny());
    let scene = scene(&model, &[pixels(1, 128, 128)]);
    let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
    model.think(&scene, &mut thread, &[3]).unwrap();
    let embedding = model.backbone.language.embedding_rms().unwrap();
    assert_eq!(thread.latents.len(), 3);
    for latent in &thread.latents {
        let latent = f64::from(rms(latent));
        assert!((latent / embedding - 1.0).abs() < 1e-3, "{latent} in place of {embedding}");
    }
}

/// The answer's loss after three steps, from given weights, and the patches of each step. `chosen` replaces the model's
/// choice: the loss jumps where a small change of weights makes the model choose others.
fn chain_loss(config: &Config, weights: &dyn Source, chosen: Option<&[Vec<Vec<u32>>]>) -> (Tensor, Vec<Vec<Vec<u32>>>) {
    let model = Reasoner::new(config, Path::root(weights)).unwrap();
    let scene = model.look(&model.encode(&pixels(1, 128, 128)).unwrap()).unwrap();
    let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
    for k in 0..3 {
        let patches: Vec<_> = chosen.map_or_else(Vec::new, |chosen| chosen[k].iter().cloned().map(Some).collect());
        let change = Intervention { patches: &patches, ..Intervention::default() };
        model.step(&scene, &mut thread, &[true], change).unwrap();
    }
    let chosen = thread.steps.iter().map(|step| step.chosen.clone()).collect();
    let logits = model.say(&mut thread, &[vec![4, 12]]).unwrap();
    let nats = lare_kernels::cross_entropy(&logits.squeeze(0).unwrap(), &[Some(12), Some(5)]).unwrap();
    (nats.sum_all().unwrap(), chosen)
}

fn is_zero(gradient: &Tensor) -> bool {
    numbers(gradient).iter().all(|x| *x == 0.0)
}

/// Gives out given values.
struct Fixed(BTreeMap<String, Tensor>);

impl Source for Fixed {
    fn tensor(&self, name: &str, _: &[usize], _: Init) -> lare_model::Result<Tensor> {
        Ok(self.0[name].clone())
    }
}

/// Parameters that the answer's loss reaches through any chain of this kind.
fn always_reached(config: &Config) -> Vec<&'static str> {
    let mut reached = vec!["language.blocks.0.qkv.weight", "language.embedding"];
    reached.extend(match config.refocus.thinking {
        Thinking::Refocus => Some("refocus.qformer.blocks.0.cross_memory.weight"),
        Thinking::Constant => Some("refocus.constant"),
        Thinking::Splice => Some("refocus.splice.weight"),
        Thinking::Hidden => None,
    });
    reached
}

#[test]
fn the_answer_loss_reaches_every_part_of_the_chain_with_the_right_slope() {
    for (name, config) in variants() {
        let weights = Weights::new("", 0);
        let (_, chosen) = chain_loss(&config, &weights, None);
        // With every patch there is nothing to choose, and later looks follow the scores of earlier ones.
        let chosen = (name != "every patch" && config.refocus.thinking.looks()).then_some(chosen);
        let (loss, _) = chain_loss(&config, &weights, chosen.as_deref());
        let values = weights.values();
        let gradients = lare_kernels::backward(&loss).unwrap();
        let mut checked = always_reached(&config);
        // Reached through the bias alone: the choice itself has no gradient.
        let has_bias = config.refocus.bias && config.refocus.thinking == Thinking::Refocus;
        let through_the_bias = match config.refocus.scorer {
            _ if !config.refocus.thinking.looks() => None,
            Scorer::DotProduct => Some("refocus.query.weight"),
            Scorer::WeightedAttention => Some("refocus.head_weights"),
            Scorer::MeanAttention => None,
        };
        match through_the_bias {
            Some(parameter) if has_bias => checked.push(parameter),
            Some(parameter) => assert!(gradients.get(&weights.vars.borrow()[parameter]).is_none_or(is_zero), "{name}"),
            None => {}
        }
        // Patches that were all read alike move together, which a softmax over them does not see.
        if config.refocus.revisit && has_bias && chosen.is_none() {
            checked.push("refocus.revisit.bias");
        }
        for parameter in checked {
            let gradient = gradients.get(&weights.vars.borrow()[parameter]).unwrap().clone();
            let length = gradient.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
            assert!(length > 1e-6, "{name}: no gradient at {parameter}");
            let at = |direction: &Tensor, factor: f32| {
                let mut moved = values.clone();
                let value = (&values[parameter] + (direction * f64::from(factor)).unwrap()).unwrap();
                moved.insert(parameter.into(), value);
                chain_loss(&config, &Fixed(moved), chosen.as_deref()).0.to_scalar::<f32>().unwrap()
            };
            // Along the gradient the loss must rise by its length. That alone would not see entries that are missing from
            // it, so it must also fit along directions that do not come from it.
            let slope = |direction: &Tensor, step: f32| (at(direction, step) - at(direction, -step)) / (2.0 * step);
            let unit = (&gradient / f64::from(length)).unwrap();
            // A small slope drowns in the rounding of the loss unless the step is larger.
            let (short, wide) = if length < 1e-2 { (0.1, 0.1) } else { (3e-3, 5e-2) };
            let along = slope(&unit, short);
            assert!((along / length - 1.0).abs() < 0.05, "{name}, {parameter}: slope {along}, gradient {length}");
            for seed in 1..=3 {
                let count = gradient.elem_count();
                let scale = (count as f32).sqrt().recip();
                let values: Vec<f32> = noise(seed, count).iter().map(|x| x * scale).collect();
                let direction = Tensor::from_vec(values, gradient.shape(), &Device::Cpu).unwrap();
                let expected = (&gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                let found = slope(&direction, wide);
                let most = 0.25 * length * scale;
                assert!((found - expected).abs() < most, "{name}, {parameter}: {found}, not {expected} within {most}");
            }
        }
    }
}

#[test]
fn an_intervention_replaces_the_patches_and_the_thought() {
    let model = model(&tiny());
    let scene = scene(&model, &[pixels(1, 128, 128)]);
    let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
    let zero = |_: usize, thought: &Tensor| Ok(thought.zeros_like()?);
    let change = Intervention { thought: Some(&zero), patches: &[Some(vec![3, 1])] };
    model.step(&scene, &mut thread, &[true], change).unwrap();
    assert_eq!(thread.steps[0].chosen, [[3, 1]]);
    assert!(numbers(&thread.steps[0].thought).iter().all(|x| *x == 0.0));
}

/// The tiny model, whose looks are drawn back to where it looked before (negative: pushed away) this much.
fn moving_on(pull: f32) -> Reasoner {
    let (config, weights) = (tiny(), Weights::new("", 0));
    Reasoner::new(&config, Path::root(&weights)).unwrap();
    let mut values = weights.values();
    values.insert("refocus.revisit.bias".into(), Tensor::new(&[pull], &Device::Cpu).unwrap());
    Reasoner::new(&config, Path::root(&Fixed(values))).unwrap()
}

#[test]
fn later_looks_follow_what_was_read_and_not_what_was_wanted() {
    let model = moving_on(-8.0);
    let scene = scene(&model, &[pixels(1, 128, 128)]); // 4 cells
    let second_look = |patch: u32| {
        let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
        let change = Intervention { thought: None, patches: &[Some(vec![patch])] };
        model.step(&scene, &mut thread, &[true], change).unwrap();
        model.step(&scene, &mut thread, &[true], Intervention::default()).unwrap();
        numbers(&thread.steps[1].log_scores)
    };
    for patch in 0..4 {
        let scores = second_look(patch);
        let at = scores[patch as usize];
        assert!(scores.iter().all(|score| at <= *score), "looked again at {patch}: {scores:?}");
        let sum: f32 = scores.iter().map(|score| score.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
    }
}

#[test]
fn patches_given_to_one_row_leave_the_others_as_they_were() {
    let model = moving_on(-2.0);
    let scene = scene(&model, &[pixels(1, 128, 128)]);
    let two_steps = |given: &[Option<Vec<u32>>]| {
        let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3], &[2, 8, 3]], &[0, 0])).unwrap();
        let change = Intervention { thought: None, patches: given };
        model.step(&scene, &mut thread, &[true, true], change).unwrap();
        model.step(&scene, &mut thread, &[true, true], Intervention::default()).unwrap();
        numbers(&thread.steps[1].thought)
    };
    let (free, given) = (two_steps(&[]), two_steps(&[Some(vec![2]), None]));
    let half = free.len() / 2;
    assert!(free[half..] == given[half..], "the second row chose for itself");
    assert!(free[..half] != given[..half], "the first row did not");
}

#[test]
fn padding_gets_nothing_however_strongly_looks_move_on() {
    let model = moving_on(-80.0);
    let scene = scene(&model, &[pixels(1, 128, 128), pixels(3, 256, 256)]);
    let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
    model.think(&scene, &mut thread, &[3]).unwrap();
    for step in &thread.steps {
        let beyond: f32 = numbers(&step.log_scores)[4..].iter().map(|score| score.exp()).sum();
        assert!(beyond < 1e-6, "{beyond}");
    }
}

#[test]
fn nobody_thinks_after_speaking() {
    let model = model(&tiny());
    let scene = scene(&model, &[pixels(1, 128, 128)]);
    let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
    model.say(&mut thread, &[vec![4]]).unwrap();
    assert!(model.step(&scene, &mut thread, &[true], Intervention::default()).is_err());
}

#[test]
fn a_conversation_that_is_refused_stays_as_it_was() {
    let model = model(&tiny());
    let scene = scene(&model, &[pixels(1, 128, 128)]);
    let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
    let before = thread.cache.slots.lengths();
    assert!(model.say(&mut thread, &[vec![4; 5_000]]).is_err());
    assert_eq!(thread.cache.slots.lengths(), before);
    model.say(&mut thread, &[vec![4]]).unwrap();
}

#[test]
fn more_patches_than_the_model_chooses_are_all_read_and_wrong_ones_refused() {
    let model = model(&tiny());
    let scene = scene(&model, &[pixels(1, 128, 128), pixels(3, 256, 256)]);
    let ask = prompts(&[&[2, 9, 3]], &[0]);
    let thought = |patches: &[Vec<u32>]| {
        let mut thread = model.prompt(&scene, &ask).unwrap();
        let patches: Vec<_> = patches.iter().cloned().map(Some).collect();
        let change = Intervention { thought: None, patches: &patches };
        model.step(&scene, &mut thread, &[true], change).map(|()| thread.steps[0].thought.clone())
    };
    let three = thought(&[vec![0, 1, 2]]).unwrap();
    let four = thought(&[vec![0, 1, 2, 3]]).unwrap();
    assert!(farthest(&three, &four) > 1e-6);
    // Cell 4 is padding to the larger picture.
    for wrong in [vec![vec![4]], vec![vec![]], vec![vec![0], vec![1]]] {
        let message = thought(&wrong).unwrap_err().to_string();
        assert!(message.contains("at least one cell of its picture"), "{message}");
    }
}

#[test]
fn a_row_that_has_stopped_cannot_go_on() {
    let model = model(&tiny());
    let scene = scene(&model, &[pixels(1, 128, 128)]);
    let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3], &[2, 8, 3]], &[0, 0])).unwrap();
    model.step(&scene, &mut thread, &[false, true], Intervention::default()).unwrap();
    let message = model.step(&scene, &mut thread, &[true, true], Intervention::default()).unwrap_err().to_string();
    assert!(message.contains("none that has stopped"), "{message}");
    model.step(&scene, &mut thread, &[false, true], Intervention::default()).unwrap();
}

#[test]
fn what_is_spliced_in_takes_positions_and_what_is_not_takes_none() {
    let positions = |thinking: Thinking, merge: usize| {
        let mut config = tiny();
        (config.refocus.thinking, config.language.max_positions) = (thinking, 512);
        config.vision.spatial_merge = merge;
        let model = model(&config);
        let scene = scene(&model, &[pixels(1, 128, 128)]);
        let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3], &[2, 8, 7, 3]], &[0, 0])).unwrap();
        model.think(&scene, &mut thread, &[2, 1]).unwrap();
        thread.cache.slots.lengths()
    };
    for (merge, per_cell) in [(1, 16), (2, 4), (4, 1)] {
        let step = 1 + 3 * per_cell;
        assert_eq!(positions(Thinking::Splice, merge), [3 + 2 * step, 4 + step]);
        for thinking in [Thinking::Refocus, Thinking::Hidden, Thinking::Constant] {
            assert_eq!(positions(thinking, merge), [5, 5], "{thinking:?}");
        }
    }
}

#[test]
fn what_a_spliced_look_read_is_in_the_state_after_it_and_not_in_the_thought_before() {
    for thinking in [Thinking::Splice, Thinking::Refocus] {
        let mut config = tiny();
        (config.refocus.thinking, config.language.max_positions) = (thinking, 512);
        let model = model(&config);
        let scene = scene(&model, &[pixels(1, 128, 128)]);
        let thread = model.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
        let reading = |patch: u32| {
            let mut thread = thread.clone();
            let change = Intervention { patches: &[Some(vec![patch])], ..Intervention::default() };
            model.step(&scene, &mut thread, &[true], change).unwrap();
            thread.steps[0].clone()
        };
        let (one, other) = (reading(0), reading(3));
        assert!(farthest(one.holds(), other.holds()) > 1e-3, "{thinking:?}");
        assert_eq!(farthest(&one.thought, &other.thought) == 0.0, thinking == Thinking::Splice);
    }
}

#[test]
fn merged_features_are_neighbours_in_the_picture() {
    let mut config = tiny();
    config.vision.spatial_merge = 2;
    // Two pictures of two cells; a feature says which it is, row by row in its cell.
    let features: Vec<f32> = (0..2 * 2 * 16).flat_map(|i| [i as f32, 0.5]).collect();
    let fine = Tensor::from_vec(features, (2, 32, 2), &Device::Cpu).unwrap();
    let merged = model(&config).backbone.merged(&fine).unwrap();
    assert_eq!(merged.dims(), [2, 8, 8]);
    let of = |picture: usize, token: usize| -> Vec<f32> {
        numbers(&merged.i((picture, token)).unwrap()).into_iter().step_by(2).collect()
    };
    assert_eq!([of(0, 0), of(0, 1), of(0, 2)], [[0., 1., 4., 5.], [2., 3., 6., 7.], [8., 9., 12., 13.]]);
    assert_eq!(of(1, 7), [58., 59., 62., 63.], "the last square of the last cell of the last picture");
    config.vision.spatial_merge = 3;
    let refused = config.validate("x.toml").unwrap_err().to_string();
    assert!(refused.contains("vision.spatial_merge"), "{refused}");
}

#[test]
fn words_attend_where_their_step_would_have_whether_said_together_or_one_by_one() {
    for context in [Context::Coarse, Context::CoarseAndFine] {
        let mut config = tiny();
        (config.language.context, config.refocus.scorer) = (context, Scorer::WeightedAttention);
        let model = model(&config);
        let pictures = [pixels(1, 128, 128), pixels(2, 64, 128)];
        let scene = scene(&model, &pictures);
        let thread = model.prompt(&scene, &prompts(&[&[2, 9, 3], &[2, 8, 7, 3]], &[0, 1])).unwrap();
        let words = [vec![4, 12, 6], vec![4, 7, 9]];
        let (logits, attended) = model.say_attending(&scene, &mut thread.clone(), &words).unwrap();
        assert_eq!(attended.dims(), [2, 3, 4]);
        assert!(farthest(&model.say(&mut thread.clone(), &words).unwrap(), &logits) == 0.0);
        let shares = attended.exp().unwrap();
        for row in shares.reshape((6, 4)).unwrap().to_vec2::<f32>().unwrap() {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-4, "{row:?}");
        }
        assert!(numbers(&shares.i((1, .., 2..)).unwrap()).iter().all(|x| *x < 1e-6), "the second has two cells");
        let mut one_by_one = thread.clone();
        for place in 0..3 {
            let word = words.each_ref().map(|row| vec![row[place]]);
            let (_, alone) = model.say_attending(&scene, &mut one_by_one, &word).unwrap();
            assert!(farthest(&alone.squeeze(1).unwrap(), &attended.i((.., place)).unwrap()) < 1e-3);
        }
    }
    let plain = model(&tiny());
    let scene = scene(&plain, &[pixels(1, 128, 128)]);
    let mut thread = plain.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
    let refused = plain.say_attending(&scene, &mut thread, &[vec![4]]).unwrap_err().to_string();
    assert!(refused.contains("attention rows"), "{refused}");
}

#[test]
fn hidden_states_and_constants_are_what_is_fed_back() {
    for thinking in [Thinking::Hidden, Thinking::Constant] {
        let mut config = tiny();
        config.refocus.thinking = thinking;
        let model = model(&config);
        let scene = scene(&model, &[pixels(1, 128, 128), pixels(2, 128, 128)]);
        let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3], &[2, 8, 3]], &[0, 1])).unwrap();
        let before = thread.hidden.clone();
        model.think(&scene, &mut thread, &[2, 2]).unwrap();
        let first = &thread.steps[0].thought;
        let same = farthest(&first.i(0).unwrap(), &first.i(1).unwrap()) == 0.0;
        assert_eq!(same, thinking == Thinking::Constant, "only constants do not depend on what was asked");
        let direction = |x: &Tensor| (x / f64::from(rms(x))).unwrap();
        let like_the_hidden_state =
            farthest(&direction(&first.i(0).unwrap()), &direction(&before.i(0).unwrap())) < 1e-4;
        assert_eq!(like_the_hidden_state, thinking == Thinking::Hidden);
        assert!(farthest(&thread.steps[1].thought, first) > 1e-3, "the second step is another");
    }
}

#[test]
fn when_every_patch_has_been_seen_the_best_are_seen_again() {
    let mut config = tiny();
    config.refocus.exclude_earlier = true;
    let model = model(&config);
    let scene = scene(&model, &[pixels(1, 128, 128)]); // 4 cells, 3 a look
    let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
    model.think(&scene, &mut thread, &[3]).unwrap();
    assert!(thread.steps.iter().all(|step| step.chosen[0].len() == 3));
    assert!(!thread.steps[0].chosen[0].contains(&thread.steps[1].chosen[0][0]));
}

#[test]
fn more_steps_than_the_model_has_are_refused_by_number() {
    let model = model(&tiny());
    let scene = scene(&model, &[pixels(1, 128, 128)]);
    let mut thread = model.prompt(&scene, &prompts(&[&[2, 9, 3]], &[0])).unwrap();
    let message = model.think(&scene, &mut thread, &[7]).unwrap_err().to_string();
    assert!(message.contains("at most 6") && message.contains("got 7"), "{message}");
}
