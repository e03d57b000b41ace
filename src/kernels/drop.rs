//! Seeded random drop with rescaling: the sparsification of DARE (arXiv 2311.03099).

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use sha2::{Digest, Sha256};

use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/drop.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    plane: u32,
    key_lo: u32,
    key_hi: u32,
    threshold: u32,
    scale: f32,
}

/// Binding: tau (planes).
pub static DROP: Kernel = Kernel {
    name: "drop",
    wgsl: include_str!("../../shaders/drop.wgsl"),
    constants: &[],
    bindings: &[Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Key of the random numbers of one expert's tensor.
pub fn key(seed: u64, tensor: &str, expert: usize) -> [u32; 2] {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update((expert as u64).to_le_bytes());
    hash.update(tensor.as_bytes());
    let digest = hash.finalize();
    let word = |i: usize| u32::from_le_bytes([digest[i], digest[i + 1], digest[i + 2], digest[i + 3]]);
    [word(0), word(4)]
}

/// The largest random word that keeps an element, for a share of `density`; `None` if none does.
pub(super) fn threshold(density: f64) -> Option<u32> {
    // The comparison includes the threshold, so that one is exact.
    let chances = (density.clamp(0.0, 1.0) * 4_294_967_296.0).round();
    (chances >= 1.0).then_some((chances - 1.0) as u32)
}

/// Appends: each element of `tau[plane]` is multiplied by `scale` with probability `density`, else zeroed.
/// A density of one keeps all, zero keeps none.
pub fn record(list: &mut Recording, tau: Buf, plane: u32, key: [u32; 2], density: f64, scale: f32) {
    let (threshold, scale) = threshold(density).map_or((0, 0.0), |threshold| (threshold, scale));
    list.call(&DROP, &[], &Params { plane, key_lo: key[0], key_hi: key[1], threshold, scale }, &[tau]);
}

/// Counters drawn at a time, each for 4 elements.
const QUADS: usize = 256;

/// The words of [`QUADS`] counters.
type Words = [[u32; 4]; QUADS];

fn emit(q: &mut dyn Quad) {
    let plane = q.fixed(0);
    let (x, key, threshold, scale) = (q.plane(0, plane), [q.word(1), q.word(2)].join(", "), q.word(3), q.float(4));
    q.set(0, plane, &format!("drop(p.dims, i, {x}, vec2<u32>({key}), {threshold}, {scale})"));
}

fn twin(args: &mut Args<'_>) {
    let n = args.dims.n as usize;
    let p = args.params::<Params>();
    let tau = &mut args.write::<f32>(0)[p.plane as usize * n..][..n];
    with_words(args.dims.first(), [p.key_lo, p.key_hi], n, |part, words| {
        apply(&mut tau[part], words, p.threshold, p.scale);
    });
}

/// Calls `part` with the places and the random words of every part of `n` elements, the first of which is number `first` of
/// its tensor.
pub(super) fn with_words(first: u64, key: [u32; 2], n: usize, mut part: impl FnMut(Range<usize>, &[u32])) {
    // A block may start in the midst of a quad: the first piece is shorter then.
    let lead = ((first.next_multiple_of(4) - first) as usize).min(n);
    let mut words: Words = [[0; 4]; QUADS];
    if lead > 0 {
        random(&mut words, first / 4, key);
        part(0..lead, &words[0][(first % 4) as usize..]);
    }
    for at in (lead..n).step_by(4 * QUADS) {
        random(&mut words, (first + at as u64) / 4, key);
        part(at..n.min(at + 4 * QUADS), words.as_flattened());
    }
}

/// The words of the counters from `first` on.
fn random(words: &mut Words, first: u64, key: [u32; 2]) {
    let next = (first >> 32) + 1;
    let (words, over) = words.split_at_mut(((next << 32) - first).min(QUADS as u64) as usize);
    random_low(words, [first as u32, (first >> 32) as u32], key);
    random_low(over, [0, next as u32], key);
}

/// The same where the high half of the counters, `first[1]`, stays as it is.
#[multiversion::multiversion(targets = "simd")]
fn random_low(words: &mut [[u32; 4]], first: [u32; 2], key: [u32; 2]) {
    let step = |v: u32| v.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    let high = step(first[1]);
    for (i, out) in words.iter_mut().enumerate() {
        let (mut x, mut y) = (step(first[0].wrapping_add(i as u32)), high);
        let (mut z, mut w) = (step(key[0]), step(key[1]));
        x = x.wrapping_add(y.wrapping_mul(w));
        y = y.wrapping_add(z.wrapping_mul(x));
        z = z.wrapping_add(x.wrapping_mul(y));
        w = w.wrapping_add(y.wrapping_mul(z));
        (x, y, z, w) = (x ^ x >> 16, y ^ y >> 16, z ^ z >> 16, w ^ w >> 16);
        x = x.wrapping_add(y.wrapping_mul(w));
        y = y.wrapping_add(z.wrapping_mul(x));
        z = z.wrapping_add(x.wrapping_mul(y));
        w = w.wrapping_add(y.wrapping_mul(z));
        *out = [x, y, z, w];
    }
}

#[multiversion::multiversion(targets = "simd")]
fn apply(piece: &mut [f32], words: &[u32], threshold: u32, scale: f32) {
    for (x, &word) in piece.iter_mut().zip(words) {
        *x = if word <= threshold { *x * scale } else { 0.0 };
    }
}
