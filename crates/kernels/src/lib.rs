//! Fused CPU operations with hand-written backward passes, for candle tensors.
//!
//! candle's own fused softmax, norm and attention have no gradient, so a model that trains composes
//! them from a dozen small operations, and each of those costs a zeroed gradient and an addition on
//! the way back. Here one operation is one node: it reads its inputs once, writes its output once,
//! and computes its gradient from what it already has.
//!
//! Invariants:
//!
//! 1. Every public operation is a pure function of tensors; the sums that [`backward`] keeps for its
//!    thread end with the call. This crate knows candle and nothing of images, text or models.
//! 2. Results are the same to the bit for the same inputs, whatever the number of threads: work is
//!    split over output elements, and each element is summed in a fixed order.
//! 3. Operations that work row by row (all but [`linear`] and [`feed_forward`], whose blocking follows the number of
//!    rows) give a row the same bits alone and in a batch; [`linear_stored`] and [`feed_forward_stored`] do so up to
//!    eight rows. [`linear_packed`] does so always, and [`attention_apart`] for queries.
//! 4. On the CPU an operation takes f32 and says so otherwise; [`round_products_to_bf16`] trades exactness of products
//!    for speed. Only frozen weights, a [`Matrix`], come as they are stored: in 16 bits or in blocks of 8 or 4. On any
//!    other device the same formula runs as ordinary candle operations; [`composed_here`] runs them on the CPU.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//!
//! # fn main() -> candle_core::Result<()> {
//! let x = Tensor::new(&[[3f32, 4.0]], &Device::Cpu)?; // [1, 2]
//! let weight = Var::new(&[1f32, 1.0], &Device::Cpu)?; // [2]
//! let normed = lare_kernels::rms_norm(&x, &weight, 0.0)?; // [1, 2]
//! let gradients = normed.sum_all()?.backward()?;
//! // The root mean square of (3, 4) is sqrt(12.5), and d(normed)/d(weight) is x over it.
//! let gradient = gradients.get(&weight).map(Tensor::to_vec1::<f32>).transpose()?;
//! assert!(gradient.is_some_and(|g| (g[0] - 3.0 / 12.5f32.sqrt()).abs() < 1e-6));
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod adamw;
mod apart;
mod attention;
mod backward;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod bf16;
mod buffer;
#[cfg(test)]
mod check;
mod chosen;
mod convolution;
mod crew;
mod cross_entropy;
mod feed_forward;
mod fused;
mod gradients;
mod lanes;
mod layer;
mod linear;
mod norm;
mod packed;
mod precision;
mod product;
mod rotary;
mod row;
mod segments;
mod sight;
mod stored;
mod swiglu;

pub use adamw::{AdamW, AdamWOptions, AdamWState};
pub use apart::{Apart, Conversation, attention_apart};
pub use attention::attention;
pub use backward::{Collected, backward};
pub use chosen::chosen_attention;
pub use convolution::{Windows, convolution};
pub use cross_entropy::cross_entropy;
pub use feed_forward::feed_forward;
pub use fused::composed_here;
pub use linear::linear;
pub use norm::rms_norm;
pub use packed::{Packed, linear_packed};
pub use precision::{bf16_unit, round_products_to_bf16};
pub use rotary::rotary;
pub use row::attention_row;
pub use sight::Sight;
pub use stored::{Bytes, Format, Matrix, feed_forward_stored, linear_stored};
pub use swiglu::swiglu;
