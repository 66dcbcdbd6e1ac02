//! How exact matrix products are, for the whole process.
//!
//! A setting of the process and not an argument: it reaches every product of a training step, forward and backward,
//! through operations whose signatures are candle's.

use candle_core::{Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};

static BF16: AtomicBool = AtomicBool::new(false);

/// Whether this machine multiplies bf16 matrices in hardware that this crate uses (Intel AMX, on Linux).
#[must_use]
pub fn bf16_is_available() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return crate::tiles::available();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    return false;
}

/// From now on rounds the operands of all but the smallest matrix products of this process to bf16, with sums in f32,
/// or no longer does. Two to four times as fast; weights, activations and gradients stay f32 between products.
///
/// # Errors
/// When the machine cannot.
pub fn round_products_to_bf16(wanted: bool) -> Result<()> {
    if wanted && !bf16_is_available() {
        bail!("this machine has no matrix unit for bf16 (Intel AMX, on Linux)")
    }
    BF16.store(wanted, Ordering::Relaxed);
    Ok(())
}

pub(crate) fn in_bf16() -> bool {
    BF16.load(Ordering::Relaxed)
}
