//! Place of each element in its row by magnitude: what the chances of DELLA follow from (arXiv 2406.11617, §3.1).

use bytemuck::{Pod, Zeroable};

use super::{Access, Args, Form, Kernel, WORKGROUP, per_row};
use crate::recording::{Buf, Recording, Size};

/// Own parameters; twin of `Params` in `shaders/rank.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    plane: u32,
}

/// Elements of a row that the shader need not sort.
const SHORT: u32 = 64;

/// Bindings: tau (planes), sorted ([`scratch`]), ranks (`[n]`).
pub static RANK: Kernel = Kernel {
    name: "rank",
    wgsl: include_str!("../../shaders/rank.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write, Access::Write],
    form: Form::Shader(|dims| match dims.row_len {
        0..=SHORT => u64::from(dims.n).div_ceil(u64::from(WORKGROUP)),
        _ => per_row(dims),
    }),
    twin,
};

/// Size of what is sorted in: keys and indices, from one half to the other and back.
pub fn scratch() -> Size {
    Size::Planes(4)
}

/// Appends: `ranks` = place of each element of `tau[plane]` in its row by ascending magnitude, from 0; of equals the lower
/// index comes first.
pub fn record(list: &mut Recording, tau: Buf, plane: u32, sorted: Buf, ranks: Buf) {
    list.call(&RANK, &[], &Params { plane }, &[tau, sorted, ranks]);
}

/// Digits of the 31-bit keys: shift and bits.
const DIGITS: [(u32, u32); 3] = [(0, 11), (11, 10), (21, 10)];

fn twin(args: &mut Args<'_>) {
    let (n, len) = (args.dims.n as usize, args.dims.row_len as usize);
    let plane = args.params::<Params>().plane as usize;
    let tau = &args.read::<f32>(0)[plane * n..][..n];
    let (from, to) = args.write::<u32>(1)[..4 * n].split_at_mut(2 * n);
    let ranks = &mut args.write::<u32>(2)[..n];
    for (row, ranks) in tau.chunks(len).zip(ranks.chunks_mut(len)) {
        let m = row.len();
        sort(row, from[..2 * m].split_at_mut(m), to[..2 * m].split_at_mut(m));
        for (place, &index) in to[m..2 * m].iter().enumerate() {
            ranks[index as usize] = place as u32;
        }
    }
}

/// Keys and indices.
type Half<'a> = (&'a mut [u32], &'a mut [u32]);

/// Sorts the row's keys and indices; they end in `to`.
fn sort<'a>(row: &[f32], mut from: Half<'a>, mut to: Half<'a>) {
    for (i, (x, (key, index))) in row.iter().zip(from.0.iter_mut().zip(from.1.iter_mut())).enumerate() {
        (*key, *index) = (x.to_bits() & 0x7fff_ffff, i as u32);
    }
    for (shift, bits) in DIGITS {
        let digit = |key: u32| (key >> shift) as usize & ((1 << bits) - 1);
        let mut places = [0u32; 1 << 11];
        from.0.iter().for_each(|key| places[digit(*key)] += 1);
        let mut before = 0;
        for place in &mut places[..1 << bits] {
            before += std::mem::replace(place, before);
        }
        for (key, index) in from.0.iter().zip(from.1.iter()) {
            let place = &mut places[digit(*key)];
            (to.0[*place as usize], to.1[*place as usize]) = (*key, *index);
            *place += 1;
        }
        std::mem::swap(&mut from, &mut to);
    }
    // An odd number of passes: the last one wrote what was `to` at first.
}
