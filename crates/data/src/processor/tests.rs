//! Whole processors: golden values, regions, and what is refused.

use std::fmt::Write;
use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};

use super::*;

/// More than rounding, less than a hundredth of a level.
const TOLERANCE: f32 = 2e-7;
const IMAGE_TOKEN: i64 = 5;

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/families").join(case)
}

/// What `tools/reference/families.py` wrote about a case.
struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn of(case: &str) -> Golden {
        Golden { bytes: std::fs::read(folder(case).join("golden.safetensors")).unwrap() }
    }

    /// A tensor's shape and bytes, if it is there.
    fn tensor(&self, name: &str, dtype: Dtype) -> Option<(Vec<usize>, Vec<u8>)> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(name).ok()?;
        assert_eq!(tensor.dtype(), dtype, "{name}");
        Some((tensor.shape().to_vec(), tensor.data().to_vec()))
    }

    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let (_, bytes) = self.tensor(name, Dtype::I64)?;
        Some(bytes.as_chunks().0.iter().map(|&eight| i64::from_le_bytes(eight)).collect())
    }

    fn picture(&self, number: usize) -> Option<Picture> {
        let (shape, rgb) = self.tensor(&format!("picture.{number}.rgb"), Dtype::U8)?;
        let [height, width, 3] = shape[..] else { panic!("{shape:?}") };
        Some(Picture { width, height, rgb })
    }

    /// The processor as it was when this picture was made.
    fn processor(&self, case: &str, number: usize) -> Processor {
        let processor = Processor::open(&folder(case)).unwrap();
        match self.tensor(&format!("picture.{number}.split"), Dtype::U8) {
            Some((_, split)) => processor.with_image_splitting(split == [1]),
            None => processor,
        }
    }
}

const CASES: [&str; 3] = ["qwen2_5_vl", "qwen3_vl", "smolvlm"];

#[test]
fn pictures_become_the_values_of_the_reference() {
    for case in CASES {
        let golden = Golden::of(case);
        let pictures = (0..).map_while(|number| golden.picture(number)).enumerate();
        let mut seen = 0;
        for (number, picture) in pictures {
            let processed = golden.processor(case, number).process(&picture).unwrap();
            let (shape, bytes) = golden.tensor(&format!("picture.{number}.pixel_values"), Dtype::F32).unwrap();
            assert_eq!(processed.shape, shape, "{case} {number}");
            assert_eq!(processed.pixel_values.len() * 4, bytes.len(), "{case} {number}");
            let expected = bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four));
            let differences = processed.pixel_values.iter().zip(expected).map(|(got, expected)| (got - expected).abs());
            assert!(differences.clone().all(|difference| difference <= TOLERANCE), "{case} {number}");
            let (counts, layout) = match processed.layout {
                Layout::Grid { rows, cols } => ("grid", vec![1, rows as i64, cols as i64]),
                Layout::Tiles { rows, cols } => ("tiles", vec![rows as i64, cols as i64]),
            };
            assert_eq!(golden.integers(&format!("picture.{number}.{counts}")).unwrap(), layout, "{case} {number}");
            assert_eq!(processed.picture, Size::of(&picture));
            seen += 1;
        }
        assert_eq!(seen, 5, "{case}");
    }
}

#[test]
fn pictures_take_as_many_image_tokens_as_in_the_prompts_of_the_reference() {
    for case in CASES {
        let golden = Golden::of(case);
        let config = std::fs::read_to_string(folder(case).join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let vision = &config["vision_config"];
        let merged = vision["spatial_merge_size"].as_u64().or(config["scale_factor"].as_u64()).unwrap();
        let token_px = (vision["patch_size"].as_u64().unwrap() * merged) as usize;
        for prompt in ["square", "wide", "tall", "tiny", "two"] {
            let ids = golden.integers(&format!("{prompt}.input_ids")).unwrap();
            let tokens = golden.integers(&format!("{prompt}.pictures")).unwrap().into_iter().map(|number| {
                let number = number as usize;
                let picture = golden.picture(number).unwrap();
                golden.processor(case, number).image_tokens(Size::of(&picture), token_px).unwrap()
            });
            assert_eq!(tokens.sum::<usize>(), ids.iter().filter(|&&id| id == IMAGE_TOKEN).count(), "{case} {prompt}");
        }
    }
}

/// A black picture with one white region.
fn lit(size: Size, region: Region) -> Picture {
    let inside = |place: usize| {
        let (x, y) = ((place % size.width) as f32 + 0.5, (place / size.width) as f32 + 0.5);
        region.left <= x && x < region.right && region.top <= y && y < region.bottom
    };
    let rgb = (0..size.width * size.height).flat_map(|place| [if inside(place) { 255 } else { 0 }; 3]).collect();
    Picture { width: size.width, height: size.height, rgb }
}

/// The mean value of each image token, in the order of the prompt.
fn brightness(processed: &Processed, token_px: usize) -> Vec<f32> {
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    match processed.shape[..] {
        // Consecutive patches, as many as make a token.
        [_, patch_values] => {
            let token_values = 3 * 2 * token_px * token_px;
            assert_eq!(token_values % patch_values, 0);
            processed.pixel_values.chunks_exact(token_values).map(mean).collect()
        }
        // Squares of a tile, by the red channel.
        [_, 3, tile_px, _] => {
            let side = tile_px / token_px;
            let square = |tile: &[f32], token: usize| {
                let rows = (0..token_px).map(|row| (token / side * token_px + row) * tile_px + token % side * token_px);
                mean(&rows.flat_map(|start| tile[start..start + token_px].to_vec()).collect::<Vec<_>>())
            };
            let tiles = processed.pixel_values.chunks_exact(3 * tile_px * tile_px);
            tiles.flat_map(|tile| (0..side * side).map(move |token| square(tile, token))).collect()
        }
        _ => panic!("{:?}", processed.shape),
    }
}

#[test]
fn what_is_lit_in_a_region_of_a_token_lights_that_token() {
    let qwen = r#"{"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "size": {"shortest_edge": 256, "longest_edge": 4096}}"#;
    let smolvlm = |tile: usize| {
        format!(
            r#"{{"image_processor_type": "SmolVLMImageProcessor", "size": {{"longest_edge": 96}}, "max_image_size": {{"longest_edge": {tile}}}}}"#
        )
    };
    // In the last case, tokens leave two columns and rows of each tile unseen.
    for (json, token_px) in [(qwen.to_owned(), 8), (smolvlm(32), 8), (smolvlm(96), 8), (smolvlm(32), 10)] {
        let processor = Processor::from_json(&json, "a.json").unwrap();
        for size in [Size { width: 240, height: 90 }, Size { width: 90, height: 240 }, Size { width: 33, height: 31 }] {
            let views = processor.views(size, token_px).unwrap();
            let mut first = 0;
            for view in &views {
                for (place, region) in view.tokens().enumerate() {
                    let processed = processor.process(&lit(size, region)).unwrap();
                    let values = brightness(&processed, token_px);
                    let all = &values[first..first + view.rows * view.cols];
                    let brightest = (0..all.len()).max_by(|&a, &b| all[a].total_cmp(&all[b])).unwrap();
                    // Regions narrower than a pixel light nothing.
                    let lit = region.right - region.left > 2.0 && region.bottom - region.top > 2.0;
                    assert!(!lit || brightest == place, "{json}\n{size:?} {region:?} {place} {brightest}");
                }
                first += view.rows * view.cols;
            }
            assert_eq!(processor.image_tokens(size, token_px).unwrap(), first);
        }
    }
}

#[test]
fn regions_of_tokens_of_qwen_are_row_by_row_over_the_whole_picture() {
    let json = r#"{"image_processor_type": "Qwen2VLImageProcessor"}"#;
    let processor = Processor::from_json(json, "a.json").unwrap();
    let size = Size { width: 300, height: 100 };
    assert_eq!(processor.layout(size).unwrap(), Layout::Grid { rows: 8, cols: 22 });
    let [view] = processor.views(size, 28).unwrap()[..] else { panic!() };
    assert_eq!((view.rows, view.cols), (4, 11));
    let regions: Vec<Region> = view.tokens().collect();
    assert_eq!(regions[0].top, 0.0);
    assert_eq!(regions[10].right, 300.0);
    assert_eq!(regions[11], Region { left: 0.0, top: 25.0, right: 300.0 / 11.0, bottom: 50.0 });
    assert_eq!(regions[43].bottom, 100.0);
}

#[test]
fn without_splitting_one_tile_shows_the_whole() {
    let json = r#"{"image_processor_type": "Idefics3ImageProcessorFast"}"#;
    let processor = Processor::from_json(json, "a.json").unwrap();
    let size = Size { width: 80, height: 60 };
    assert_eq!(processor.layout(size).unwrap(), Layout::Tiles { rows: 3, cols: 4 });
    assert_eq!(processor.image_tokens(size, 28).unwrap(), 13 * 169);
    let whole = processor.with_image_splitting(false);
    assert_eq!(whole.layout(size).unwrap(), Layout::Tiles { rows: 0, cols: 0 });
    assert_eq!(whole.image_tokens(size, 28).unwrap(), 169);
    let processed = whole.process(&lit(size, Region::at(0, 0, 40, 60))).unwrap();
    assert_eq!(processed.shape, [1, 3, 364, 364]);
}

#[test]
fn pictures_that_cannot_be_shown_are_refused() {
    let qwen = Processor::from_json(r#"{"image_processor_type": "Qwen2VLImageProcessor"}"#, "a.json").unwrap();
    let endless = r#"{"image_processor_type": "Qwen2VLImageProcessor", "size": {"shortest_edge": 9007199254740992, "longest_edge": 9007199254740992}}"#;
    let endless = Processor::from_json(endless, "a.json").unwrap();
    let coarse = r#"{"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4096, "merge_size": 4096, "temporal_patch_size": 4096}"#;
    let coarse = Processor::from_json(coarse, "a.json").unwrap();
    let lit = |width, height| lit(Size { width, height }, Region::at(0, 0, 0, 0));
    let cut = Picture { width: 3, height: 2, rgb: vec![0; 17] };
    let cases = [(&qwen, lit(201, 1)), (&qwen, lit(0, 9)), (&qwen, cut), (&endless, lit(9, 9)), (&coarse, lit(9, 9))];
    let mut texts = String::new();
    for (processor, picture) in cases {
        writeln!(texts, "{}\n", processor.process(&picture).unwrap_err()).unwrap();
    }
    assert_eq!(
        texts,
        "\
the picture cannot be prepared for this model
  expected  one side at most 200 times the other
  got       201 x 1 pixels

hint: cut the picture into parts

the picture cannot be prepared for this model
  expected  at least one pixel
  got       0 x 9 pixels

hint: pass a picture that shows something

the picture cannot be prepared for this model
  expected  3 x 2 x 3 bytes
  got       17 bytes

hint: pass the pixels row by row, three bytes each

the picture cannot be prepared for this model
  expected  at most 536870912 values after resizing as `size` in a.json says
  got       9 x 9 pixels

hint: give `size` the value it had when the model was published

the picture cannot be prepared for this model
  expected  at most 536870912 values after resizing as `size` in a.json says
  got       9 x 9 pixels

hint: give `size` the value it had when the model was published

"
    );
    assert!(qwen.process(&lit(200, 1)).is_ok());
}

#[test]
fn a_model_that_takes_other_tokens_is_refused() {
    let size = Size { width: 30, height: 40 };
    let qwen = Processor::from_json(r#"{"image_processor_type": "Qwen2VLImageProcessor"}"#, "a.json").unwrap();
    assert_eq!(
        qwen.views(size, 32).unwrap_err().to_string(),
        "`patch_size * merge_size` of the image processor is not supported\n  file      a.json\n  expected  what holds an image token of 32 pixels a side, as the model's config says\n  got       28\n\nhint: use the config.json and the file above that were published with these weights"
    );
    let smolvlm = Processor::from_json(r#"{"image_processor_type": "SmolVLMImageProcessor"}"#, "a.json").unwrap();
    assert!(smolvlm.views(size, 0).is_err());
    assert!(smolvlm.views(size, 365).is_err());
}
