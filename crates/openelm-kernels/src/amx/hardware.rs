//! The tile instructions. The compiler's own functions for them are unstable, the assembler's names are not.
//!
//! What must stay true: this crate never enables the target feature `amx-tile`, so no code of the compiler's touches a tile, and what one
//! block of assembly leaves in the registers the next one finds.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

use super::{Shapes, Tiles};

/// This thread's registers.
#[derive(Debug, Default)]
pub(crate) struct Hardware;

impl Tiles for Hardware {
    #[inline(always)]
    unsafe fn configure(&mut self, shapes: &Shapes) {
        // SAFETY: the caller's promise; the instruction reads 64 bytes.
        unsafe {
            asm!(
                "ldtilecfg [{}]", in(reg) shapes,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(readonly, nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tileloadd tmm{tile}, [{from} + {stride}*1]", tile = const TILE, from = in(reg) from, stride = in(reg) stride,
                options(readonly, nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tilestored [{to} + {stride}*1], tmm{tile}", tile = const TILE, to = in(reg) to, stride = in(reg) stride,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn zero<const TILE: usize>(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { asm!("tilezero tmm{tile}", tile = const TILE, options(nomem, nostack, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tdpbf16ps tmm{sum}, tmm{left}, tmm{right}", sum = const SUM, left = const LEFT, right = const RIGHT,
                options(nomem, nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn multiply_bytes<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tdpbsud tmm{sum}, tmm{left}, tmm{right}", sum = const SUM, left = const LEFT, right = const RIGHT,
                options(nomem, nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn release(&mut self) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}

/// Whether the processor has tiles and their products of bf16 and of bytes, and the system lets this process use them. Asks the system once.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    // AVX comes with the instruction that says which registers are switched on.
    *AVAILABLE.get_or_init(|| is_x86_feature_detected!("avx") && has_tiles() && is_permitted() && are_on())
}

fn has_tiles() -> bool {
    const BF16_TILES_BYTES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_TILES_BYTES == BF16_TILES_BYTES
}

/// Whether the system has switched on the tiles and their shapes.
fn are_on() -> bool {
    #[target_feature(enable = "xsave")]
    fn switched_on() -> u64 {
        // SAFETY: register 0 always exists.
        unsafe { _xgetbv(0) }
    }
    const TILES: u64 = 1 << 17 | 1 << 18;
    // SAFETY: the caller found AVX, which the standard library reports only where the system uses XSAVE.
    unsafe { switched_on() & TILES == TILES }
}

/// Asks Linux for tile data: room for it in every thread's saved state is made on demand, once a process has been permitted.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let result: isize;
    // SAFETY: the call takes two numbers and changes no memory of this process.
    unsafe {
        asm!(
            "syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") REQUEST_PERMISSION, in("rsi") TILE_DATA,
            lateout("rcx") _, lateout("r11") _, options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}
