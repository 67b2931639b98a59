//! Packing: a run of `lanes` outer indices of an operand into words of 4 bytes ([`Order`]), with zeros where the operand ends.
//!
//! What must stay true: packing never reads outside the operand and writes exactly units · width values.

use std::ops::Range;

use super::micro::{Order, RUN, Unit};
#[cfg(target_arch = "aarch64")]
use super::pack_neon;
#[cfg(target_arch = "x86_64")]
use super::{pack_amx, pack_avx2, pack_avx512};
use crate::Isa;
use crate::simd::{Source, round_half, widen_half};

/// The word of one value, or its lower half of a pair.
///
/// # Safety
/// `at` lies inside the slice.
#[inline(always)]
unsafe fn bits(source: Source, at: usize, unit: Unit) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        match (source, unit) {
            (Source::F32(from), Unit::Single) => (*from.add(at)).to_bits(),
            (Source::F32(from), Unit::Rounded) => widen_half(round_half(*from.add(at))).to_bits(),
            (Source::F32(from), Unit::Pair | Unit::Quad) => u32::from(round_half(*from.add(at))),
            (Source::Bf16(from), Unit::Pair | Unit::Quad) => u32::from(*from.add(at)),
            (Source::Bf16(from), _) => u32::from(*from.add(at)) << 16,
        }
    }
}

/// One packing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    pub(crate) unit: Unit,
    pub(crate) source: Source,
    /// Values from one row of the source to the next.
    pub(crate) stride: usize,
    /// Outer indices that there are. More than `width` of them make several groups, one after the other:
    /// together, columns are read in longer runs.
    pub(crate) lanes: usize,
    /// Inner values that there are.
    pub(crate) inner: usize,
    pub(crate) width: usize,
    pub(crate) order: Order,
}

impl Packing {
    /// Packs lanes that are rows of the source (the inner dimension runs along the columns).
    ///
    /// # Safety
    /// The instruction set is available; the source holds `lanes` rows of `inner` values; `to` has room for
    /// [groups][units of `inner`][width] words. Only pairs are packed in the order of lanes.
    pub(crate) unsafe fn rows(&self, isa: Isa, to: *mut u32) {
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() {
            // SAFETY: the caller's promise.
            return unsafe { if self.order == Order::Lanes { pack_amx::rows(self, to) } else { pack_avx512::rows(self, to) } };
        }
        #[cfg(target_arch = "x86_64")]
        if isa.is_avx2() && self.order == Order::Units {
            // SAFETY: the caller's promise.
            return unsafe { pack_avx2::rows(self, to) };
        }
        #[cfg(target_arch = "aarch64")]
        if isa != Isa::Plain {
            // SAFETY: the caller's promise.
            return unsafe { pack_neon::rows(self, to) };
        }
        let _ = isa;
        // SAFETY: the caller's promise.
        unsafe { self.one_by_one(to, self.stride, 1) }
    }

    /// Packs lanes that are columns of the source (the inner dimension runs along the rows).
    ///
    /// # Safety
    /// As [`rows`](Self::rows), with `inner` rows of `lanes` values.
    pub(crate) unsafe fn columns(&self, isa: Isa, to: *mut u32) {
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() {
            // SAFETY: the caller's promise.
            return unsafe { if self.order == Order::Lanes { pack_amx::columns(self, to) } else { pack_avx512::columns(self, to) } };
        }
        #[cfg(target_arch = "x86_64")]
        if isa.is_avx2() && self.order == Order::Units {
            // SAFETY: the caller's promise.
            return unsafe { pack_avx2::columns(self, to) };
        }
        #[cfg(target_arch = "aarch64")]
        if isa != Isa::Plain {
            // SAFETY: the caller's promise.
            return unsafe { pack_neon::columns(self, to) };
        }
        let _ = isa;
        // SAFETY: the caller's promise.
        unsafe { self.one_by_one(to, 1, self.stride) }
    }

    unsafe fn one_by_one(&self, to: *mut u32, lane_stride: usize, inner_stride: usize) {
        let lanes = self.lanes.next_multiple_of(self.width);
        // SAFETY: the caller's promise.
        unsafe { self.part(to, lane_stride, inner_stride, 0..lanes, 0..self.unit.count(self.inner)) }
    }

    /// Packs some lanes and units, one by one.
    ///
    /// # Safety
    /// As [`rows`](Self::rows) or [`columns`](Self::columns), according to the strides.
    pub(super) unsafe fn part(&self, to: *mut u32, lane_stride: usize, inner_stride: usize, run: Range<usize>, part: Range<usize>) {
        let Self { unit, source, lanes, inner, width, order, .. } = *self;
        let units = unit.count(inner);
        for u in part {
            for lane in run.clone() {
                let mut word = 0;
                let first = u * unit.values();
                // The second of two units may lie past the end.
                if lane < lanes && first < inner {
                    // SAFETY: lane < lanes and the inner indices are below `inner`.
                    unsafe {
                        word = bits(source, lane * lane_stride + first * inner_stride, unit);
                        if unit.is_half() && first + 1 < inner {
                            word |= bits(source, lane * lane_stride + (first + 1) * inner_stride, unit) << 16;
                        }
                    }
                }
                let (group, lane) = (lane / width * units * width, lane % width);
                let at = match order {
                    Order::Units if unit == Unit::Quad => (u / 2 * width + lane) * 2 + u % 2,
                    Order::Units => u * width + lane,
                    Order::Lanes => u / RUN * RUN * width + lane * RUN.min(units - u / RUN * RUN) + u % RUN,
                };
                // SAFETY: u < units, and the lane lies in one of the groups.
                unsafe { *to.add(group + at) = word };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;
    use crate::matmul::micro::{Micro, Side};

    #[test]
    fn every_instruction_set_packs_what_one_by_one_packs() {
        let shapes = [(1, 1), (5, 33), (10, 512), (12, 16), (15, 17), (16, 32), (17, 64), (31, 70), (32, 31), (33, 40), (70, 256)];
        for (lanes, inner) in shapes {
            let floats: Vec<f32> = (0..lanes * inner).map(|i| ((i * i % 1013) as f32 * 0.37).sin()).collect();
            let halves: Vec<u16> = floats.iter().map(|value| round_half(*value)).collect();
            for source in [Source::F32(floats.as_ptr()), Source::Bf16(halves.as_ptr())] {
                for isa in Isa::available() {
                    for (precision, side) in [Precision::F32, Precision::Bf16].into_iter().flat_map(|p| [(p, Side::Left), (p, Side::Right)])
                    {
                        let micro = Micro::new(isa, precision);
                        let (unit, width, order) = (micro.unit, micro.lanes(side), micro.order(side));
                        for columns in [false, true] {
                            let stride = if columns { lanes } else { inner };
                            let packing = Packing { unit, source, stride, lanes, inner, width, order };
                            let [mut found, mut expected] =
                                [(); 2].map(|()| vec![u32::MAX; unit.count(inner) * lanes.next_multiple_of(width)]);
                            // SAFETY: source and targets have the sizes that the packing names, and the instruction set is available.
                            unsafe {
                                if columns {
                                    packing.columns(isa, found.as_mut_ptr());
                                    packing.one_by_one(expected.as_mut_ptr(), 1, stride);
                                } else {
                                    packing.rows(isa, found.as_mut_ptr());
                                    packing.one_by_one(expected.as_mut_ptr(), stride, 1);
                                }
                            }
                            assert!(found == expected, "{isa:?} {precision:?} {side:?} {lanes} lanes of {inner}, columns: {columns}");
                        }
                    }
                }
            }
        }
    }
}
