//! Kernels that prove what others did.

use magic_merge::kernels::matmul::{Place, Shape, Weight};
use magic_merge::kernels::{canary, checksum, matmul};
use magic_merge::recording::Size;

use super::common::{SIZES, extent, words};
use super::forward::shaped;
use super::{Case, Wanted};

pub fn checksum(check: &dyn Fn(&Case)) {
    for n in SIZES {
        for (epoch, slot) in [(1, 1), (0xdead_beef, 2)] {
            let mut case = Case::new(extent(n, 64), 1);
            let data: Vec<u32> = words(u64::from(n)).take(n as usize).collect();
            let mix = |(i, word): (u32, &u32)| {
                let mut h = (word ^ i.wrapping_mul(0x9e37_79b1).wrapping_add(epoch)).wrapping_mul(0x85eb_ca6b);
                h = (h ^ h >> 15).wrapping_mul(0xc2b2_ae35);
                h ^ h >> 13
            };
            let mut wanted = vec![epoch, 0, 0];
            wanted[slot as usize] = (0..).zip(&data).map(mix).fold(0u32, u32::wrapping_add);
            let data = case.list.constant("words", &data);
            let trailer = case.result(Size::Fixed(3), Wanted::Words(wanted));
            case.list.call(&checksum::CHECKSUM, &[], &checksum::Params { epoch, slot }, &[data, trailer]);
            check(&case);
        }
    }
}

pub fn canary(check: &dyn Fn(&Case)) {
    for (rows, width, stride, from) in
        [(1, 1, 1, 0), (1, 0, 1, 0), (7, 5, 9, 3), (16, 16, 16, 0), (300, 64, 64, 0), (20_000, 1, 3, 2)]
    {
        let all = rows * width;
        let marks = all.min(256);
        for (epoch, slot) in [(0x1357_9bdf_u32, 1), (3, 2)] {
            let region = |case: &mut Case, words, trailer, look| {
                let params = canary::Params { epoch, slot, from, stride, look };
                case.list.call_over((rows, width), &canary::CANARY, &[], &params, &[words, trailer]);
            };
            // A mark in each of equal parts, the last at the very end, and nothing beside the region.
            let mut marked = vec![0; (rows * stride) as usize];
            for lane in 0..marks {
                let hash = ((lane + 1).wrapping_mul(0x9e37_79b1) ^ epoch) as u64;
                let hash = ((hash ^ hash >> 15) * 0x85eb_ca6b) as u32;
                let (hash, part) = (hash ^ hash >> 13, all / marks);
                let place = if lane + 1 == marks { all - 1 } else { lane * part + hash % part };
                marked[(from + place / width * stride + place % width) as usize] = 0x7fc0_0000 | hash & 0x3f_fffe | 1;
            }
            for set in [false, true] {
                let mut case = shaped();
                let epoch = if marks > 0 { epoch } else { 0 };
                let mut wanted = vec![epoch, 0, 0];
                wanted[slot as usize] = if set { marks } else { 0 };
                let trailer = case.result(Size::Fixed(3), Wanted::Words(wanted));
                let one = case.list.floats("one", &vec![1.0; rows.max(width) as usize]);
                let words = match set {
                    false => Wanted::Words(marked.clone()),
                    true => {
                        let inside = |i: u32| (from..from + width).contains(&(i % stride));
                        Wanted::Words((0..rows * stride).map(|i| if inside(i) { 1f32.to_bits() } else { 0 }).collect())
                    }
                };
                let words = case.result(Size::Fixed(rows * stride), words);
                region(&mut case, words, trailer, 0);
                if set && width > 0 {
                    let shape = Shape { rows, cols: width, depth: 1 };
                    let out = Place { buf: words, stride, column: from };
                    matmul::record(&mut case.list, shape, one, Weight { buf: one, from: 0 }, None, out);
                }
                region(&mut case, words, trailer, 1);
                check(&case);
            }
        }
    }
}
