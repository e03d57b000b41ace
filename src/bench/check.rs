//! How near two results must be, and whether they are.

use crate::checkpoint::Dtype;
use crate::kernels::convert;
use crate::recording::Size;

/// How near a result must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expect {
    /// The same bits.
    Bits,
    /// f32 values with |a − b| ≤ atol + rtol·|b|. Subnormals may be taken for zero; NaN is NaN, infinities are equal.
    Floats {
        /// Absolute part.
        atol: f32,
        /// Relative part.
        rtol: f32,
    },
    /// Stored elements, as many steps of their type apart at most, or as near as `atol`.
    Stored {
        /// Steps.
        ulps: u32,
        /// For what large values leave where they cancel.
        atol: f32,
    },
}

/// Says where `found` and `wanted`, results of `size` for `n` elements, differ by more than `expect`.
pub fn compare(size: Size, n: usize, found: &[u32], wanted: &[u32], expect: Expect) -> Result<(), String> {
    if found.len() != wanted.len() {
        return Err(format!("{} words, and {} are wanted", found.len(), wanted.len()));
    }
    if let (Expect::Stored { ulps, atol }, Size::Stored(dtype)) = (expect, size) {
        return compare_stored(dtype, n, [found, wanted], ulps, atol);
    }
    let mut wrong = 0;
    let mut first = String::new();
    for (i, (&a, &b)) in found.iter().zip(wanted).enumerate() {
        if !fits(a, b, expect) {
            wrong += 1;
            if wrong <= 4 {
                let (x, y) = (f32::from_bits(a), f32::from_bits(b));
                first += &format!("\n  [{i}] found {x:e} ({a:#010x}), wanted {y:e} ({b:#010x})");
            }
        }
    }
    match wrong {
        0 => Ok(()),
        _ => Err(format!("{wrong} of {} differ ({expect:?}):{first}", found.len())),
    }
}

fn fits(a: u32, b: u32, expect: Expect) -> bool {
    let Expect::Floats { atol, rtol } = expect else { return a == b };
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    if x.is_nan() || y.is_nan() || x.is_infinite() || y.is_infinite() {
        return x == y || x.is_nan() && y.is_nan();
    }
    (x - y).abs() <= atol + rtol * y.abs() + 4.0 * f32::MIN_POSITIVE
}

fn compare_stored(dtype: Dtype, n: usize, [found, wanted]: [&[u32]; 2], ulps: u32, atol: f32) -> Result<(), String> {
    let size = dtype.size();
    let element = |words: &[u32], i: usize| {
        let mut bytes = [0u8; 8];
        bytes[..size].copy_from_slice(&bytemuck::cast_slice::<u32, u8>(words)[i * size..][..size]);
        u64::from_le_bytes(bytes)
    };
    let sign = 1u64 << (8 * size - 1);
    // Steps from zero, so that neighbours across it are neighbours.
    let steps = |bits: u64| if bits & sign == 0 { bits as i64 } else { -((bits & !sign) as i64) };
    for i in 0..n {
        let (a, b) = (element(found, i), element(wanted, i));
        let mut value = [[0f32; 1]; 2];
        for (value, words) in value.iter_mut().zip([found, wanted]) {
            convert::widen(dtype, bytemuck::cast_slice(words), i, value);
        }
        let [[x], [y]] = value;
        let close = (x - y).abs() <= atol + 4.0 * f32::MIN_POSITIVE;
        let near = x.is_nan() && y.is_nan() || close || steps(a).abs_diff(steps(b)) <= u64::from(ulps);
        if !near {
            return Err(format!("[{i}] found {x:e} ({a:#x}), wanted {y:e} ({b:#x}); {ulps} ulps allowed"));
        }
    }
    Ok(())
}
