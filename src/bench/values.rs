//! Made-up models: reproducible values, and blocks of them.

use crate::checkpoint::Dtype;
use crate::kernels::convert;
use crate::recording::Extent;

/// Rows of `row_len`, the last one maybe shorter, that hold `n` elements.
pub fn extent(n: u32, row_len: u32) -> Extent {
    Extent { first_row: 0, rows: n.div_ceil(row_len), row_len, n }
}

/// A stream of well-mixed words.
pub fn words(seed: u64) -> impl Iterator<Item = u32> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as u32
    })
}

/// `n` values of both signs around `scale`, of magnitudes that differ by a few powers of two.
pub fn values(n: usize, scale: f32, seed: u64) -> Vec<f32> {
    let value = |word: u32| {
        let unit = (word >> 8) as f32 / (1 << 24) as f32;
        (unit * 2.0 - 1.0) * scale * f32::from_bits((127 - (word & 3)) << 23)
    };
    words(seed).map(value).take(n).collect()
}

/// `values` as stored elements.
pub fn store(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    // Twins see whole words, at word boundaries.
    let mut words = vec![0u64; (values.len() * dtype.size()).div_ceil(8)];
    let stored = &mut bytemuck::cast_slice_mut(&mut words)[..values.len() * dtype.size()];
    convert::narrow(dtype, values, stored, 0);
    stored.to_vec()
}
