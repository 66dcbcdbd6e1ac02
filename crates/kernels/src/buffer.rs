//! The border between candle tensors and plain slices: checked access in, fresh buffers out.
//!
//! A buffer that a kernel fills completely is handed out unwritten: zeroing it first is one more pass
//! over memory, and a third of a training step's time outside GEMM was such passes.

use candle_core::{CpuStorage, DType, Layout, Result, Tensor, bail};
use rayon::prelude::*;

/// Below this many elements a loop stays on the calling thread: so little work is done before a second
/// thread is awake. An estimate, not a measurement.
const PARALLEL_ELEMENTS: usize = 1 << 15;

/// The f32 elements of a contiguous CPU tensor as a kernel sees them, or an error naming `op`.
pub(crate) fn elements<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(all) = storage else {
        bail!("{op}: the fused kernel computes in f32 and was given another dtype; convert with to_dtype(DType::F32)")
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => bail!("{op}: expected a contiguous tensor, got strides {:?}", layout.stride()),
    }
}

/// Calls `body` with the elements of several contiguous f32 CPU tensors.
pub(crate) fn with_all<const N: usize, R>(
    op: &str,
    tensors: [&Tensor; N],
    body: impl FnOnce([&[f32]; N]) -> Result<R>,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices = [&[][..]; N];
    for ((storage, layout), slice) in guards.iter().zip(&mut slices) {
        *slice = match &**storage {
            candle_core::Storage::Cpu(storage) => elements(op, storage, layout)?,
            _ => bail!("{op}: expected tensors on the CPU"),
        };
    }
    body(slices)
}

/// A gradient shaped like the input it belongs to, computed only when something upstream wants it.
pub(crate) fn as_gradient(compute: impl FnOnce() -> Vec<f32>, input: &Tensor) -> Result<Option<Tensor>> {
    if !input.track_op() {
        return Ok(None);
    }
    Tensor::from_vec(compute(), input.shape(), input.device()).map(Some)
}

/// Refuses what the fused path does not compute: anything but f32.
pub(crate) fn require_f32(op: &str, tensors: &[&Tensor]) -> Result<()> {
    for tensor in tensors {
        if tensor.dtype() != DType::F32 {
            bail!(
                "{op}: the fused kernel computes in f32 and was given {:?}; convert with to_dtype(DType::F32)",
                tensor.dtype()
            )
        }
    }
    Ok(())
}

/// A buffer of `length` elements, filled by `fill`.
///
/// `fill` must write every element before it reads any: the buffer starts unwritten.
pub(crate) fn filled(length: usize, fill: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut buffer: Vec<f32> = Vec::with_capacity(length);
    // SAFETY: the allocation holds `length` f32, any bit pattern is a valid f32, and every caller in
    // this crate writes each element before reading it.
    unsafe {
        fill(std::slice::from_raw_parts_mut(buffer.as_mut_ptr(), length));
        buffer.set_len(length);
    }
    buffer
}

/// Runs `body(row, out)` for each `width`-wide row of `out`, in parallel where the work pays for it.
///
/// Each row is written by one call, so the result does not depend on the number of threads.
pub(crate) fn for_rows(out: &mut [f32], width: usize, body: impl Fn(usize, &mut [f32]) + Sync) {
    if width == 0 {
        return;
    }
    if out.len() < PARALLEL_ELEMENTS {
        out.chunks_exact_mut(width).enumerate().for_each(|(row, out)| body(row, out));
        return;
    }
    let rows_per_task = (PARALLEL_ELEMENTS / 4).div_ceil(width);
    out.par_chunks_mut(rows_per_task * width).enumerate().for_each(|(task, chunk)| {
        for (row, out) in chunk.chunks_exact_mut(width).enumerate() {
            body(task * rows_per_task + row, out);
        }
    });
}

/// Runs `body(unit)` for `0..units`, in parallel when all units together do enough arithmetic.
pub(crate) fn for_units(units: usize, operations: usize, body: impl Fn(usize) + Sync + Send) {
    // One multiply-add per element of memory traffic is the slowest case, hence the same threshold.
    if units < 2 || operations < PARALLEL_ELEMENTS {
        (0..units).for_each(body);
    } else {
        (0..units).into_par_iter().for_each(body);
    }
}

/// A mutable buffer written by several tasks at places that do not overlap.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    pointer: *mut f32,
    length: usize,
}

// SAFETY: the type only carries the pointer; each use promises disjoint places (see `slice`, `at`).
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Lends `buffer` out. The caller keeps it alive and untouched while tasks run.
    pub(crate) fn new(buffer: &mut [f32]) -> Self {
        Self { pointer: buffer.as_mut_ptr(), length: buffer.len() }
    }

    /// The elements `start..start + length`.
    ///
    /// # Safety
    /// No other task may touch these elements while the slice lives.
    pub(crate) unsafe fn slice<'a>(self, start: usize, length: usize) -> &'a mut [f32] {
        // SAFETY: in bounds by the assertion in `at`; unshared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(start, length), length) }
    }

    /// A pointer to element `start`, at least `length` elements from the end.
    ///
    /// # Safety
    /// What it is used for must not touch elements that another task touches.
    pub(crate) unsafe fn at(self, start: usize, length: usize) -> *mut f32 {
        assert!(start + length <= self.length);
        // SAFETY: in bounds by the assertion.
        unsafe { self.pointer.add(start) }
    }
}
