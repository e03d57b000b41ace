//! What a row of the table is: a recording whose last calls are the round that is timed.

use super::check::Expect;
use super::values::extent;
use crate::checkpoint::Dtype;
use crate::kernels::widen;
use crate::recording::{Buf, Extent, Recording, Size};

/// Experts in the made-up merge.
pub const EXPERTS: u32 = 3;

/// Their planes, and that of the merged task vector.
pub const PLANES: u32 = EXPERTS + 1;

/// Elements of a row, where a case does not need others.
pub const ROW: u32 = 2048;

/// Sizes are multiples of this: images of two channels, whole groups of rows.
pub const STEP: u32 = 32 << 10;

/// What f32 sums may differ by.
pub const NEAR: Expect = Expect::Floats { atol: 1e-4, rtol: 1e-5 };

/// A recording in the making, over stored models.
pub struct Setup {
    /// What was recorded so far.
    pub list: Recording,
    /// A plane of each model in bf16.
    pub bf16: [Buf; PLANES as usize],
    /// A plane of each model in f32.
    pub f32: [Buf; PLANES as usize],
    /// Elements of a plane.
    pub n: u32,
}

impl Setup {
    fn new(n: u32) -> Self {
        let mut list = Recording::new(PLANES);
        let mut inputs = |dtype, from| std::array::from_fn(|k| list.input("model", from + k, dtype));
        let (bf16, f32) = (inputs(Dtype::BF16, 0), inputs(Dtype::F32, PLANES as usize));
        Self { list, bf16, f32, n }
    }

    /// A result, which is compared with that of the twin.
    pub fn out(&mut self, size: Size) -> Buf {
        self.list.result("out", size)
    }

    /// A result for each plane.
    pub fn outs(&mut self, size: Size) -> [Buf; PLANES as usize] {
        std::array::from_fn(|_| self.out(size))
    }

    /// Task vectors and a merged one, in a buffer that the kernel changes or only reads.
    pub fn tau(&mut self, changed: bool) -> Buf {
        let size = Size::Planes(PLANES);
        let tau = if changed { self.out(size) } else { self.list.scratch("tau", size) };
        for plane in 0..PLANES {
            widen::record(&mut self.list, self.f32[plane as usize], tau, plane);
        }
        tau
    }
}

/// Appends one round of launches.
pub type Round = Box<dyn FnOnce(&mut Recording)>;

/// A row of the table.
pub struct Case {
    /// The kernel's name.
    pub kernel: &'static str,
    /// What is special about it.
    pub note: &'static str,
    /// Bytes that a round must read and write, for each element of a plane.
    pub bytes: f64,
    /// Floating point operations of a round, for planes of so many elements, where those say more.
    pub work: Option<fn(u32) -> f64>,
    /// Elements of a row.
    pub row_len: u32,
    /// How near its results must be to the twin's.
    pub expect: Expect,
    /// Records what comes before the round, and returns the round.
    pub setup: fn(&mut Setup) -> Round,
}

/// A recording, and where in it the round begins.
pub struct Rounds {
    /// All calls.
    pub list: Recording,
    /// The first call of the round, which goes to the end.
    pub first: usize,
    /// The block.
    pub extent: Extent,
}

impl Case {
    /// The case for planes of `n` elements, or of fewer where one of its buffers would have more than `most` bytes.
    pub fn record(&self, n: u32, most: u64) -> Rounds {
        let mut setup = Setup::new(n);
        let round = (self.setup)(&mut setup);
        let first = setup.list.calls.len();
        round(&mut setup.list);
        let rounds = Rounds { list: setup.list, first, extent: extent(n, self.row_len) };
        let largest = rounds.list.buffers.iter().map(|buffer| buffer.size.words(&rounds.extent)).max();
        if n > STEP && largest.is_some_and(|words| 4 * words as u64 > most) {
            return self.record(n / 2 / STEP * STEP, most);
        }
        rounds
    }
}

/// What tables call a case of `kernel`.
pub fn title(kernel: &str, note: &str) -> String {
    if note.is_empty() { kernel.to_owned() } else { format!("{kernel}, {note}") }
}

/// A case in rows of [`ROW`], bound by memory.
pub const fn case(kernel: &'static str, bytes: f64, expect: Expect, setup: fn(&mut Setup) -> Round) -> Case {
    Case { kernel, note: "", bytes, work: None, row_len: ROW, expect, setup }
}

/// A round of one launch for each plane.
pub fn each_plane(record: impl Fn(&mut Recording, u32) + 'static) -> Round {
    Box::new(move |list| (0..PLANES).for_each(|plane| record(list, plane)))
}
