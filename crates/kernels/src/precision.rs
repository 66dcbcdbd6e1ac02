//! How exact matrix products are, for the whole process.
//!
//! A setting of the process and not an argument: it reaches every product of a training step, forward and backward,
//! through operations whose signatures are candle's.

use candle_core::{Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::bf16::Unit;

static BF16: AtomicBool = AtomicBool::new(false);

/// The instructions by which this machine multiplies bf16 matrices, of those that this crate uses: `AMX` or
/// `AVX-512 BF16`, on Linux.
#[must_use]
pub fn bf16_unit() -> Option<&'static str> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return Unit::all().first().map(|unit| unit.name());
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    return None;
}

/// From now on rounds the operands of all but the smallest matrix products of this process to bf16, with sums in f32,
/// or no longer does. Faster, with AMX two to four times; weights, activations and gradients stay f32 between products.
///
/// # Errors
/// When the machine cannot.
pub fn round_products_to_bf16(wanted: bool) -> Result<()> {
    if wanted && bf16_unit().is_none() {
        bail!("this machine has no instructions for products in bf16 (AMX or AVX-512 BF16, on Linux)")
    }
    BF16.store(wanted, Ordering::Relaxed);
    Ok(())
}

/// Whether products are rounded to bf16 now.
pub(crate) fn is_rounded() -> bool {
    BF16.load(Ordering::Relaxed)
}

/// What multiplies in bf16 now; `None` in f32.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) fn unit_in_use() -> Option<Unit> {
    if is_rounded() { Unit::all().first().copied() } else { None }
}
