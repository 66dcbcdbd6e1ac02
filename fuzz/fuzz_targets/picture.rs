//! Any bytes as a picture: refused, or decoded and brought to the size that a model sees.
#![no_main]

use lare_data::{image, prepare};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(picture) = image::decode(bytes, "picture") else { return };
    assert_eq!(picture.rgb.len(), picture.width * picture.height * 3);
    // Large ones are decoded alone: resizing them is slow and does nothing that small ones do not.
    if picture.width * picture.height <= 1 << 16 {
        let prepared = prepare(&picture, 64, 64);
        assert!(prepared.rows * prepared.cols <= 64);
    }
});
