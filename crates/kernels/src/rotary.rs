//! Rotary positions, half-split as in Llama and NeoX: lane `i` turns together with lane `i + Dh/2`.
//!
//! One pass forward and one back (the transposed turn), against eight candle operations.
//! Heads that have no position (values beside queries and keys) go through as they are, so that a packed projection
//! need not be cut up and put together again.
//! Shapes: `x` `[B, T, N, Dh]`, `cos` and `sin` `[B, T, Dh/2]`, result `[B, T, N, Dh]`.

use crate::buffer::{as_gradient, elements, filled, for_rows, require_f32, with_all};
use crate::fused::is_fused;
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};

/// Turns the first heads of `x` by the angles of their position.
///
/// - `x`: `[B, T, N, Dh]`, `N` heads
/// - `cos`, `sin`: `[B, T, Dh/2]`; they get no gradient
/// - `heads`: how many of the `N` are turned
///
/// Returns `[B, T, N, Dh]`.
///
/// # Errors
/// When the shapes disagree or, on the CPU, a tensor is not f32.
pub fn rotary(x: &Tensor, cos: &Tensor, sin: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, steps, all, head) = x.dims4()?;
    if heads > all {
        bail!("rotary: {heads} heads to turn in x {:?}", x.shape())
    }
    for angles in [cos, sin] {
        if head % 2 != 0 || angles.dims3()? != (batch, steps, head / 2) {
            bail!(
                "rotary: expected cos and sin [{batch}, {steps}, {}] for x {:?}, got {:?}",
                head / 2,
                x.shape(),
                angles.shape()
            )
        }
    }
    let (cos, sin) = (cos.detach(), sin.detach());
    if !is_fused(x) {
        return composed(x, &cos, &sin, heads);
    }
    require_f32("rotary", &[x, &cos, &sin])?;
    x.contiguous()?.apply_op3(&cos.contiguous()?, &sin.contiguous()?, Rotary { heads })
}

fn composed(x: &Tensor, cos: &Tensor, sin: &Tensor, heads: usize) -> Result<Tensor> {
    let (_, _, all, head) = x.dims4()?;
    let (half, rest) = (head / 2, x.narrow(2, heads, all - heads)?);
    let x = x.narrow(2, 0, heads)?;
    let (cos, sin) = (cos.unsqueeze(2)?, sin.unsqueeze(2)?); // [B, T, 1, Dh/2]
    let a = x.narrow(D::Minus1, 0, half)?; // [B, T, N, Dh/2]
    let b = x.narrow(D::Minus1, half, half)?; // [B, T, N, Dh/2]
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    let turned = Tensor::cat(&[first, second], D::Minus1)?; // [B, T, heads, Dh]
    if heads == all { Ok(turned) } else { Tensor::cat(&[turned, rest], 2) }
}

struct Rotary {
    heads: usize,
}

/// `turn` is 1 forward and -1 for the transpose; of each position's `all` heads the first `heads` are turned.
fn turned([x, cos, sin]: [&[f32]; 3], [heads, all, half]: [usize; 3], turn: f32) -> Vec<f32> {
    let position = all * 2 * half;
    filled(x.len(), |out| {
        for_rows(out, position, |row, out| {
            let cos = &cos[row * half..][..half];
            let sin = &sin[row * half..][..half];
            let x = &x[row * position..][..position];
            let (x, x_rest) = x.split_at(heads * 2 * half);
            let (out, out_rest) = out.split_at_mut(heads * 2 * half);
            out_rest.copy_from_slice(x_rest);
            for (x, out) in x.chunks_exact(2 * half).zip(out.chunks_exact_mut(2 * half)) {
                let (a, b) = x.split_at(half);
                let (out_a, out_b) = out.split_at_mut(half);
                for i in 0..half {
                    let sin = sin[i] * turn;
                    out_a[i] = a[i] * cos[i] - b[i] * sin;
                    out_b[i] = b[i] * cos[i] + a[i] * sin;
                }
            }
        });
    })
}

impl CustomOp3 for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, _, all, head) = x_layout.shape().dims4()?;
        let x = elements(self.name(), x, x_layout)?;
        let cos = elements(self.name(), cos, cos_layout)?;
        let sin = elements(self.name(), sin, sin_layout)?;
        let out = turned([x, cos, sin], [self.heads, all, head / 2], 1.0);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        cos: &Tensor,
        sin: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, _, all, head) = x.dims4()?;
        let grad = grad.contiguous()?;
        with_all(self.name(), [&grad, cos, sin], |parts| {
            let compute = || turned(parts, [self.heads, all, head / 2], -1.0);
            Ok((as_gradient(compute, x)?, None, None))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::*;

    /// x [B, T, N, Dh], cos and sin [B, T, Dh/2]
    fn inputs(batch: usize, steps: usize, heads: usize, head: usize) -> [Tensor; 3] {
        let angle = random((batch, steps, head / 2), 6);
        [random((batch, steps, heads, head), 5), angle.cos().unwrap(), angle.sin().unwrap()]
    }

    fn fused(t: &[Tensor]) -> Result<Tensor> {
        rotary(&t[0], &t[1], &t[2], turning(&t[0]))
    }

    /// All heads but the last, where there are several.
    fn turning(x: &Tensor) -> usize {
        x.dim(2).unwrap().saturating_sub(1).max(1)
    }

    fn reference(t: &[Tensor]) -> Result<Tensor> {
        composed(&t[0], &t[1].detach(), &t[2].detach(), turning(&t[0]))
    }

    #[test]
    fn rotary_equals_the_composed_form() {
        for (batch, steps, heads, head) in [(1, 1, 1, 2), (2, 5, 3, 10), (4, 40, 6, 64)] {
            equals_composed(&fused, &reference, &inputs(batch, steps, heads, head));
        }
    }

    #[test]
    fn rotary_gradient_matches_finite_differences() {
        let [x, cos, sin] = inputs(2, 3, 2, 6);
        let fused = |t: &[Tensor]| rotary(&t[0], &cos, &sin, 1);
        let reference = |t: &[Tensor]| {
            let [cos, sin] = [&cos, &sin].map(|angles| angles.to_dtype(t[0].dtype()));
            composed(&t[0], &cos?, &sin?, 1)
        };
        matches_finite_differences(&fused, &reference, &[x]);
    }

    #[test]
    fn rotary_has_the_same_bits_on_any_number_of_threads() {
        same_bits_on_any_number_of_threads(&fused, &inputs(4, 40, 6, 64));
    }

    #[test]
    fn rotary_keeps_the_length_of_every_vector() {
        let [x, cos, sin] = inputs(2, 7, 3, 8);
        let length = |t: &Tensor| values(&t.sqr().unwrap().sum(3).unwrap());
        let turned = rotary(&x, &cos, &sin, 3).unwrap();
        for (before, after) in length(&x).iter().zip(length(&turned)) {
            assert!((before - after).abs() < 1e-5);
        }
    }
}
