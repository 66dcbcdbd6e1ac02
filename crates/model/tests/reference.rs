//! A latent step against numbers that know nothing of this code: `tools/reference/latent_step.py`, in float64.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use candle_core::{Device, Tensor};
use lare_model::refocus::{Present, Refocus};
use lare_model::{Config, Init, Path, Source};
use std::collections::HashMap;
use std::sync::Arc;

struct Fixture(HashMap<String, Tensor>);

impl Fixture {
    fn read() -> Self {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/latent_step.safetensors");
        Self(candle_core::safetensors::load(path, &Device::Cpu).unwrap())
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.0[name].flatten_all().unwrap().to_vec1().unwrap()
    }
}

impl Source for Fixture {
    fn tensor(&self, name: &str, shape: &[usize], _: Init) -> lare_model::Result<Tensor> {
        let tensor = self.0.get(name).unwrap_or_else(|| panic!("the fixture has no `{name}`"));
        assert_eq!(tensor.shape().dims(), shape, "{name}");
        Ok(tensor.clone())
    }
}

#[test]
fn three_latent_steps_are_those_of_the_formulas() {
    let fixture = Fixture::read();
    let config = Config::from_toml(include_str!("tiny.toml"), "tiny.toml").unwrap();
    let refocus = Path::root(&fixture).at("refocus", |p| Refocus::new(p, config.around(), &config.refocus)).unwrap();
    let (cells, fine) = (&fixture.0["input.cells"], &fixture.0["input.fine"]);
    let (_, patches, _) = cells.dims3().unwrap();
    let real = fixture.ids("input.real_cells");
    let visible = real.iter().flat_map(|real| (0..patches).map(move |patch| patch < *real as usize)).collect();
    let look = refocus.prepare([cells, cells, fine], visible, Vec::new()).unwrap();
    let picture_of_row: Arc<[u32]> = fixture.ids("input.picture_of_row").into();
    let chosen_before = vec![Vec::new(); picture_of_row.len()];

    let far = |ours: &Tensor, name: String| {
        let apart = (ours - &fixture.0[&name]).unwrap().abs().unwrap().max_all().unwrap();
        let apart = apart.to_scalar::<f32>().unwrap();
        assert!(apart < 2e-5, "{name}: {apart}");
    };
    let (mut earlier, mut looked): (Vec<Tensor>, Option<Tensor>) = (Vec::new(), None);
    for k in 0..3 {
        let hidden = fixture.0["input.hidden"].get(k).unwrap();
        let now = Present {
            hidden: &hidden,
            earlier: &earlier,
            rows: &[],
            picture_of_row: &picture_of_row,
            chosen_before: &chosen_before,
            looked: looked.as_ref(),
        };
        let focus = refocus.forward(&now, &look, &[]).unwrap();
        let scores = focus.log_scores.exp().unwrap();
        far(&scores, format!("step{k}.scores"));
        assert_eq!(focus.chosen.concat(), fixture.ids(&format!("step{k}.chosen")), "step {k}");
        far(&focus.gate_mean, format!("step{k}.gate_mean"));
        far(&focus.thought, format!("step{k}.thought"));
        far(&refocus.halt_logits(&hidden).unwrap(), format!("step{k}.halt"));
        looked = Some(match looked {
            None => scores,
            Some(before) => (before + scores).unwrap(),
        });
        earlier.push(focus.thought);
    }
}
