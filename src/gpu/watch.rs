//! Proof that launches ran, where nobody can compute a part of what they give again: each is put between two more, which
//! mark what it is to set, and count what it did.

use super::pipeline::Shader;
use super::run::{Bound, Step};
use crate::kernels::canary::{CANARY, Params, marks};
use crate::recording::{Dims, Region};

/// What of a buffer is watched.
pub struct Watch<'a> {
    buffer: Bound<'a>,
    dims: Dims,
    /// To mark, and to count.
    params: [Params; 2],
}

impl Watch<'_> {
    /// Marks that have to be gone.
    pub fn marks(&self) -> u32 {
        marks(self.dims.n)
    }
}

/// What is watched of each step; counts go to `slot` of the trailer of the run `epoch`.
pub fn watches<'a>(steps: &[Step<'a>], epoch: u32, slot: u32) -> Vec<Vec<Watch<'a>>> {
    let watch = |&(buffer, Region { from, stride, width, rows }): &(Bound<'a>, Region)| {
        let dims = Dims { n: rows * width, rows, row_len: width.max(1), ..bytemuck::Zeroable::zeroed() };
        Watch { buffer, dims, params: [0, 1].map(|look| Params { epoch, slot, from, stride, look }) }
    };
    steps.iter().map(|step| step.sets.iter().map(watch).collect()).collect()
}

/// The steps, each between those that watch it.
pub fn watched<'a>(steps: Vec<Step<'a>>, watches: &'a [Vec<Watch<'a>>], trailer: Bound<'a>) -> Vec<Step<'a>> {
    let around = |watch: &'a Watch<'a>, when: usize| Step {
        calls: 0..0,
        shader: Shader::Kernel(&CANARY, &[]),
        params: bytemuck::cast_slice(std::slice::from_ref(&watch.params[when])),
        dims: watch.dims,
        args: vec![watch.buffer, trailer],
        groups: u64::from(watch.dims.n > 0),
        sets: Vec::new(),
    };
    let mut all = Vec::with_capacity(3 * steps.len());
    for (step, watches) in steps.into_iter().zip(watches) {
        all.extend(watches.iter().map(|watch| around(watch, 0)));
        all.push(step);
        all.extend(watches.iter().map(|watch| around(watch, 1)));
    }
    all
}
