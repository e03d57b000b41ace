//! Task vectors: `tau[plane] = model − base`.

use bytemuck::{Pod, Zeroable};

use super::convert::{CHUNK, dtype, widen};
use super::vector::each_large;
use super::{Access, Args, Form, Kernel, Quad};
use crate::checkpoint::Dtype;
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/delta.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    plane: u32,
}

/// Bindings: base (stored), model (stored), tau (planes). Constants: both element types, and whether
/// what is not finite counts as unchanged.
pub static DELTA: Kernel = Kernel {
    name: "delta",
    wgsl: include_str!("../../shaders/delta.wgsl"),
    constants: &["BASE", "MODEL", "FINITE"],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends `tau[plane] = model − base`.
pub fn record(list: &mut Recording, base: Buf, model: Buf, tau: Buf, plane: u32) {
    call(list, base, model, tau, plane, false);
}

/// The same, and zero where the model, the base or their difference is not finite.
pub fn record_finite(list: &mut Recording, base: Buf, model: Buf, tau: Buf, plane: u32) {
    call(list, base, model, tau, plane, true);
}

fn call(list: &mut Recording, base: Buf, model: Buf, tau: Buf, plane: u32, finite: bool) {
    let constants = [list.dtype(base).code(), list.dtype(model).code(), finite.into()];
    list.call(&DELTA, &constants, &Params { plane }, &[base, model, tau]);
}

fn emit(q: &mut dyn Quad) {
    let (base, model) = (q.bits(0), q.bits(1));
    let function = if q.constant(2) != 0 { "delta_finite" } else { "delta" };
    q.set(2, q.fixed(0), &format!("{function}({base}, {model})"));
}

fn twin(args: &mut Args<'_>) {
    let (base_type, model_type, finite) = (dtype(args.constants[0]), dtype(args.constants[1]), args.constants[2] != 0);
    let n = args.dims.n as usize;
    let plane = args.params::<Params>().plane as usize;
    let (base, model) = (args.read::<u8>(0), args.read::<u8>(1));
    let tau = &mut args.write::<f32>(2)[plane * n..][..n];
    each_large(tau, 1, |first, tau| {
        if (base_type, model_type) == (Dtype::BF16, Dtype::BF16) {
            let (base, model) = (bytemuck::cast_slice(base), bytemuck::cast_slice(model));
            subtract_bf16(tau, &base[first..], &model[first..]);
            if finite {
                keep_finite(tau);
            }
            return;
        }
        let mut scratch = [0f32; CHUNK];
        for (i, out) in tau.chunks_mut(CHUNK).enumerate() {
            let b = &mut scratch[..out.len()];
            widen(base_type, base, first + i * CHUNK, b);
            widen(model_type, model, first + i * CHUNK, out);
            subtract(out, b);
            if finite {
                keep_finite(out);
            }
        }
    });
}

#[multiversion::multiversion(targets = "simd")]
fn subtract(out: &mut [f32], base: &[f32]) {
    for (t, b) in out.iter_mut().zip(base) {
        *t = if t.to_bits() == b.to_bits() { 0.0 } else { *t - b };
    }
}

#[multiversion::multiversion(targets = "simd")]
fn keep_finite(out: &mut [f32]) {
    for t in out {
        *t = if t.to_bits() & 0x7fff_ffff < 0x7f80_0000 { *t } else { 0.0 };
    }
}

/// The commonest case, without a buffer between.
#[multiversion::multiversion(targets = "simd")]
fn subtract_bf16(out: &mut [f32], base: &[u16], model: &[u16]) {
    let value = |stored: u16| f32::from_bits(u32::from(stored) << 16);
    for ((t, &b), &m) in out.iter_mut().zip(base).zip(model) {
        *t = if m == b { 0.0 } else { value(m) - value(b) };
    }
}
