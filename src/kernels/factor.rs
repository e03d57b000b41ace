//! The calibration factor ξ of each row from its statistics (MAGIC, arXiv 2512.19320; weight space).

use bytemuck::{Pod, Zeroable};

use super::norms::Stats;
use super::residual::alpha;
use super::{Access, Args, Form, Kernel, WORKGROUP};
use crate::recording::{Buf, Recording};

/// How rows are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// 1 / √(Σα_k² + ‖c‖² / n̄²).
    Mixed,
    /// mean ‖x_k‖₁ / ‖m‖₁.
    SphereL1,
    /// The same with the Euclidean norm.
    SphereL2,
    /// The same with the largest magnitude.
    SphereLinf,
}

/// Own parameters; twin of `Params` in `shaders/factor.wgsl`.
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

/// Bindings: stats (`[rows, planes]`), residual (`[rows]`), xi (`[rows]`). Constants: which rule.
pub static FACTOR: Kernel = Kernel {
    name: "factor",
    wgsl: include_str!("../../shaders/factor.wgsl"),
    constants: &["MIXED", "NORM"],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Shader(|dims| u64::from(dims.rows).div_ceil(u64::from(WORKGROUP))),
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
    let constants = match rule {
        Rule::Mixed => [1, 1],
        Rule::SphereL1 => [0, 0],
        Rule::SphereL2 => [0, 1],
        Rule::SphereLinf => [0, 2],
    };
    list.call(&FACTOR, &constants, &Params { bounds, strength }, &[stats, residual, xi]);
}

fn twin(args: &mut Args<'_>) {
    let planes = args.dims.planes as usize;
    let Params { bounds, strength } = args.params();
    let (mixed, norm) = (args.constants[0] == 1, args.constants[1]);
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
