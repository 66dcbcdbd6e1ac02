//! Matrix products with frozen weights as they are stored: bf16, f16, f32 or GGUF's blocks, in memory of our own or
//! inside a memory map that somebody else keeps alive. No second copy is made.
//!
//! A model of billions of parameters is slow on a CPU because every weight is read for every token. So weights are
//! read once for up to 64 rows, in as few bytes as they are stored in, and become f32 in registers (`vector.rs`); on the
//! way back, in panels that stay in a core's cache (`panel.rs`). Shapes: `R` rows of activations, `[R, I]`, and weights `[O, I]`.

mod activations;
mod feed_forward;
mod format;
mod linear;
mod panel;
mod quantise;
mod vector;

pub use feed_forward::feed_forward_stored;
pub use format::Format;
pub use linear::linear_stored;

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

use crate::buffer::{filled, for_rows};

/// Bytes that somebody keeps alive: a memory map, a buffer.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Bytes of a cache line: where weights of our own begin.
const LINE: usize = 64;

/// Frozen weights `[O, I]` as stored. Its rows may lie in several places and formats (q, k and v; gate and up).
///
/// A clone shares the bytes.
#[derive(Clone)]
pub struct Matrix {
    parts: Arc<[Part]>,
    outputs: usize,
    inputs: usize,
}

/// Rows that lie together.
#[derive(Clone)]
struct Part {
    bytes: Bytes,
    range: Range<usize>,
    format: Format,
    rows: usize,
}

/// Rows of one part: bytes, `row_bytes` a row.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    format: Format,
    pub bytes: &'a [u8],
    row_bytes: usize,
    /// The first one's number in the matrix.
    first: usize,
}

impl<'a> Rows<'a> {
    fn count(&self) -> usize {
        self.bytes.len() / self.row_bytes
    }

    fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes..][..self.row_bytes]
    }

    /// Weights of row `row` as f32, from number `start`, where a block begins.
    fn widen(&self, row: usize, start: usize, out: &mut [f32]) {
        let [start, length] = [start, out.len()].map(|values| self.format.bytes_of_values(values));
        self.format.widen(&self.row(row)[start..start + length], out);
    }

    /// Panels of at most `count` of them.
    fn panels(self, count: usize) -> impl Iterator<Item = Self> {
        (0..self.count()).step_by(count).map(move |row| self.some(row, count))
    }

    /// At most `count` of them, from `row` on.
    fn some(&self, row: usize, count: usize) -> Self {
        let end = self.count().min(row + count);
        Self { bytes: &self.bytes[row * self.row_bytes..end * self.row_bytes], first: self.first + row, ..*self }
    }
}

impl Matrix {
    /// The weights in `bytes[range]`, `outputs` rows of `inputs` weights, at any alignment.
    ///
    /// # Errors
    /// When the range is not within the bytes, is not as long as the weights are, or a row is not a whole number of
    /// the format's blocks.
    pub fn stored(bytes: Bytes, range: Range<usize>, format: Format, outputs: usize, inputs: usize) -> Result<Self> {
        if inputs == 0 {
            bail!("stored weights: expected rows of at least one weight, got [{outputs}, 0]")
        }
        let expected = format.bytes_of(outputs, inputs)?;
        let there = (*bytes).as_ref().len();
        if range.start > range.end || range.end > there {
            bail!("stored weights: expected a range within {there} bytes, got {range:?}")
        }
        if range.len() != expected {
            bail!(
                "stored weights: expected {expected} bytes for {} [{outputs}, {inputs}], got {} ({range:?})",
                format.name(),
                range.len()
            )
        }
        let part = Part { bytes, range, format, rows: outputs };
        Ok(Self { parts: [part].into(), outputs, inputs })
    }

    /// A copy of a tensor `[O, I]` in its own format: f32, bf16 or f16.
    ///
    /// # Errors
    /// When the tensor has another dtype or not two axes.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let (outputs, inputs) = tensor.dims2()?;
        let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        let (start, length) = (layout.start_offset(), outputs * inputs);
        let Storage::Cpu(storage) = &*storage else { bail!("stored weights: expected a tensor on the CPU") };
        let (format, bytes) = match storage {
            CpuStorage::F32(all) => (Format::F32, little_endian(&all[start..][..length], |x| x.to_le_bytes())),
            CpuStorage::F16(all) => (Format::F16, little_endian(&all[start..][..length], |x| x.to_le_bytes())),
            CpuStorage::BF16(all) => (Format::Bf16, little_endian(&all[start..][..length], |x| x.to_le_bytes())),
            _ => bail!("stored weights: expected f32, bf16 or f16, got {:?}; convert with to_dtype", tensor.dtype()),
        };
        Self::owned(bytes, format, outputs, inputs)
    }

    /// The same weights in another format, in memory of their own; parts that have it already are shared.
    ///
    /// Floats are rounded to the nearest; Q8_0 has the bytes of ggml's reference; Q4_K is a least-squares search.
    ///
    /// # Errors
    /// When a row is not a whole number of the format's blocks.
    pub fn to_format(&self, format: Format) -> Result<Self> {
        if self.parts.iter().all(|part| part.format == format) {
            return Ok(self.clone());
        }
        let length = format.bytes_of(self.outputs, self.inputs)?;
        let row_bytes = format.bytes_of(1, self.inputs)?;
        let bytes = aligned(length, |bytes| {
            bytes.par_chunks_mut(row_bytes).enumerate().for_each_init(
                || vec![0.0; self.inputs],
                |row, (output, bytes)| {
                    self.widen_row(output, row);
                    format.narrow(row, bytes);
                },
            );
        });
        Self::owned(bytes, format, self.outputs, self.inputs)
    }

    /// Rows of several matrices one after another, shared and not copied.
    ///
    /// # Errors
    /// When there are none, or their widths differ.
    pub fn beside(parts: &[Self]) -> Result<Self> {
        let Some(first) = parts.first() else { bail!("stored weights: expected matrices to put together, got none") };
        if let Some(other) = parts.iter().find(|part| part.inputs != first.inputs) {
            bail!("stored weights: expected matrices of {} inputs, got one of {}", first.inputs, other.inputs)
        }
        let outputs = parts.iter().map(|part| part.outputs).sum();
        let parts = parts.iter().flat_map(|part| part.parts.iter().cloned()).collect();
        Ok(Self { parts, outputs, inputs: first.inputs })
    }

    /// `O`.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `I`.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes that a product reads.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.range.len()).sum()
    }

    /// The formats of its parts, in order.
    pub fn formats(&self) -> Vec<Format> {
        self.parts.iter().map(|part| part.format).collect()
    }

    /// The rows `ids` as f32 on the CPU, `[N, I]`: embeddings of tokens.
    ///
    /// # Errors
    /// When an id is not a row.
    pub fn gather(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.outputs) {
            bail!("stored weights: expected ids below {}, got {id}", self.outputs)
        }
        let rows = filled(ids.len() * self.inputs, |out| {
            for_rows(out, self.inputs, |row, out| self.widen_row(ids[row] as usize, out));
        });
        Tensor::from_vec(rows, (ids.len(), self.inputs), &Device::Cpu)
    }

    /// All weights as f32, `[O, I]`: four bytes each, for tests and for devices without these kernels.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        let weights = filled(self.outputs * self.inputs, |out| {
            for_rows(out, self.inputs, |row, out| self.widen_row(row, out));
        });
        Tensor::from_vec(weights, (self.outputs, self.inputs), &Device::Cpu)?.to_device(device)
    }

    fn owned(bytes: Owned, format: Format, outputs: usize, inputs: usize) -> Result<Self> {
        let range = bytes.start..bytes.start + bytes.length;
        Self::stored(Arc::new(bytes.all), range, format, outputs, inputs)
    }

    /// Where its rows lie.
    /// A copy on another device in its own number type: f32, bf16 or f16; parts of different ones become f32.
    ///
    /// # Errors
    /// For weights in blocks of 8 or 4 bits, which only the CPU multiplies with.
    pub fn to_floats(&self, device: &Device) -> Result<Tensor> {
        let dtype = |format| match format {
            Format::F32 => Ok(DType::F32),
            Format::F16 => Ok(DType::F16),
            Format::Bf16 => Ok(DType::BF16),
            Format::Q8_0 | Format::Q4K => {
                bail!("{} weights are multiplied on the CPU alone; convert them to bf16, f16 or f32", format.name())
            }
        };
        let parts = self.parts.iter().map(|part| {
            let bytes = &(*part.bytes).as_ref()[part.range.clone()];
            Tensor::from_raw_buffer(bytes, dtype(part.format)?, &[part.rows, self.inputs], device)
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        if let [one] = &parts[..] {
            return Ok(one.clone());
        }
        let same = parts.iter().all(|part| part.dtype() == parts[0].dtype());
        let all = parts.iter().map(|part| if same { Ok(part.clone()) } else { part.to_dtype(DType::F32) });
        Tensor::cat(&all.collect::<Result<Vec<_>>>()?, 0)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = Rows<'_>> {
        let mut first = 0;
        self.parts.iter().map(move |part| {
            let bytes = &(*part.bytes).as_ref()[part.range.clone()];
            let rows = Rows { format: part.format, bytes, row_bytes: part.format.bytes_of_values(self.inputs), first };
            first += part.rows;
            rows
        })
    }

    /// Row `output` as f32, `[I]`.
    fn widen_row(&self, output: usize, out: &mut [f32]) {
        let rows = self.rows().find(|rows| output < rows.first + rows.count());
        if let Some(rows) = rows {
            rows.widen(output - rows.first, 0, out);
        }
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.parts.iter().map(|part| part.format.name()).collect();
        write!(f, "Matrix [{}, {}] {}", self.outputs, self.inputs, names.join(", "))
    }
}

/// Bytes of our own, which begin at a cache line.
struct Owned {
    all: Vec<u8>,
    start: usize,
    length: usize,
}

fn aligned(length: usize, fill: impl FnOnce(&mut [u8])) -> Owned {
    let mut all = vec![0; length + LINE];
    let start = all.as_ptr().align_offset(LINE).min(LINE);
    fill(&mut all[start..start + length]);
    Owned { all, start, length }
}

fn little_endian<T: Copy + Sync, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N] + Sync) -> Owned {
    /// Values that one task copies.
    const TASK: usize = 1 << 16;
    aligned(values.len() * N, |out| {
        out.par_chunks_mut(TASK * N).zip(values.par_chunks(TASK)).for_each(|(out, values)| {
            for (out, value) in out.as_chunks_mut::<N>().0.iter_mut().zip(values) {
                *out = bytes(*value);
            }
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    #[test]
    fn a_part_of_other_bytes_is_read_where_it_lies() {
        let values = random((3, 5), 1);
        let copied = Matrix::from_tensor(&values).unwrap();
        for format in [Format::F32, Format::F16, Format::Bf16] {
            let odd = stored(format, [3, 5], 1);
            assert_eq!(odd.bytes(), 15 * format.block_bytes());
            let copied = copied.to_format(format).unwrap();
            assert_eq!(bits(&odd.to_tensor(&Device::Cpu).unwrap()), bits(&copied.to_tensor(&Device::Cpu).unwrap()));
        }
        assert_eq!(bits(&copied.to_tensor(&Device::Cpu).unwrap()), bits(&values));
    }

    #[test]
    fn a_tensor_of_16_bits_is_copied_as_it_is() {
        for (dtype, format) in [(candle_core::DType::BF16, Format::Bf16), (candle_core::DType::F16, Format::F16)] {
            // A view that is neither contiguous nor at the start.
            let tensor = random((7, 4), 2).to_dtype(dtype).unwrap().t().unwrap().narrow(0, 1, 3).unwrap();
            let weights = Matrix::from_tensor(&tensor).unwrap();
            assert_eq!((weights.formats(), weights.bytes()), (vec![format], 3 * 7 * 2));
            let expected = tensor.to_dtype(candle_core::DType::F32).unwrap();
            assert_eq!(bits(&weights.to_tensor(&Device::Cpu).unwrap()), bits(&expected));
        }
    }

    #[test]
    fn rows_beside_each_other_and_gathered_are_those_of_their_parts() {
        let parts = Format::ALL.map(|format| stored(format, [3, 256], 3));
        let all = Matrix::beside(&parts).unwrap();
        assert_eq!((all.outputs(), all.inputs(), all.formats()), (15, 256, Format::ALL.to_vec()));
        assert_eq!(all.bytes(), parts.iter().map(Matrix::bytes).sum::<usize>());
        let tensors = parts.map(|part| part.to_tensor(&Device::Cpu).unwrap());
        let expected = Tensor::cat(&tensors, 0).unwrap();
        assert_eq!(bits(&all.to_tensor(&Device::Cpu).unwrap()), bits(&expected));
        let ids = [14, 0, 4, 4, 8, 11];
        let rows = expected.index_select(&Tensor::new(&ids, &Device::Cpu).unwrap(), 0).unwrap();
        assert_eq!(bits(&all.gather(&ids).unwrap()), bits(&rows));
        let converted = all.to_format(Format::Bf16).unwrap();
        assert_eq!(converted.formats(), [Format::Bf16]);
        let expected = expected.to_dtype(candle_core::DType::BF16).unwrap().to_dtype(candle_core::DType::F32).unwrap();
        assert_eq!(bits(&converted.to_tensor(&Device::Cpu).unwrap()), bits(&expected));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_was_given() {
        let bytes: Bytes = Arc::new(vec![0u8; 100]);
        let refused = |range, format, outputs, inputs| {
            Matrix::stored(bytes.clone(), range, format, outputs, inputs).unwrap_err().to_string()
        };
        let too_short = refused(0..20, Format::Bf16, 2, 6);
        assert!(too_short.contains("expected 24 bytes for BF16 [2, 6], got 20"), "{too_short}");
        let outside = refused(90..114, Format::Bf16, 2, 6);
        assert!(outside.contains("within 100 bytes, got 90..114"), "{outside}");
        let no_block = refused(0..34, Format::Q8_0, 1, 31);
        assert!(no_block.contains("a multiple of 32 weights, got 31"), "{no_block}");
        let huge = refused(0..100, Format::F32, usize::MAX, 6);
        assert!(huge.contains("more than memory"), "{huge}");
        assert!(refused(0..0, Format::F32, 6, 0).contains("at least one weight"));
        let weights = stored(Format::F32, [2, 6], 1);
        assert!(weights.to_format(Format::Q4K).is_err());
        assert!(weights.gather(&[1, 2]).unwrap_err().to_string().contains("ids below 2, got 2"));
        assert!(Matrix::beside(&[]).is_err());
        assert!(Matrix::beside(&[weights.clone(), stored(Format::F32, [2, 5], 1)]).is_err());
        assert!(Matrix::from_tensor(&random(3, 1)).is_err());
        assert!(Matrix::from_tensor(&random((3, 2), 1).to_dtype(candle_core::DType::F64).unwrap()).is_err());
    }
}
