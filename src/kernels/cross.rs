//! Inner products of every two experts' rows: with the statistics of `norms`, all that lengths and angles follow from.

use super::gram::inner;
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording, Size};

/// Most experts of which products of pairs are fewer than what another look at the rows would cost.
pub const FEW: u32 = 6;

/// Bindings: tau (planes), cross (`[rows, width]`).
pub static CROSS: Kernel = Kernel {
    name: "cross",
    wgsl: include_str!("../../shaders/cross.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Rows(emit),
    twin,
};

/// Where ⟨x_j, x_k⟩, j < k, is among those of a row.
pub fn place(j: usize, k: usize) -> usize {
    k * (k - 1) / 2 + j
}

/// Words of a row, for `experts`: whole vectors.
pub fn width(experts: u32) -> u32 {
    (experts * experts.saturating_sub(1) / 2).next_multiple_of(4).max(4)
}

/// Appends: `cross[row]` = ⟨x_j, x_k⟩ of all j < k at their [places](place), and zeros. Of [`FEW`] experts.
pub fn record(list: &mut Recording, tau: Buf, cross: Buf) {
    debug_assert!(
        (2..=FEW + 1).contains(&list.planes) && list.buffers[cross.0].size == Size::Rows(width(list.planes - 1))
    );
    list.call(&CROSS, &[], &(), &[tau, cross]);
}

fn emit(q: &mut dyn Quad) {
    let (experts, sums) = (q.planes() - 1, q.name("sums"));
    let vectors = width(experts) / 4;
    q.before(&format!("var {sums}: array<vec4<f32>, {vectors}>;"));
    for (j, k) in (0..experts).flat_map(|k| (0..k).map(move |j| (j, k))) {
        let (x, y, place) = (q.plane(0, j), q.plane(0, k), place(j as usize, k as usize));
        let part = ["x", "y", "z", "w"][place % 4];
        q.line(&format!("{sums}[{}].{part} += inner({x}, {y}, {});", place / 4, q.exist()));
    }
    q.join(1, &sums, vectors, "join_inner", 4);
}

fn twin(args: &mut Args<'_>) {
    let (n, experts, len) = (args.dims.n as usize, args.dims.planes as usize - 1, args.dims.row_len as usize);
    let width = width(experts as u32) as usize;
    let tau = args.read::<f32>(0);
    for (row, out) in args.write::<f32>(1).chunks_mut(width).take(args.dims.rows as usize).enumerate() {
        let range = row * len..n.min((row + 1) * len);
        let plane = |k: usize| &tau[k * n..][range.clone()];
        out.fill(0.0);
        for k in 1..experts {
            let products = &mut out[place(0, k)..];
            (0..k).zip(products).for_each(|(j, product)| *product = inner(plane(j), plane(k)));
        }
    }
}
