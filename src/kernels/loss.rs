//! What the cross entropy of every row of logits is made of, and the class that it would choose; of some of the classes
//! at a time, where there are many.

use bytemuck::{Pod, Zeroable};

use super::vector::{each_row, exp, largest, sum};
use super::{Access, Args, Form, Kernel, holds, per_row};
use crate::recording::{Buf, Recording, Region};

/// Bindings: logits (`[rows, row_len]`), targets (`[rows]`), out (`[rows]` of [`Part`]).
pub static LOSS: Kernel = Kernel {
    name: "loss",
    wgsl: include_str!("../../shaders/loss.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Shader(per_row),
    twin,
};

/// A row's logits of some classes; twin of the four words in `shaders/loss.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Part {
    /// The largest logit.
    pub largest: f32,
    /// Σ exp(x − largest).
    pub total: f32,
    /// How far the target's logit lies below the largest; −1 where the target is none of these classes.
    pub behind: f32,
    /// Index of the largest logit, of equals the first.
    pub best: f32,
}

/// Words of a [`Part`].
pub const WIDTH: u32 = 4;

/// Appends `out[r]` = the [`Part`] of row r. A target that is none of the classes is any other number.
pub fn record(list: &mut Recording, (rows, row_len): (u32, u32), logits: Buf, targets: Buf, out: Buf) {
    holds(list, logits, 0, rows, row_len);
    holds(list, targets, 0, 1, rows);
    holds(list, out, 0, rows, WIDTH);
    list.call_over((rows, row_len), &LOSS, &[], &(), &[logits, targets, out]);
    list.sets(Region::rows(rows, WIDTH));
}

fn twin(args: &mut Args<'_>) {
    let (rows, len) = (args.dims.rows as usize, args.dims.row_len as usize);
    let (logits, targets) = (args.read::<f32>(0), args.read::<u32>(1));
    let out = &mut args.write::<Part>(2)[..rows];
    let group = (4096 / len.max(1)).max(1);
    each_row(out, group, |i, out| {
        for (j, out) in out.iter_mut().enumerate() {
            let row = i * group + j;
            *out = loss(&logits[row * len..][..len], targets[row] as usize);
        }
    });
}

#[multiversion::multiversion(targets = "simd")]
fn loss(logits: &[f32], target: usize) -> Part {
    let most = largest(logits);
    let best = logits.iter().position(|x| *x == most).unwrap_or(0);
    let total = sum(logits, |x| exp(x - most));
    let behind = logits.get(target).map_or(-1.0, |chosen| most - chosen);
    Part { largest: most, total: total as f32, behind, best: best as f32 }
}
