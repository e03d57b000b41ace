//! Kernels behind merges on the sphere: inner products, and sums with weights for parts of a tensor.

use magic_merge::kernels::blend::Along;

use super::*;

/// Lengths of runs that a row of the extent can be cut into.
fn units(extent: &Extent) -> Vec<u32> {
    [1, 3, 11, 257].into_iter().filter(|unit| extent.row_len.is_multiple_of(*unit)).chain([extent.row_len]).collect()
}

fn pairs(planes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..planes).flat_map(move |i| (i..planes).map(move |j| (i, j)))
}

/// Runs that are no whole rows, and rows of many planes.
pub fn gram(check: &dyn Fn(&Case)) {
    products(check, false);
}

pub fn gram_rows(check: &dyn Fn(&Case)) {
    products(check, true);
}

fn products(check: &dyn Fn(&Case), rows: bool) {
    let short = Extent { first_row: 3, ..extent(1757, 173) };
    for extent in grids().into_iter().chain([short, extent(9000, 4096)]) {
        for planes in [1, 2, 4, 8].into_iter().filter(|planes| extent.rows as usize * planes <= 20_000) {
            let planes = special_stack(planes, &extent, 50);
            for unit in units(&extent).into_iter().filter(|unit| extent.n / unit <= 40_000) {
                if rows != (unit == extent.row_len && planes.len() < 8) {
                    continue;
                }
                if extent.n % extent.row_len != 0 && unit != extent.row_len {
                    continue;
                }
                let mut case = Case::new(extent, planes.len());
                let run = |at: usize, plane: usize| planes[plane].chunks(unit as usize).nth(at).expect("a run");
                let runs = extent.n.div_ceil(unit) as usize;
                let one = |at: usize| {
                    let products = pairs(planes.len()).map(move |(i, j)| (at, i, j));
                    products.map(|(at, i, j)| sums_of(run(at, i), run(at, j))[3]).collect::<Vec<_>>()
                };
                let wanted = (0..runs).flat_map(one).collect();
                let size = gram::size(planes.len() as u32, extent.row_len, unit);
                let tau = case.stack(&planes);
                let out = case.result(size, Wanted::Near(wanted));
                gram::record(&mut case.list, tau, unit, out);
                check(&case);
            }
        }
    }
}

pub fn gram_t(check: &dyn Fn(&Case)) {
    for extent in grids() {
        for planes in [1, 2, 4] {
            let planes = special_stack(planes, &extent, 51);
            let len = extent.row_len as usize;
            let mut wanted = Vec::new();
            for first in (0..extent.rows as usize).step_by(GROUP_ROWS as usize) {
                let group = first..(first + GROUP_ROWS as usize).min(extent.rows as usize);
                for (i, j) in pairs(planes.len()) {
                    let (x, y) = (&planes[i], &planes[j]);
                    let terms = |c: usize| {
                        group.clone().map(move |row| f64::from(x[row * len + c]) * f64::from(y[row * len + c]))
                    };
                    wanted.extend((0..len).map(|c| sum(terms(c))));
                }
            }
            let mut case = Case::new(extent, planes.len());
            let tau = case.stack(&planes);
            let out = case.result(Size::Groups(gram::pairs(planes.len() as u32)), Wanted::Near(wanted));
            gram_t::record(&mut case.list, tau, out);
            check(&case);
        }
    }
}

pub fn blend(check: &dyn Fn(&Case)) {
    for whole in grids() {
        for (experts, dtype) in [(1usize, Dtype::F16), (2, Dtype::F64), (4, Dtype::BF16)] {
            let planes = special_stack(experts, &whole, 52);
            let len = whole.row_len as usize;
            // The second half of the rows, where there are several: its own part of the table.
            let first = whole.rows as usize / 2;
            let n = (whole.rows as usize - first) * len;
            let extent = Extent { first_row: first as u64, ..extent(n as u32, whole.row_len) };
            let part: Vec<Vec<f32>> = planes.iter().map(|plane| plane[first * len..].to_vec()).collect();
            let base_values = tame(special_values(n, 0.1, 53));
            let stored = store(dtype, &base_values);
            for (along, unit) in units(&whole).into_iter().map(|unit| (Along::Rows, unit)).chain([(Along::Columns, 1)])
            {
                let parts = if along == Along::Rows { whole.n / unit } else { whole.row_len } as usize;
                let mut weights: Vec<f32> = values(parts * (experts + 1), 1.0, 54);
                weights.chunks_mut(experts + 1).step_by(2).for_each(|part| part[experts] = 0.0);
                let terms = |i: usize| {
                    let at = if along == Along::Rows { (first * len + i) / unit as usize } else { i % len };
                    let own = &weights[at * (experts + 1)..][..experts + 1];
                    let scaled = part.iter().zip(own).map(move |(tau, &w)| f64::from(w) * f64::from(tau[i]));
                    let b = formats::value(dtype, formats::bits(dtype, &stored, i));
                    scaled.chain((own[experts] != 0.0).then_some(f64::from(own[experts]) * b))
                };
                let mut case = Case::new(extent, experts + 1);
                let given = part.iter().flatten().map(|x| (f64::from(*x), 0.0));
                case.wanted.push(Wanted::Near(given.chain((0..n).map(|i| sum(terms(i)))).collect()));
                let base = case.stored(dtype, &base_values);
                let tau = case.writable(&part);
                let weights = match along {
                    Along::Rows => case.list.table("weights", whole.row_len / unit * (experts as u32 + 1), &weights),
                    Along::Columns => case.list.floats("weights", &weights),
                };
                blend::record(&mut case.list, base, weights, tau, unit, along);
                check(&case);
            }
        }
    }
}
