//! Where magnitudes lie about two keys: the one pass of an exact selection whose threshold is nearly known.

use bytemuck::{Pod, Zeroable};

use super::convert::CHUNK;
use super::{Access, Args, Form, Kernel};
use crate::recording::{Buf, Recording, Size};

/// Two keys; a key is the bits of a magnitude.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Bracket {
    /// The lower.
    pub low: u32,
    /// The higher, or the same.
    pub high: u32,
}

/// Own parameters; twin of `Params` in `shaders/between.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    plane: u32,
    bracket: Bracket,
    room: u32,
}

/// Bindings: tau (planes), found ([`size`], added to).
pub static BETWEEN: Kernel = Kernel {
    name: "between",
    wgsl: include_str!("../../shaders/between.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(|dims| u64::from(dims.n).div_ceil(16384)),
    twin,
};

/// Words before the list: its length, then four counts for each plane.
fn head(planes: u32) -> u32 {
    1 + 4 * planes
}

/// Size of what is found in `planes`, with a list of at most `room` entries.
pub fn size(planes: u32, room: u32) -> Size {
    Size::Fixed(head(planes) + 2 * room)
}

/// Appends: counts and lists the keys of `tau[plane]` about `bracket`. The list is one for all planes.
pub fn record(list: &mut Recording, tau: Buf, plane: u32, bracket: Bracket, found: Buf) {
    let Size::Fixed(words) = list.buffers[found.0].size else { unreachable!("its size is known") };
    let room = (words - head(list.planes)) / 2;
    list.call(&BETWEEN, &[], &Params { plane, bracket, room }, &[tau, found]);
}

/// What was found in a block.
pub struct Found<'a> {
    words: &'a [u32],
    planes: u32,
}

impl<'a> Found<'a> {
    /// From the result of a list of `planes` planes.
    pub fn new(words: &'a [u32], planes: u32) -> Self {
        Self { words, planes }
    }

    /// Entries of a plane above the higher key, those that equal it, and those that equal the lower one.
    pub fn counts(&self, plane: usize) -> [u32; 3] {
        let counts = &self.words[1 + 4 * plane..];
        [counts[0], counts[1], counts[2]]
    }

    /// Entries of a plane that were looked at: all, unless the device did not do its work.
    pub fn seen(&self, plane: usize) -> u32 {
        self.words[4 + 4 * plane]
    }

    /// Keys strictly between, each with its place in the planes, in any order; `None` if there was no room for all.
    pub fn listed(&self) -> Option<&'a [[u32; 2]]> {
        self.words[head(self.planes) as usize..].as_chunks().0.get(..self.words[0] as usize)
    }
}

fn twin(args: &mut Args<'_>) {
    let n = args.dims.n as usize;
    let p = args.params::<Params>();
    let first = p.plane as usize * n;
    let tau = &args.read::<f32>(0)[first..][..n];
    let (head, list) = args.write::<u32>(1).split_at_mut(head(args.dims.planes) as usize);
    let (listed, counts) = head.split_at_mut(1);
    let counts = &mut counts[4 * p.plane as usize..][..4];
    counts[3] += n as u32;
    let list = &mut list.as_chunks_mut().0[..p.room as usize];
    for (i, piece) in tau.chunks(CHUNK).enumerate() {
        let (sums, inside) = look(piece, p.bracket);
        counts.iter_mut().zip(sums).for_each(|(count, sum)| *count += sum);
        for (j, mut bits) in inside.into_iter().enumerate() {
            while bits != 0 {
                let at = i * CHUNK + j * 64 + bits.trailing_zeros() as usize;
                if let Some(entry) = list.get_mut(listed[0] as usize) {
                    *entry = [key(&tau[at]), (first + at) as u32];
                }
                listed[0] += 1;
                bits &= bits - 1;
            }
        }
    }
}

/// The three counts, and a bit for each key inside.
#[multiversion::multiversion(targets = "simd")]
fn look(piece: &[f32], Bracket { low, high }: Bracket) -> ([u32; 3], [u64; CHUNK / 64]) {
    let (mut above, mut highs, mut lows) = (0, 0, 0);
    let mut hits = [0u8; CHUNK];
    for (hit, x) in hits.iter_mut().zip(piece) {
        let key = key(x);
        above += u32::from(key > high);
        highs += u32::from(key == high);
        lows += u32::from(key == low);
        *hit = u8::from(key > low) & u8::from(key < high);
    }
    let mut inside = [0; CHUNK / 64];
    for (word, hits) in inside.iter_mut().zip(hits.as_chunks::<64>().0) {
        // The lowest bits of eight bytes, side by side.
        let bits = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        *word = hits.as_chunks().0.iter().enumerate().fold(0, |word, (i, bytes)| word | bits(bytes) << (8 * i));
    }
    ([above, highs, lows], inside)
}

#[inline(always)]
fn key(x: &f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}
