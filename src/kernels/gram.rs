//! Inner products of all pairs of planes over runs of elements: all that lengths and angles follow from.

use bytemuck::{Pod, Zeroable};

use super::vector::{SPAN, dot};
use super::{Access, Args, Form, Kernel, Quad, WORKGROUP, per_row_and_plane};
use crate::recording::{Buf, Recording, Size};

/// Own parameters; twin of `Params` in `shaders/gram.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    unit: u32,
}

/// Bindings: tau (planes), gram (`[n / unit, pairs]`).
pub static GRAM: Kernel = Kernel {
    name: "gram",
    wgsl: include_str!("../../shaders/gram.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(|dims| per_row_and_plane(dims).max(u64::from(dims.n).div_ceil(u64::from(WORKGROUP)))),
    twin,
};

/// The same over whole rows, of few planes.
pub static GRAM_ROWS: Kernel = Kernel {
    name: "gram_rows",
    wgsl: include_str!("../../shaders/gram_rows.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Rows(emit),
    twin,
};

/// Most pairs that invocations hold sums of.
const FEW: u32 = 28;

/// Pairs i ≤ j of `planes` planes.
pub fn pairs(planes: u32) -> u32 {
    planes * (planes + 1) / 2
}

/// Size of the inner products of `planes` planes over runs of `unit` elements in rows of `row_len`.
pub fn size(planes: u32, row_len: u32, unit: u32) -> Size {
    Size::Rows(row_len / unit * pairs(planes))
}

/// Appends: `gram[run]` = ⟨p_i, p_j⟩ over that run of `unit` elements, for every pair of planes: (0,0), (0,1), …, (1,1),
/// (1,2), …; `unit` divides the length of a row.
pub fn record(list: &mut Recording, tau: Buf, unit: u32, gram: Buf) {
    let planes = list.planes;
    let rows = matches!(list.buffers[gram.0].size, Size::Rows(width) if width == pairs(planes)) && pairs(planes) <= FEW;
    list.call(if rows { &GRAM_ROWS } else { &GRAM }, &[], &Params { unit }, &[tau, gram]);
}

fn emit(q: &mut dyn Quad) {
    let (planes, sums) = (q.planes(), q.name("sums"));
    q.before(&format!("var {sums}: array<vec4<f32>, {}>;", pairs(planes)));
    let all = (0..planes).flat_map(|i| (i..planes).map(move |j| (i, j)));
    for (at, (i, j)) in all.enumerate() {
        let (x, y) = (q.plane(0, i), q.plane(0, j));
        q.line(&format!("{sums}[{at}] = product({sums}[{at}], {x}, {y}, {});", q.exist()));
    }
    q.join(1, &sums, pairs(planes), "join_products", 1);
}

fn twin(args: &mut Args<'_>) {
    let (n, planes) = (args.dims.n as usize, args.dims.planes as usize);
    let unit = args.params::<Params>().unit as usize;
    let tau = args.read::<f32>(0);
    let gram = args.write::<f32>(1).chunks_mut(pairs(planes as u32) as usize);
    for (run, gram) in (0..n.div_ceil(unit)).zip(gram) {
        let range = run * unit..n.min((run + 1) * unit);
        let plane = |k: usize| &tau[k * n..][range.clone()];
        let all = (0..planes).flat_map(|i| (i..planes).map(move |j| (i, j)));
        gram.iter_mut().zip(all).for_each(|(out, (i, j))| *out = inner(plane(i), plane(j)));
    }
}

/// ⟨x, y⟩.
pub(super) fn inner(x: &[f32], y: &[f32]) -> f32 {
    x.chunks(SPAN).zip(y.chunks(SPAN)).map(|(x, y)| f64::from(dot(x, y))).sum::<f64>() as f32
}
