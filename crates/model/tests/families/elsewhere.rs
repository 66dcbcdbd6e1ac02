//! What another device than the CPU computes, as far as the CPU can tell: ordinary candle operations in the place of the fused
//! ones, and weights as they are placed on a GPU.

use super::refocused::{asked, cases, settings};
use super::weights::Weights;
use super::{Case, computes_as_the_reference, folders, sees_as_the_reference};
use candle_core::{Device, Tensor};
use lare_kernels::composed_here;
use lare_model::nn::{Part, Weight};
use lare_model::pretrained::Pretrained;
use lare_model::pretrained::parts::Parts;
use lare_model::{Format, Init, Path, Reasoning, Refocused, Source};

/// A folder's parameters as a GPU would hold them.
struct Placed<'a>(&'a Parts);

impl Source for Placed<'_> {
    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> lare_model::Result<Tensor> {
        self.0.tensor(name, shape, init)
    }

    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, init: Init) -> lare_model::Result<Weight> {
        self.0.matrix(name, parts, inputs, init)?.placed(&Device::Cpu)
    }
}

fn placed(folder: &std::path::Path) -> Pretrained {
    let parts = Parts::of_folder(folder, Some(Format::F32)).unwrap();
    Pretrained::new(parts.published.architecture.clone(), Path::root(&Placed(&parts))).unwrap()
}

#[test]
fn the_reference_s_numbers_come_out_of_ordinary_operations_on_placed_weights_too() {
    for folder in folders() {
        let case = Case::with(&folder, placed(&folder));
        composed_here(|| {
            sees_as_the_reference(&case);
            computes_as_the_reference(&case);
        });
    }
}

/// What a model says after its thoughts: the last thought, and logits.
fn said(model: &Refocused, all: &[super::refocused::Asked]) -> Vec<f32> {
    let mut said = Vec::new();
    for asked_about in all {
        let (_, mut thread) = asked(model, &[asked_about], &[2]);
        let logits = model.say(&mut thread, &[vec![7]]).unwrap();
        for tensor in [&thread.steps[1].thought, &logits] {
            said.extend(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        }
    }
    said
}

#[test]
fn latent_steps_are_the_same_there() {
    for ((case, all), folder) in cases().into_iter().zip(super::adapter::seeing()) {
        let refocused = |base| Refocused::new(base, &settings(), Path::root(&Weights::new("", 0))).unwrap();
        let expected = said(&refocused(case.model.clone()), &all);
        let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        let model = refocused(placed(&folder));
        let got = composed_here(|| said(&model, &all));
        let far = got.iter().zip(&expected).fold(0f32, |far, (a, b)| far.max((a - b).abs()));
        assert!(far <= 1e-4 * most, "{}: off by {far} of {most}", case.name);
    }
}
