//! Intel's matrix unit: one instruction multiplies a tile of 16 x 32 by one of 32 x 16. What is left of its sixteen
//! times of f32 is two to four: the rest is packing, and memory.

use super::{Line, SIDE};
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

/// Whether this machine has the unit and the system lets this process use it.
pub(super) fn available() -> bool {
    let leaf = __cpuid_count(7, 0);
    let (amx_bf16, amx_tile) = (leaf.edx >> 22 & 1, leaf.edx >> 24 & 1);
    amx_bf16 == 1 && amx_tile == 1 && permitted()
}

/// Asks Linux for the tiles' state, 8 KB a thread, which no process has from the start.
fn permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let answer: isize;
    // SAFETY: a system call that reads no memory of ours.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

#[repr(C, align(64))]
struct Shape {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_row: [u16; 16],
    rows: [u8; 16],
}

/// Eight full tiles.
static SHAPE: Shape = {
    let (mut bytes_of_row, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        bytes_of_row[tile] = 64;
        rows[tile] = 16;
        tile += 1;
    }
    Shape { palette: 1, start_row: 0, reserved: [0; 14], bytes_of_row, rows }
};

/// # Safety
/// The unit must be there.
pub(super) unsafe fn begin() {
    // SAFETY: by the caller's promise; the shape is a valid one.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPE, options(nostack, readonly)) };
}

/// Gives the tiles back, so that the system does not save them.
///
/// # Safety
/// The unit must be there.
pub(super) unsafe fn end() {
    // SAFETY: by the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// `to = a * b` or `to += ..`, `[32, 32]`: two panels of `steps` tiles each.
///
/// # Safety
/// The unit must be there and configured, the panels of that length, and `to` a block with rows `stride` apart.
pub(super) unsafe fn kernel([a, b]: [&[Line]; 2], steps: usize, to: *mut f32, stride: usize, add: bool) {
    let (a, b, panel) = (a.as_ptr(), b.as_ptr(), steps * SIDE);
    // SAFETY: reads `2 * steps` tiles from each, reads and writes one block.
    unsafe {
        asm!(
            "test {add:e}, {add:e}",
            "jz 3f",
            "tileloadd tmm0, [{to} + {row:r}*1]",
            "tileloadd tmm1, [{to} + {row:r}*1 + 64]",
            "tileloadd tmm2, [{below} + {row:r}*1]",
            "tileloadd tmm3, [{below} + {row:r}*1 + 64]",
            "jmp 2f",
            "3:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {line:r}*1]",
            "tileloadd tmm6, [{b} + {line:r}*1]",
            "tileloadd tmm7, [{b2} + {line:r}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a2} + {line:r}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 1024",
            "add {a2}, 1024",
            "add {b}, 1024",
            "add {b2}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{to} + {row:r}*1], tmm0",
            "tilestored [{to} + {row:r}*1 + 64], tmm1",
            "tilestored [{below} + {row:r}*1], tmm2",
            "tilestored [{below} + {row:r}*1 + 64], tmm3",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            a2 = inout(reg) a.add(panel) => _,
            b2 = inout(reg) b.add(panel) => _,
            steps = inout(reg) steps => _,
            line = in(reg) 64usize,
            to = in(reg) to,
            below = in(reg) to.add(SIDE * stride),
            row = in(reg) stride * 4,
            add = in(reg) u32::from(add),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
