//! The three products of a linear layer, `[R, I]` against `[O, I]`, on every core.

use crate::buffer::{filled, for_rows};
use crate::product::{Matrix, Target};

/// Columns turned into rows at once: one cache line.
const LINE: usize = 16;

/// The sizes of one layer's products.
#[derive(Clone, Copy)]
pub(crate) struct Layer {
    /// `R`, all leading axes of the input together.
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
}

impl Layer {
    /// `x W^T + b`, `[R, O]`.
    pub(crate) fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let &Layer { rows, inputs, outputs } = self;
        filled(rows * outputs, |out| {
            if let Some(bias) = bias {
                for_rows(out, outputs, |_, out| out.copy_from_slice(bias));
            }
            let x = Matrix::new(x, rows, inputs, inputs);
            let weight = Matrix::new(weight, outputs, inputs, inputs);
            Target::new(out, rows, outputs, outputs).on_all_cores([x, weight], [false, true], bias.is_some());
        })
    }

    /// `G W`, `[R, I]`.
    pub(crate) fn grad_x(&self, grad: &[f32], weight: &[f32]) -> Vec<f32> {
        let &Layer { rows, inputs, outputs } = self;
        let grad = Matrix::new(grad, rows, outputs, outputs);
        let weight = Matrix::new(weight, outputs, inputs, inputs);
        product([grad, weight], [false, false], rows, inputs)
    }

    /// `G^T X`, `[O, I]`, into `out` or added to it.
    ///
    /// The product packs its second operand in slivers of six columns, and slivers of a matrix whose
    /// rows are a large power of two apart miss every cache (2 GB/s). So the narrower of the two goes
    /// second, and where that is `X` the small result is turned over afterwards.
    pub(crate) fn grad_weight(&self, grad: &[f32], x: &[f32], out: &mut [f32], add: bool) {
        let &Layer { rows, inputs, outputs } = self;
        let grad = Matrix::new(grad, rows, outputs, outputs);
        let x = Matrix::new(x, rows, inputs, inputs);
        if outputs <= inputs || outputs % LINE != 0 || rows < outputs {
            return Target::new(out, outputs, inputs, inputs).on_all_cores([grad, x], [true, false], add);
        }
        let turned = product([x, grad], [true, false], inputs, outputs); // [I, O]
        for_rows(out, LINE * inputs, |line, out| {
            for (i, row) in turned.chunks_exact(outputs).enumerate() {
                for (o, value) in row[line * LINE..][..LINE].iter().enumerate() {
                    let out = &mut out[o * inputs + i];
                    *out = if add { *out + value } else { *value };
                }
            }
        });
    }
}

fn product(pair: [Matrix; 2], transposed: [bool; 2], rows: usize, columns: usize) -> Vec<f32> {
    filled(rows * columns, |out| {
        Target::new(out, rows, columns, columns).on_all_cores(pair, transposed, false);
    })
}
