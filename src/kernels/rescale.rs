//! The last step of every merge: `out = base + xi · tau[last]`, rounded once to the output type.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::convert::{CHUNK, dtype, narrow, widen};
use super::vector::LARGE;
use super::{Access, Args, Form, Kernel, Quad};
use crate::checkpoint::Dtype;
use crate::recording::{Buf, Recording, Size};

/// Own parameters; twin of `Params` in `shaders/rescale.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    stride: u32,
}

/// Counts of results that are no numbers; twin of `counts` in `shaders/rescale.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counts {
    /// NaN.
    pub nan: u32,
    /// Infinite before rounding.
    pub infinite: u32,
    /// Finite before rounding to the output type, not after.
    pub overflow: u32,
}

/// Words of [`Counts`].
pub const COUNTS: u32 = 3;

/// Bindings: base (stored), tau (planes), xi (`[rows]` or one), out (stored), counts ([`COUNTS`], added to).
/// Constants: both element types, and whether the base's own element stands where the result is not finite.
pub static RESCALE: Kernel = Kernel {
    name: "rescale",
    wgsl: include_str!("../../shaders/rescale.wgsl"),
    constants: &["BASE", "OUT", "FINITE"],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends `out = base + xi · tau[last]`; `xi` holds a factor for each row, or one for all.
pub fn record(list: &mut Recording, base: Buf, tau: Buf, xi: Buf, out: Buf, counts: Buf) {
    call(list, base, tau, xi, out, counts, false);
}

/// The same, and the base's own element where that is not finite, or not in the output type; such are counted as well.
pub fn record_finite(list: &mut Recording, base: Buf, tau: Buf, xi: Buf, out: Buf, counts: Buf) {
    call(list, base, tau, xi, out, counts, true);
}

fn call(list: &mut Recording, base: Buf, tau: Buf, xi: Buf, out: Buf, counts: Buf, finite: bool) {
    let constants = [list.dtype(base).code(), list.dtype(out).code(), finite.into()];
    let stride = u32::from(matches!(list.buffers[xi.0].size, Size::Rows(_)));
    list.call(&RESCALE, &constants, &Params { stride }, &[base, tau, xi, out, counts]);
}

fn emit(q: &mut dyn Quad) {
    let (base_type, out_type) = (q.constant(0), q.constant(1));
    let (base, stored) = (q.bits(0), q.stored(0));
    let (xi, tau) = (q.of_row(2), q.plane(1, q.planes() - 1));
    let (bits, count) = (q.name("bits"), q.name("lost"));
    q.line(&format!("let {bits} = rescale({base}, {xi}, {tau});"));
    q.before(&format!("var {count} = vec3<u32>();"));
    q.line(&format!("{count} += lost({out_type}u, {bits}, {});", q.exist()));
    q.count(4, &count);
    let bits = match q.constant(2) {
        0 => bits,
        _ => {
            let own = q.name("own");
            q.line(&format!("let {own} = if_finite({out_type}u, {bits}, {base});"));
            own
        }
    };
    let mut values = vec![format!("narrow4({out_type}u, {bits})")];
    if dtype(out_type) == Dtype::F64 {
        let pair = q.name("pair");
        let each = ["x", "y", "z", "w"].map(|c| format!("widen_to_f64({bits}.{c})")).join(", ");
        q.line(&format!("let {pair} = array<vec2<u32>, 4>({each});"));
        values = ["x", "y"]
            .map(|c| format!("vec4<u32>({})", [0, 1, 2, 3].map(|j| format!("{pair}[{j}].{c}")).join(", ")))
            .into();
    }
    // Where nothing is added, the base's own bits are kept if the types agree.
    if base_type == out_type {
        let kept = values.iter().zip(&stored).map(|(new, own)| format!("select({new}, {own}, is_zero({tau}))"));
        values = kept.collect();
    }
    q.store(3, &values);
}

fn twin(args: &mut Args<'_>) {
    let dims = args.dims;
    let (base_type, out_type) = (dtype(args.constants[0]), dtype(args.constants[1]));
    let (n, len) = (dims.n as usize, dims.row_len as usize);
    let (stride, finite) = (args.params::<Params>().stride as usize, args.constants[2] != 0);
    let (base, tau, xi) = (args.read::<u8>(0), args.read::<f32>(1), args.read::<f32>(2));
    let (out, counts) = (args.write::<u8>(3), &mut args.write::<Counts>(4)[0]);
    let tau = &tau[(dims.planes as usize - 1) * n..][..n];
    let (base, out) = (&base[..n * base_type.size()], &mut out[..n * out_type.size()]);
    let part = |first: usize, tau: &[f32], base: &[u8], out: &mut [u8]| {
        let (mut scratch, mut factors, mut counts) = ([0f32; CHUNK], [xi[0]; CHUNK], Counts::default());
        for (i, t) in tau.chunks(CHUNK).enumerate() {
            let start = i * CHUNK;
            let (y, factors) = (&mut scratch[..t.len()], &mut factors[..t.len()]);
            if stride != 0 {
                spread(xi, len, first + start, factors);
            }
            if (base_type, out_type) == (Dtype::BF16, Dtype::BF16) {
                let (base, out) = (bytemuck::cast_slice(base), bytemuck::cast_slice_mut(out));
                if sum_bf16(&base[start..], factors, t, &mut out[start..]) < overflow(out_type) {
                    continue;
                }
            }
            widen(base_type, base, start, y);
            add(y, factors, t);
            let largest = largest(y);
            if largest >= overflow(out_type) {
                tally(y, overflow(out_type), &mut counts);
                if finite {
                    let mut own = [0f32; CHUNK];
                    widen(base_type, base, start, &mut own[..y.len()]);
                    keep_lost(y, &own, overflow(out_type));
                }
            }
            narrow(out_type, y, out, start);
            // All but NaN comes back as it was, where f32 can hold it.
            if base_type == out_type && (largest > 0x7f80_0000 || base_type == Dtype::F64) {
                keep_zeros(out_type.size(), t, base, out, start);
            }
        }
        counts
    };
    if n <= LARGE {
        counts.add(part(0, tau, base, out));
        return;
    }
    let parts = tau.par_chunks(LARGE).zip(base.par_chunks(LARGE * base_type.size()));
    let parts = parts.zip(out.par_chunks_mut(LARGE * out_type.size())).enumerate();
    let found: Vec<Counts> = parts.map(|(i, ((tau, base), out))| part(i * LARGE, tau, base, out)).collect();
    found.into_iter().for_each(|found| counts.add(found));
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.nan += other.nan;
        self.infinite += other.infinite;
        self.overflow += other.overflow;
    }
}

/// The factors of elements `start..`, from those of rows of `len`.
fn spread(xi: &[f32], len: usize, start: usize, factors: &mut [f32]) {
    let (mut row, mut at) = (start / len, 0);
    while at < factors.len() {
        let end = ((row + 1) * len - start).min(factors.len());
        factors[at..end].fill(xi[row]);
        (row, at) = (row + 1, end);
    }
}

/// The commonest case, without buffers between. Returns the largest magnitude before it is rounded, by its bits; where
/// that is lost, what is written does not count.
#[multiversion::multiversion(targets = "simd")]
fn sum_bf16(base: &[u16], xi: &[f32], tau: &[f32], out: &mut [u16]) -> u32 {
    let mut largest = 0;
    for (((&base, &xi), &t), out) in base.iter().zip(xi).zip(tau).zip(out) {
        let own = f32::from_bits(u32::from(base) << 16);
        let bits = if t == 0.0 { own } else { own + xi * t }.to_bits();
        largest = largest.max(bits & 0x7fff_ffff);
        *out = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    }
    largest
}

#[multiversion::multiversion(targets = "simd")]
fn add(y: &mut [f32], xi: &[f32], tau: &[f32]) {
    for ((y, &xi), &t) in y.iter_mut().zip(xi).zip(tau) {
        *y = if t == 0.0 { *y } else { *y + xi * t };
    }
}

/// Puts the base's own value where the result is lost.
fn keep_lost(values: &mut [f32], base: &[f32], overflow: u32) {
    for (y, base) in values.iter_mut().zip(base).filter(|(y, _)| y.to_bits() & 0x7fff_ffff >= overflow) {
        *y = *base;
    }
}

/// Puts the base's own bits where nothing was added.
fn keep_zeros(size: usize, tau: &[f32], base: &[u8], out: &mut [u8], start: usize) {
    let bytes = start * size..(start + tau.len()) * size;
    let elements = out[bytes.clone()].chunks_exact_mut(size).zip(base[bytes].chunks_exact(size));
    for ((out, base), _) in elements.zip(tau).filter(|(_, t)| **t == 0.0) {
        out.copy_from_slice(base);
    }
}

/// Bits of the least magnitude that `dtype` rounds to infinity or NaN.
fn overflow(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::BF16 => 0x7f7f_8000,
        Dtype::F16 => 0x477f_f000,
        Dtype::F8E4M3 => 0x43e8_0001,
        Dtype::F8E5M2 => 0x4770_0000,
        _ => 0x7f80_0000,
    }
}

fn tally(values: &[f32], overflow: u32, counts: &mut Counts) {
    for y in values {
        match y.to_bits() & 0x7fff_ffff {
            bits if bits < overflow => {}
            bits if bits > 0x7f80_0000 => counts.nan += 1,
            0x7f80_0000 => counts.infinite += 1,
            _ => counts.overflow += 1,
        }
    }
}

/// Bits of the largest magnitude, NaN above all.
#[multiversion::multiversion(targets = "simd")]
fn largest(values: &[f32]) -> u32 {
    values.iter().fold(0, |largest, y| largest.max(y.to_bits() & 0x7fff_ffff))
}
