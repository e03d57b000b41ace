//! Kernels that choose entries: by magnitude, by rank and chance, by what several experts say.

use magic_merge::kernels::between::Bracket;
use magic_merge::kernels::drop_ranked::Chances;

use super::*;

/// The `keep` largest magnitudes of `values`, of equals those with the lower index, by sorting all: their threshold, and
/// whether each is one.
fn largest(values: &[f32], keep: usize) -> (Threshold, Vec<bool>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(key(values[i])), i));
    let mut set = vec![false; values.len()];
    order[..keep].iter().for_each(|&i| set[i] = true);
    let last = order[..keep].last().map(|&i| Threshold::new(key(values[i]), i as u64 + 1));
    (last.unwrap_or(Threshold::NOTHING), set)
}

/// A tensor in two blocks.
fn halves(whole: Extent) -> impl Iterator<Item = (Extent, std::ops::Range<usize>)> {
    let (n, len) = (whole.n as usize, whole.row_len as usize);
    let cut = (n / 2 / len * len).max(len.min(n));
    [(0, cut), (cut, n)].into_iter().filter(|(start, end)| start < end).map(move |(start, end)| {
        let block = extent((end - start) as u32, whole.row_len);
        (Extent { first_row: (start / len) as u64, ..block }, start..end)
    })
}

pub fn between(check: &dyn Fn(&Case)) {
    for extent in flat() {
        let n = extent.n as usize;
        let planes = [ties(n, 50), values(n, 0.1, 51), vec![0.0; n]];
        for (low, high) in [(0.25, 0.5), (0.0, 0.02), (0.5, 0.5), (0.0, f32::NAN)] {
            let bracket = Bracket { low: key(low), high: key(high) };
            for room in [3 * n as u32, 1] {
                let mut case = Case::new(extent, 3);
                let tau = case.stack(&planes);
                let (mut head, mut list) = (vec![0], Vec::new());
                for (at, key) in planes.iter().flatten().map(|x| key(*x)).enumerate() {
                    if at % n == 0 {
                        head.extend([0, 0, 0, n as u32]);
                    }
                    let counts = &mut head[1 + at / n * 4..];
                    counts[0] += u32::from(key > bracket.high);
                    counts[1] += u32::from(key == bracket.high);
                    counts[2] += u32::from(key == bracket.low);
                    if key > bracket.low && key < bracket.high {
                        list.push([key, at as u32]);
                    }
                }
                head[0] = list.len() as u32;
                list.sort_unstable();
                let found = case.result(between::size(3, room), Wanted::Listed(head, list));
                (0..3).for_each(|plane| between::record(&mut case.list, tau, plane, bracket, found));
                check(&case);
            }
        }
    }
}

pub fn witness(check: &dyn Fn(&Case)) {
    for extent in flat() {
        for count in [1, 3] {
            let planes = stack(3, extent.n as usize, 52);
            let mut case = Case::new(extent, 3);
            let tau = case.stack(&planes);
            let first = |at: usize| planes[..count].iter().map(move |plane| plane[at].to_bits());
            let wanted = (0..extent.n as usize).step_by(extent.row_len as usize).flat_map(first).collect();
            let out = case.result(Size::Rows(count as u32), Wanted::Words(wanted));
            witness::record(&mut case.list, tau, out);
            check(&case);
        }
    }
}

pub fn trim(check: &dyn Fn(&Case)) {
    for whole in [flat(), grids()].concat().into_iter().filter(|whole| whole.first_row == 0) {
        let n = whole.n as usize;
        for values in [ties(n, 8), values(n, 0.1, 9), vec![-0.0; n]] {
            for (keep, top) in [(0, 0), (1, 0), (n / 3, 0), (n / 2, n / 4), (n - 1, n / 3), (n, 0), (n, 1), (n, n)] {
                let ((keep, kept), (top, gone)) = (largest(&values, keep), largest(&values, top));
                let left = |i: usize| if kept[i] && !gone[i] { values[i] } else { 0.0 };
                for (block, range) in halves(whole) {
                    let mut case = Case::new(block, 1);
                    case.wanted.push(Wanted::Words(range.clone().map(|i| left(i).to_bits()).collect()));
                    let tau = case.writable(&[values[range].to_vec()]);
                    trim::record(&mut case.list, tau, 0, keep, top);
                    check(&case);
                }
            }
        }
    }
    // Ties end beyond 2³² elements.
    for extent in far() {
        let first = extent.first_row * u64::from(extent.row_len);
        let mut case = Case::new(extent, 1);
        let end = first + u64::from(extent.n) / 2;
        let left = (0..extent.n).map(|i| if first + u64::from(i) < end { 0.5f32 } else { 0.0 }.to_bits());
        case.wanted.push(Wanted::Words(left.collect()));
        let tau = case.writable(&[vec![0.5; extent.n as usize]]);
        trim::record(&mut case.list, tau, 0, Threshold::new(key(0.5), end), Threshold::NOTHING);
        check(&case);
    }
}

pub fn mask(check: &dyn Fn(&Case)) {
    for whole in [flat(), grids()].concat().into_iter().filter(|whole| whole.first_row == 0) {
        let n = whole.n as usize;
        let by = ties(n, 30);
        let planes = stack(3, n, 31);
        for keep in [0, n / 3, n] {
            let (threshold, set) = largest(&by, keep);
            for (block, range) in halves(whole) {
                let mut case = Case::new(block, 3);
                let left = |k: usize, i: usize| if k == 2 || set[i] { planes[k][i] } else { 0.0 };
                let wanted = (0..3).flat_map(|k| range.clone().map(move |i| (k, i)));
                case.wanted.push(Wanted::Words(wanted.map(|(k, i)| left(k, i).to_bits()).collect()));
                let part = planes.iter().map(|plane| plane[range.clone()].to_vec()).collect::<Vec<_>>();
                let tau = case.writable(&part);
                let by = case.list.floats("by", &by[range]);
                mask::record(&mut case.list, by, threshold, tau);
                check(&case);
            }
        }
    }
}

/// Place of each element of a row by ascending magnitude, of equals the lower index first.
fn ranks(row: &[f32]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by_key(|&i| (key(row[i]), i));
    let mut ranks = vec![0; row.len()];
    order.iter().enumerate().for_each(|(rank, &i)| ranks[i] = rank as u32);
    ranks
}

pub fn rank(check: &dyn Fn(&Case)) {
    let more = [extent(1757, 173), extent(8192, 256), extent(4_500, 1_025)];
    for extent in grids().into_iter().chain(more) {
        let n = extent.n as usize;
        for plane in [ties(n, 32), values(n, 0.1, 33), special_values(n, 0.1, 34), vec![1.0; n]] {
            let wanted = plane.chunks(extent.row_len as usize).flat_map(ranks).collect();
            let mut case = Case::new(extent, 2);
            let tau = case.stack(&[vec![0.0; n], plane]);
            let sorted = case.list.scratch("sorted", rank::scratch());
            let out = case.result(Size::Planes(1), Wanted::Words(wanted));
            rank::record(&mut case.list, tau, 1, sorted, out);
            check(&case);
        }
    }
}

pub fn drop_ranked(check: &dyn Fn(&Case)) {
    let rows = |extent: &Extent| extent.n == extent.rows * extent.row_len;
    for extent in [grids(), far()].concat().into_iter().filter(|extent| rows(extent) && extent.rows < 10_000) {
        let (n, len) = (extent.n as usize, extent.row_len as usize);
        let first = extent.first_row * u64::from(extent.row_len);
        let values = stack(2, n, 35);
        let places: Vec<u32> = values[1].chunks(len).flat_map(ranks).collect();
        for (density, epsilon, scale) in [(0.3, 0.15, 1.5f32), (0.5, 0.5, 1.0), (0.9, 0.1, 1.0)] {
            let mut case = Case::new(extent, 2);
            let key = drop::key(42, "layer", 1);
            let of = |chance: f64| (chance * 4_294_967_296.0).round() as u128;
            let (low, high) = (of(density - epsilon), of(density + epsilon));
            let chance = |rank: u32| match len {
                1 => of(density),
                _ => low + (((((high - low) << 32) - 1) / (len as u128 - 1) * u128::from(rank)) >> 32),
            };
            let kept = |i: usize| u128::from(random(first + i as u64, key)) < chance(places[i]);
            let left = (0..n).map(|i| if kept(i) { values[1][i] * scale } else { 0.0 });
            let both = values[0].iter().copied().chain(left);
            case.wanted.push(Wanted::Words(both.map(f32::to_bits).collect()));
            let tau = case.writable(&values);
            let ranks = case.list.constant("ranks", &places);
            let chances = Chances { density, epsilon, row_len: extent.row_len };
            drop_ranked::record(&mut case.list, ranks, tau, 1, key, chances, scale);
            check(&case);
        }
    }
}

pub fn variance(check: &dyn Fn(&Case)) {
    for extent in flat() {
        let n = extent.n as usize;
        for experts in [1, 2, 3, 17] {
            let mut planes = stack(experts + 1, n, 36);
            // Where all agree it is zero, whatever the value.
            (0..n).step_by(5).for_each(|i| {
                let same = planes[0][i];
                planes.iter_mut().for_each(|plane| plane[i] = same);
            });
            let one = |i: usize| {
                let x = planes[..experts].iter().map(|plane| f64::from(plane[i]));
                let mean = x.clone().sum::<f64>() / experts as f64;
                let variance = x.clone().map(|x| (x - mean).powi(2)).sum::<f64>() / experts as f64;
                if i.is_multiple_of(5) {
                    (0.0, 0.0)
                } else {
                    (variance, variance * 8.0 * experts as f64 * HALF_ULP + 1e-18)
                }
            };
            let wanted = (0..n).map(one).collect();
            let mut case = Case::new(extent, experts + 1);
            let tau = case.stack(&planes);
            let out = case.result(Size::Planes(1), Wanted::Near(wanted));
            variance::record(&mut case.list, tau, out);
            check(&case);
        }
    }
}

pub fn consensus(check: &dyn Fn(&Case)) {
    for extent in flat() {
        let n = extent.n as usize;
        for experts in [1, 2, 3, 17] {
            // Whole numbers and weights: every share is exact, also one that is just as large as the cut.
            let whole = |seed: u64| words(seed).take(n).map(|word| (word % 9) as f32 - 4.0).collect::<Vec<f32>>();
            let planes: Vec<Vec<f32>> = (0..experts as u64).map(|k| whole(40 + k)).collect();
            let weights: Vec<f32> = (0..experts).map(|k| [1.0, 2.0, -1.0][k % 3]).collect();
            for (cut, votes, scale) in [(0.5f32, 2, 0.5f32), (0.0, 1, 1.0), (1.0, 1, 1.0), (0.25, 0, 2.0)] {
                let one = |i: usize| {
                    let u: Vec<f32> = planes.iter().zip(&weights).map(|(plane, w)| w * plane[i]).collect();
                    let sum: f32 = u.iter().sum();
                    let count = u.iter().filter(|u| u.abs() > cut * (sum - **u).abs()).count();
                    if count >= votes { scale * sum } else { 0.0 }
                };
                let mut case = Case::new(extent, experts + 1);
                let given = planes.iter().flatten().copied();
                let wanted = given.chain((0..n).map(one)).map(|x| (f64::from(x), 0.0)).collect();
                case.wanted.push(Wanted::Near(wanted));
                let tau = case.writable(&planes);
                let weights = case.list.floats("weights", &weights);
                consensus::record(&mut case.list, weights, cut, votes as u32, scale, tau);
                check(&case);
            }
        }
    }
}

pub fn clip(check: &dyn Fn(&Case)) {
    for extent in flat() {
        let n = extent.n as usize;
        let values = special_values(n, 0.1, 37);
        for limit in [0.0f32, 0.05, 3.0] {
            let mut case = Case::new(extent, 2);
            let last = values.iter().map(|x| if x.is_nan() { f64::NAN } else { f64::from(x.clamp(-limit, limit)) });
            let wanted = values.iter().map(|x| f64::from(*x)).chain(last).map(|x| (x, 0.0)).collect();
            case.wanted.push(Wanted::Near(wanted));
            let tau = case.writable(std::slice::from_ref(&values));
            clip::record(&mut case.list, tau, limit);
            check(&case);
        }
    }
}
