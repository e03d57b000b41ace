//! Stored elements to f32 and back on the CPU: the twins of the helpers in `shaders/common.wgsl`.
//!
//! Rounding is to nearest, ties to even. Exact for NaN (kept, made quiet), infinities and subnormals.

use crate::checkpoint::Dtype;

/// Elements that twins convert at a time: small enough for the innermost cache.
pub const CHUNK: usize = 1024;

/// The element type with this shader code.
pub fn dtype(code: u32) -> Dtype {
    Dtype::FLOATS[code as usize]
}

/// Elements `start..start + out.len()` of `stored`, as f32.
pub fn widen(dtype: Dtype, stored: &[u8], start: usize, out: &mut [f32]) {
    let bytes = &stored[start * dtype.size()..][..out.len() * dtype.size()];
    match dtype {
        Dtype::F32 => out.copy_from_slice(bytemuck::cast_slice(bytes)),
        Dtype::BF16 => widen_bf16(bytemuck::cast_slice(bytes), out),
        Dtype::F16 => widen_f16(bytemuck::cast_slice(bytes), out),
        Dtype::F64 => widen_f64(bytemuck::cast_slice(bytes), out),
        Dtype::F8E4M3 => widen_e4m3(bytes, out),
        Dtype::F8E5M2 => widen_e5m2(bytes, out),
        Dtype::Other { .. } => unreachable!("other types are copied"),
    }
}

/// `values` as elements `start..start + values.len()` of `stored`.
pub fn narrow(dtype: Dtype, values: &[f32], stored: &mut [u8], start: usize) {
    let bytes = &mut stored[start * dtype.size()..][..values.len() * dtype.size()];
    match dtype {
        Dtype::F32 => bytes.copy_from_slice(bytemuck::cast_slice(values)),
        Dtype::BF16 => narrow_bf16(values, bytemuck::cast_slice_mut(bytes)),
        Dtype::F16 => narrow_f16(values, bytemuck::cast_slice_mut(bytes)),
        Dtype::F64 => narrow_f64(values, bytemuck::cast_slice_mut(bytes)),
        Dtype::F8E4M3 => narrow_e4m3(values, bytes),
        Dtype::F8E5M2 => narrow_e5m2(values, bytes),
        Dtype::Other { .. } => unreachable!("other types are copied"),
    }
}

#[multiversion::multiversion(targets = "simd")]
fn widen_bf16(stored: &[u16], out: &mut [f32]) {
    for (x, &s) in out.iter_mut().zip(stored) {
        *x = f32::from_bits(u32::from(s) << 16);
    }
}

#[multiversion::multiversion(targets = "simd")]
fn widen_f16(stored: &[u16], out: &mut [f32]) {
    for (x, &s) in out.iter_mut().zip(stored) {
        *x = f16_value(s);
    }
}

#[multiversion::multiversion(targets = "simd")]
fn widen_f64(stored: &[[u8; 8]], out: &mut [f32]) {
    // Buffers are words of 4 bytes: nothing promises the alignment of an f64.
    for (x, &s) in out.iter_mut().zip(stored) {
        *x = f64::from_le_bytes(s) as f32;
    }
}

#[multiversion::multiversion(targets = "simd")]
fn widen_e4m3(stored: &[u8], out: &mut [f32]) {
    for (x, &s) in out.iter_mut().zip(stored) {
        let magnitude = u32::from(s & 0x7f);
        // As an f32 with the exponent 120 too small, then scaled: subnormals come out right by themselves.
        let value = f32::from_bits(magnitude << 20) * f32::from_bits((127 + 120) << 23);
        let bits = if magnitude == 0x7f { 0x7fc0_0000 } else { value.to_bits() };
        *x = f32::from_bits(bits | u32::from(s & 0x80) << 24);
    }
}

#[multiversion::multiversion(targets = "simd")]
fn widen_e5m2(stored: &[u8], out: &mut [f32]) {
    for (x, &s) in out.iter_mut().zip(stored) {
        *x = f16_value(u16::from(s) << 8);
    }
}

#[inline(always)]
fn f16_value(stored: u16) -> f32 {
    let magnitude = u32::from(stored & 0x7fff);
    let value = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let bits = if magnitude >= 0x7c00 { 0x7f80_0000 | magnitude << 13 } else { value.to_bits() };
    f32::from_bits(bits | u32::from(stored & 0x8000) << 16)
}

#[multiversion::multiversion(targets = "simd")]
fn narrow_bf16(values: &[f32], stored: &mut [u16]) {
    for (s, x) in stored.iter_mut().zip(values) {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        *s = if bits & 0x7fff_ffff > 0x7f80_0000 { bits >> 16 | 0x40 } else { rounded } as u16;
    }
}

#[multiversion::multiversion(targets = "simd")]
fn narrow_f16(values: &[f32], stored: &mut [u16]) {
    for (s, x) in stored.iter_mut().zip(values) {
        let bits = x.to_bits();
        *s = narrow_small(bits, 10, 15, 126, 15, 0x7c00, 0x7e00 | (bits >> 13) & 0x3ff) as u16;
    }
}

#[multiversion::multiversion(targets = "simd")]
fn narrow_f64(values: &[f32], stored: &mut [[u8; 8]]) {
    for (s, &x) in stored.iter_mut().zip(values) {
        *s = f64::from(x).to_le_bytes();
    }
}

#[multiversion::multiversion(targets = "simd")]
fn narrow_e4m3(values: &[f32], stored: &mut [u8]) {
    for (s, x) in stored.iter_mut().zip(values) {
        *s = narrow_small(x.to_bits(), 3, 7, 141, 7, 0x7f, 0x7f) as u8;
    }
}

#[multiversion::multiversion(targets = "simd")]
fn narrow_e5m2(values: &[f32], stored: &mut [u8]) {
    for (s, x) in stored.iter_mut().zip(values) {
        *s = narrow_small(x.to_bits(), 2, 15, 134, 7, 0x7c, 0x7f) as u8;
    }
}

/// Twin of `narrow_small` in `shaders/common.wgsl`, without branches.
#[inline(always)]
fn narrow_small(bits: u32, mantissa: u32, bias: u32, unit: u32, top: u32, limit: u32, nan: u32) -> u32 {
    let sign = (bits >> 31) << top;
    let magnitude = bits & 0x7fff_ffff;
    let exponent = magnitude >> 23;
    let drop = 23 - mantissa;
    let rebiased = magnitude.wrapping_sub((127 - bias) << 23);
    let normal = rebiased.wrapping_add((1 << (drop - 1)) - 1 + ((rebiased >> drop) & 1)) >> drop;
    // Below exponent 1 the shift goes on; outside that range the value is not used, but must be in bounds.
    let shift = unit.wrapping_sub(exponent).clamp(1, 25);
    let full = magnitude & 0x007f_ffff | 0x0080_0000;
    let subnormal = (full + (1 << (shift - 1)) - 1 + ((full >> shift) & 1)) >> shift;
    let small = if exponent + bias > 127 { normal } else { subnormal };
    sign | if magnitude > 0x7f80_0000 { nan } else { small.min(limit) }
}
