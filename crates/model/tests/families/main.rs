//! Every family against what transformers computed for a tiny checkpoint of it (tools/reference/families.py).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adapter;
mod elsewhere;
mod lora;
mod refocused;
#[path = "../weights/mod.rs"]
mod weights;

use candle_core::{DType, Device, Tensor};
use lare_model::decoder::{Prefix, Rows};
use lare_model::pretrained::{PatchGrid, Picture, Pixels, Pretrained, Text};
use lare_model::tap::Kept;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Largest error over the largest number of a tensor. An element's own relative error says nothing near zero.
const TOLERANCE: f32 = 1e-4;

/// Folders of the cases: those that are committed, and those that `LARE_FAMILIES` holds besides, made by the script.
fn folders() -> Vec<PathBuf> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/families");
    let more = std::env::var_os("LARE_FAMILIES").map(PathBuf::from);
    let all = std::iter::once(committed).chain(more).flat_map(|place| std::fs::read_dir(place).unwrap());
    let mut folders: Vec<PathBuf> = all.map(|entry| entry.unwrap().path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 4, "{folders:?}");
    folders
}

struct Case {
    name: String,
    golden: HashMap<String, Tensor>,
    model: Pretrained,
}

impl Case {
    fn open(folder: &Path) -> Self {
        let model = Pretrained::from_folder(folder, None).unwrap();
        assert_eq!(model.unused, Vec::<String>::new());
        Self::with(folder, model)
    }

    fn with(folder: &Path, model: Pretrained) -> Self {
        let golden = candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap();
        Self { name: folder.file_name().unwrap().to_string_lossy().into_owned(), golden, model }
    }

    fn has(&self, name: &str) -> bool {
        self.golden.contains_key(name)
    }

    fn get(&self, name: &str) -> &Tensor {
        self.golden.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.name))
    }

    fn numbers(&self, name: &str) -> Vec<u32> {
        let flat = self.get(name).flatten_all().unwrap().to_dtype(DType::I64).unwrap();
        flat.to_vec1::<i64>().unwrap().into_iter().map(|n| n as u32).collect()
    }

    fn near(&self, name: &str, got: &Tensor) {
        let expected = self.get(name);
        assert_eq!(expected.dims(), got.dims(), "{}: {name}", self.name);
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (expected, got) = (flat(expected), flat(got));
        let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        let far =
            expected.iter().zip(&got).fold(0f32, |far, (e, g)| if (e - g).abs() <= far { far } else { (e - g).abs() });
        assert!(far <= TOLERANCE * most, "{}: {name} is off by {far} of {most}", self.name);
    }

    fn picture(&self, number: u32) -> Picture {
        let values = self.get(&format!("picture.{number}.pixel_values")).clone();
        let grid = format!("picture.{number}.grid");
        let pixels = if self.has(&grid) {
            let [_, rows, cols] = self.numbers(&grid)[..] else { panic!("a grid has three numbers") };
            Pixels::Patches { values, grid: PatchGrid { rows: rows as usize, cols: cols as usize } }
        } else {
            Pixels::Tiles { values }
        };
        self.model.encode(&pixels, &()).unwrap()
    }

    fn pictures(&self, prompt: &str) -> Vec<Picture> {
        let name = format!("{prompt}.pictures");
        if !self.has(&name) {
            return Vec::new();
        }
        self.numbers(&name).into_iter().map(|number| self.picture(number)).collect()
    }

    fn prompts(&self) -> Vec<String> {
        let all = ["square", "wide", "tall", "tiny", "two", "switched", "text", "long"];
        all.into_iter().filter(|p| self.has(&format!("{p}.input_ids"))).map(str::to_owned).collect()
    }
}

fn rows_of(tensor: &Tensor, from: usize, count: usize) -> Tensor {
    tensor.narrow(0, from, count).unwrap().contiguous().unwrap()
}

/// A prompt as a prefix of all but its last `own` tokens and those after it: (prefix, hidden states by layer, last hidden, rows).
fn run(
    case: &Case,
    prompt: &str,
    own: usize,
) -> (Prefix, lare_model::cache::Cache, HashMap<usize, Tensor>, Tensor, Vec<Tensor>) {
    let (ids, pictures) = (case.numbers(&format!("{prompt}.input_ids")), case.pictures(prompt));
    let (first, rest) = ids.split_at(ids.len() - own);
    let kept = Kept::default();
    let prefix = case.model.open(&[Text { ids: first, pictures: &pictures }], &kept).unwrap();
    let mut cache = prefix.begin(vec![0].into());
    let run = case.model.go_on(&mut cache, &[rest.to_vec()], Rows::Last, &kept).unwrap();
    let hidden = kept
        .into_inner()
        .into_iter()
        .map(|((_, layer), parts)| (layer, Tensor::cat(&parts, 1).unwrap().squeeze(0).unwrap()));
    let last = Tensor::cat(&[&prefix.hidden, &run.hidden], 1).unwrap().squeeze(0).unwrap();
    (prefix, cache, hidden.collect(), last, run.rows)
}

#[test]
fn pictures_become_the_reference_s_tokens_and_stand_where_they_stand_there() {
    folders().iter().for_each(|folder| sees_as_the_reference(&Case::open(folder)));
}

fn sees_as_the_reference(case: &Case) {
    for prompt in case.prompts() {
        let (ids, pictures) = (case.numbers(&format!("{prompt}.input_ids")), case.pictures(&prompt));
        if !pictures.is_empty() {
            let tokens: Vec<&Tensor> = pictures.iter().map(|picture| &picture.seen.tokens).collect();
            case.near(&format!("{prompt}.vision"), &Tensor::cat(&tokens, 0).unwrap());
        }
        for layer in 0..pictures.first().map_or(0, |picture| picture.seen.added.len()) {
            let name = format!("{prompt}.deepstack.{layer}");
            let added: Vec<&Tensor> = pictures.iter().map(|picture| &picture.seen.added[layer]).collect();
            if case.has(&name) {
                case.near(&name, &Tensor::cat(&added, 0).unwrap());
            }
        }
        let places = case.model.places(Text { ids: &ids, pictures: &pictures }).unwrap();
        let expected = case.numbers(&format!("{prompt}.positions"));
        let axes = expected.len() / ids.len(); // 3 with M-RoPE, else 1
        let got: Vec<u32> = (0..axes).flat_map(|axis| places.iter().map(move |place| place[axis])).collect();
        assert_eq!(got, expected, "{}: {prompt}.positions", case.name);
    }
}

#[test]
fn hidden_states_attention_rows_and_logits_are_the_reference_s() {
    folders().iter().for_each(|folder| computes_as_the_reference(&Case::open(folder)));
}

fn computes_as_the_reference(case: &Case) {
    for prompt in case.prompts() {
        // The same wherever the prefix ends, as long as its pictures are in it.
        for own in [1, 3] {
            let (prefix, _, hidden, last, rows) = run(case, &prompt, own);
            for (layer, hidden) in &hidden {
                let name = format!("{prompt}.hidden.{layer}");
                if case.has(&name) {
                    case.near(&name, hidden);
                }
            }
            let (_, places, _) = prefix.hidden.dims3().unwrap();
            for (layer, row) in rows.iter().enumerate() {
                let name = format!("{prompt}.attention_row.{layer}");
                let expected = case.get(&name).narrow(1, 0, places).unwrap();
                let far = (expected - row.squeeze(0).unwrap()).unwrap().abs().unwrap().max_all().unwrap();
                assert!(far.to_scalar::<f32>().unwrap() < TOLERANCE, "{}: {name} is off by {far}", case.name);
            }
            let (counted, _) = case.get(&format!("{prompt}.logits")).dims2().unwrap();
            let (all, _) = last.dims2().unwrap();
            let logits = case.model.language.logits(&rows_of(&last, all - counted, counted)).unwrap();
            case.near(&format!("{prompt}.logits"), &logits);
        }
    }
}

#[test]
fn greedy_text_is_the_reference_s_over_64_tokens() {
    for folder in folders() {
        let case = Case::open(&folder);
        for prompt in case.prompts() {
            let (_, mut cache, _, last, _) = run(&case, &prompt, 1);
            let (all, _) = last.dims2().unwrap();
            let mut logits = case.model.language.logits(&rows_of(&last, all - 1, 1)).unwrap();
            let mut said = Vec::new();
            while said.len() < 64 {
                let token = logits.flatten_all().unwrap().argmax(0).unwrap().to_scalar::<u32>().unwrap();
                said.push(token);
                let run = case.model.go_on(&mut cache, &[vec![token]], Rows::None, &()).unwrap();
                logits = case.model.language.logits(&run.hidden).unwrap();
            }
            assert_eq!(said, case.numbers(&format!("{prompt}.greedy")), "{}: {prompt}", case.name);
        }
    }
}

#[test]
fn a_cached_continuation_is_the_reference_s() {
    for folder in folders() {
        let case = Case::open(&folder);
        let before = if case.has("square.input_ids") { "square" } else { "long" };
        let (_, mut cache, _, _, _) = run(&case, before, 1);
        let kept = Kept::default();
        let ids = case.numbers("continuation.input_ids");
        let run = case.model.go_on(&mut cache, &[ids], Rows::None, &kept).unwrap();
        for ((_, layer), parts) in kept.into_inner() {
            let name = format!("continuation.hidden.{layer}");
            if case.has(&name) {
                case.near(&name, &parts[0].squeeze(0).unwrap());
            }
        }
        let (counted, _) = case.get("continuation.logits").dims2().unwrap();
        let hidden = run.hidden.squeeze(0).unwrap();
        let (all, _) = hidden.dims2().unwrap();
        case.near(
            "continuation.logits",
            &case.model.language.logits(&rows_of(&hidden, all - counted, counted)).unwrap(),
        );
    }
}

#[test]
fn rows_of_a_batch_are_the_reference_s_and_nobody_sees_the_future() {
    for folder in folders() {
        let case = Case::open(&folder);
        let (ids, mask) = (case.numbers("batch.input_ids"), case.numbers("batch.mask"));
        let longest = ids.len() / 2;
        let row = |row: usize| -> Vec<u32> {
            let places = row * longest..(row + 1) * longest;
            places.filter(|at| mask[*at] == 1).map(|at| ids[at]).collect()
        };
        let rows = [row(0), row(1)];
        let pictures = case.pictures("batch");
        let of_row = |row: usize| if pictures.is_empty() { &pictures[..] } else { &pictures[row..=row] };
        let own = 2;
        let texts = [0, 1].map(|r| Text { ids: &rows[r][..rows[r].len() - own], pictures: of_row(r) });
        let logits_after = |replaced: u32| {
            let mut cache = case.model.open(&texts, &()).unwrap().begin(vec![0, 1].into());
            let mut rest = [0, 1].map(|r| rows[r][rows[r].len() - own..].to_vec());
            rest.iter_mut().for_each(|rest| rest[own - 1] = rest[own - 1].wrapping_add(replaced));
            let run = case.model.go_on(&mut cache, &rest, Rows::None, &()).unwrap();
            case.model.language.logits(&run.hidden).unwrap() // [2, own, V]
        };
        let logits = logits_after(0);
        let (_, counted, _) = case.get("batch.logits").dims3().unwrap();
        assert_eq!(counted.min(own), own);
        let batch = case.get("batch.logits").to_dtype(DType::F32).unwrap(); // zeros at padding made it f64
        let expected = batch.narrow(1, counted - own, own).unwrap();
        let far = (expected - &logits).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let most = expected_most(&batch);
        assert!(far <= TOLERANCE * most, "{}: batch.logits off by {far} of {most}", case.name);
        // Another last word changes its own logits and no earlier ones.
        let changed = logits_after(1);
        let differs = |at: usize| {
            let of =
                |logits: &Tensor| logits.narrow(1, at, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            of(&logits) != of(&changed)
        };
        assert!(!differs(0) && differs(1), "{}: the future is seen", case.name);
    }
}

fn expected_most(tensor: &Tensor) -> f32 {
    tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
}
