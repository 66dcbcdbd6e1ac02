//! Whether an operation is our fused one: on the CPU; on any other device it is made of candle's own.

use candle_core::Tensor;
use std::cell::Cell;

thread_local! {
    static COMPOSED: Cell<bool> = const { Cell::new(false) };
}

/// Whether `x` is computed with by the fused operations.
pub(crate) fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && !COMPOSED.get()
}

/// Computes on this thread as on another device than the CPU, by ordinary candle operations: what a machine without a GPU can
/// test of that path. Stored weights become f32 for it; frozen ones in panels, which exist on the CPU alone, are not concerned.
pub fn composed_here<T>(run: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            COMPOSED.set(self.0);
        }
    }
    let _before = Before(COMPOSED.replace(true));
    run()
}
