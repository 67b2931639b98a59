//! Quantised blocks, taken apart 32 weights at a time: levels of at most 8 bits, and for each half of the 32 a scale and an offset.
//!
//! What must stay true: weight = scale · level + offset, with the values that the format's own unpacking gives but for rounding.

use half::f16;

/// 32 weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub(crate) levels: [u8; CHUNK],
    /// One for the first 16 weights, one for the others.
    pub(crate) scales: [f32; 2],
    pub(crate) offsets: [f32; 2],
}

pub(crate) const CHUNK: usize = 32;

/// A type of block.
pub(crate) trait Layout {
    /// Bytes of a block.
    const BYTES: usize;
    /// Chunks of a block.
    const CHUNKS: usize;

    /// The `index`-th chunk of a block of `BYTES` bytes.
    fn chunk(block: &[u8], index: usize) -> Chunk;
}

#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[inline(always)]
fn one_scale(levels: [u8; CHUNK], scale: f32, offset: f32) -> Chunk {
    Chunk { levels, scales: [scale; 2], offsets: [offset; 2] }
}

/// Levels 0 to 15 come from the lower halves of 16 bytes, then from the upper ones.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [u8; CHUNK] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

/// A fifth bit for each of 32 levels, from 4 bytes.
#[inline(always)]
fn fifth_bits(levels: &mut [u8; CHUNK], bytes: &[u8]) {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (i, level) in levels.iter_mut().enumerate() {
        *level |= (((bits >> i) & 1) as u8) << 4;
    }
}

pub(crate) struct Q8_0;
impl Layout for Q8_0 {
    const BYTES: usize = 34;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn chunk(block: &[u8], _: usize) -> Chunk {
        let scale = half(block, 0);
        one_scale(std::array::from_fn(|i| block[2 + i] ^ 0x80), scale, -128.0 * scale)
    }
}

pub(crate) struct Q4_0;
impl Layout for Q4_0 {
    const BYTES: usize = 18;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn chunk(block: &[u8], _: usize) -> Chunk {
        let scale = half(block, 0);
        one_scale(nibbles(&block[2..18]), scale, -8.0 * scale)
    }
}

pub(crate) struct Q5_0;
impl Layout for Q5_0 {
    const BYTES: usize = 22;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn chunk(block: &[u8], _: usize) -> Chunk {
        let scale = half(block, 0);
        let mut levels = nibbles(&block[6..22]);
        fifth_bits(&mut levels, &block[2..6]);
        one_scale(levels, scale, -16.0 * scale)
    }
}

pub(crate) struct Q4_1;
impl Layout for Q4_1 {
    const BYTES: usize = 20;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn chunk(block: &[u8], _: usize) -> Chunk {
        one_scale(nibbles(&block[4..20]), half(block, 0), half(block, 2))
    }
}

#[inline(always)]
fn single(block: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

pub(crate) struct Affine4;
impl Layout for Affine4 {
    const BYTES: usize = 24;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn chunk(block: &[u8], _: usize) -> Chunk {
        one_scale(nibbles(&block[8..24]), single(block, 0), single(block, 4))
    }
}

pub(crate) struct Affine8;
impl Layout for Affine8 {
    const BYTES: usize = 40;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn chunk(block: &[u8], _: usize) -> Chunk {
        one_scale(std::array::from_fn(|i| block[8 + i]), single(block, 0), single(block, 4))
    }
}

pub(crate) struct Q5_1;
impl Layout for Q5_1 {
    const BYTES: usize = 24;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn chunk(block: &[u8], _: usize) -> Chunk {
        let mut levels = nibbles(&block[8..24]);
        fifth_bits(&mut levels, &block[4..8]);
        one_scale(levels, half(block, 0), half(block, 2))
    }
}

/// The 6-bit scale and minimum of each of 8 chunks, from 12 bytes: 8 scales, then 8 minima.
#[inline(always)]
pub(crate) fn six_bits(bytes: &[u8]) -> [u8; 16] {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (a, b, c) = (word(0), word(4), word(8));
    let words = [
        a & 0x3f3f_3f3f,
        (c & 0x0f0f_0f0f) | ((a >> 2) & 0x3030_3030),
        b & 0x3f3f_3f3f,
        ((c >> 4) & 0x0f0f_0f0f) | ((b >> 2) & 0x3030_3030),
    ];
    std::array::from_fn(|i| words[i / 4].to_le_bytes()[i % 4])
}

#[inline(always)]
fn k_scales(block: &[u8], index: usize) -> (f32, f32) {
    let scales = six_bits(&block[4..16]);
    (half(block, 0) * f32::from(scales[index]), -half(block, 2) * f32::from(scales[8 + index]))
}

pub(crate) struct Q4K;
impl Layout for Q4K {
    const BYTES: usize = 144;
    const CHUNKS: usize = 8;

    #[inline(always)]
    fn chunk(block: &[u8], index: usize) -> Chunk {
        let (scale, offset) = k_scales(block, index);
        let bytes = &block[16 + index / 2 * 32..][..32];
        one_scale(std::array::from_fn(|i| (bytes[i] >> (index % 2 * 4)) & 15), scale, offset)
    }
}

pub(crate) struct Q5K;
impl Layout for Q5K {
    const BYTES: usize = 176;
    const CHUNKS: usize = 8;

    #[inline(always)]
    fn chunk(block: &[u8], index: usize) -> Chunk {
        let (scale, offset) = k_scales(block, index);
        let (high, bytes) = (&block[16..48], &block[48 + index / 2 * 32..][..32]);
        let level = |i: usize| ((bytes[i] >> (index % 2 * 4)) & 15) | (((high[i] >> index) & 1) << 4);
        one_scale(std::array::from_fn(level), scale, offset)
    }
}

pub(crate) struct Q6K;
impl Layout for Q6K {
    const BYTES: usize = 210;
    const CHUNKS: usize = 8;

    #[inline(always)]
    fn chunk(block: &[u8], index: usize) -> Chunk {
        // Each half of the block: 64 bytes of lower bits for 4 chunks, 32 bytes with two upper bits of each.
        let (part, quarter) = (index / 4, index % 4);
        let low = &block[part * 64 + quarter % 2 * 32..][..32];
        let high = &block[128 + part * 32..][..32];
        let level = |i: usize| ((low[i] >> (quarter / 2 * 4)) & 15) | (((high[i] >> (2 * quarter)) & 3) << 4);
        let d = half(block, 208);
        let scale = |i: usize| d * f32::from(block[192 + 2 * index + i] as i8);
        let scales = [scale(0), scale(1)];
        Chunk { levels: std::array::from_fn(level), scales, offsets: scales.map(|scale| -32.0 * scale) }
    }
}

/// Calls `$body` with `$name` standing for a quantised type's struct of a module of `stored`: `with_type!(dtype, layout::L => body, else
/// other)`.
macro_rules! with_type {
    ($dtype:expr, $module:ident::$name:ident => $body:expr, else $other:expr) => {{
        use openelm_formats::DType;
        match $dtype {
            DType::Q8_0 => {
                type $name = $crate::stored::$module::Q8_0;
                $body
            }
            DType::Q4_0 => {
                type $name = $crate::stored::$module::Q4_0;
                $body
            }
            DType::Q4_1 => {
                type $name = $crate::stored::$module::Q4_1;
                $body
            }
            DType::Affine4 => {
                type $name = $crate::stored::$module::Affine4;
                $body
            }
            DType::Affine8 => {
                type $name = $crate::stored::$module::Affine8;
                $body
            }
            DType::Q5_0 => {
                type $name = $crate::stored::$module::Q5_0;
                $body
            }
            DType::Q5_1 => {
                type $name = $crate::stored::$module::Q5_1;
                $body
            }
            DType::Q4_K => {
                type $name = $crate::stored::$module::Q4K;
                $body
            }
            DType::Q5_K => {
                type $name = $crate::stored::$module::Q5K;
                $body
            }
            DType::Q6_K => {
                type $name = $crate::stored::$module::Q6K;
                $body
            }
            _ => $other,
        }
    }};
}
pub(crate) use with_type;

#[cfg(test)]
mod tests {
    use openelm_formats::{DType, decode_f32, encode_f32};

    use super::*;

    #[test]
    fn chunks_are_what_the_format_unpacks() {
        let values: Vec<f32> = (0..1024).map(|i| ((i * i) as f32 * 0.013).sin() * (1.0 + (i / 32 % 7) as f32) * 0.05 + 0.01).collect();
        for dtype in DType::QUANTISED {
            let bytes = encode_f32(&values, dtype).unwrap();
            let expected = decode_f32(&bytes, dtype).unwrap();
            let mut found = Vec::new();
            with_type!(dtype, layout::L => {
                assert_eq!((L::BYTES, L::CHUNKS * CHUNK), (dtype.size(), dtype.block_len()), "{dtype}");
                for block in bytes.chunks_exact(L::BYTES) {
                    for index in 0..L::CHUNKS {
                        let Chunk { levels, scales, offsets } = L::chunk(block, index);
                        found.extend((0..CHUNK).map(|i| scales[i / 16] * f32::from(levels[i]) + offsets[i / 16]));
                    }
                }
            }, else panic!("{dtype} has no layout"));
            assert_eq!(found.len(), expected.len());
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!((found - expected).abs() < 3e-7, "{dtype} {i}: {found} {expected}");
            }
        }
    }
}
