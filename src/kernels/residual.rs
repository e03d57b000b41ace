//! What of a merged row no expert's row explains: the ‖c‖² of weight-space calibration (MAGIC, arXiv 2512.19320).

use super::combine::add_planes;
use super::convert::CHUNK;
use super::norms::Stats;
use super::{Access, Args, Form, Kernel, Quad, cross};
use crate::recording::{Buf, Recording, Size};

/// Experts that one merge can have: the shader keeps a coefficient for each in workgroup memory.
pub const MAX_EXPERTS: usize = 128;

/// Bindings: tau (planes), stats (`[rows, planes]`), cross (of `cross`; not read if there is none), residual (`[rows]`).
/// Constant: whether there is `cross`.
pub static RESIDUAL: Kernel = Kernel {
    name: "residual",
    wgsl: include_str!("../../shaders/residual.wgsl"),
    constants: &["CROSS"],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Write],
    form: Form::Rows(emit),
    twin,
};

/// Appends: `residual[row]` = ‖m − Σ α_k x_k‖² with α_k = ⟨m, x_k⟩ / ‖x_k‖², from the statistics of `norms`.
///
/// Of few experts, the square is multiplied out: their inner products are sums like the statistics, taken with those. Rows
/// are gone over again only where too much of it cancels.
pub fn record(list: &mut Recording, tau: Buf, stats: Buf, residual: Buf) {
    let products = beside(list.planes - 1).map(|width| {
        let products = list.scratch("cross", Size::Rows(width));
        cross::record(list, tau, products);
        products
    });
    list.call(&RESIDUAL, &[products.is_some().into()], &(), &[tau, stats, products.unwrap_or(stats), residual]);
}

/// Words of a row that [`record`] takes beside what it is given.
pub fn beside(experts: u32) -> Option<u32> {
    (1..=cross::FEW).contains(&experts).then(|| cross::width(experts))
}

/// ⟨m, x⟩ / ‖x‖², zero for a zero row.
pub(super) fn alpha(stats: &Stats) -> f32 {
    if stats.square > 0.0 { stats.dot / stats.square } else { 0.0 }
}

fn emit(q: &mut dyn Quad) {
    let (experts, alphas, sum) = (q.planes() - 1, q.name("alphas"), q.name("sum"));
    q.before(&format!("var {alphas}: Weights;"));
    q.before(&format!("var {sum}: array<vec4<f32>, 1>;"));
    let stats = q.row_value(1, "row * PLANES + k", true);
    q.before("if row < p.dims.rows {");
    q.before(&format!("    for (var k = 0u; k < EXPERTS; k++) {{ {alphas}[k] = alpha({stats}); }}"));
    if q.constant(0) != 0 {
        let merged = q.row_value(1, "row * PLANES + EXPERTS", true);
        let place = format!("row * {}u + place / 4u", cross::width(experts) / 4);
        let product = q.row_value(2, &place, true);
        q.before(&format!("    var terms = Terms({merged}.y, {merged}.y, 0.0, 0.0);"));
        q.before("    var place = 0u;");
        q.before("    for (var k = 0u; k < EXPERTS; k++) {");
        q.before(&format!("        terms = with_expert(terms, {alphas}[k], {stats}.y);"));
        q.before("        for (var j = 0u; j < k; j++) {");
        q.before(&format!("            terms = with_pair(terms, {alphas}[j] * {alphas}[k], {product}[place % 4u]);"));
        q.before("            place++;");
        q.before("        }");
        q.before("    }");
        q.before("    if is_near(terms) {");
        q.before(&format!("        {sum}[0].x = select(0.0, max(terms.sum, 0.0), lane % LANES == 0u);"));
        q.before("        end = 0u;");
        q.before("    }");
    }
    q.before("}");
    let tau = q.stack(0, experts + 1);
    q.line(&format!("{sum}[0].x += residual(&{alphas}, {tau}, {});", q.exist()));
    q.join(3, &sum, 1, "join_residuals", 1);
}

fn twin(args: &mut Args<'_>) {
    let dims = args.dims;
    let (n, planes, len) = (dims.n as usize, dims.planes as usize, dims.row_len as usize);
    let (tau, stats) = (args.read::<f32>(0), args.read::<Stats>(1));
    let products = (args.constants[0] != 0).then(|| args.read::<f32>(2));
    let width = cross::width(dims.planes - 1) as usize;
    let residual = args.write::<f32>(3);
    let (mut scratch, mut shares) = ([0f32; CHUNK], [0f32; MAX_EXPERTS]);
    let shares = &mut shares[..planes - 1];
    for (row, m) in tau[(planes - 1) * n..][..n].chunks(len).enumerate() {
        let stats = &stats[row * planes..][..planes];
        let known = products.and_then(|products| multiplied_out(stats, &products[row * width..][..width]));
        if let Some(known) = known {
            residual[row] = known;
            continue;
        }
        for (share, stats) in shares.iter_mut().zip(stats) {
            *share = -alpha(stats);
        }
        let mut sum = 0f64;
        for (i, m) in m.chunks(CHUNK).enumerate() {
            let c = &mut scratch[..m.len()];
            c.copy_from_slice(m);
            add_planes(c, shares, |plane| &tau[plane * n + row * len + i * CHUNK..]);
            sum += f64::from(square(c));
        }
        residual[row] = sum as f32;
    }
}

/// The square multiplied out, if that is near enough for ξ; see `shaders/residual.wgsl`.
fn multiplied_out(stats: &[Stats], products: &[f32]) -> Option<f32> {
    let (merged, experts) = stats.split_last().expect("the last plane is the merged one");
    let (mut sum, mut size) = (merged.square, merged.square);
    let (mut squares, mut norms) = (0.0, 0.0);
    for (k, stats) in experts.iter().enumerate() {
        let share = alpha(stats);
        let own = share * share * stats.square;
        (sum, size, squares, norms) = (sum - own, size + own, squares + share * share, norms + stats.square.sqrt());
        for (j, other) in experts[..k].iter().enumerate() {
            let both = 2.0 * alpha(other) * share * products[cross::place(j, k)];
            (sum, size) = (sum + both, size + both.abs());
        }
    }
    let mean = norms / experts.len() as f32;
    (size <= 8.0 * (squares * mean * mean + sum)).then(|| sum.max(0.0))
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
