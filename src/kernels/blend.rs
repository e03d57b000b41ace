//! Weighted sum with weights of their own for parts of the tensor: runs of elements along rows, or columns.

use bytemuck::{Pod, Zeroable};

use super::convert::{CHUNK, dtype, widen};
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// What has weights of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// Each run of `unit` elements.
    Rows,
    /// Each column of the view.
    Columns,
}

/// Own parameters; twin of `Params` in `shaders/blend.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    unit: u32,
}

/// Bindings: base (stored), weights (`[parts, planes]`), tau (planes). Constants: the base's element type, whether parts
/// are columns.
pub static BLEND: Kernel = Kernel {
    name: "blend",
    wgsl: include_str!("../../shaders/blend.wgsl"),
    constants: &["BASE", "COLUMNS"],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends `tau[last] = Σ_k w[k] · tau[k] + w[K] · base`, w being the weights of the part that an element belongs to:
/// one for each of the K experts, then the base's.
pub fn record(list: &mut Recording, base: Buf, weights: Buf, tau: Buf, unit: u32, along: Along) {
    let constants = [list.dtype(base).code(), u32::from(along == Along::Columns)];
    list.call(&BLEND, &constants, &Params { unit }, &[base, weights, tau]);
}

fn emit(q: &mut dyn Quad) {
    let (planes, columns) = (q.planes(), q.constant(1) != 0);
    let (part, weights) = (q.name("part"), q.name("weights"));
    // Parts are runs of whole rows, or end with rows.
    let alike = !columns && q.aligned() && q.fixed(0).is_multiple_of(4);
    let each = match () {
        () if columns => "at % p.dims.row_len".to_owned(),
        () if alike => format!("i / {}", q.word(0)),
        () => format!("at / {}", q.word(0)),
    };
    q.line(&format!("let {part} = ({each}) * PLANES;"));
    let value = q.at(1, &format!("{part} + k"), alike);
    q.line(&format!("var {weights}: Stack;"));
    q.line(&format!("for (var k = 0u; k < PLANES; k++) {{ {weights}[k] = {value}; }}"));
    let (base, tau) = (q.bits(0), q.stack(2, planes - 1));
    q.set(2, planes - 1, &format!("blend({weights}, {base}, {tau})"));
}

fn twin(args: &mut Args<'_>) {
    let (n, planes, row_len) = (args.dims.n as usize, args.dims.planes as usize, args.dims.row_len as usize);
    let unit = args.params::<Params>().unit as usize;
    let (base_type, columns) = (dtype(args.constants[0]), args.constants[1] != 0);
    let (base, weights) = (args.read::<u8>(0), args.read::<f32>(1));
    let (tau, merged) = args.write::<f32>(2).split_at_mut((planes - 1) * n);
    let mut stored = [0f32; CHUNK];
    for (chunk, out) in merged[..n].chunks_mut(CHUNK).enumerate() {
        let start = chunk * CHUNK;
        widen(base_type, base, start, &mut stored[..out.len()]);
        for ((i, out), base) in (start..).zip(out).zip(&stored) {
            let at = if columns { i % row_len } else { i / unit };
            let (share, weights) = weights[at * planes..][..planes].split_last().expect("the base has a weight");
            let sum = weights.iter().enumerate().fold(0.0, |sum, (k, weight)| sum + weight * tau[k * n + i]);
            *out = if *share == 0.0 { sum } else { sum + share * base };
        }
    }
}
