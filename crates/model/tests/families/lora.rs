//! Low-rank changes to every family's matrices.

use super::weights::Weights;
use super::{Case, folders};
use candle_core::{IndexOp, Tensor};
use lare_model::decoder::Rows;
use lare_model::lora::Changed;
use lare_model::nn::{Part, Weight};
use lare_model::pretrained::{Picture, Pretrained, Text};
use lare_model::{Init, Lora, Path, Result, Source};

const TARGETS: [&str; 4] =
    ["language.blocks.*.qkv.query", "language.blocks.*.qkv.value", "language.*.feed_forward.*", "language.*.output"];

pub fn lora(targets: &[&str]) -> Lora {
    Lora { rank: 2, alpha: 3.0, targets: targets.iter().map(|target| (*target).to_owned()).collect() }
}

fn logits(model: &Pretrained, ids: &[u32], pictures: &[Picture]) -> Tensor {
    let (first, rest) = ids.split_at(ids.len() - 2);
    let mut cache = model.open(&[Text { ids: first, pictures }], &()).unwrap().begin(vec![0].into());
    let run = model.go_on(&mut cache, &[rest.to_vec()], Rows::None, &()).unwrap();
    model.language.logits(&run.hidden).unwrap()
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn far(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// Adapters as they start.
struct New<'a>(&'a Weights);

impl Source for New<'_> {
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        let tensor = self.0.tensor(name, shape, init)?;
        Ok(if init == Init::Zeros { tensor.zeros_like()? } else { tensor })
    }
}

/// Matrices with their changes folded in.
struct Folded<'a>(Changed<'a>);

impl Source for Folded<'_> {
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.0.tensor(name, shape, init)
    }

    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, init: Init) -> Result<Weight> {
        let weight = self.0.matrix(name, parts, inputs, init)?;
        Ok(Weight::Tensor(weight.to_tensor(&candle_core::Device::Cpu)?))
    }
}

#[test]
fn a_new_adapter_changes_nothing_and_a_trained_one_what_its_matrices_say() {
    for folder in folders() {
        let case = Case::open(&folder);
        let prompt = &case.prompts()[0];
        let (ids, pictures) = (case.numbers(&format!("{prompt}.input_ids")), case.pictures(prompt));
        let plain = logits(&case.model, &ids, &pictures);
        let weights = Weights::new("", 0);
        let new = Pretrained::adapted(&folder, None, &lora(&TARGETS), &New(&weights)).unwrap();
        assert_eq!(flat(&logits(&new, &ids, &pictures)), flat(&plain), "{}", case.name);
        let names: Vec<String> = weights.values().into_keys().collect();
        let of_layer = |layer: usize| names.iter().filter(|n| n.contains(&format!(".blocks.{layer}."))).count();
        // Query, value, output, gate, up and down.
        assert_eq!(of_layer(0), 12, "{}: {names:?}", case.name);
        assert_eq!(names.len(), 12 * case.model.architecture.language.layers, "{}", case.name);

        let trained = Pretrained::adapted(&folder, None, &lora(&TARGETS), &Weights::new("", 0)).unwrap();
        let changed = logits(&trained, &ids, &pictures);
        assert!(far(&changed, &plain) > 1e-3, "{}", case.name);
        let lora = lora(&TARGETS);
        let base = Weights::new("", 0);
        let alone = |source: &dyn Source| Pretrained::new(case.model.architecture.clone(), Path::root(source)).unwrap();
        let beside = alone(&Changed::new(&base, &lora, &base).unwrap());
        let folded = alone(&Folded(Changed::new(&base, &lora, &base).unwrap()));
        let text = &ids[ids.len() - 6..];
        let text: Vec<u32> =
            text.iter().filter(|id| case.model.architecture.image_token != Some(**id)).copied().collect();
        let (beside, folded) = (logits(&beside, &text, &[]), logits(&folded, &text, &[]));
        let most = flat(&folded).into_iter().fold(0f32, |most, x| most.max(x.abs()));
        assert!(far(&beside, &folded) <= 1e-4 * most, "{}: {} of {most}", case.name, far(&beside, &folded));
    }
}

#[test]
fn gradients_of_an_adapter_match_finite_differences() {
    for folder in folders() {
        let case = Case::open(&folder);
        let prompt = &case.prompts()[0];
        let (ids, pictures) = (case.numbers(&format!("{prompt}.input_ids")), case.pictures(prompt));
        let loss_of = |weights: &Weights| {
            let model = Pretrained::adapted(&folder, None, &lora(&TARGETS), weights).unwrap();
            let logits = logits(&model, &ids, &pictures).i((0, 1)).unwrap(); // [V]
            let shares = logits.exp().unwrap().sum_all().unwrap().log().unwrap();
            (shares - logits.i(5).unwrap()).unwrap()
        };
        let weights = Weights::new("", 0);
        let grads = loss_of(&weights).backward().unwrap();
        let vars = weights.vars.borrow().clone();
        for name in ["qkv.value.lora_a", "qkv.query.lora_b", "feed_forward.gate_up.up.lora_a", "output.lora_b"] {
            let name = format!("language.blocks.0.{name}");
            let grad = grads.get(vars[&name].as_tensor()).unwrap_or_else(|| panic!("{}: {name}", case.name));
            let norm = grad.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
            assert!(norm > 1e-6, "{}: {name}: {norm}", case.name);
            let reach = 0.01 / norm.max(0.1);
            let along = |sign: f32| {
                let changed = Weights::new("", 0);
                changed.shift(&name, &(grad * f64::from(sign * reach / norm)).unwrap());
                loss_of(&changed).to_scalar::<f32>().unwrap()
            };
            let slope = (along(1.0) - along(-1.0)) / (2.0 * reach);
            assert!((slope - norm).abs() <= 0.05 * norm.max(1e-2), "{}: {name}: {slope}, {norm}", case.name);
        }
    }
}

#[test]
fn a_pattern_that_fits_nothing_is_refused_by_name() {
    let folder = &folders()[0];
    let weights = Weights::new("", 0);
    let refused = |lora: &Lora| Pretrained::adapted(folder, None, lora, &weights).unwrap_err().to_string();
    let message = refused(&lora(&["language.*.query", "q_proj"]));
    assert!(message.contains("q_proj") && message.contains("language.blocks.*.qkv.query"), "{message}");
    assert!(refused(&lora(&[])).contains("at least one pattern"));
    assert!(refused(&Lora { rank: 0, ..lora(&["*"]) }).contains("at least 1"));
    assert!(refused(&lora(&["[a"])).contains("targets"));
}
