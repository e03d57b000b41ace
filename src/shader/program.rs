//! Which calls of a recording go into one launch.
//!
//! A task-vector stack that is scratch and that only calls on elements touch never exists in memory: each launch that
//! needs it computes it again from the inputs, which is less than to write it and to read it back. What needs the sums of
//! a row follows them in the same launch, and finds the row in a cache.

use std::ops::Range;

use super::body::{Body, MANY, Text};
use super::frame::{self, Frame};
use crate::kernel::{Access, Form};
use crate::recording::{Buf, Buffer, Call, Extent, Recording, Role, Size};

/// What of a device decides how shaders are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Storage buffers that a shader can see.
    pub buffers: usize,
    /// Invocations that share a row, at most; a power of two.
    pub lanes: u32,
    /// Elements of a row that an invocation takes before it shares the row with others.
    pub alone: u32,
    /// Invocations of a workgroup that goes over elements; a power of two.
    pub group: u32,
    /// Whether it takes a step for each number that it loads, and has numbers of 64 bits.
    pub wide: bool,
}

/// A launch of one shader.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The calls that it is there for.
    pub calls: Range<usize>,
    /// What runs.
    pub run: Run<'a>,
}

/// What a launch runs.
#[derive(Debug)]
pub enum Run<'a> {
    /// A kernel that is a shader of its own.
    Kernel(&'a Call),
    /// A shader that was built.
    Built(Built),
}

/// A shader built around calls, with what it is launched with.
#[derive(Debug, PartialEq, Eq)]
pub struct Built {
    /// Names of the kernels, for labels.
    pub label: String,
    /// The whole WGSL text; the entry point is `main`.
    pub text: String,
    /// Storage buffers at `@binding(1..)`; behind them the trailer of the proof, if anything is proved.
    pub buffers: Vec<(Buf, Access)>,
    /// Results whose checksum it takes.
    pub proved: Vec<Buf>,
    /// The uniform's words after the dimensions.
    pub params: Vec<u32>,
    /// What it goes over.
    pub extent: Extent,
    /// Workgroups.
    pub groups: u64,
}

impl Built {
    /// Storage buffers that the shader sees.
    pub fn bindings(&self) -> usize {
        self.buffers.len() + usize::from(!self.proved.is_empty())
    }
}

/// The launches of `recording` over `extent`. Calls from `apart` on share nothing with those before: these are not launched
/// again with them.
pub fn program<'a>(recording: &'a Recording, extent: &Extent, device: Device, apart: usize) -> Vec<Launch<'a>> {
    let unseen = unseen(recording, apart);
    let cut = Cut { recording, extent, device, apart, unseen: &unseen, slots: &slots(recording) };
    let launches = cut.launches();
    let most = |launch: &Launch| matches!(&launch.run, Run::Built(built) if built.bindings() > device.buffers);
    if !launches.iter().any(most) {
        return launches;
    }
    // Too many models for one shader: the stack goes to memory.
    Cut { unseen: &vec![false; unseen.len()], ..cut }.launches()
}

/// A recording that is cut into launches.
struct Cut<'a, 'b> {
    recording: &'a Recording,
    extent: &'b Extent,
    device: Device,
    apart: usize,
    /// Buffers that are never in memory.
    unseen: &'b [bool],
    slots: &'b [Option<u32>],
}

impl<'a> Cut<'a, '_> {
    fn launches(&self) -> Vec<Launch<'a>> {
        let calls = &self.recording.calls;
        // Calls that only change what is never in memory; those that need it do them again.
        let mut chain: Vec<usize> = Vec::new();
        let mut launches = Vec::new();
        let mut next = 0;
        while let Some(call) = calls.get(next) {
            let range = match call.kernel.form {
                Form::Shader(_) => {
                    launches.push(Launch { calls: next..next + 1, run: Run::Kernel(call) });
                    next..next + 1
                }
                Form::Quad(_) if written(call).all(|buf| self.unseen[buf.0]) => {
                    chain.push(next);
                    next..next + 1
                }
                Form::Quad(_) | Form::Rows(_) => {
                    let (range, text) = self.longest(&chain, next);
                    let built = frame::build(text, self.recording.planes);
                    launches.push(Launch { calls: range.clone(), run: Run::Built(built) });
                    range
                }
            };
            next = range.end;
        }
        launches
    }

    /// As many calls from `next` on as go into one shader.
    fn longest(&self, chain: &[usize], next: usize) -> (Range<usize>, Text) {
        let Self { recording, device, .. } = *self;
        let calls = &recording.calls;
        let first = &calls[next];
        let (mut range, mut phase, mut chained) = (next..next + 1, next, self.needs_elements(first));
        let mut body = self.body(chain.iter().copied().filter(|_| chained).chain([next]));
        while let Some(call) = calls.get(range.end).filter(|call| self.follows(first, call, range.clone(), &body)) {
            let mut longer = body.clone();
            // What it needs of its row is not known before the end of the row.
            if !apart_from(recording, call, &calls[phase..range.end]) {
                if !matches!(first.kernel.form, Form::Rows(_)) {
                    break;
                }
                longer.turn();
                (phase, chained) = (range.end, false);
            }
            if self.needs_elements(call) && !chained {
                chain.iter().for_each(|call| longer.call(&calls[*call]));
                chained = true;
            }
            longer.call(call);
            if longer.far || longer.clone().finish().bindings() > device.buffers {
                break;
            }
            (range.end, body) = (range.end + 1, longer);
        }
        (range, body.finish())
    }

    /// Whether `call` may go into the shader of the calls `range`, as far as it matters how that goes over its extent.
    fn follows(&self, first: &Call, call: &Call, range: Range<usize>, body: &Body<'_>) -> bool {
        let in_rows = matches!(first.kernel.form, Form::Rows(_));
        let few = range.len() < MANY as usize || self.recording.planes <= MANY;
        let within = (range.end < self.apart) == (range.start < self.apart);
        let fits = match call.kernel.form {
            // After a sum, elements are gone over in rows, which have to be whole words.
            Form::Quad(_) => !in_rows || self.extent.row_len.is_multiple_of(4),
            Form::Rows(_) => in_rows,
            Form::Shader(_) => false,
        };
        let seen = !written(call).all(|buf| self.unseen[buf.0]);
        few && within && fits && seen && call.grid == first.grid && body.text.frame.in_pairs() <= self.pairs([call])
    }

    /// Whether `call` is of more than values of rows.
    fn needs_elements(&self, call: &Call) -> bool {
        call.args.iter().any(|buf| !matches!(self.recording.buffers[buf.0].size, Size::Rows(_)))
    }

    /// Whether `calls` may take two quads at a time.
    fn pairs<'c>(&self, calls: impl IntoIterator<Item = &'c Call>) -> bool {
        // Hardware would write every other quad of a plane, and then those between, half a sector of memory at a time.
        let planes = |buf: Buf| matches!(self.recording.buffers[buf.0].size, Size::Planes(_)) && !self.unseen[buf.0];
        self.device.wide || !calls.into_iter().any(|call| written(call).any(planes))
    }

    /// What the calls `which` do, over the extent of the last.
    fn body(&self, which: impl Iterator<Item = usize>) -> Body<'_> {
        let Self { recording, device, .. } = *self;
        let which: Vec<&Call> = which.map(|call| &recording.calls[call]).collect();
        let last = which.last().expect("a launch is of a call");
        let extent = last.grid.unwrap_or(*self.extent);
        // Values of rows are loaded once where rows are gone over one by one.
        let of_row = |buf: &Buf| matches!(recording.buffers[buf.0].size, Size::Rows(_));
        let by_row = extent.row_len.is_multiple_of(4) && last.grid.is_none() && last.args.iter().any(of_row);
        let rows = by_row || matches!(last.kernel.form, Form::Rows(_));
        let pairs = self.pairs(which.iter().copied());
        let frame = if rows { Frame::rows(&extent, device, pairs) } else { Frame::elements(&extent, device, pairs) };
        let mut body = Body::new(recording, self.unseen, self.slots, extent, frame);
        which.into_iter().for_each(|call| body.call(call));
        body
    }
}

/// What the buffers that a call writes are.
fn written(call: &Call) -> impl Iterator<Item = Buf> + '_ {
    let args = call.args.iter().zip(call.kernel.bindings);
    args.filter(|(_, access)| **access == Access::Write).map(|(buf, _)| *buf)
}

/// True if `call` reads nothing but planes, element by element, of what `before` write.
fn apart_from(recording: &Recording, call: &Call, before: &[Call]) -> bool {
    let planes = |buf: &Buf| matches!(recording.buffers[buf.0].size, Size::Planes(_));
    call.args.iter().all(|buf| planes(buf) || !before.iter().any(|other| written(other).any(|w| w == *buf)))
}

/// Which buffers are never in memory.
fn unseen(recording: &Recording, apart: usize) -> Vec<bool> {
    let scratch = |buffer: &Buffer| match (&buffer.role, buffer.size) {
        (Role::Scratch, Size::Planes(count)) => count <= MANY,
        _ => false,
    };
    let mut unseen: Vec<bool> = recording.buffers.iter().map(scratch).collect();
    for (i, call) in recording.calls.iter().enumerate() {
        if matches!(call.kernel.form, Form::Shader(_)) || call.grid.is_some() || i < apart {
            call.args.iter().for_each(|buf| unseen[buf.0] = false);
        }
    }
    // What such a call reads must be the same whenever it is done again.
    loop {
        let stays = |buf: &Buf| unseen[buf.0] || !recording.calls.iter().any(|call| written(call).any(|w| w == *buf));
        let moves = |call: &&Call| !call.args.iter().all(stays);
        let exposed: Vec<Buf> =
            recording.calls.iter().filter(moves).flat_map(written).filter(|buf| unseen[buf.0]).collect();
        if exposed.is_empty() {
            break;
        }
        exposed.into_iter().for_each(|buf| unseen[buf.0] = false);
    }
    unseen
}

/// Where in the trailer of the proof each result's sum goes, if that which stores its elements can take it on the way: the
/// results follow the epoch.
fn slots(recording: &Recording) -> Vec<Option<u32>> {
    let mut slots = vec![None; recording.buffers.len()];
    for (slot, (buf, buffer)) in (1..).zip(recording.results()) {
        let mut stores = recording.calls.iter().filter(|call| written(call).any(|w| w == buf));
        let whole = stores.next().is_some_and(|call| call.grid.is_none());
        let once = whole && stores.next().is_none();
        slots[buf.0] = Some(slot).filter(|_| once && matches!(buffer.size, Size::Stored(_)));
    }
    slots
}
