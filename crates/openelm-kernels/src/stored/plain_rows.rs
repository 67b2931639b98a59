//! Quantised rows in ordinary code: what the other bodies are held against.

use super::layout::{CHUNK, Chunk, Layout};
use super::rows::Part;

/// See [`multiply_rows`](super::multiply_rows).
///
/// # Safety
/// `part.out` has room.
pub(super) unsafe fn multiply<L: Layout>(part: &Part<'_>) {
    let x = part.x;
    let (whole, chunks) = (x.whole(), x.columns / CHUNK);
    for row in 0..part.count {
        let bytes = part.matrix.row(part.first + row);
        let mut totals = [0.0_f32; super::MOST_TOKENS];
        for at in 0..chunks {
            let Chunk { levels, scales, offsets } = L::chunk(&bytes[at / L::CHUNKS * L::BYTES..][..L::BYTES], at % L::CHUNKS);
            for (token, total) in totals.iter_mut().enumerate().take(x.tokens) {
                let from = token * whole + at * CHUNK;
                let x_levels = &x.levels[from..from + CHUNK];
                let (x_scales, x_sums) = (&x.scales[from / 4..][..CHUNK / 4], &x.sums[from / 4..][..CHUNK / 4]);
                for half in 0..2 {
                    let pairs = levels[half * 16..][..16].iter().zip(&x_levels[half * 16..][..16]);
                    let product: i32 = pairs.map(|(weight, x)| i32::from(*weight) * i32::from(*x)).sum();
                    let sums: f32 = x_sums[half * 4..][..4].iter().sum();
                    *total += scales[half] * x_scales[half * 4] * product as f32 + offsets[half] * sums;
                }
            }
        }
        for (token, total) in totals.iter().enumerate().take(x.tokens) {
            // SAFETY: the caller's promise.
            unsafe { *part.out.add(token * part.stride + row) = *total };
        }
    }
}
