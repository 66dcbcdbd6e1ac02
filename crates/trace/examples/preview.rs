//! Writes the made-up answers as trace folders, to look at the renderers without a model:
//! `cargo run -p lare-trace --example preview -- FOLDER`.

use lare_trace::{PictureRef, Record, TraceError, example, write_folder};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name a folder to write to")?;
    let answers: [(&str, (Record, Vec<u8>)); 3] =
        [("wide", example::wide()), ("square", example::square()), ("plain", example::without_steps())];
    for (name, answer) in answers {
        write(&Path::new(&folder).join(name), answer)?;
    }
    Ok(())
}

fn write(folder: &Path, (record, rgb): (Record, Vec<u8>)) -> Result<(), TraceError> {
    let picture = PictureRef { width: record.input.width, height: record.input.height, rgb: &rgb };
    write_folder(folder, &record, picture).map(drop)
}
