//! Matrix products on strided slices: GEMM for large ones, vector loops for a few rows.
//!
//! Row-major matrices whose rows are `stride` apart, so that one head of a packed tensor is a matrix
//! without being copied. GEMM packs its operands first, which up to [`FEW_ROWS`] rows are too few to
//! pay back.

use crate::lanes::{add_scaled, dot};
use gemm::{Parallelism, gemm};

/// At most this many rows are multiplied by vector loops.
pub(crate) const FEW_ROWS: usize = 8;
/// Products of fewer multiplications than this are computed in f32 whatever the precision: packing would cost more.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
const FEW_PRODUCTS: usize = 1 << 15;

/// A row-major matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    elements: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` rows of `columns` elements, the first at `elements[0]`, `stride` apart.
    pub(crate) fn new(elements: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * stride + columns <= elements.len());
        Self { elements, rows, columns, stride }
    }

    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        &self.elements[row * self.stride..][..self.columns]
    }
}

/// A row-major matrix to write to. It may interleave with matrices other tasks write, hence a pointer.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pointer: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
}

impl Target {
    /// A target over the whole of a slice that the caller owns for as long as it uses the target.
    pub(crate) fn new(elements: &mut [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * stride + columns <= elements.len());
        Self { pointer: elements.as_mut_ptr(), rows, columns, stride }
    }

    /// A target at `start` of a buffer that other tasks write elsewhere.
    ///
    /// # Safety
    /// While the target is in use no other task may touch its rows.
    pub(crate) unsafe fn within(
        buffer: crate::buffer::Shared,
        start: usize,
        [rows, columns, stride]: [usize; 3],
    ) -> Self {
        assert!(columns <= stride || rows < 2);
        let length = if rows == 0 { 0 } else { (rows - 1) * stride + columns };
        // SAFETY: the pointer stays within the buffer by the assertion in `at`.
        Self { pointer: unsafe { buffer.at(start, length) }, rows, columns, stride }
    }

    fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: in bounds by construction; this task alone holds the rows (see `within`).
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(row * self.stride), self.columns) }
    }

    /// Every row alike.
    pub(crate) fn fill_rows(&mut self, values: &[f32]) {
        (0..self.rows).for_each(|row| self.row(row).copy_from_slice(values));
    }

    /// All zeros.
    pub(crate) fn clear(&mut self) {
        (0..self.rows).for_each(|row| self.row(row).fill(0.0));
    }

    /// `self = scale * a * b^T` (or `+=`): `a` `[m, k]`, `b` `[n, k]`, self `[m, n]`.
    pub(crate) fn a_bt(&mut self, a: Matrix, b: Matrix, scale: f32, add: bool) {
        assert!(a.columns == b.columns && self.rows == a.rows && self.columns == b.rows);
        if a.rows > FEW_ROWS {
            return self.large([a, b], [false, true], scale, add);
        }
        for m in 0..a.rows {
            let a = a.row(m);
            for (n, out) in self.row(m).iter_mut().enumerate() {
                let value = scale * dot(a, b.row(n));
                *out = if add { *out + value } else { value };
            }
        }
    }

    /// `self = scale * a * b` (or `+=`): `a` `[m, k]`, `b` `[k, n]`, self `[m, n]`.
    pub(crate) fn a_b(&mut self, a: Matrix, b: Matrix, scale: f32, add: bool) {
        assert!(a.columns == b.rows && self.rows == a.rows && self.columns == b.columns);
        if a.rows > FEW_ROWS {
            return self.large([a, b], [false, false], scale, add);
        }
        for m in 0..a.rows {
            let out = self.row(m);
            if !add {
                out.fill(0.0);
            }
            for (k, &weight) in a.row(m).iter().enumerate() {
                add_scaled(out, scale * weight, b.row(k));
            }
        }
    }

    /// `self = scale * a^T * b` (or `+=`): `a` `[k, m]`, `b` `[k, n]`, self `[m, n]`.
    pub(crate) fn at_b(&mut self, a: Matrix, b: Matrix, scale: f32, add: bool) {
        assert!(a.rows == b.rows && self.rows == a.columns && self.columns == b.columns);
        if a.rows > FEW_ROWS {
            return self.large([a, b], [true, false], scale, add);
        }
        for m in 0..self.rows {
            let out = self.row(m);
            if !add {
                out.fill(0.0);
            }
            for k in 0..a.rows {
                add_scaled(out, scale * a.row(k)[m], b.row(k));
            }
        }
    }

    fn large(&mut self, ab: [Matrix; 2], transposed: [bool; 2], scale: f32, add: bool) {
        // SAFETY: this task alone holds the target's rows.
        unsafe { multiply(*self, ab, transposed, [scale, add as u8 as f32], Parallelism::None) }
    }

    /// The same three products on every core: for whole layers rather than heads.
    pub(crate) fn on_all_cores(self, ab: [Matrix; 2], transposed: [bool; 2], add: bool) {
        // SAFETY: as above.
        unsafe { multiply(self, ab, transposed, [1.0, add as u8 as f32], Parallelism::Rayon(0)) }
    }
}

/// `out = keep * out + scale * op(a) * op(b)`.
///
/// # Safety
/// No other task may touch `out`'s rows, and `out` must not overlap `a` or `b`.
unsafe fn multiply(
    out: Target,
    [a, b]: [Matrix; 2],
    transposed: [bool; 2],
    [scale, keep]: [f32; 2],
    parallelism: Parallelism,
) {
    // (rows, columns, step between columns, step between rows) of op(matrix)
    let view = |matrix: Matrix, transposed: bool| {
        let stride = matrix.stride as isize;
        if transposed { (matrix.columns, matrix.rows, stride, 1) } else { (matrix.rows, matrix.columns, 1, stride) }
    };
    let (m, k, a_columns, a_rows) = view(a, transposed[0]);
    let (b_k, n, b_columns, b_rows) = view(b, transposed[1]);
    assert!(k == b_k && out.rows == m && out.columns == n);
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if let Some(unit) = crate::precision::unit_in_use().filter(|_| m * n * k >= FEW_PRODUCTS) {
        let side = |start: &[f32], len, step: isize, along_k: isize| {
            let (step, along_k) = (step as usize, along_k as usize);
            crate::bf16::Side { start: start.as_ptr(), len, step, along_k }
        };
        let sides = [side(a.elements, m, a_rows, a_columns), side(b.elements, n, b_columns, b_rows)];
        let out = crate::bf16::Out { start: out.pointer, stride: out.stride, scale, add: keep != 0.0 };
        // SAFETY: as below; only a unit that is there is in use.
        return unsafe { crate::bf16::multiply(unit, out, sides, k, !matches!(parallelism, Parallelism::None)) };
    }
    // SAFETY: every matrix is in bounds by construction and `out` is unshared by the caller's promise.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.pointer,
            1,
            out.stride as isize,
            keep != 0.0,
            a.elements.as_ptr(),
            a_columns,
            a_rows,
            b.elements.as_ptr(),
            b_columns,
            b_rows,
            keep,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}
