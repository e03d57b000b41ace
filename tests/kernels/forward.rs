//! Kernels of the forward pass: products, norms, attention and what lies between; and what features deviate by.

use std::cmp::Ordering;
use std::sync::LazyLock;

use magic_merge::kernels::activate::Act;
use magic_merge::kernels::normalize::Kind;
use magic_merge::kernels::patches::Image;

use super::*;

/// A case whose calls have shapes of their own.
pub fn shaped() -> Case {
    Case::new(extent(1, 1), 1)
}

fn finite(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// `x · wᵀ + bias` by `kernel`, or by the one that is chosen, inside of a wider matrix or alone.
fn product(
    check: &dyn Fn(&Case),
    kernel: Option<&'static Kernel>,
    (rows, cols, depth): (usize, usize, usize),
    variant: usize,
) {
    let (from, bias_from, column, more) = [(0, 0, 0, 0), (5, 3, 2, 3), (1, 0, 0, 1)][variant % 3];
    let mut x = values(rows * depth, 1.0, 30);
    if variant == 1 && rows > 2 {
        // What is no number stays in its row.
        (x[depth], x[2 * depth]) = (f32::NAN, f32::INFINITY);
    }
    let (mut w, bias) = (values(from + cols * depth, 1.0, 31), values(bias_from + cols, 1.0, 32));
    if variant == 2 {
        // Beyond the range of f16, and below it.
        x.chunks_mut(depth).step_by(2).flatten().for_each(|x| *x *= 3e6);
        w[from..].chunks_mut(depth).step_by(3).flatten().for_each(|w| *w *= 1e-9);
    }
    let rounds = kernel.is_some_and(|kernel| matmul_coop::side(kernel.name).is_some());
    let stride = column + cols + more;
    let mut wanted = vec![(0.0, 0.0); rows * stride];
    let (wide_x, wide_w) = (finite(&x), finite(&w[from..]));
    for (r, x) in wide_x.chunks(depth).enumerate() {
        for (c, w) in wide_w.chunks(depth).enumerate() {
            let bias = (variant % 3 != 2).then(|| f64::from(bias[bias_from + c]));
            let (y, mut slack) = sum(x.iter().zip(w).map(|(x, w)| x * w).chain(bias));
            if rounds {
                // Half a step of f16 for either factor.
                slack += x.iter().zip(w).map(|(x, w)| (x * w).abs()).sum::<f64>() / 1024.0;
            }
            wanted[r * stride + column + c] = (y, slack);
        }
    }
    let mut case = shaped();
    let (x, w, bias) = (case.list.floats("x", &x), case.list.floats("w", &w), case.list.floats("bias", &bias));
    let buf = case.result(Size::Fixed((rows * stride) as u32), Wanted::Near(wanted));
    let shape = matmul::Shape { rows: rows as u32, cols: cols as u32, depth: depth as u32 };
    let w = Weight { buf: w, from: from as u32 };
    let bias = (variant % 3 != 2).then_some(Weight { buf: bias, from: bias_from as u32 });
    let place = Place { buf, stride: stride as u32, column: column as u32 };
    match kernel {
        Some(kernel) if rounds => matmul_coop::record(&mut case.list, kernel, shape, x, w, bias, place),
        Some(kernel) => matmul::record_with(&mut case.list, kernel, shape, x, w, bias, place),
        None => matmul::record(&mut case.list, shape, x, w, bias, place),
    }
    check(&case);
}

/// Sides about those of tiles and steps.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (3, 5, 7),
    (8, 9, 33),
    (9, 8, 1),
    (31, 33, 32),
    (65, 64, 15),
    (64, 67, 130),
    (130, 70, 48),
    (577, 129, 17),
];

pub fn matmul(check: &dyn Fn(&Case)) {
    for shape in SHAPES {
        (0..3).for_each(|variant| product(check, Some(&matmul::MATMUL), shape, variant));
    }
    infinite(check, &matmul::MATMUL);
    // By its own choice: more tiles than a panel is high, the last panel lower.
    product(check, None, (1100, 400, 5), 1);
}

pub fn matmul_large(check: &dyn Fn(&Case)) {
    for shape in SHAPES {
        (0..3).for_each(|variant| product(check, Some(&matmul::MATMUL_LARGE), shape, variant));
    }
    infinite(check, &matmul::MATMUL_LARGE);
    // By its own choice, as above.
    product(check, None, (1300, 1170, 19), 1);
}

pub fn matmul_small(check: &dyn Fn(&Case)) {
    for shape in SHAPES {
        (0..3).for_each(|variant| product(check, Some(&matmul::MATMUL_SMALL), shape, variant));
    }
    infinite(check, &matmul::MATMUL_SMALL);
    product(check, None, (9, 40, 64), 1);
}

/// Infinity in the last column, which what fills up a step may not turn into NaN.
fn infinite(check: &dyn Fn(&Case), kernel: &'static Kernel) {
    let (rows, cols, depth) = (3u32, 9u32, 33u32);
    let x: Vec<f32> = (1..=rows * depth).map(|i| if i % depth == 0 { f32::INFINITY } else { 1.0 }).collect();
    let mut case = shaped();
    let (x, w) = (case.list.floats("x", &x), case.list.floats("w", &vec![0.5; (cols * depth) as usize]));
    let wanted = vec![f32::INFINITY.to_bits(); (rows * cols) as usize];
    let buf = case.result(Size::Fixed(rows * cols), Wanted::Words(wanted));
    let place = Place { buf, stride: cols, column: 0 };
    let shape = matmul::Shape { rows, cols, depth };
    matmul::record_with(&mut case.list, kernel, shape, x, Weight { buf: w, from: 0 }, None, place);
    check(&case);
}

pub fn matmul_skinny(check: &dyn Fn(&Case)) {
    infinite(check, &matmul::MATMUL_SKINNY);
    for rows in [1, 3, 4, 5, 8] {
        for (cols, depth) in [(1, 1), (7, 31), (9, 33), (130, 257)] {
            (0..3).for_each(|variant| product(check, None, (rows, cols, depth), variant));
        }
    }
}

pub fn matmul_coop16(check: &dyn Fn(&Case)) {
    for shape in SHAPES {
        (0..3).for_each(|variant| product(check, Some(&matmul_coop::MATMUL_COOP16), shape, variant));
    }
}

pub fn matmul_coop8(check: &dyn Fn(&Case)) {
    for shape in SHAPES {
        (0..3).for_each(|variant| product(check, Some(&matmul_coop::MATMUL_COOP8), shape, variant));
    }
}

/// The f16 that is nearest to `x`, of equals the even one; by the distances of the two about it.
fn nearest_half(x: f64) -> u16 {
    static ALL: LazyLock<Vec<f64>> =
        LazyLock::new(|| (0..0x7c00).map(|bits| half::f16::from_bits(bits).to_f64()).chain([65536.0]).collect());
    let above = ALL.partition_point(|value| *value < x.abs()).min(0x7c00);
    let below = above.saturating_sub(1);
    let off = |bits: usize| (ALL[bits] - x.abs()).abs();
    let nearest = match off(below).total_cmp(&off(above)) {
        Ordering::Less => below,
        Ordering::Greater => above,
        Ordering::Equal => [below, above][below % 2],
    };
    (if x.is_sign_negative() { 0x8000 } else { 0 }) | nearest as u16
}

pub fn narrow_rows(check: &dyn Fn(&Case)) {
    for (rows, len, from) in [(1, 1, 0), (3, 5001, 7), (65, 33, 1), (300, 3, 0), (14, 64, 2)] {
        let mut x = values(from + rows * len, 1.0, 37);
        for (r, row) in x[from..].chunks_mut(len).enumerate() {
            row.iter_mut().for_each(|x| *x *= [1.0, 0.0, 1e-30, 3e30, f32::NAN, 65536.0, f32::INFINITY][r % 7]);
        }
        // About where f16 ends, and where it has no more digits.
        if len == 64 {
            let edges = [65504.0, 65519.9, 65520.0, -65536.0, 6.1e-5, 6.0e-8, 2.98e-8, 2.9802322e-8, -8.94e-8, 1e-20];
            let plain = [f32::INFINITY, f32::NAN, f32::NEG_INFINITY].into_iter().chain(edges);
            x[from..].chunks_mut(len).for_each(|row| row.iter_mut().zip(plain.clone()).for_each(|(x, edge)| *x = edge));
        }
        let (mut wanted, mut narrow) = (Vec::new(), Vec::new());
        for row in x[from..].chunks(len) {
            let most =
                row.iter().fold(0.0f64, |most, x| if x.is_finite() { most.max(f64::from(x.abs())) } else { most });
            let plain = most == 0.0 || row.iter().any(|x| !x.is_finite());
            let up = if plain { 1.0 } else { 2f64.powi((14 - most.log2().floor() as i32).min(113)) };
            wanted.extend([(up as f32).to_bits(), (1.0 / up as f32).to_bits()]);
            let half = |x: &f32| match x.is_nan() {
                true => half::f16::from_f32(*x).to_bits(),
                false => nearest_half(f64::from(*x) * up),
            };
            let mut halves: Vec<u16> = row.iter().map(half).collect();
            halves.resize(len.next_multiple_of(32), 0);
            narrow.extend(halves.chunks(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16));
        }
        let mut case = shaped();
        let x = case.list.floats("x", &x);
        let [size, of_scales] = narrow_rows::sizes(rows as u32, len as u32);
        let out = case.result(size, Wanted::Words(narrow));
        let scales = case.result(of_scales, Wanted::Words(wanted));
        narrow_rows::record(&mut case.list, (rows as u32, len as u32), x, from as u32, [out, scales]);
        check(&case);
    }
}

pub fn normalize(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 2), (5, 255), (2, 257), (70, 33), (1, 9001), (66_000, 1)] {
        for (kind, eps, offset) in
            [(Kind::Layer, 1e-5f32, 0.0), (Kind::Layer, 1e-12, 100.0), (Kind::Rms, 1e-6, 0.0), (Kind::Rms, 1e-6, 3.0)]
        {
            let mut x: Vec<f32> = values(rows * len, 1.0, 33).iter().map(|x| x + offset).collect();
            if rows > 2 {
                x[len..2 * len].fill(0.0);
                x[2 * len] = f32::NAN;
            }
            let mut wanted = Vec::new();
            for row in finite(&x).chunks(len) {
                let mean = if kind == Kind::Layer { row.iter().sum::<f64>() / len as f64 } else { 0.0 };
                let square = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / len as f64;
                let divisor = (square + f64::from(eps)).sqrt();
                let size =
                    if kind == Kind::Layer { row.iter().map(|x| x.abs()).sum::<f64>() / len as f64 } else { 0.0 };
                let slack = |y: f64| SUMS * (size / divisor + y.abs());
                wanted.extend(row.iter().map(|x| (x - mean) / divisor).map(|y| (y, slack(y))));
            }
            let mut case = shaped();
            let x = case.list.floats("x", &x);
            let out = case.result(Size::Fixed((rows * len) as u32), Wanted::Near(wanted));
            normalize::record(&mut case.list, (rows as u32, len as u32), kind, eps, x, out);
            check(&case);
        }
    }
}

pub fn affine(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 5001), (65, 33), (20_000, 3)] {
        for (from, bias_from) in [(0, None), (7, Some(3)), (2, Some(0))] {
            let x = special_values(rows * len, 1.0, 34);
            let (w, bias) = (values(from + len, 1.0, 35), values(10 + len, 1.0, 36));
            let y = |i: usize| {
                let scaled = f64::from(x[i]) * f64::from(w[from + i % len]);
                sum([scaled].into_iter().chain(bias_from.map(|b: usize| f64::from(bias[b + i % len]))))
            };
            let wanted = (0..rows * len).map(y).collect();
            let mut case = shaped();
            let (x, w, bias) = (case.list.floats("x", &x), case.list.floats("w", &w), case.list.floats("b", &bias));
            let out = case.result(Size::Fixed((rows * len) as u32), Wanted::Near(wanted));
            let bias = bias_from.map(|from| Weight { buf: bias, from: from as u32 });
            let w = Weight { buf: w, from: from as u32 };
            affine::record(&mut case.list, (rows as u32, len as u32), x, w, bias, out);
            check(&case);
        }
    }
}

pub fn gather(check: &dyn Fn(&Case)) {
    for (rows, len, entries) in [(1, 1, 1), (5, 33, 7), (300, 64, 1000), (20_000, 3, 5)] {
        for (from, add) in [(0, false), (11, true), (2, false)] {
            // Two words more than whole entries.
            let table = values(from + entries * len + if len > 2 { 2 } else { 0 }, 1.0, 37);
            let index: Vec<u32> = words(38)
                .take(rows)
                .map(|word| match word % 7 {
                    0 => u32::MAX,
                    1 => entries as u32,
                    2 => u32::MAX / len as u32,
                    _ => (word >> 8) % entries as u32,
                })
                .collect();
            let before = values(rows * len, 1.0, 39);
            let y = |i: usize| {
                let row = index[i / len] as usize;
                let found = if row < entries { f64::from(table[from + row * len + i % len]) } else { 0.0 };
                if add { sum([found, f64::from(before[i])].into_iter()) } else { (found, 0.0) }
            };
            let wanted = Wanted::Near((0..rows * len).map(y).collect());
            let mut case = shaped();
            let onto = case.list.floats("onto", &before);
            let out = case.result(Size::Fixed((rows * len) as u32), wanted);
            let (table, index) = (case.list.floats("table", &table), case.list.constant("index", &index));
            let table = Weight { buf: table, from: from as u32 };
            gather::record(&mut case.list, (rows as u32, len as u32), table, index, add.then_some(onto), out);
            check(&case);
        }
    }
}

pub fn rope(check: &dyn Fn(&Case)) {
    for (rows, heads, dim) in [(1, 1, 2), (3, 5, 6), (67, 2, 64), (5, 14, 128), (66_000, 1, 2)] {
        let (x, table) = (values(rows * heads * dim, 1.0, 40), values(rows * dim, 1.0, 41));
        let mut wanted = vec![(0.0, 0.0); x.len()];
        for at in 0..rows * heads {
            for i in 0..dim / 2 {
                let [cos, sin] = [i, i + dim / 2].map(|i| f64::from(table[at / heads * dim + i]));
                let [first, second] = [i, i + dim / 2].map(|i| f64::from(x[at * dim + i]));
                wanted[at * dim + i] = sum([first * cos, -second * sin].into_iter());
                wanted[at * dim + i + dim / 2] = sum([second * cos, first * sin].into_iter());
            }
        }
        let mut case = shaped();
        let (table, x) = (case.list.floats("table", &table), case.list.floats("x", &x));
        let out = case.result(Size::Fixed((rows * heads * dim) as u32), Wanted::Near(wanted));
        rope::record(&mut case.list, rows as u32, heads as u32, dim as u32, table, x, out);
        check(&case);
    }
}

/// Ranges of keys for `rows` rows, of as many keys.
fn ranges(kind: usize, rows: u32) -> Vec<[u32; 2]> {
    let range = |r: u32| match kind {
        0 => [0, rows],
        1 => [0, r + 1],
        2 => [r.saturating_sub(5), r + 1],
        // Sequences of 7, one after the other, each row with what came before it.
        3 => [r - r % 7, r + 1],
        // Some without keys, wherever they begin.
        4 if r % 3 == 1 => [r, r],
        4 if r % 3 == 2 => [rows, 0],
        4 => [r / 2, rows],
        // Two sequences, both ways.
        5 if r < rows / 2 => [0, rows / 2],
        5 => [rows / 2, rows],
        _ => [0, 0],
    };
    (0..rows).map(range).collect()
}

pub fn attention(check: &dyn Fn(&Case)) {
    let shapes = [(1, 1, 1, 1), (5, 1, 1, 3), (33, 4, 2, 8), (70, 6, 1, 33), (130, 2, 2, 64), (40, 3, 3, 100)];
    for (number, (rows, heads, kv_heads, dim)) in
        shapes.into_iter().chain([(35, 2, 1, 256), (300, 1, 1, 16)]).enumerate()
    {
        for kind in 0..7 {
            // Once with scores of up to 80 and more, once out of one buffer.
            let large = kind % 3 == 1;
            let fused = (number + kind) % 2 == 1;
            let scale = if large { 8.0 } else { 1.0 / (dim as f32).sqrt() };
            let (wide, narrow) = (heads * dim, kv_heads * dim);
            let stride = wide + 2 * narrow + 3;
            let all = values(rows * stride, 2.0, 42 + kind as u64);
            let columns = [1, 1 + wide, 2 + wide + narrow];
            let at = |column: usize, row: usize, c: usize| f64::from(all[row * stride + columns[column] + c]);
            let ranges = ranges(kind, rows as u32);
            let mut wanted = Vec::new();
            for (r, &[start, end]) in ranges.iter().enumerate() {
                for h in 0..heads {
                    let kv = h * kv_heads / heads * dim;
                    let keys: Vec<usize> = (start as usize..end as usize).collect();
                    let terms = |s: usize| (0..dim).map(move |j| at(0, r, h * dim + j) * at(1, s, kv + j));
                    let scores: Vec<f64> = keys.iter().map(|&s| f64::from(scale) * terms(s).sum::<f64>()).collect();
                    let sizes = keys.iter().map(|&s| f64::from(scale) * terms(s).map(f64::abs).sum::<f64>());
                    let size = sizes.fold(0.0, f64::max);
                    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|x| (x - most).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for j in 0..dim {
                        let of = |f: fn(f64) -> f64| {
                            keys.iter().zip(&weights).map(|(&s, p)| p * f(at(2, s, kv + j))).sum::<f64>()
                        };
                        let (y, slack) = (of(|v| v), of(f64::abs));
                        let relative = SUMS + 2.0 * (dim + 4) as f64 * size * HALF_ULP;
                        wanted.push(if keys.is_empty() { (0.0, 0.0) } else { (y / total, relative * slack / total) });
                    }
                }
            }
            let mut case = shaped();
            let split = |case: &mut Case, i: usize| {
                let width = if i == 0 { wide } else { narrow };
                let own: Vec<f32> =
                    all.chunks(stride).flat_map(|row| row[columns[i]..][..width].iter().copied()).collect();
                Place { buf: case.list.floats("own", &own), stride: width as u32, column: 0 }
            };
            let [q, k, v] = if fused {
                let buf = case.list.floats("qkv", &all);
                columns.map(|column| Place { buf, stride: stride as u32, column: column as u32 })
            } else {
                [0, 1, 2].map(|i| split(&mut case, i))
            };
            let ranges = case.list.constant("ranges", bytemuck::cast_slice(&ranges));
            let out = case.result(Size::Fixed((rows * wide) as u32), Wanted::Near(wanted));
            let [heads, kv_heads, dim] = [heads, kv_heads, dim].map(|x| x as u32);
            let heads = Heads { heads, kv_heads, dim, scale };
            attention::record(&mut case.list, rows as u32, heads, q, k, v, ranges, out);
            check(&case);
        }
    }
}

/// The error function by a series of positive terms.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 || x.is_nan() {
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum) = (x, 0.0);
    for n in 1..200 {
        sum += term;
        term *= 2.0 * x * x / f64::from(2 * n + 1);
    }
    sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
}

/// An activation, and how far off its value may be.
fn activated(act: Act, x: f64) -> (f64, f64) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let near = 5e-7 * x.abs();
    match act {
        Act::Gelu => (0.5 * x * (1.0 + erf(x / 2f64.sqrt())), near),
        Act::GeluTanh => {
            (0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()), near)
        }
        Act::QuickGelu => (x * sigmoid(1.702 * x), near),
        Act::Silu => (x * sigmoid(x), near),
        Act::Relu => (if x < 0.0 { 0.0 } else { x }, 0.0),
        Act::Tanh => (x.tanh(), 1e-6 * x.tanh().abs()),
    }
}

/// Numbers of all sizes that activations meet.
fn activations(n: usize) -> Vec<f32> {
    let mut x = values(n, 6.0, 43);
    for (i, x) in x.iter_mut().enumerate() {
        *x = match i % 11 {
            3 => *x * 1e-3,
            5 => *x * 20.0,
            7 => [0.0, -0.0, f32::NAN, 1e-30, -1e4, 1e4, 80.0, -80.0][i / 11 % 8],
            _ => *x,
        };
    }
    x
}

pub fn activate(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 85), (257, 131), (1, 70_001)] {
        for act in Act::ALL {
            let x = activations(rows * len);
            let wanted = finite(&x).iter().map(|x| activated(act, *x)).collect();
            let mut case = shaped();
            let x = case.list.floats("x", &x);
            let out = case.result(Size::Fixed((rows * len) as u32), Wanted::Near(wanted));
            activate::record(&mut case.list, (rows as u32, len as u32), act, x, out);
            check(&case);
        }
    }
}

pub fn gate(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 85), (257, 131), (1, 70_001)] {
        for act in Act::ALL {
            let (x, up) = (activations(rows * len), values(rows * len, 3.0, 44));
            let product = |(x, up): (&f64, &f64)| {
                let (y, slack) = activated(act, *x);
                (y * up, (slack + y.abs() * HALF_ULP) * up.abs())
            };
            let wanted = finite(&x).iter().zip(&finite(&up)).map(product).collect();
            let mut case = shaped();
            let (x, up) = (case.list.floats("x", &x), case.list.floats("up", &up));
            let out = case.result(Size::Fixed((rows * len) as u32), Wanted::Near(wanted));
            gate::record(&mut case.list, (rows as u32, len as u32), act, x, up, out);
            check(&case);
        }
    }
}

pub fn add(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 85), (257, 131), (1, 70_001)] {
        for (a, b) in [(1.0, 1.0), (0.3f32, -1.7f32)] {
            let (x, y) = (tame(special_values(rows * len, 1.0, 45)), tame(special_values(rows * len, 1.0, 46)));
            let both = finite(&x).into_iter().zip(finite(&y));
            let wanted = both.map(|(x, y)| sum([f64::from(a) * x, f64::from(b) * y].into_iter())).collect();
            let mut case = shaped();
            let (x, y) = (case.list.floats("x", &x), case.list.floats("y", &y));
            let out = case.result(Size::Fixed((rows * len) as u32), Wanted::Near(wanted));
            add::record(&mut case.list, (rows as u32, len as u32), a, x, b, y, out);
            check(&case);
        }
    }
}

pub fn patches(check: &dyn Fn(&Case)) {
    for (images, channels, height, width, patch) in
        [(1, 1, 1, 1, 1), (2, 3, 8, 12, 4), (3, 2, 11, 7, 3), (1, 3, 33, 65, 16), (5, 1, 6, 6, 6), (2, 3, 40, 40, 1)]
    {
        let pixels = special_values(images * channels * height * width, 1.0, 47);
        let mut wanted = Vec::new();
        for image in 0..images {
            for (y, x) in (0..height / patch).flat_map(|y| (0..width / patch).map(move |x| (y, x))) {
                for (channel, line) in (0..channels).flat_map(|c| (0..patch).map(move |line| (c, line))) {
                    let row = (image * channels + channel) * height + y * patch + line;
                    wanted.extend(pixels[row * width + x * patch..][..patch].iter().map(|x| x.to_bits()));
                }
            }
        }
        let mut case = shaped();
        let pixels = case.list.floats("pixels", &pixels);
        let out = case.result(Size::Fixed(wanted.len() as u32), Wanted::Words(wanted));
        let [channels, height, width, patch] = [channels, height, width, patch].map(|side| side as u32);
        let image = Image { channels, height, width, patch };
        patches::record(&mut case.list, images as u32, image, pixels, out);
        check(&case);
    }
}

pub fn loss(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 2), (7, 255), (5, 257), (300, 10), (2, 50_001), (66_000, 1)] {
        let mut logits = values(rows * len, 5.0, 48);
        let mut targets = Vec::new();
        for (r, row) in logits.chunks_mut(len).enumerate() {
            match r % 5 {
                1 => row.iter_mut().for_each(|x| *x *= 16.0),
                2 => row.fill(-80.0), // all alike
                3 => {
                    // The largest twice.
                    row[len / 3] = 90.0;
                    row[len - 1] = 90.0;
                }
                _ => {}
            }
            let target = (r * 31 % len) as u32;
            targets.push([target, u32::MAX, target, len as u32 - 1, len as u32][r % 5]);
        }
        let mut wanted = Vec::new();
        for (row, target) in finite(&logits).chunks(len).zip(&targets) {
            let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let best = row.iter().position(|x| *x == most).unwrap();
            let total: f64 = row.iter().map(|x| (x - most).exp()).sum();
            let behind = row.get(*target as usize).map_or(-1.0, |x| most - x);
            wanted.extend([
                (most, 0.0),
                (total, 4.0 * SUMS * total),
                (behind, SUMS * behind.abs()),
                (best as f64, 0.0),
            ]);
        }
        let mut case = shaped();
        let (logits, targets) = (case.list.floats("logits", &logits), case.list.constant("targets", &targets));
        let out = case.result(Size::Fixed(loss::WIDTH * rows as u32), Wanted::Near(wanted));
        loss::record(&mut case.list, (rows as u32, len as u32), logits, targets, out);
        check(&case);
    }
    // A row with a NaN has no sum that is a number; the others have theirs.
    let mut case = shaped();
    let logits = case.list.floats("logits", &[1.0, f32::NAN, 2.0, 0.0, 0.0, 0.0]);
    let targets = case.list.constant("targets", &[0, 1]);
    let any = (0.0, f64::INFINITY);
    let near = vec![any, (f64::NAN, 0.0), any, any, (0.0, 0.0), (3.0, SUMS), (0.0, 0.0), (0.0, 0.0)];
    let out = case.result(Size::Fixed(2 * loss::WIDTH), Wanted::Near(near));
    loss::record(&mut case.list, (2, 3), logits, targets, out);
    check(&case);
}

pub fn deviation(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 5001), (65, 33), (130, 257), (20_000, 3), (1, 70_001), (66_000, 1)] {
        let (a, c) = (values(rows * len, 1.0, 49), values(rows * len, 1.0, 50));
        let (mut a, c) = (tame(a), tame(c));
        if rows > 2 {
            a[len] = f32::NAN;
        }
        let mut wanted = Vec::new();
        for (a, c) in a.chunks(len).zip(c.chunks(len)) {
            let ([l1_a, square_a, largest_a, dot], [l1_c, square_c, largest_c, _]) = (sums_of(a, c), sums_of(c, a));
            // Beside a NaN, the largest is not specified.
            let any = |(largest, near)| if f64::is_nan(largest) { (0.0, f64::INFINITY) } else { (largest, near) };
            wanted.extend([l1_a, l1_c, square_a, square_c, dot, any(largest_a), any(largest_c), (0.0, 0.0)]);
        }
        let mut case = shaped();
        let n = rows as u32 * deviation::WIDTH;
        let stats = case.result(Size::Fixed(n), Wanted::Near(wanted));
        let (a, c) = (case.list.floats("a", &a), case.list.floats("c", &c));
        deviation::record(&mut case.list, (rows as u32, len as u32), a, c, stats);
        check(&case);
    }
}
