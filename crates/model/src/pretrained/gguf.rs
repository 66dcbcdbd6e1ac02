//! GGUF files: one file with the weights of a language model, its sizes, its tokenizer and its chat template.
//!
//! ```text
//! magic, version ─ counts ─ metadata: key, type, value … ─ tensors: name, shape, type, offset … ─ padding ─ data
//! ```
//!
//! candle reads these files too, and its block types are the ones used here. Its reader of the header is not: it divides
//! by an alignment of 0, drops one of two tensors of the same name, cannot say which tensor has a type that it does not
//! know, and takes 32 bytes for each byte of a list that a damaged file claims. Format:
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod architecture;
mod weights;

pub use weights::Held;
pub(super) use weights::{Weights, refuse_to_write};

use super::checkpoint::Listed;
use crate::{Error, Result};
use candle_core::quantized::GgmlDType;
use memmap2::Mmap;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a GGUF file begins.
const MAGIC: [u8; 4] = *b"GGUF";
/// Versions that are read: both lay out everything alike. The first counted in 32 bits, and has not been written since 2023.
const VERSIONS: [u32; 2] = [2, 3];
/// Where tensors begin, unless `general.alignment` says otherwise.
const ALIGNMENT: usize = 32;
/// Most values of all metadata together: ten times what the largest vocabulary needs.
const MAX_VALUES: usize = 1 << 24;
/// Most axes of a tensor, as in ggml.
const MAX_AXES: usize = 4;
/// Lists within lists that are followed.
const MAX_DEPTH: usize = 4;

/// ggml's number types, by their numbers in files, and candle's block type of those that can be read.
const TYPES: [(u32, &str, Option<GgmlDType>); 29] = [
    (0, "F32", Some(GgmlDType::F32)),
    (1, "F16", Some(GgmlDType::F16)),
    (2, "Q4_0", Some(GgmlDType::Q4_0)),
    (3, "Q4_1", Some(GgmlDType::Q4_1)),
    (6, "Q5_0", Some(GgmlDType::Q5_0)),
    (7, "Q5_1", Some(GgmlDType::Q5_1)),
    (8, "Q8_0", Some(GgmlDType::Q8_0)),
    (9, "Q8_1", None),
    (10, "Q2_K", Some(GgmlDType::Q2K)),
    (11, "Q3_K", Some(GgmlDType::Q3K)),
    (12, "Q4_K", Some(GgmlDType::Q4K)),
    (13, "Q5_K", Some(GgmlDType::Q5K)),
    (14, "Q6_K", Some(GgmlDType::Q6K)),
    (15, "Q8_K", None),
    (16, "IQ2_XXS", None),
    (17, "IQ2_XS", None),
    (18, "IQ3_XXS", None),
    (19, "IQ1_S", None),
    (20, "IQ4_NL", None),
    (21, "IQ3_S", None),
    (22, "IQ2_S", None),
    (23, "IQ4_XS", None),
    (28, "F64", None),
    (29, "IQ1_M", None),
    (30, "BF16", Some(GgmlDType::BF16)),
    (34, "TQ1_0", None),
    (35, "TQ2_0", None),
    (39, "MXFP4", None),
    (40, "NVFP4", None),
];
const READ: &str = "F32, F16, BF16, Q8_0, Q4_K, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q5_K or Q6_K";

/// A tensor in the file.
#[derive(Clone, Debug)]
struct Entry {
    /// Its number type, as people write it.
    type_name: &'static str,
    dtype: GgmlDType,
    /// As everywhere here, the last axis is the one that lies together.
    shape: Vec<usize>,
    /// In the file.
    range: Range<usize>,
}

/// A GGUF file, mapped into memory.
pub struct Gguf {
    path: PathBuf,
    map: Arc<Mmap>,
    metadata: Map<String, Value>,
    entries: BTreeMap<String, Entry>,
}

/// Whether this is the path of a GGUF file, by its name or its first bytes.
#[must_use]
pub fn is_gguf(path: &Path) -> bool {
    let mut first = [0; MAGIC.len()];
    let mut begins =
        || File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok_and(|()| first == MAGIC);
    path.is_file() && (path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) || begins())
}

impl Gguf {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    /// [`Error::Gguf`] for a file of another kind or version, one that ends early, or whose header does not hold.
    pub fn open(path: &Path) -> Result<Self> {
        let unreadable = |error: std::io::Error| Error::Read {
            path: path.into(),
            reason: error.to_string(),
            hint: "check the path and its permissions".into(),
        };
        let file = File::open(path).map_err(unreadable)?;
        // SAFETY: as for the maps of safetensors files: read-only, and a file that another program cuts short meanwhile
        // ends this one with a signal.
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        let mut header = Header { file: path.display().to_string(), bytes: &map, at: 0, values: 0 };
        let (metadata, entries) = header.read()?;
        Ok(Self { path: path.into(), map: Arc::new(map), metadata, entries })
    }

    /// The file's name, as messages give it.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// What the file says of itself: numbers, texts and lists by their dotted names.
    #[must_use]
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Every tensor, in order of their names.
    #[must_use]
    pub fn listed(&self) -> Vec<Listed> {
        let of = |(name, entry): (&String, &Entry)| Listed {
            name: name.clone(),
            number_type: entry.type_name.into(),
            shape: entry.shape.clone(),
        };
        self.entries.iter().map(of).collect()
    }

    fn fault(&self, fault: String, expected: String, got: String, hint: &'static str) -> Error {
        Error::Gguf { file: self.name(), fault, expected, got, hint }
    }
}

/// The beginning of a file while it is read.
struct Header<'a> {
    file: String,
    bytes: &'a [u8],
    at: usize,
    /// Values read so far.
    values: usize,
}

const CUT: &str = "it was cut short or changed; fetch it again";

impl<'a> Header<'a> {
    fn read(&mut self) -> Result<(Map<String, Value>, BTreeMap<String, Entry>)> {
        let begins = &self.bytes[..self.bytes.len().min(MAGIC.len())];
        if begins != MAGIC {
            let got = format!("`{}`", begins.escape_ascii());
            return Err(self.fault("is not a GGUF file", "`GGUF` at its beginning", got, "name a GGUF file"));
        }
        self.at = MAGIC.len();
        let version = self.u32()?;
        if !VERSIONS.contains(&version) {
            // A file of the other byte order has its version there too.
            let got = format!("version {version}");
            let hint = "convert the model again with a current llama.cpp, for little-endian machines";
            return Err(self.fault("is a GGUF file of another kind", "version 2 or 3, little-endian", got, hint));
        }
        let (tensors, pairs) = (self.u64()?, self.u64()?);
        // The shortest a tensor and a pair can be.
        let least = tensors.saturating_mul(8 + 4 + 4 + 8).saturating_add(pairs.saturating_mul(8 + 4 + 1));
        if least > self.left() as u64 {
            let expected = format!("room for {tensors} tensors and {pairs} values");
            let got = format!("{} bytes", self.left());
            return Err(self.fault("ends before what it announces", &expected, got, CUT));
        }
        let mut metadata = Map::new();
        for _ in 0..pairs {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind, &key, 0)?;
            metadata.insert(key, value);
        }
        let mut found = Vec::new();
        for _ in 0..tensors {
            found.push(self.tensor()?);
        }
        let entries = self.place(found, &metadata)?;
        Ok((metadata, entries))
    }

    fn fault(&self, fault: impl Into<String>, expected: &str, got: String, hint: &'static str) -> Error {
        Error::Gguf { file: self.file.clone(), fault: fault.into(), expected: expected.into(), got, hint }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.left() {
            let (expected, got) = (format!("{count} bytes at byte {}", self.at), format!("{} to its end", self.left()));
            return Err(self.fault("ends within its header", &expected, got, CUT));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N)?);
        Ok(number)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.number()?))
    }

    fn length(&mut self) -> Result<usize> {
        Ok(usize::try_from(self.u64()?).unwrap_or(usize::MAX))
    }

    /// Texts are UTF-8, but some files have others in their vocabulary.
    fn text(&mut self) -> Result<String> {
        let length = self.length()?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn value(&mut self, kind: u32, key: &str, depth: usize) -> Result<Value> {
        self.values += 1;
        if self.values > MAX_VALUES {
            let got = format!("more within `{key}`");
            return Err(self.fault("announces too much", &format!("at most {MAX_VALUES} values"), got, CUT));
        }
        Ok(match kind {
            0 => self.number().map(u8::from_le_bytes)?.into(),
            1 => self.number().map(i8::from_le_bytes)?.into(),
            2 => self.number().map(u16::from_le_bytes)?.into(),
            3 => self.number().map(i16::from_le_bytes)?.into(),
            4 => self.u32()?.into(),
            5 => self.number().map(i32::from_le_bytes)?.into(),
            6 => self.number().map(f32::from_le_bytes)?.into(),
            7 => (self.number::<1>()? != [0]).into(),
            8 => self.text()?.into(),
            9 if depth < MAX_DEPTH => {
                let (kind, length) = (self.u32()?, self.length()?);
                let mut list = Vec::new(); // grows as values come: a length alone takes no memory
                for _ in 0..length {
                    list.push(self.value(kind, key, depth + 1)?);
                }
                list.into()
            }
            10 => self.u64()?.into(),
            11 => self.number().map(i64::from_le_bytes)?.into(),
            12 => self.number().map(f64::from_le_bytes)?.into(),
            _ => {
                let fault = format!("has an unreadable `{key}`");
                let expected = format!("a value of type 0 to 12, lists at most {MAX_DEPTH} deep");
                return Err(self.fault(fault, &expected, format!("type {kind}, {depth} deep"), CUT));
            }
        })
    }

    /// Name, shape, type and offset among the data.
    fn tensor(&mut self) -> Result<(String, Entry)> {
        let name = self.text()?;
        let axes = self.u32()? as usize;
        if axes > MAX_AXES {
            let fault = format!("has an unreadable tensor `{name}`");
            return Err(self.fault(fault, &format!("at most {MAX_AXES} axes"), axes.to_string(), CUT));
        }
        let mut shape = (0..axes).map(|_| self.length()).collect::<Result<Vec<_>>>()?;
        shape.reverse();
        let number = self.u32()?;
        let known = TYPES.iter().find(|(of, _, _)| *of == number);
        let Some((_, type_name, Some(dtype))) = known else {
            let got = known.map_or_else(|| format!("type {number}"), |(_, name, _)| (*name).to_owned());
            let fault = format!("holds `{name}` in a number type that is not supported");
            return Err(self.fault(fault, READ, got, "quantise the model to another type"));
        };
        let offset = self.length()?;
        let numbers = shape.iter().try_fold(1usize, |all, length| all.checked_mul(*length)).filter(|all| *all > 0);
        let row = shape.last().copied().unwrap_or(1);
        let (block, bytes) = (dtype.block_size(), dtype.type_size());
        let size = numbers.filter(|_| row.is_multiple_of(block)).and_then(|all| (all / block).checked_mul(bytes));
        let end = size.and_then(|size| offset.checked_add(size));
        let Some(end) = end else {
            let expected = format!("rows of a multiple of {block} numbers, some and no more than memory can address");
            let fault = format!("has an unreadable tensor `{name}`");
            return Err(self.fault(fault, &expected, format!("{shape:?} of {type_name}"), CUT));
        };
        Ok((name, Entry { type_name, dtype: *dtype, shape, range: offset..end }))
    }

    /// The tensors by name, where they lie in the file.
    fn place(&self, found: Vec<(String, Entry)>, metadata: &Map<String, Value>) -> Result<BTreeMap<String, Entry>> {
        let key = "general.alignment";
        let alignment = metadata.get(key).map_or(Some(ALIGNMENT), |given| given.as_u64().map(|n| n as usize));
        let Some(alignment) = alignment.filter(|n| n.is_power_of_two() && *n <= 1 << 20) else {
            let got = metadata[key].to_string();
            return Err(self.fault(format!("has an unusable `{key}`"), "a power of two", got, CUT));
        };
        let start = self.at.next_multiple_of(alignment);
        let mut entries = BTreeMap::new();
        for (name, mut entry) in found {
            let end = start.checked_add(entry.range.end).filter(|end| *end <= self.bytes.len());
            let Some(end) = end else {
                let expected = format!("{} bytes at byte {} behind {start}", entry.range.len(), entry.range.start);
                let got = format!("a file of {} bytes", self.bytes.len());
                return Err(self.fault(format!("ends before the end of tensor `{name}`"), &expected, got, CUT));
            };
            entry.range = start + entry.range.start..end;
            if entries.contains_key(&name) {
                let (expected, got) = ("each tensor once", "two of this name".to_owned());
                return Err(self.fault(format!("has tensor `{name}` twice"), expected, got, CUT));
            }
            entries.insert(name, entry);
        }
        Ok(entries)
    }
}
