//! What a random drop leaves of a plane's L1 norms: the sums behind the `l1` rescaling of DARE.

use bytemuck::{Pod, Zeroable};

use super::drop::{threshold, with_words};
use super::vector::LANES;
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording, Size};

/// Own parameters; twin of the arguments in `shaders/drop_l1.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    plane: u32,
    key: [u32; 2],
    threshold: u32,
}

/// Bindings: tau (planes), sums (`[rows, 2]`).
pub static DROP_L1: Kernel = Kernel {
    name: "drop_l1",
    wgsl: include_str!("../../shaders/drop_l1.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Rows(emit),
    twin,
};

/// Size of the sums.
pub const SIZE: Size = Size::Rows(2);

/// Appends: `sums[row]` = Σ|x| of the row of `tau[plane]`, and of those that [`drop`](super::drop::record) keeps, unscaled.
/// The density is above zero.
pub fn record(list: &mut Recording, tau: Buf, plane: u32, key: [u32; 2], density: f64, sums: Buf) {
    list.call(&DROP_L1, &[], &Params { plane, key, threshold: threshold(density).unwrap_or(0) }, &[tau, sums]);
}

fn emit(q: &mut dyn Quad) {
    let sums = q.name("sums");
    q.before(&format!("var {sums}: array<vec4<f32>, 1>;"));
    let (x, exist) = (q.plane(0, q.fixed(0)), q.exist());
    let (key, threshold) = ([q.word(1), q.word(2)].join(", "), q.word(3));
    q.line(&format!("{sums}[0] += drop_l1(p.dims, i, {x}, {exist}, vec2<u32>({key}), {threshold});"));
    q.join(1, &sums, 1, "join_drop_l1", 2);
}

fn twin(args: &mut Args<'_>) {
    let (first, n, len) = (args.dims.first(), args.dims.n as usize, args.dims.row_len as usize);
    let Params { plane, key, threshold } = args.params();
    let tau = &args.read::<f32>(0)[plane as usize * n..][..n];
    for (row, (x, out)) in tau.chunks(len).zip(args.write::<[f32; 2]>(1)).enumerate() {
        let mut all = [0f64; 2];
        with_words(first + (row * len) as u64, key, x.len(), |part, words| {
            let sums = sums(&x[part], words, threshold);
            all = [0, 1].map(|i| all[i] + f64::from(sums[i]));
        });
        *out = all.map(|sum| sum as f32);
    }
}

#[multiversion::multiversion(targets = "simd")]
fn sums(x: &[f32], words: &[u32], threshold: u32) -> [f32; 2] {
    let (mut all, mut kept) = ([0f32; LANES], [0f32; LANES]);
    let words = &words[..x.len()];
    let (xs, all_words) = (x.chunks_exact(LANES), words.chunks_exact(LANES));
    let kept_of = |x: f32, word: u32| if word <= threshold { x.abs() } else { 0.0 };
    for (j, (x, word)) in xs.remainder().iter().zip(all_words.remainder()).enumerate() {
        (all[j], kept[j]) = (x.abs(), kept_of(*x, *word));
    }
    for (x, words) in xs.zip(all_words) {
        for j in 0..LANES {
            all[j] += x[j].abs();
            kept[j] += kept_of(x[j], words[j]);
        }
    }
    [all, kept].map(|lanes| lanes.iter().sum())
}
