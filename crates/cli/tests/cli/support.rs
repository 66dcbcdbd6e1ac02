//! Runs the program, and makes what it is given.

use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io::Write};

/// What a run left.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }
}

/// A folder of its own to run in.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file and gives its name.
    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path().join(name), bytes).unwrap();
        name.to_owned()
    }

    /// The program, to be run in this folder.
    pub fn lare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lare"));
        command.args(arguments).current_dir(self.path()).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.ran(self.lare(arguments).output().unwrap())
    }

    /// With bytes on standard input.
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.lare(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdin.take().unwrap().write_all(input));
        self.ran(child.wait_with_output().unwrap())
    }

    /// Text with this folder's own name taken out.
    fn ran(&self, output: Output) -> Ran {
        let text =
            |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&self.path().display().to_string(), "FOLDER");
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Everything in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Copies the files of the model inside the program to `model/`.
    pub fn model(&self) -> PathBuf {
        let folder = self.path().join("model");
        fs::create_dir_all(&folder).unwrap();
        for name in ["config.toml", "model.safetensors", "tokenizer.json"] {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/nano").join(name);
            fs::copy(from, folder.join(name)).unwrap();
        }
        folder
    }
}

/// Pixels with light, dark and colour in them.
fn pixels(width: u32, height: u32) -> Vec<u8> {
    (0..width * height).flat_map(|i| [(i % width / 3) as u8, (i / width * 2) as u8, (i * 7 % 256) as u8]).collect()
}

pub fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new(&mut bytes);
    encoder.write_image(&pixels(width, height), width, height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

pub fn png_16_bit(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let wide: Vec<u8> = pixels(width, height).into_iter().flat_map(|value| [value, value]).collect();
    PngEncoder::new(&mut bytes).write_image(&wide, width, height, ExtendedColorType::Rgb16).unwrap();
    bytes
}

pub fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new(&mut bytes).write_image(&pixels(width, height), width, height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// A JPEG that says in its EXIF data to be turned by 90 degrees.
pub fn rotated_jpeg(width: u32, height: u32) -> Vec<u8> {
    const ORIENTATION_6: [u8; 32] = *b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let plain = jpeg(width, height);
    let length = (ORIENTATION_6.len() as u16 + 2).to_be_bytes();
    [&plain[..2], &[0xff, 0xe1], &length, &ORIENTATION_6, &plain[2..]].concat()
}

/// A PNG whose header claims a size, with hardly any data behind it.
pub fn png_that_claims(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(4, 4);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

pub fn animated_gif() -> Vec<u8> {
    use image::codecs::gif::GifEncoder;
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for shade in [40, 200] {
        encoder.encode(&[shade; 12 * 8 * 3], 12, 8, ExtendedColorType::Rgb8).unwrap();
    }
    drop(encoder);
    bytes
}

/// Waits for something that takes a while, but not for ever.
pub fn wait_until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < deadline, "it took too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal, such as `-INT`.
pub fn send(signal: &str, to: &Child) {
    assert!(Command::new("kill").args([signal, &to.id().to_string()]).status().unwrap().success());
}
