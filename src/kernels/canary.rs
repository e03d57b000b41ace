//! Marks in what a launch is to set: those that are still there after it show that it did not run, or not all of it.

use bytemuck::{Pod, Zeroable};

use super::{Access, Args, Form, Kernel, WORKGROUP};

/// Own parameters; twin of `Params` in `shaders/canary.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// A number that no other run has.
    pub epoch: u32,
    /// Where in the trailer the count goes; not 0, which is the epoch's place.
    pub slot: u32,
    /// First word of the region.
    pub from: u32,
    /// Words from one of its rows to the next.
    pub stride: u32,
    /// 0 to mark, 1 to count.
    pub look: u32,
}

/// Bindings: words, trailer (the epoch, then counts; zero before). [`Dims`](super::Dims) are those of the region.
pub static CANARY: Kernel = Kernel {
    name: "canary",
    wgsl: include_str!("../../shaders/canary.wgsl"),
    constants: &[],
    bindings: &[Access::Write, Access::Write],
    form: Form::Shader(|dims| u64::from(dims.n > 0)),
    twin,
};

/// Marks in a region of `words` words.
pub fn marks(words: u32) -> u32 {
    words.min(WORKGROUP)
}

fn twin(args: &mut Args<'_>) {
    let Params { epoch, slot, from, stride, look } = args.params();
    let (all, row_len) = (args.dims.n, args.dims.row_len);
    let (words, trailer) = (args.write::<u32>(0), args.write::<u32>(1));
    let marks = marks(all);
    for lane in 0..marks {
        let hash = (lane + 1).wrapping_mul(0x9e37_79b1) ^ epoch;
        let hash = (hash ^ hash >> 15).wrapping_mul(0x85eb_ca6b);
        let hash = hash ^ hash >> 13;
        let step = all / marks;
        let i = if lane + 1 == marks { all - 1 } else { lane * step + hash % step };
        let at = (from + i / row_len * stride + i % row_len) as usize;
        let mark = 0x7fc0_0001 | hash & 0x3f_fffe;
        match look {
            0 => words[at] = mark,
            _ => trailer[slot as usize] += u32::from(words[at] != mark),
        }
    }
    if look != 0 && marks > 0 {
        trailer[0] = epoch;
    }
}
