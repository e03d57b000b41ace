//! Stored floats by the book: values from their definition, rounding by looking the neighbours up.
#![allow(dead_code, reason = "each test uses its own part")]

use std::collections::HashMap;
use std::sync::LazyLock;

use magic_merge::checkpoint::Dtype;

/// Bits of exponent and of mantissa; all but F32 and F64.
const SMALL: [(Dtype, u32, u32); 4] =
    [(Dtype::BF16, 8, 7), (Dtype::F16, 5, 10), (Dtype::F8E4M3, 4, 3), (Dtype::F8E5M2, 5, 2)];

/// Element `i` of `stored`, as bits.
pub fn bits(dtype: Dtype, stored: &[u8], i: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..dtype.size()].copy_from_slice(&stored[i * dtype.size()..][..dtype.size()]);
    u64::from_le_bytes(bytes)
}

/// What the bits of an element mean.
pub fn value(dtype: Dtype, bits: u64) -> f64 {
    let Some(&(_, exponent_bits, mantissa_bits)) = SMALL.iter().find(|small| small.0 == dtype) else {
        return if dtype == Dtype::F32 { f32::from_bits(bits as u32).into() } else { f64::from_bits(bits) };
    };
    let sign = if bits >> (exponent_bits + mantissa_bits) & 1 == 1 { -1.0 } else { 1.0 };
    let exponent = (bits >> mantissa_bits & ((1 << exponent_bits) - 1)) as i32;
    let fraction = bits & ((1 << mantissa_bits) - 1);
    let bias = (1 << (exponent_bits - 1)) - 1;
    let unit = 2f64.powi(exponent.max(1) - bias - mantissa_bits as i32);
    let special = exponent == (1 << exponent_bits) - 1;
    match fraction {
        7 if special && dtype == Dtype::F8E4M3 => f64::NAN,
        0 if special && dtype != Dtype::F8E4M3 => sign * f64::INFINITY,
        _ if special && dtype != Dtype::F8E4M3 => f64::NAN,
        fraction if exponent == 0 => sign * fraction as f64 * unit,
        fraction => sign * (fraction + (1 << mantissa_bits)) as f64 * unit,
    }
}

/// The finite values of a small type from zero up, at the index of their bits, and the one that would come next.
pub fn values(dtype: Dtype) -> &'static [f64] {
    static TABLES: LazyLock<HashMap<Dtype, Vec<f64>>> = LazyLock::new(|| {
        let table = |&(dtype, ..): &(Dtype, u32, u32)| {
            let mut all: Vec<f64> = (0..).map(|bits| value(dtype, bits)).take_while(|x| x.is_finite()).collect();
            all.push(2.0 * all[all.len() - 1] - all[all.len() - 2]);
            (dtype, all)
        };
        SMALL.iter().map(table).collect()
    });
    &TABLES[&dtype]
}

/// Bits of the element of a small type nearest to `x`, ties to even; `None` for NaN.
pub fn nearest(dtype: Dtype, x: f64) -> Option<u64> {
    let table = values(dtype);
    let size = x.abs().min(table[table.len() - 1]);
    let above = table.partition_point(|&value| value < size).max(1);
    let (below, above) = (above - 1, above);
    let (down, up) = (size - table[below], table[above] - size);
    let magnitude = if down < up || down == up && below % 2 == 0 { below } else { above };
    let sign = u64::from(x.is_sign_negative()) << (8 * dtype.size() - 1);
    (!x.is_nan()).then_some(sign | magnitude as u64)
}

/// `x` rounded to `dtype`, infinite where it is too large even if the type would make it NaN.
pub fn rounded(dtype: Dtype, x: f64) -> f64 {
    match (dtype, nearest_small(dtype, x)) {
        (_, None) => x,
        (Dtype::F8E4M3, Some(bits)) if value(dtype, bits).is_nan() => x.signum() * f64::INFINITY,
        (_, Some(bits)) => value(dtype, bits),
    }
}

fn nearest_small(dtype: Dtype, x: f64) -> Option<u64> {
    if SMALL.iter().any(|small| small.0 == dtype) { nearest(dtype, x) } else { None }
}
