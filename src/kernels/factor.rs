//! The calibration factor ξ of each row from its statistics (MAGIC, arXiv 2512.19320; weight space).

use bytemuck::{Pod, Zeroable};

use super::norms::Stats;
use super::residual::alpha;
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// How rows are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// mean ‖x_k‖₁ / ‖m‖₁.
    SphereL1 = 0,
    /// The same with the Euclidean norm.
    SphereL2 = 1,
    /// The same with the largest magnitude.
    SphereLinf = 2,
    /// 1 / √(Σα_k² + ‖c‖² / n̄²).
    Mixed = 3,
}

/// Own parameters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    bounds: Bounds,
    strength: Strength,
}

/// What becomes of ξ once it is known: `shift + times · ξ`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Strength {
    /// Added.
    pub shift: f32,
    /// Multiplied with.
    pub times: f32,
}

impl Strength {
    /// ξ as it is.
    pub const FULL: Self = Self { shift: 0.0, times: 1.0 };

    /// `shift + times · xi`.
    pub fn of(self, xi: f32) -> f32 {
        self.shift + self.times * xi
    }
}

/// Bounds of ξ.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Bounds {
    /// ξ is at least this.
    pub least: f32,
    /// ξ is at most this.
    pub most: f32,
}

impl Bounds {
    /// ξ as computed.
    pub const NONE: Self = Self { least: 0.0, most: f32::MAX };
    /// ξ may only shrink the task vector.
    pub const SHRINK: Self = Self { least: 0.0, most: 1.0 };
    /// ξ may only enlarge it.
    pub const ENLARGE: Self = Self { least: 1.0, most: f32::MAX };
}

/// Bindings: stats (`[rows, planes]`), residual (`[rows]`), xi (`[rows]`). Constant: which rule.
pub static FACTOR: Kernel = Kernel {
    name: "factor",
    wgsl: include_str!("../../shaders/factor.wgsl"),
    constants: &["RULE"],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Rows(emit),
    twin,
};

/// How a row's factor is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor {
    /// The comparison.
    pub rule: Rule,
    /// Where ξ may lie.
    pub bounds: Bounds,
    /// What becomes of it.
    pub strength: Strength,
}

/// Appends: `xi[row]` by `factor`. `residual` is read by [`Rule::Mixed`] alone.
pub fn record(list: &mut Recording, factor: Factor, stats: Buf, residual: Buf, xi: Buf) {
    let Factor { rule, bounds, strength } = factor;
    list.call(&FACTOR, &[rule as u32], &Params { bounds, strength }, &[stats, residual, xi]);
}

fn emit(q: &mut dyn Quad) {
    let (rule, sums, xi) = (q.constant(0), q.name("sums"), q.name("xi"));
    let [least, most, shift, times] = [0, 1, 2, 3].map(|i| q.float(i));
    let stats = q.row_value(0, "row * PLANES + k", true);
    let merged = q.row_value(0, "row * PLANES + EXPERTS", true);
    let residual = if rule == Rule::Mixed as u32 { q.row_value(1, "row", false) } else { "0.0".to_owned() };
    q.before(&format!("var {xi} = 0.0;"));
    q.before("if lane % LANES == 0u && row < p.dims.rows {");
    q.before(&format!("    var {sums} = vec2<f32>();"));
    q.before(&format!("    for (var k = 0u; k < EXPERTS; k++) {{ {sums} += terms_of({rule}u, {stats}); }}"));
    q.before(&format!("    let own = factor({rule}u, {sums}, {merged}, {residual});"));
    q.before(&format!("    {xi} = {shift} + {times} * clamp(own, {least}, {most});"));
    q.before("}");
    q.set_row(2, &xi);
}

fn twin(args: &mut Args<'_>) {
    let planes = args.dims.planes as usize;
    let Params { bounds, strength } = args.params();
    let mixed = args.constants[0] == Rule::Mixed as u32;
    let norm = if mixed { Rule::SphereL2 as u32 } else { args.constants[0] };
    let (stats, residual) = (args.read::<Stats>(0), args.read::<f32>(1));
    let norm = |s: &Stats| match norm {
        0 => s.l1,
        1 => s.square.sqrt(),
        _ => s.largest,
    };
    for (row, xi) in args.write::<f32>(2).iter_mut().enumerate() {
        let (experts, merged) = stats[row * planes..][..planes].split_at(planes - 1);
        let merged = &merged[0];
        let mean = experts.iter().map(norm).sum::<f32>() / experts.len() as f32;
        let mut factor = 1.0;
        if merged.square > 0.0 && mean > 0.0 {
            factor = if mixed {
                let squares = experts.iter().map(|s| alpha(s) * alpha(s)).sum::<f32>();
                let unexplained = residual[row].sqrt() / mean;
                1.0 / (squares + unexplained * unexplained).sqrt()
            } else {
                mean / norm(merged)
            };
        }
        let factor = if factor.is_finite() { factor } else { 1.0 }.clamp(bounds.least, bounds.most);
        *xi = strength.of(factor);
    }
}
