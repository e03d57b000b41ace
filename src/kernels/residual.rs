//! What of a merged row no expert's row explains: the ‖c‖² of weight-space calibration (MAGIC, arXiv 2512.19320).

use super::combine::add_planes;
use super::convert::CHUNK;
use super::norms::Stats;
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// Experts that one merge can have: the shader keeps a coefficient for each in workgroup memory.
pub const MAX_EXPERTS: usize = 128;

/// Bindings: tau (planes), stats (`[rows, planes]`), residual (`[rows]`).
pub static RESIDUAL: Kernel = Kernel {
    name: "residual",
    wgsl: include_str!("../../shaders/residual.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Rows(emit),
    twin,
};

/// Appends: `residual[row]` = ‖m − Σ α_k x_k‖² with α_k = ⟨m, x_k⟩ / ‖x_k‖², from the statistics of `norms`.
pub fn record(list: &mut Recording, tau: Buf, stats: Buf, residual: Buf) {
    list.call(&RESIDUAL, &[], &(), &[tau, stats, residual]);
}

/// ⟨m, x⟩ / ‖x‖², zero for a zero row.
pub(super) fn alpha(stats: &Stats) -> f32 {
    if stats.square > 0.0 { stats.dot / stats.square } else { 0.0 }
}

fn emit(q: &mut dyn Quad) {
    let (experts, alphas, sum) = (q.planes() - 1, q.name("alphas"), q.name("sum"));
    q.before(&format!("var {alphas}: Weights;"));
    let stats = q.row_value(1, "row * PLANES + k", true);
    let each = format!("for (var k = 0u; k < EXPERTS; k++) {{ {alphas}[k] = alpha({stats}); }}");
    q.before(&format!("if row < p.dims.rows {{ {each} }}"));
    q.before(&format!("var {sum}: array<vec4<f32>, 1>;"));
    let tau = q.stack(0, experts + 1);
    q.line(&format!("{sum}[0].x += residual(&{alphas}, {tau}, {});", q.exist()));
    q.join(2, &sum, 1, "join_residuals", 1);
}

fn twin(args: &mut Args<'_>) {
    let dims = args.dims;
    let (n, planes, len) = (dims.n as usize, dims.planes as usize, dims.row_len as usize);
    let (tau, stats) = (args.read::<f32>(0), args.read::<Stats>(1));
    let residual = args.write::<f32>(2);
    let (mut scratch, mut shares) = ([0f32; CHUNK], [0f32; MAX_EXPERTS]);
    let shares = &mut shares[..planes - 1];
    for (row, m) in tau[(planes - 1) * n..][..n].chunks(len).enumerate() {
        let mut sum = 0f64;
        for (share, stats) in shares.iter_mut().zip(&stats[row * planes..]) {
            *share = -alpha(stats);
        }
        for (i, m) in m.chunks(CHUNK).enumerate() {
            let c = &mut scratch[..m.len()];
            c.copy_from_slice(m);
            add_planes(c, shares, |plane| &tau[plane * n + row * len + i * CHUNK..]);
            sum += f64::from(square(c));
        }
        residual[row] = sum as f32;
    }
}

#[multiversion::multiversion(targets = "simd")]
fn square(x: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let pieces = x.chunks_exact(16);
    for (lane, x) in lanes.iter_mut().zip(pieces.remainder()) {
        *lane += x * x;
    }
    for piece in pieces {
        for (lane, x) in lanes.iter_mut().zip(piece) {
            *lane += x * x;
        }
    }
    lanes.iter().sum()
}
