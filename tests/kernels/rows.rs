//! Kernels of rows: statistics, what is left over, factors, and products with vectors.

use super::*;

/// Rounding of sums that are taken in many parts, relative to the sum of magnitudes.
pub const SUMS: f64 = 2e-6;

pub fn sums_of(x: &[f32], m: &[f32]) -> [(f64, f64); 4] {
    let wide = || x.iter().map(|x| f64::from(*x)).zip(m.iter().map(|m| f64::from(*m)));
    let near = |sum: f64, size: f64| (sum, if size.is_finite() { size * SUMS } else { 0.0 });
    let (l1, square) = (wide().map(|(x, _)| x.abs()).sum(), wide().map(|(x, _)| x * x).sum());
    // NaN is larger than all.
    let largest = wide().fold(0.0, |a: f64, (x, _)| if x.is_nan() || a.is_nan() { f64::NAN } else { a.max(x.abs()) });
    let dot = near(wide().map(|(x, m)| x * m).sum(), wide().map(|(x, m)| (x * m).abs()).sum());
    [near(l1, l1), near(square, square), (largest, 0.0), dot]
}

pub fn rows<'a>(extent: &Extent, planes: &'a [Vec<f32>]) -> Vec<Vec<&'a [f32]>> {
    let rows = (0..extent.n as usize).step_by(extent.row_len as usize);
    rows.map(|at| planes.iter().map(|x| &x[at..x.len().min(at + extent.row_len as usize)]).collect()).collect()
}

pub fn norms(check: &dyn Fn(&Case)) {
    for extent in [flat(), grids(), vec![tall()]].concat() {
        row_statistics(check, extent, planes_for(&extent).filter(|planes| *planes < 18));
    }
}

pub fn statistics(check: &dyn Fn(&Case)) {
    for extent in [extent(1, 1), extent(173 * 7, 173), extent(9000, 4096)] {
        row_statistics(check, extent, [18, 129]);
    }
}

pub fn row_statistics(check: &dyn Fn(&Case), extent: Extent, planes: impl IntoIterator<Item = usize>) {
    for planes in planes {
        let planes = special_stack(planes, &extent, 14);
        let mut case = Case::new(extent, planes.len());
        let tau = case.stack(&planes);
        let of = |row: &Vec<&[f32]>| row.iter().flat_map(|x| sums_of(x, row[row.len() - 1])).collect::<Vec<_>>();
        let wanted: Vec<_> = rows(&extent, &planes).iter().flat_map(of).collect();
        let alone = wanted.chunks(4).flat_map(|sums| [sums[0], (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]).collect();
        let stats = case.result(norms::size(planes.len() as u32), Wanted::Near(wanted));
        norms::record(&mut case.list, tau, stats);
        let l1 = case.result(norms::size(planes.len() as u32), Wanted::Near(alone));
        norms::record_l1(&mut case.list, tau, l1);
        check(&case);
    }
}

pub fn cross(check: &dyn Fn(&Case)) {
    for extent in [flat(), grids(), vec![tall()]].concat() {
        let few = cross::FEW as usize + 1;
        for planes in planes_for(&extent).map(|planes| planes.min(few)).filter(|planes| *planes > 1) {
            let planes = special_stack(planes, &extent, 22);
            let (experts, width) = (planes.len() - 1, cross::width(planes.len() as u32 - 1));
            let mut case = Case::new(extent, planes.len());
            let tau = case.stack(&planes);
            let of = |row: &Vec<&[f32]>| {
                let pairs = (0..experts).flat_map(|k| (0..k).map(move |j| (j, k)));
                let mut products: Vec<_> = pairs.map(|(j, k)| sums_of(row[j], row[k])[3]).collect();
                products.resize(width as usize, (0.0, 0.0));
                products
            };
            let wanted = rows(&extent, &planes).iter().flat_map(of).collect();
            let products = case.result(Size::Rows(width), Wanted::Near(wanted));
            cross::record(&mut case.list, tau, products);
            check(&case);
        }
    }
}

/// Statistics of every row and plane, as f32.
pub fn stats(extent: &Extent, planes: &[Vec<f32>]) -> Vec<Stats> {
    let of = |x: &[f32], m: &[f32]| {
        let [l1, square, largest, dot] = sums_of(x, m).map(|(x, _)| x as f32);
        Stats { l1, square, largest, dot }
    };
    rows(extent, planes)
        .iter()
        .flat_map(|row| row.iter().map(|x| of(x, row[row.len() - 1])).collect::<Vec<_>>())
        .collect()
}

pub fn alpha(stats: &Stats) -> f64 {
    if stats.square > 0.0 { f64::from(stats.dot) / f64::from(stats.square) } else { 0.0 }
}

pub fn residual(check: &dyn Fn(&Case)) {
    let all = || [flat(), grids(), vec![tall()]].concat().into_iter();
    let most = grids()[2];
    for (extent, experts) in
        all().flat_map(|extent| planes_for(&extent).map(move |k| (extent, k.min(17)))).chain([(most, 6), (most, 128)])
    {
        let mut planes = special_stack(experts + 1, &extent, 15);
        let (experts_planes, merged) = planes.split_at_mut(experts);
        for (i, m) in merged[0].iter_mut().enumerate() {
            let row = i / extent.row_len as usize;
            // Some merged rows are an expert's own: nothing is left over.
            if row.is_multiple_of(5) {
                *m = experts_planes[0][i] * 0.5;
            }
            // In some, one expert dwarfs the others.
            if row % 10 == 5 {
                experts_planes[1..].iter_mut().for_each(|x| x[i] *= 1e-3);
            }
        }
        let stats = stats(&extent, &planes);
        let mut case = Case::new(extent, planes.len());
        let tau = case.stack(&planes);
        let left = |(row, of): (&Vec<&[f32]>, &[Stats])| {
            let (mut left, mut size) = (0f64, 0f64);
            for (i, &m) in row[experts].iter().enumerate() {
                let parts = (0..experts).map(|k| alpha(&of[k]) * f64::from(row[k][i]));
                left += (f64::from(m) - parts.clone().sum::<f64>()).powi(2);
                size += (f64::from(m).abs() + parts.map(f64::abs).sum::<f64>()).powi(2);
            }
            // What ξ takes is the sum of both.
            let norms = of[..experts].iter().map(|s| f64::from(s.square).sqrt());
            let mean = norms.sum::<f64>() / experts as f64;
            let total = left + mean.powi(2) * of[..experts].iter().map(|s| alpha(s).powi(2)).sum::<f64>();
            (left, if size.is_finite() { (size * SUMS).min(total * 2e-5 + size * 1e-12) } else { 0.0 })
        };
        let wanted = rows(&extent, &planes).iter().zip(stats.chunks(planes.len())).map(left).collect();
        let stats = case.list.constant("stats", bytemuck::cast_slice(&stats));
        let unexplained = case.result(Size::Rows(1), Wanted::Near(wanted));
        residual::record(&mut case.list, tau, stats, unexplained);
        check(&case);
    }
}

pub fn expected_factor(rule: Rule, bounds: Bounds, stats: &[Stats], residual: f32) -> f64 {
    let (merged, experts) = stats.split_last().unwrap();
    let norm = |s: &Stats| match rule {
        Rule::SphereL1 => f64::from(s.l1),
        Rule::SphereLinf => f64::from(s.largest),
        _ => f64::from(s.square).sqrt(),
    };
    let mean = experts.iter().map(norm).sum::<f64>() / experts.len() as f64;
    let factor = match rule {
        _ if merged.square.is_nan() || merged.square == 0.0 || mean.is_nan() || mean == 0.0 => 1.0,
        Rule::Mixed => {
            1.0 / (experts.iter().map(|s| alpha(s).powi(2)).sum::<f64>() + f64::from(residual) / (mean * mean)).sqrt()
        }
        _ => mean / norm(merged),
    };
    if factor.is_finite() { factor } else { 1.0 }.clamp(bounds.least.into(), bounds.most.into())
}

pub fn factor(check: &dyn Fn(&Case)) {
    let rules = [Rule::Mixed, Rule::SphereL1, Rule::SphereL2, Rule::SphereLinf];
    let bounds = [Bounds::NONE, Bounds::SHRINK, Bounds::ENLARGE, Bounds { least: 1.5, most: 2.0 }];
    for count in [1, 3, 255, 257, 1757] {
        let extent = Extent { first_row: 3, rows: count, row_len: 40, n: 40 * count };
        for experts in [1, 2, 4, 17] {
            let mut planes = special_stack(experts + 1, &extent, 16);
            planes.iter_mut().flatten().filter(|x| x.is_infinite()).for_each(|x| *x = 2.0);
            let mut stats = stats(&extent, &planes);
            let mut left: Vec<f32> = values(count as usize, 0.1, 17).iter().map(|x| x.abs()).collect();
            for (row, of) in stats.chunks_mut(experts + 1).enumerate() {
                match row % 7 {
                    // Nothing explains a row that is not zero, and nothing is left of it: infinite.
                    3 => (0..experts).for_each(|k| of[k].dot = 0.0),
                    4 => of[experts] = Stats::default(),
                    5 => (0..experts).for_each(|k| of[k] = Stats::default()),
                    _ => {}
                }
                left[row] *= if row % 14 == 3 { 0.0 } else { 1.0 };
            }
            let strengths = [Strength::FULL, Strength { shift: 0.5, times: 0.25 }, Strength { shift: 2.0, times: 0.0 }];
            for (i, (rule, bounds)) in rules.iter().flat_map(|rule| bounds.iter().map(move |b| (*rule, *b))).enumerate()
            {
                let strength = strengths[i % 3];
                let mut case = Case::new(extent, experts + 1);
                let of = |(stats, &left): (&[Stats], &f32)| {
                    let xi = expected_factor(rule, bounds, stats, left);
                    let Strength { shift, times } = strength;
                    (f64::from(shift) + f64::from(times) * xi, (f64::from(shift) + xi) * 1e-5)
                };
                let wanted = stats.chunks(experts + 1).zip(&left).map(of).collect();
                let stats = case.list.constant("stats", bytemuck::cast_slice(&stats));
                let unexplained = case.list.floats("residual", &left);
                let xi = case.result(Size::Rows(1), Wanted::Near(wanted));
                factor::record(&mut case.list, Factor { rule, bounds, strength }, stats, unexplained, xi);
                check(&case);
            }
        }
    }
}

pub fn matvec(check: &dyn Fn(&Case)) {
    for extent in [grids(), vec![tall()]].concat() {
        for planes in planes_for(&extent) {
            let planes = special_stack(planes, &extent, 18);
            let directions = stack(planes.len(), extent.row_len as usize, 19);
            let mut case = Case::new(extent, planes.len());
            let (tau, v) = (case.stack(&planes), case.list.floats("v", &directions.concat()));
            let product = |row: &Vec<&[f32]>| {
                let dot = |(x, v): (&&[f32], &Vec<f32>)| sums_of(x, v)[3];
                row.iter().zip(&directions).map(dot).collect::<Vec<_>>()
            };
            let wanted = rows(&extent, &planes).iter().flat_map(product).collect();
            let y = case.result(Size::Rows(planes.len() as u32), Wanted::Near(wanted));
            matvec::record(&mut case.list, tau, v, y);
            check(&case);
        }
    }
}

pub fn matvec_t(check: &dyn Fn(&Case)) {
    // More groups than a grid has columns, too.
    let folded = Extent { first_row: 16, rows: 40_000, row_len: 1, n: 40_000 };
    for (extent, planes) in grids().into_iter().flat_map(|e| planes_for(&e).map(move |p| (e, p))).chain([(folded, 27)])
    {
        let planes = special_stack(planes, &extent, 20);
        let sides = stack(planes.len(), extent.rows as usize, 21);
        let mut case = Case::new(extent, planes.len());
        let interleaved: Vec<f32> =
            (0..extent.rows as usize).flat_map(|row| sides.iter().map(move |y| y[row])).collect();
        let (tau, y) = (case.stack(&planes), case.list.floats("y", &interleaved));
        let len = extent.row_len as usize;
        let mut wanted = Vec::new();
        for first in (0..extent.rows as usize).step_by(GROUP_ROWS as usize) {
            let group = first..(first + GROUP_ROWS as usize).min(extent.rows as usize);
            for (tau, y) in planes.iter().zip(&sides) {
                let terms = |c: usize| group.clone().map(move |row| f64::from(tau[row * len + c]) * f64::from(y[row]));
                wanted.extend((0..len).map(|c| sum(terms(c))));
            }
        }
        let w = case.result(Size::Groups(planes.len() as u32), Wanted::Near(wanted));
        matvec_t::record(&mut case.list, tau, y, w);
        check(&case);
    }
}
