//! A GGUF file's tensors as parameters.
//!
//! Matrices in F32, F16, BF16, Q8_0 and Q4_K are used where they lie in the map. Other block types are widened by candle,
//! exactly, and held in f16 of our own memory, or in what was asked for. Queries and keys of the architecture `llama` are
//! copied too: in these files, their rows stand in the order of another way to write rotary positions.

use super::architecture::ROPE_FACTORS;
use super::{Entry, Gguf};
use crate::nn::{Part, Weight};
use crate::pretrained::Architecture;
use crate::pretrained::checkpoint::{Names, sample};
use crate::pretrained::names::Layout;
use crate::weights::{Init, Source, nearest};
use crate::{Error, Result};
use candle_core::quantized::{GgmlDType, ggml_file};
use candle_core::{DType, Device, Tensor};
use lare_kernels::{Bytes, Format, Matrix};
use memmap2::Mmap;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// What a matrix in a type without kernels of its own is held in.
const WIDENED: Format = Format::F16;
/// What any block is aligned to, in bytes.
const ALIGNMENT: usize = 16;
/// Rows that are widened at once.
const ROWS: usize = 4096;
const OTHER: &str = "the file is damaged, or its architecture is another one; convert the model again";

/// The format of types that are used as they are stored.
fn in_place(dtype: GgmlDType) -> Option<Format> {
    match dtype {
        GgmlDType::F32 => Some(Format::F32),
        GgmlDType::F16 => Some(Format::F16),
        GgmlDType::BF16 => Some(Format::Bf16),
        GgmlDType::Q8_0 => Some(Format::Q8_0),
        GgmlDType::Q4K => Some(Format::Q4K),
        _ => None,
    }
}

/// What the weights of a file take as they are loaded by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes that are used where they lie in the file.
    pub mapped: usize,
    /// Bytes of memory for what is copied or widened.
    pub own: usize,
    /// Types that are widened, and to what.
    pub widened: Vec<(&'static str, Format)>,
}

impl Gguf {
    /// What its weights take as they are loaded by default.
    #[must_use]
    pub fn held(&self, architecture: &Architecture) -> Held {
        let mut held = Held::default();
        for (name, entry) in &self.entries {
            let numbers: usize = entry.shape.iter().product();
            match (in_place(entry.dtype), entry.shape.len() > 1) {
                (_, false) => held.own += numbers * size_of::<f32>(),
                (Some(_), true) if heads_of(architecture, name).is_none() => held.mapped += entry.range.len(),
                (Some(_), true) => held.own += entry.range.len(),
                (None, true) => {
                    held.own += numbers * WIDENED.block_bytes();
                    if !held.widened.iter().any(|(widened, _)| *widened == entry.type_name) {
                        held.widened.push((entry.type_name, WIDENED));
                    }
                }
            }
        }
        held
    }

    /// As [`crate::pretrained::checkpoint::Checkpoint::fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (name, entry) in &self.entries {
            hash.update(format!("{name} {} {:?}\n", entry.type_name, entry.shape));
            sample(&mut hash, &self.map[entry.range.clone()]);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<&Entry> {
        let fault = |fault: String, got: String| self.fault(fault, format!("{shape:?}"), got, OTHER);
        let Some(entry) = self.entries.get(name) else {
            let nearest = nearest(name, self.entries.keys());
            return Err(fault(format!("has no tensor `{name}`"), format!("none; the nearest is {nearest}")));
        };
        if entry.shape != shape {
            return Err(fault(format!("has tensor `{name}` in the wrong shape"), format!("{:?}", entry.shape)));
        }
        Ok(entry)
    }

    /// A tensor as f32.
    pub(super) fn numbers(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let entry = self.entry(name, shape)?;
        widened(entry.dtype, &self.map[entry.range.clone()], shape)
    }
}

/// Numbers of any type as f32.
fn widened(dtype: GgmlDType, bytes: &[u8], shape: &[usize]) -> Result<Tensor> {
    let float = match dtype {
        GgmlDType::F32 => Some(DType::F32),
        GgmlDType::F16 => Some(DType::F16),
        GgmlDType::BF16 => Some(DType::BF16),
        _ => None,
    };
    if let Some(float) = float {
        return Ok(Tensor::from_raw_buffer(bytes, float, shape, &Device::Cpu)?.to_dtype(DType::F32)?);
    }
    // candle reads blocks through a pointer to them, which must be aligned; in a file they need not be.
    let mut copy = vec![0u8; bytes.len() + ALIGNMENT];
    let start = copy.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let blocks = &mut copy[start..start + bytes.len()];
    blocks.copy_from_slice(bytes);
    Ok(ggml_file::qtensor_from_ggml(dtype, blocks, shape.to_vec(), &Device::Cpu)?.dequantize(&Device::Cpu)?)
}

/// The heads in a matrix whose rows stand in another order than here.
fn heads_of(architecture: &Architecture, name: &str) -> Option<usize> {
    let (shape, llama) = (&architecture.language, architecture.family == "llama");
    let of = |suffix| llama && name.ends_with(suffix);
    if of(".attn_q.weight") {
        Some(shape.heads)
    } else if of(".attn_k.weight") {
        Some(shape.kv_heads)
    } else {
        None
    }
}

/// Rows of `heads` heads as this crate has them: in the file, the two halves that turn together lie one row in turn.
fn in_halves(bytes: &[u8], heads: usize, rows: usize) -> Vec<u8> {
    let (row_bytes, half) = (bytes.len() / rows.max(1), rows / heads.max(1) / 2);
    let mut ordered = Vec::with_capacity(bytes.len());
    for head in 0..heads {
        for side in 0..2 {
            for pair in 0..half {
                let row = head * 2 * half + 2 * pair + side;
                ordered.extend_from_slice(&bytes[row * row_bytes..(row + 1) * row_bytes]);
            }
        }
    }
    ordered
}

/// A map as bytes that others can hold.
struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A file's tensors, asked for by this crate's names; remembers what was used.
pub(in crate::pretrained) struct Weights<'a> {
    gguf: &'a Gguf,
    architecture: &'a Architecture,
    format: Option<Format>,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Weights<'a> {
    /// Matrices are converted to `format`, unless it is `None`.
    pub fn new(gguf: &'a Gguf, architecture: &'a Architecture, format: Option<Format>) -> Self {
        Self { gguf, architecture, format, used: RefCell::default() }
    }

    /// Refuses tensors that the model has no place for: biases of another variant of the architecture, for example.
    ///
    /// # Errors
    /// [`Error::Gguf`] with the first.
    pub fn refuse_unused(&self) -> Result<()> {
        let used = self.used.borrow();
        let mut unused = self.gguf.entries.iter().filter(|(name, _)| !used.contains(*name) && *name != ROPE_FACTORS);
        match unused.next() {
            None => Ok(()),
            Some((name, entry)) => {
                let fault = format!("holds tensor `{name}`, which the model has no place for");
                let expected = format!("the tensors of {}", self.architecture.family);
                let got = format!("{:?}, and {} more", entry.shape, unused.count());
                Err(self.gguf.fault(fault, expected, got, "this variant of the architecture is not supported"))
            }
        }
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<&'a Entry> {
        let entry = self.gguf.entry(name, shape)?;
        self.used.borrow_mut().insert(name.into());
        Ok(entry)
    }

    fn stored(&self, name: &str, rows: usize, inputs: usize) -> Result<Matrix> {
        let entry = self.entry(name, &[rows, inputs])?;
        let (bytes, range): (Bytes, Range<usize>) = match heads_of(self.architecture, name) {
            None => (Arc::new(Mapped(self.gguf.map.clone())), entry.range.clone()),
            Some(heads) => {
                let ordered = in_halves(&self.gguf.map[entry.range.clone()], heads, rows);
                let range = 0..ordered.len();
                (Arc::new(ordered), range)
            }
        };
        let wanted = self.format.filter(|wanted| inputs.is_multiple_of(wanted.block_length()));
        let Some(format) = in_place(entry.dtype) else {
            return in_format(entry.dtype, &(*bytes).as_ref()[range], [rows, inputs], wanted.unwrap_or(WIDENED));
        };
        let matrix = Matrix::stored(bytes, range, format, rows, inputs)?;
        Ok(match wanted {
            Some(wanted) if wanted != format => matrix.to_format(wanted)?,
            _ => matrix,
        })
    }
}

/// A matrix of a type without kernels, in a format that has some.
fn in_format(dtype: GgmlDType, bytes: &[u8], [rows, inputs]: [usize; 2], format: Format) -> Result<Matrix> {
    let row_bytes = bytes.len() / rows.max(1);
    let part = |bytes: &[u8]| -> Result<Matrix> {
        let shape = [bytes.len() / row_bytes.max(1), inputs];
        Ok(Matrix::from_tensor(&widened(dtype, bytes, &shape)?)?.to_format(format)?)
    };
    let parts = bytes.par_chunks(row_bytes.max(1) * ROWS).map(part).collect::<Result<Vec<_>>>()?;
    Ok(Matrix::beside(&parts)?)
}

impl Source for Weights<'_> {
    fn tensor(&self, name: &str, shape: &[usize], _: Init) -> Result<Tensor> {
        let names = Layout::Gguf.of_ours(name, &[]);
        let mut rest = shape.first().copied().unwrap_or(0);
        let mut parts = Vec::with_capacity(names.len());
        for name in &names {
            // A part's own length, as far as the whole has room for it: the last must fill it.
            let own = self.gguf.entries.get(name).and_then(|entry| entry.shape.first().copied());
            let length = if names.len() == 1 { rest } else { own.unwrap_or(rest).min(rest) };
            rest -= length;
            let expected: Vec<usize> = std::iter::once(length).chain(shape.iter().skip(1).copied()).collect();
            self.entry(name, &expected)?;
            parts.push(self.gguf.numbers(name, &expected)?);
        }
        if rest > 0 {
            let (expected, got) = (format!("{shape:?}"), format!("{rest} numbers fewer"));
            return Err(self.gguf.fault(
                format!("has too little in `{}`", names.join("` with `")),
                expected,
                got,
                OTHER,
            ));
        }
        Ok(if let [one] = &parts[..] { one.clone() } else { Tensor::cat(&parts, 0)? })
    }

    fn matrix(&self, name: &str, parts: &[Part], inputs: usize, _: Init) -> Result<Weight> {
        let names = Layout::Gguf.of_ours(name, parts);
        let parts = names.iter().zip(parts).map(|(name, part)| self.stored(name, part.rows, inputs));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        Ok(Weight::from(if let [one] = &parts[..] { one.clone() } else { Matrix::beside(&parts)? }))
    }
}

/// What these files cannot be used for.
pub(in crate::pretrained) fn refuse_to_write(gguf: &Gguf) -> Error {
    let (expected, got) = ("a Hugging Face folder".to_owned(), "a GGUF file".to_owned());
    gguf.fault("cannot be written again with changes".into(), expected, got, "name the folder it was made from")
}
