//! Small files of the forms that benchmarks have.

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;
use std::fs;
use std::path::Path;

/// A picture of one colour, `width` by 2 pixels: a BMP. The width, a multiple of 4, tells pictures apart.
pub fn picture(width: u32) -> Vec<u8> {
    assert_eq!(width % 4, 0, "rows of a BMP are padded to 4 bytes");
    let (height, pixels) = (2_u32, vec![90_u8; (width * 2 * 3) as usize]);
    let mut bytes = b"BM".to_vec();
    for number in [54 + pixels.len() as u32, 0, 54, 40, width, height] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(24_u16.to_le_bytes());
    for number in [0, pixels.len() as u32, 2835, 2835, 0, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(pixels);
    bytes
}

/// The same as text.
pub fn picture_as_text(width: u32) -> String {
    STANDARD.encode(picture(width))
}

/// A table as Python's `csv` writes it: quotes where they are needed, and doubled inside.
pub fn table<T: AsRef<str>>(path: &Path, delimiter: char, rows: &[Vec<T>]) {
    let field = |text: &str| match text.contains([delimiter, '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    let line = |row: &Vec<T>| {
        let fields: Vec<String> = row.iter().map(|text| field(text.as_ref())).collect();
        format!("{}\n", fields.join(&delimiter.to_string()))
    };
    fs::write(path, rows.iter().map(line).collect::<String>()).unwrap();
}

/// Rows of a table, from lines whose fields are separated by `|`; `@8` is a picture 8 pixels wide, as text.
pub fn rows(lines: &[&str]) -> Vec<Vec<String>> {
    let field = |text: &str| match text.strip_prefix('@').and_then(|width| width.parse().ok()) {
        Some(width) => picture_as_text(width),
        None => text.to_owned(),
    };
    lines.iter().map(|line| line.split('|').map(field).collect()).collect()
}
