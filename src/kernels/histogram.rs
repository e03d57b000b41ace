//! One digit of an exact radix select over the magnitudes of a task vector.

use bytemuck::{Pod, Zeroable};

use super::{Access, Args, Form, Kernel};
use crate::recording::{Buf, Recording};

/// Bins of a histogram: a digit has at most 11 bits.
pub const BINS: u32 = 2048;

/// A digit of the 31-bit key of a magnitude, most significant first.
#[derive(Clone, Copy, Debug)]
pub struct Digit {
    /// Bits below it.
    pub shift: u32,
    /// Bits of it.
    pub bits: u32,
}

/// The digits, in the order in which they are selected.
pub const DIGITS: [Digit; 3] =
    [Digit { shift: 20, bits: 11 }, Digit { shift: 10, bits: 10 }, Digit { shift: 0, bits: 10 }];

/// Own parameters; twin of `Params` in `shaders/histogram.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    plane: u32,
    prefix: u32,
    shift: u32,
    bits: u32,
}

/// Bindings: tau (planes), bins (`planes × BINS`, added to).
pub static HISTOGRAM: Kernel = Kernel {
    name: "histogram",
    wgsl: include_str!("../../shaders/histogram.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(|dims| u64::from(dims.n).div_ceil(16384)),
    twin,
};

/// Appends: counts the keys of `tau[plane]` whose higher bits are `prefix`, by `digit`.
pub fn record(list: &mut Recording, tau: Buf, plane: u32, prefix: u32, digit: Digit, bins: Buf) {
    list.call(&HISTOGRAM, &[], &Params { plane, prefix, shift: digit.shift, bits: digit.bits }, &[tau, bins]);
}

fn twin(args: &mut Args<'_>) {
    let n = args.dims.n as usize;
    let p = args.params::<Params>();
    let tau = &args.read::<f32>(0)[p.plane as usize * n..][..n];
    let bins = &mut args.write::<u32>(1)[(p.plane * BINS) as usize..][..BINS as usize];
    if p.shift + p.bits == 31 {
        count_all(tau, p.shift, bins);
    } else {
        let mask = (1 << p.bits) - 1;
        for piece in tau.chunks(PIECE) {
            let mut found = find(piece, p.prefix, p.shift + p.bits);
            while found != 0 {
                let digit = key(&piece[found.trailing_zeros() as usize]) >> p.shift;
                bins[(digit & mask) as usize] += 1;
                found &= found - 1;
            }
        }
    }
}

/// Keys that are looked at together: few of them start with the prefix.
const PIECE: usize = 64;

/// A bit for each key that starts with `prefix`.
#[multiversion::multiversion(targets = "simd")]
fn find(piece: &[f32], prefix: u32, shift: u32) -> u64 {
    let mut hits = [0u8; PIECE];
    for (hit, x) in hits.iter_mut().zip(piece) {
        *hit = u8::from(key(x) >> shift == prefix);
    }
    // The lowest bits of eight bytes, side by side.
    let bits = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    hits.as_chunks().0.iter().enumerate().fold(0, |found, (i, bytes)| found | bits(bytes) << (8 * i))
}

#[inline(always)]
fn key(x: &f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// The first digit, for which every key counts. Neighbours often share a bin, so four tables keep the additions apart.
fn count_all(tau: &[f32], shift: u32, bins: &mut [u32]) {
    let mut tables = [[0u32; BINS as usize]; 4];
    let bin = |x: &f32| (key(x) >> shift) as usize % BINS as usize;
    let quads = tau.chunks_exact(4);
    for x in quads.remainder() {
        tables[0][bin(x)] += 1;
    }
    for quad in quads {
        for (table, x) in tables.iter_mut().zip(quad) {
            table[bin(x)] += 1;
        }
    }
    for table in &tables {
        bins.iter_mut().zip(table).for_each(|(total, count)| *total += count);
    }
}
