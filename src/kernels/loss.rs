//! Cross entropy of every row of logits, and the class that it would choose.

use super::vector::{each_row, exp, largest, sum};
use super::{Access, Args, Kernel, holds, per_row};
use crate::recording::{Buf, Recording};

/// Bindings: logits (`[rows, row_len]`), targets (`[rows]`), out (`[rows, 2]`).
pub static LOSS: Kernel = Kernel {
    name: "loss",
    wgsl: include_str!("../../shaders/loss.wgsl"),
    entry: "main",
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Write],
    groups: per_row,
    twin,
};

/// Appends `out[r]` = (−log softmax(logits\[r\])\[targets\[r\]\], the index of the largest logit, of equals the first).
/// A target that is no class, such as [`u32::MAX`], has a loss of 0.
pub fn record(list: &mut Recording, (rows, row_len): (u32, u32), logits: Buf, targets: Buf, out: Buf) {
    holds(list, logits, 0, rows, row_len);
    holds(list, targets, 0, 1, rows);
    holds(list, out, 0, rows, 2);
    list.call_over((rows, row_len), &LOSS, &[], &(), &[logits, targets, out]);
}

fn twin(args: &mut Args<'_>) {
    let (rows, len) = (args.dims.rows as usize, args.dims.row_len as usize);
    let (logits, targets) = (args.read::<f32>(0), args.read::<u32>(1));
    let out = &mut args.write::<[f32; 2]>(2)[..rows];
    let group = (4096 / len.max(1)).max(1);
    each_row(out, group, |i, out| {
        for (j, out) in out.iter_mut().enumerate() {
            let row = i * group + j;
            *out = loss(&logits[row * len..][..len], targets[row] as usize);
        }
    });
}

#[multiversion::multiversion(targets = "simd")]
fn loss(logits: &[f32], target: usize) -> [f32; 2] {
    let most = largest(logits);
    let best = logits.iter().position(|x| *x == most).unwrap_or(0);
    let Some(chosen) = logits.get(target) else { return [0.0, best as f32] };
    let total = sum(logits, |x| exp(x - most));
    [(most - chosen) + total.ln() as f32, best as f32]
}
