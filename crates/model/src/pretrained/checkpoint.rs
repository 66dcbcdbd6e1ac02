//! The weights of a Hugging Face folder: `model.safetensors`, or shards with an index, mapped into memory.
//!
//! Matrices stay where they are in the file; norms, biases and convolutions, which are small, are copied as f32.

use super::gguf::{Gguf, is_gguf};
use crate::nn::{Part, Weight};
use crate::weights::{Init, Source, nearest};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use lare_kernels::{Bytes, Format, Matrix};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, View};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One file.
const WHOLE: &str = "model.safetensors";
/// Which shard has which tensor.
const INDEX: &str = "model.safetensors.index.json";

/// Places of a tensor that its fingerprint reads.
const SAMPLES: usize = 5;
/// Bytes at each.
const SAMPLE: usize = 256;

/// A tensor in a file.
#[derive(Clone, Debug)]
struct Entry {
    file: usize,
    /// Its name there.
    stored_as: String,
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// What a checkpoint calls what this crate calls otherwise.
pub trait Names {
    /// The name that newer files use for a name as it stands in a file.
    fn of_stored(&self, stored: &str) -> String;

    /// The tensors that make up `ours`, in order: for a matrix with parts one for each.
    fn of_ours(&self, ours: &str, parts: &[Part]) -> Vec<String>;
}

/// A folder's tensors.
pub struct Checkpoint<'a> {
    names: &'a dyn Names,
    files: Vec<(PathBuf, Arc<Mmap>)>,
    entries: BTreeMap<String, Entry>,
    used: RefCell<BTreeSet<String>>,
    format: Option<Format>,
    /// Matrices that stay as they are whatever `format` says.
    exact: fn(&str) -> bool,
}

/// A map as bytes that others can hold.
struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn unreadable(path: &Path, reason: impl ToString, hint: &str) -> Error {
    Error::Read { path: path.into(), reason: reason.to_string(), hint: hint.into() }
}

/// Adds a sample of a tensor's bytes to a fingerprint.
pub(super) fn sample(hash: &mut Sha256, data: &[u8]) {
    let last = data.len().saturating_sub(SAMPLE);
    for sample in 0..SAMPLES {
        let start = last / (SAMPLES - 1) * sample;
        hash.update(&data[start..data.len().min(start + SAMPLE)]);
    }
}

/// A tensor to be written.
enum Written<'a> {
    /// As it lies in another file.
    As(Dtype, &'a [usize], &'a [u8]),
    Sum(Tensor),
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::As(dtype, ..) => *dtype,
            Self::Sum(sum) => View::dtype(sum),
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::As(_, shape, _) => shape,
            Self::Sum(sum) => View::shape(sum),
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::As(.., data) => Cow::Borrowed(data),
            Self::Sum(sum) => View::data(sum),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::As(.., data) => data.len(),
            Self::Sum(sum) => View::data_len(sum),
        }
    }
}

/// Names as they stand in the files.
struct AsStored;

impl Names for AsStored {
    fn of_stored(&self, stored: &str) -> String {
        stored.into()
    }

    fn of_ours(&self, ours: &str, _: &[Part]) -> Vec<String> {
        vec![ours.into()]
    }
}

/// A tensor as it lies in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name there.
    pub name: String,
    /// Its number type, as in `BF16`.
    pub number_type: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// Every tensor of a folder or GGUF file, in order of their names.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Gguf::open`].
pub fn listed(folder: &Path) -> Result<Vec<Listed>> {
    if is_gguf(folder) {
        return Ok(Gguf::open(folder)?.listed());
    }
    let checkpoint = Checkpoint::open(folder, &AsStored, None, |_| false)?;
    let of = |entry: &Entry| Listed {
        name: entry.stored_as.clone(),
        number_type: format!("{:?}", entry.dtype),
        shape: entry.shape.clone(),
    };
    Ok(checkpoint.entries.values().map(of).collect())
}

impl<'a> Checkpoint<'a> {
    /// Maps the folder's weights. Matrices are converted to `format` when they are taken, unless it is `None` or `exact`
    /// says of a name that they are not to be.
    ///
    /// # Errors
    /// Names the file that is missing, cut short or damaged, or the tensor that an index places in another file.
    pub fn open(folder: &Path, names: &'a dyn Names, format: Option<Format>, exact: fn(&str) -> bool) -> Result<Self> {
        let mut all =
            Self { names, files: Vec::new(), entries: BTreeMap::new(), used: RefCell::default(), format, exact };
        let index = folder.join(INDEX);
        if folder.join(WHOLE).is_file() {
            all.add(&folder.join(WHOLE))?;
        } else if index.is_file() {
            all.add_shards(folder, &index)?;
        } else {
            let hint = format!(
                "a model folder holds {WHOLE}, or shards with {INDEX}; files of PyTorch (.bin, .pth) are not read"
            );
            return Err(unreadable(&folder.join(WHOLE), "there is no such file", &hint));
        }
        Ok(all)
    }

    fn add_shards(&mut self, folder: &Path, index: &Path) -> Result<()> {
        let refused = |fault: String, expected: &str, got: String| Error::Index {
            index: index.display().to_string(),
            fault,
            expected: expected.into(),
            got,
        };
        let text = std::fs::read_to_string(index).map_err(|e| unreadable(index, e, "check its permissions"))?;
        let parsed: serde_json::Value = serde_json::from_str(&text)
            .map_err(|e| refused("is not whole".into(), "one JSON object", e.to_string()))?;
        let map = parsed.get("weight_map").and_then(|map| map.as_object()).ok_or_else(|| {
            let got = parsed
                .as_object()
                .map_or("no object".into(), |fields| format!("{:?}", fields.keys().collect::<Vec<_>>()));
            refused("places no tensors".into(), "an object `weight_map`: the file of each tensor", got)
        })?;
        let mut shards = BTreeMap::new();
        for (tensor, shard) in map {
            // A name with a path in it would leave the folder.
            let name = shard.as_str().filter(|name| !name.contains(['/', '\\']) && *name != "..").ok_or_else(|| {
                let fault = format!("places `{tensor}` outside its folder");
                refused(fault, "the name of a file beside the index", shard.to_string())
            })?;
            shards.insert(tensor, name);
        }
        for shard in shards.values().collect::<BTreeSet<_>>() {
            self.add(&folder.join(shard)).map_err(|error| match error {
                Error::Read { path, reason, .. } => {
                    Error::Read { path, reason, hint: format!("{INDEX} names it; fetch the whole folder again") }
                }
                other => other,
            })?;
        }
        for (tensor, shard) in shards {
            let found = self.entries.get(&self.names.of_stored(tensor));
            let found = found.and_then(|entry| self.files[entry.file].0.file_name()?.to_str());
            if found != Some(shard) {
                let got = found.map_or("in none of its files".into(), |file| format!("in {file}"));
                return Err(refused(format!("misplaces `{tensor}`"), &format!("in {shard}"), got));
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| unreadable(path, e, "check the path and its permissions"))?;
        // SAFETY: the map is read-only. If another program cuts the file short meanwhile, a read ends this one with a
        // signal; that is the price of not holding a second copy, and every program that maps weights pays it.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| unreadable(path, e, "check that it is a file"))?;
        let damaged = |reason: String| Error::Damaged { file: name.clone(), reason };
        let archive = SafeTensors::deserialize(&map).map_err(|e| damaged(e.to_string()))?;
        for (stored_as, view) in archive.tensors() {
            let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
            let entry = Entry {
                file: self.files.len(),
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                range: start..start + view.data().len(),
                stored_as: stored_as.clone(),
            };
            if self.entries.insert(self.names.of_stored(&stored_as), entry).is_some() {
                return Err(damaged(format!("`{stored_as}` is there twice, here or in another shard")));
            }
        }
        self.files.push((path.into(), Arc::new(map)));
        Ok(())
    }

    /// Whether both tensors are there and hold different numbers.
    pub(super) fn differ(&self, one: &str, other: &str) -> Result<bool> {
        let (Some(one), Some(other)) = (self.entries.get(one), self.entries.get(other)) else { return Ok(false) };
        let data = |entry: &Entry| &self.files[entry.file].1[entry.range.clone()];
        Ok((one.dtype, &one.shape) != (other.dtype, &other.shape) || data(one) != data(other))
    }

    /// SHA-256 over every tensor's name, number type and shape, and a sample of its bytes, in hex: it is the same for the same
    /// weights in other files, in shards or under the names of older files, and another one after any training. A sample,
    /// because a model of gigabytes would otherwise be read from end to end each time it is loaded.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (name, entry) in &self.entries {
            hash.update(format!("{name} {:?} {:?}\n", entry.dtype, entry.shape));
            sample(&mut hash, &self.files[entry.file].1[entry.range.clone()]);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes all files again into the folder `to`, with `changes` added to the tensors of these names.
    ///
    /// # Errors
    /// [`Error::Write`] with the file; [`Error::NumberType`] for a tensor that nothing can be added to.
    pub(crate) fn write_changed(&self, to: &Path, changes: &BTreeMap<String, Tensor>) -> Result<()> {
        for (number, (path, map)) in self.files.iter().enumerate() {
            let mut views = Vec::new();
            for (name, entry) in self.entries.iter().filter(|(_, entry)| entry.file == number) {
                let data = &map[entry.range.clone()];
                let view = match changes.get(name) {
                    None => Written::As(entry.dtype, &entry.shape, data),
                    Some(change) => {
                        let (dtype, _) = self.number_type(entry)?;
                        let before = Tensor::from_raw_buffer(data, dtype, &entry.shape, &Device::Cpu)?;
                        Written::Sum((before.to_dtype(DType::F32)? + change)?.to_dtype(dtype)?)
                    }
                };
                views.push((entry.stored_as.as_str(), view));
            }
            let path = to.join(path.file_name().unwrap_or_default());
            // What transformers asks for in a file.
            let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
            safetensors::serialize_to_file(views, Some(about), &path)
                .map_err(|e| Error::Write { path: path.clone(), reason: e.to_string() })?;
        }
        Ok(())
    }

    /// Names in the files that nothing asked for.
    pub fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        let unused = self.entries.iter().filter(|(name, _)| !used.contains(*name));
        unused.map(|(_, entry)| entry.stored_as.clone()).collect()
    }

    /// The entry `name`, which must have rows `[first, ..]` and `numbers` numbers in all.
    fn entry(&self, name: &str, shape: &[usize], flat: bool) -> Result<&Entry> {
        let entry = self.entries.get(name).ok_or_else(|| Error::Missing {
            file: self.file_names(),
            name: name.into(),
            expected: shape.to_vec(),
            nearest: nearest(name, self.entries.values().map(|entry| &entry.stored_as)),
        })?;
        // The filters of a convolution are a matrix here, whose rows they already are.
        let same = entry.shape == shape
            || flat
                && entry.shape.first() == shape.first()
                && entry.shape.iter().product::<usize>() == shape.iter().product::<usize>();
        if !same {
            return Err(Error::WrongShape {
                file: self.files[entry.file].0.display().to_string(),
                name: entry.stored_as.clone(),
                expected: shape.to_vec(),
                got: entry.shape.clone(),
            });
        }
        self.used.borrow_mut().insert(name.into());
        Ok(entry)
    }

    fn file_names(&self) -> String {
        let names: Vec<String> = self.files.iter().map(|(path, _)| path.display().to_string()).collect();
        names.join(", ")
    }

    fn number_type(&self, entry: &Entry) -> Result<(DType, Format)> {
        match entry.dtype {
            Dtype::F32 => Ok((DType::F32, Format::F32)),
            Dtype::F16 => Ok((DType::F16, Format::F16)),
            Dtype::BF16 => Ok((DType::BF16, Format::Bf16)),
            other => Err(Error::NumberType {
                file: self.files[entry.file].0.display().to_string(),
                name: entry.stored_as.clone(),
                got: format!("{other:?}"),
            }),
        }
    }

    fn stored(&self, name: &str, rows: usize, inputs: usize) -> Result<Matrix> {
        let entry = self.entry(name, &[rows, inputs], true)?;
        let (_, format) = self.number_type(entry)?;
        let bytes: Bytes = Arc::new(Mapped(self.files[entry.file].1.clone()));
        let matrix = Matrix::stored(bytes, entry.range.clone(), format, rows, inputs)?;
        match self.format {
            // A row that is no whole number of blocks cannot be quantised.
            Some(wanted) if wanted != format && !(self.exact)(name) && inputs.is_multiple_of(wanted.block_length()) => {
                Ok(matrix.to_format(wanted)?)
            }
            _ => Ok(matrix),
        }
    }
}

impl Source for Checkpoint<'_> {
    fn tensor(&self, name: &str, shape: &[usize], _: Init) -> Result<Tensor> {
        let names = self.names.of_ours(name, &[]);
        let mut parts = Vec::with_capacity(names.len());
        let mut rest = shape.first().copied().unwrap_or(0);
        for name in &names {
            // A part's own length, as far as the whole has room for it: the last must fill it.
            let own = self.entries.get(name).and_then(|entry| entry.shape.first().copied());
            let rows = if names.len() == 1 { rest } else { own.unwrap_or(rest).min(rest) };
            rest -= rows;
            let expected: Vec<usize> = std::iter::once(rows).chain(shape.iter().skip(1).copied()).collect();
            let entry = self.entry(name, &expected, false)?;
            let (dtype, _) = self.number_type(entry)?;
            let data = &self.files[entry.file].1[entry.range.clone()];
            parts.push(Tensor::from_raw_buffer(data, dtype, &entry.shape, &Device::Cpu)?.to_dtype(DType::F32)?);
        }
        let whole = if let [one] = &parts[..] { one.clone() } else { Tensor::cat(&parts, 0)? };
        if whole.dims() != shape {
            return Err(Error::WrongShape {
                file: self.file_names(),
                name: names.join(" with "),
                expected: shape.to_vec(),
                got: whole.dims().to_vec(),
            });
        }
        Ok(whole)
    }

    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, _: Init) -> Result<Weight> {
        let names = self.names.of_ours(name, parts);
        let parts = names.iter().zip(parts).map(|(name, part)| self.stored(name, part.rows, inputs));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        Ok(Weight::from(if let [one] = &parts[..] { one.clone() } else { Matrix::beside(&parts)? }))
    }
}
