//! Writes pages of tags as raw pixels and a table, for encoders that are compared outside of this program.
//!
//! ```text
//! cargo run --release --example pages -- FOLDER train|val COUNT
//! ```
//!
//! `FOLDER/pages.rgb` holds `COUNT` pictures of 448 x 448 x 3 bytes, row by row; `FOLDER/tags.csv` one line a tag: page, left,
//! top, right and bottom of its text in pixels, letter, digit.

use lare_data::{Split, Suite};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, split, count] = arguments.as_slice() else {
        return Err("give a folder, train or val, and a number of pages".into());
    };
    let (folder, split): (_, Split) = (Path::new(folder), split.parse()?);
    std::fs::create_dir_all(folder)?;
    let suite = Suite::new();
    let mut pixels = std::io::BufWriter::new(std::fs::File::create(folder.join("pages.rgb"))?);
    let mut tags = String::from("page,left,top,right,bottom,letter,digit\n");
    for page in 0..count.parse()? {
        let group = suite.page(split, page);
        pixels.write_all(&group.picture.rgb)?;
        for object in &group.objects {
            let r = object.tag;
            writeln!(tags, "{page},{},{},{},{},{},{}", r.left, r.top, r.right, r.bottom, object.letter, object.digit)?;
        }
    }
    pixels.flush()?;
    std::fs::write(folder.join("tags.csv"), tags)?;
    Ok(())
}
