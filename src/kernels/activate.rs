//! `out = act(x)`, element by element.

use super::vector::{each_part, erf, sigmoid, tanh};
use super::{Access, Args, Form, Kernel, holds, per_quad};
use crate::recording::{Buf, Recording};

/// A function between two linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// x · Φ(x), by the error function.
    Gelu,
    /// Its approximation by a hyperbolic tangent.
    GeluTanh,
    /// x · σ(1.702 x).
    QuickGelu,
    /// x · σ(x).
    Silu,
    /// max(x, 0).
    Relu,
    /// The hyperbolic tangent.
    Tanh,
}

impl Act {
    /// All of them; a place in this list is the code that shaders know one by.
    pub const ALL: [Self; 6] = [Self::Gelu, Self::GeluTanh, Self::QuickGelu, Self::Silu, Self::Relu, Self::Tanh];

    /// Code of `self` in `shaders/activation.wgsl`.
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// Bindings: x (`[rows, row_len]`), out (the same). Constant: the function.
pub static ACTIVATE: Kernel = Kernel {
    name: "activate",
    wgsl: concat!(include_str!("../../shaders/activation.wgsl"), include_str!("../../shaders/activate.wgsl")),
    constants: &["ACT"],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(per_quad),
    twin,
};

/// Appends `out = act(x)`.
pub fn record(list: &mut Recording, (rows, row_len): (u32, u32), act: Act, x: Buf, out: Buf) {
    holds(list, x, 0, rows, row_len);
    holds(list, out, 0, rows, row_len);
    list.call_over((rows, row_len), &ACTIVATE, &[act.code()], &(), &[x, out]);
}

fn twin(args: &mut Args<'_>) {
    let n = args.dims.n as usize;
    let act = Act::ALL[args.constants[0] as usize];
    let x = args.read::<f32>(0);
    each_part(&mut args.write::<f32>(1)[..n], |at, out| activate(act, &x[at..][..out.len()], out));
}

/// `out = act(x)`.
#[multiversion::multiversion(targets = "simd")]
pub fn activate(act: Act, x: &[f32], out: &mut [f32]) {
    let pairs = out.iter_mut().zip(x);
    match act {
        Act::Gelu => pairs.for_each(|(y, &x)| *y = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))),
        Act::GeluTanh => pairs.for_each(|(y, &x)| {
            let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
            *y = 0.5 * x * (1.0 + tanh(inner));
        }),
        Act::QuickGelu => pairs.for_each(|(y, &x)| *y = x * sigmoid(1.702 * x)),
        Act::Silu => pairs.for_each(|(y, &x)| *y = x * sigmoid(x)),
        Act::Relu => pairs.for_each(|(y, &x)| *y = if x < 0.0 { 0.0 } else { x }),
        Act::Tanh => pairs.for_each(|(y, &x)| *y = tanh(x)),
    }
}
