//! The way back, and products with many rows where they are rounded to bf16: panels of weights become f32 in a core's
//! cache, and GEMM takes them from there.
//!
//! Where [`round_products_to_bf16`](crate::round_products_to_bf16) is on, GEMM rounds panels again, as it rounds every
//! operand: weights stored as bf16 stay what they are.

use super::Matrix;
use crate::buffer::{Shared, filled};
use crate::crew::in_phases;
use crate::product::{Matrix as View, Target};
use std::cell::RefCell;

/// Rows of weights in a panel.
const ROWS: usize = 128;
/// Weights of a row in a panel, whole blocks in every format: with its packed copy a panel stays in 512 KB.
const COLUMNS: usize = 512;
/// Rows of activations that one task of the way back takes.
const TASK_ROWS: usize = 256;

thread_local! {
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs with a panel's memory, kept by the thread for the next time. Its contents are whatever they were.
fn with_panel<R>(run: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut panel = PANEL.take();
    panel.resize(ROWS * COLUMNS, 0.0);
    let answer = run(&mut panel);
    PANEL.replace(panel);
    answer
}

/// `x W^T + b`, `[R, O]`, for `x` `[R, I]`.
pub(super) fn forward(x: &[f32], weight: &Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    let (inputs, outputs) = (weight.inputs, weight.outputs);
    let rows = x.len() / inputs.max(1);
    let panels: Vec<_> = weight.rows().flat_map(|rows| rows.panels(ROWS)).collect();
    filled(rows * outputs, |out| {
        let out = Shared::new(out);
        let task = |number: usize| {
            let weights = panels[number];
            let count = weights.count();
            // SAFETY: a task's columns are its own.
            let mut target = unsafe { Target::within(out, weights.first, [rows, count, outputs]) };
            match bias {
                Some(bias) => target.fill_rows(&bias[weights.first..][..count]),
                None => target.clear(),
            }
            with_panel(|panel| {
                for start in (0..inputs).step_by(COLUMNS) {
                    let width = COLUMNS.min(inputs - start);
                    let panel = &mut panel[..count * width];
                    (0..count).for_each(|row| weights.widen(row, start, &mut panel[row * width..][..width]));
                    let x = View::new(&x[start..], rows, width, inputs);
                    target.a_bt(x, View::new(panel, count, width, width), 1.0, true);
                }
            });
        };
        in_phases([panels.len()], |_, number| task(number));
    })
}

/// `G W`, `[R, I]`, for `grad` `[R, O]`.
pub(super) fn grad_x(grad: &[f32], weight: &Matrix) -> Vec<f32> {
    let (inputs, outputs) = (weight.inputs, weight.outputs);
    let rows = grad.len() / outputs.max(1);
    let strips = inputs.div_ceil(COLUMNS);
    filled(rows * inputs, |out| {
        let out = Shared::new(out);
        let task = |number: usize| {
            let (start, top) = (number % strips * COLUMNS, number / strips * TASK_ROWS);
            let (width, height) = (COLUMNS.min(inputs - start), TASK_ROWS.min(rows - top));
            // SAFETY: a task's rows and columns are its own.
            let mut target = unsafe { Target::within(out, top * inputs + start, [height, width, inputs]) };
            target.clear();
            let panels = weight.rows().flat_map(|rows| rows.panels(ROWS));
            with_panel(|panel| {
                for weights in panels {
                    let count = weights.count();
                    let panel = &mut panel[..count * width];
                    (0..count).for_each(|row| weights.widen(row, start, &mut panel[row * width..][..width]));
                    let grad = View::new(&grad[top * outputs + weights.first..], height, count, outputs);
                    target.a_b(grad, View::new(panel, count, width, width), 1.0, true);
                }
            });
        };
        in_phases([strips * rows.div_ceil(TASK_ROWS)], |_, number| task(number));
    })
}
