//! Stored elements to f32 and back on the CPU: every pattern of the small types, and every place where rounding turns.

mod common;
#[path = "common/formats.rs"]
mod formats;

use common::{SPECIAL, words};
use half::{bf16, f16};
use magic_merge::checkpoint::Dtype;
use magic_merge::kernels::convert::{narrow, widen};

const SMALL: [Dtype; 4] = [Dtype::BF16, Dtype::F16, Dtype::F8E4M3, Dtype::F8E5M2];

/// All patterns of a small type, in order.
fn patterns(dtype: Dtype) -> Vec<u32> {
    let all = 0..1u32 << (8 * dtype.size());
    let bytes: Vec<u8> = all.flat_map(|bits| bits.to_le_bytes()[..dtype.size()].to_vec()).collect();
    bytemuck::pod_collect_to_vec(&bytes)
}

fn widened(dtype: Dtype, stored: &[u32]) -> Vec<f32> {
    let bytes: &[u8] = bytemuck::cast_slice(stored);
    let mut out = vec![0.0; bytes.len() / dtype.size()];
    widen(dtype, bytes, 0, &mut out);
    out
}

fn narrowed(dtype: Dtype, values: &[f32]) -> Vec<u64> {
    let stored = common::store(dtype, values);
    (0..values.len()).map(|i| formats::bits(dtype, &stored, i)).collect()
}

/// Values around every place where rounding to `dtype` turns, and a million of all kinds.
fn hard_values(dtype: Dtype) -> Vec<f32> {
    let mut all: Vec<f32> = words(11).take(1 << 20).map(f32::from_bits).collect();
    all.extend(SPECIAL);
    for pair in formats::values(dtype).windows(2) {
        for x in [pair[0], (pair[0] + pair[1]) / 2.0, pair[1]] {
            let x = x as f32;
            all.extend([x.next_down(), x, x.next_up()].iter().flat_map(|x| [*x, -x]));
        }
    }
    all
}

#[test]
fn every_pattern_means_what_its_type_says() {
    for dtype in SMALL {
        for (bits, x) in widened(dtype, &patterns(dtype)).into_iter().enumerate() {
            let wanted = formats::value(dtype, bits as u64) as f32;
            assert!(x.to_bits() == wanted.to_bits() || x.is_nan() && wanted.is_nan(), "{dtype:?} {bits:#x}: {x}");
            let known = match dtype {
                Dtype::BF16 => bf16::from_bits(bits as u16).to_f32(),
                Dtype::F16 => f16::from_bits(bits as u16).to_f32(),
                _ => continue,
            };
            assert!(x.to_bits() == known.to_bits() || x.is_nan() && known.is_nan(), "{dtype:?} {bits:#x}: {x} {known}");
        }
    }
}

#[test]
fn every_pattern_survives_the_way_there_and_back() {
    for dtype in SMALL {
        let values = widened(dtype, &patterns(dtype));
        for (bits, (back, x)) in narrowed(dtype, &values).into_iter().zip(&values).enumerate() {
            let back_value = formats::value(dtype, back);
            assert!(back == bits as u64 || x.is_nan() && back_value.is_nan(), "{dtype:?} {bits:#x}: {back:#x}");
            // A NaN keeps its sign.
            assert_eq!(back >> (8 * dtype.size() - 1), bits as u64 >> (8 * dtype.size() - 1), "{dtype:?} {bits:#x}");
        }
    }
}

#[test]
fn rounding_is_to_the_nearest_and_ties_go_to_even() {
    for dtype in SMALL {
        let values = hard_values(dtype);
        for (found, x) in narrowed(dtype, &values).into_iter().zip(values) {
            let right = match formats::nearest(dtype, x.into()) {
                Some(wanted) => found == wanted,
                None => formats::value(dtype, found).is_nan(),
            };
            assert!(right, "{dtype:?} {x:e} ({:#x}): {found:#x}", x.to_bits());
            let known = match dtype {
                Dtype::BF16 => bf16::from_f32(x).to_bits(),
                Dtype::F16 => f16::from_f32(x).to_bits(),
                _ => continue,
            };
            assert!(found == u64::from(known), "{dtype:?} {x:e} ({:#x}): {found:#x}, half {known:#x}", x.to_bits());
        }
    }
}

#[test]
fn the_ends_of_the_eight_bit_types() {
    let infinity = f32::INFINITY;
    let e4m3 = [448.0, 464.0, 464.0f32.next_up(), 1e9, infinity, -infinity, f32::NAN, 2f32.powi(-10), -0.0];
    // 464 is half way to what would be 480; 2^-10 is half of the smallest subnormal.
    assert_eq!(narrowed(Dtype::F8E4M3, &e4m3), [0x7e, 0x7e, 0x7f, 0x7f, 0x7f, 0xff, 0x7f, 0, 0x80]);
    let e5m2 = [57344.0, 61440.0f32.next_down(), 61440.0, infinity, -infinity, f32::NAN, 2f32.powi(-17), -0.0];
    assert_eq!(narrowed(Dtype::F8E5M2, &e5m2), [0x7b, 0x7b, 0x7c, 0x7c, 0xfc, 0x7f, 0, 0x80]);
}

#[test]
fn the_large_types() {
    let values: Vec<f32> = words(12).take(1 << 16).map(f32::from_bits).chain(SPECIAL).collect();
    assert!(narrowed(Dtype::F32, &values).iter().zip(&values).all(|(bits, x)| *bits == u64::from(x.to_bits())));
    for (bits, x) in narrowed(Dtype::F64, &values).into_iter().zip(&values) {
        assert!(bits == f64::from(*x).to_bits() || x.is_nan() && f64::from_bits(bits).is_nan(), "{x:e}");
    }
    // Around the halves at which f64 becomes f32, down to subnormals and up to infinity.
    for (a, b) in words(13).zip(words(14)).take(1 << 16) {
        let middle = u64::from(b) << 29 & ((1 << 52) - 1) | u64::from(1023 - 151 + a % 281) << 52;
        for bits in [0x0fff_ffff, 0x1000_0000, 0x1000_0001].map(|rest| middle | rest) {
            let wide = [f64::from_bits(bits), -f64::from_bits(bits)];
            let mut bytes = [0u8; 17];
            bytes[1..].copy_from_slice(bytemuck::cast_slice(&wide));
            let mut out = [0f32; 2];
            widen(Dtype::F64, &bytes[1..], 0, &mut out); // at any address
            assert_eq!(out.map(f32::to_bits), wide.map(|x| (x as f32).to_bits()), "{bits:#x}");
        }
    }
}

#[test]
fn any_part_of_a_buffer_can_be_converted() {
    for dtype in Dtype::FLOATS {
        let values = common::values(3001, 0.1, 15);
        let whole = narrowed(dtype, &values);
        let mut stored = vec![0u32; (3001 * dtype.size()).div_ceil(4)];
        for (start, len) in [(0, 1), (1, 7), (8, 250), (258, 1024), (1282, 1719)] {
            narrow(dtype, &values[start..start + len], bytemuck::cast_slice_mut(&mut stored), start);
            let mut out = vec![0.0; len];
            widen(dtype, bytemuck::cast_slice(&stored), start, &mut out);
            let wanted = whole[start..].iter().map(|&bits| formats::value(dtype, bits) as f32);
            assert!(out.iter().zip(wanted).all(|(a, b)| a.to_bits() == b.to_bits()), "{dtype:?} {start}");
        }
        let bytes: &[u8] = bytemuck::cast_slice(&stored);
        assert!((0..3001).all(|i| formats::bits(dtype, bytes, i) == whole[i]), "{dtype:?}");
    }
}
