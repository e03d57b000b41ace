//! Weighted sum: `tau[last] = Σ_k weights[k] · tau[k] + base_weight · base`.

use bytemuck::{Pod, Zeroable};

use super::convert::{CHUNK, dtype, widen};
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/combine.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    base_weight: f32,
}

/// Bindings: base (stored), weights (one an expert), tau (planes). Constant: the base's element type.
pub static COMBINE: Kernel = Kernel {
    name: "combine",
    wgsl: include_str!("../../shaders/combine.wgsl"),
    constants: &["BASE"],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends `tau[last] = Σ_k weights[k] · tau[k] + base_weight · base`.
pub fn record(list: &mut Recording, base: Buf, weights: Buf, base_weight: f32, tau: Buf) {
    let constants = [list.dtype(base).code()];
    list.call(&COMBINE, &constants, &Params { base_weight }, &[base, weights, tau]);
}

fn emit(q: &mut dyn Quad) {
    let experts = q.planes() - 1;
    let (weights, share, base, tau) = (q.values(1, experts), q.float(0), q.bits(0), q.stack(2, experts));
    q.set(2, experts, &format!("combine({weights}, {share}, {base}, {tau})"));
}

fn twin(args: &mut Args<'_>) {
    let (n, experts) = (args.dims.n as usize, args.dims.planes as usize - 1);
    let base_weight = args.params::<Params>().base_weight;
    let base_type = dtype(args.constants[0]);
    let (base, weights) = (args.read::<u8>(0), &args.read::<f32>(1)[..experts]);
    let (tau, merged) = args.write::<f32>(2).split_at_mut(experts * n);
    let mut scratch = [0f32; CHUNK];
    for (i, out) in merged[..n].chunks_mut(CHUNK).enumerate() {
        out.fill(0.0);
        add_planes(out, weights, |k| &tau[k * n + i * CHUNK..]);
        if base_weight != 0.0 {
            let base_values = &mut scratch[..out.len()];
            widen(base_type, base, i * CHUNK, base_values);
            add_scaled(out, base_weight, base_values);
        }
    }
}

/// `out += Σ_k scales[k] · plane(k)`, one product after the other, in few passes.
pub(super) fn add_planes<'a>(out: &mut [f32], scales: &[f32], plane: impl Fn(usize) -> &'a [f32]) {
    for (group, scales) in scales.chunks(4).enumerate() {
        let plane = |k| &plane(4 * group + k)[..out.len()];
        match *scales {
            [a, b, c, d] => add_few(out, [a, b, c, d], [plane(0), plane(1), plane(2), plane(3)]),
            [a, b, c] => add_few(out, [a, b, c], [plane(0), plane(1), plane(2)]),
            [a, b] => add_few(out, [a, b], [plane(0), plane(1)]),
            _ => add_scaled(out, scales[0], plane(0)),
        }
    }
}

/// In one pass, of which compilers make vectors where they know the number of planes.
#[multiversion::multiversion(targets = "simd")]
fn add_few<const K: usize>(out: &mut [f32], scales: [f32; K], planes: [&[f32]; K]) {
    let planes = planes.map(|plane| &plane[..out.len()]);
    for (i, o) in out.iter_mut().enumerate() {
        let mut sum = *o;
        for k in 0..K {
            sum += scales[k] * planes[k][i];
        }
        *o = sum;
    }
}

/// `out += scale · x`.
#[multiversion::multiversion(targets = "simd")]
pub(super) fn add_scaled(out: &mut [f32], scale: f32, x: &[f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o += scale * x;
    }
}
