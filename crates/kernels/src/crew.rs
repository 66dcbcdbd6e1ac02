//! Work in phases on the threads of the pool, with one call for helpers however many the phases.
//!
//! A product with one row takes about a millisecond, and a model's token over a hundred of them. rayon's parallel
//! iterators wake threads for each, and put a caller that is no thread of the pool to sleep meanwhile. Here the calling
//! thread begins at once, whoever wakes takes the next part that nobody has, and between phases threads wait awake.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Looks at a phase's end before a waiting thread lets others have its core.
const LOOKS: usize = 2000;

/// One phase: parts that nobody has begun, and parts that are done.
struct Phase {
    parts: usize,
    next: AtomicUsize,
    done: AtomicUsize,
}

impl Phase {
    /// Does parts until none are left, and waits for those that others do.
    fn work(&self, part: impl Fn(usize)) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.parts {
                break;
            }
            let _counted = Counted(&self.done);
            part(number);
        }
        let mut looks = 0;
        // Who works on a part is awake and waits for nobody, so this ends.
        while self.done.load(Ordering::Acquire) < self.parts {
            looks += 1;
            if looks % LOOKS == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

/// Counts a part as done when it ends, even by a panic, for which others must not wait forever.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Runs `work(phase, part)` for each of `parts[phase]` parts, each phase after the one before it is done.
///
/// `work` must not wait for other threads, and so must not call the pool itself.
pub(crate) fn in_phases<const N: usize>(parts: [usize; N], work: impl Fn(usize, usize) + Sync) {
    let phases = parts.map(|parts| Phase { parts, next: AtomicUsize::new(0), done: AtomicUsize::new(0) });
    let all = || phases.iter().enumerate().for_each(|(number, phase)| phase.work(|part| work(number, part)));
    let most = parts.into_iter().max().unwrap_or(0);
    let helpers = rayon::current_num_threads().min(most).saturating_sub(1);
    if helpers == 0 {
        return all();
    }
    rayon::in_place_scope(|scope| {
        (0..helpers).for_each(|_| scope.spawn(|_| all()));
        all();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn every_part_is_done_once_and_phases_come_one_after_another() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let times: [Vec<AtomicUsize>; 3] =
                    [100, 1, 37].map(|parts| (0..parts).map(|_| AtomicUsize::new(0)).collect());
                in_phases([100, 1, 37], |phase, part| {
                    let before = &times[..phase];
                    assert!(before.iter().flatten().all(|count| count.load(Ordering::Relaxed) == 1));
                    times[phase][part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(times.iter().flatten().all(|count| count.load(Ordering::Relaxed) == 1));
            });
        }
    }

    #[test]
    fn a_panic_in_a_part_reaches_the_caller() {
        let call = || in_phases([8, 8], |phase, part| assert!(phase == 1 || part != 3, "as expected of this test"));
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    }

    #[test]
    fn callers_at_the_same_time_do_not_wait_for_each_other() {
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        in_phases([3, 3], |_, _| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 50 * 6);
    }
}
