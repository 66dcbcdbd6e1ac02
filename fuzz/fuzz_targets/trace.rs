//! Any text as a trace: refused, or a record that can be written, read again and shown.
#![no_main]

use lare_trace::{Record, render};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(record) = Record::from_json(text) else { return };
    let written = record.to_json().expect("valid"); // invariant: what is looked for
    assert_eq!(Record::from_json(&written).expect("readable"), record); // invariant: what is looked for
    // A terminal is for small pictures; a record may claim millions of cells.
    if record.grid.rows * record.grid.cols <= 4096 {
        drop(render::text::text(&record));
    }
});
