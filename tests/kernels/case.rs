//! What a test of a kernel is made of: a recording around it, the blocks it goes over, and what must come of it.

use magic_merge::checkpoint::Dtype;
use magic_merge::gpu::Gpu;
use magic_merge::kernels::{matmul_coop, widen};
use magic_merge::recording::{Buf, Buffer, Extent, Recording, Role, Size};

use super::common::{SIZES, extent, run_cpu, run_gpu, special_values, store, values};
use super::formats;

/// What a result must be.
pub enum Wanted {
    /// These words.
    Words(Vec<u32>),
    /// f32 values, each within its distance; a distance of infinity allows anything.
    Near(Vec<(f64, f64)>),
    /// These words, then these pairs in any order, as many as the first word says.
    Listed(Vec<u32>, Vec<[u32; 2]>),
    /// Elements that an f32 within these bounds is stored as; equal NaN bounds ask for NaN.
    Stored(Dtype, Vec<(f64, f64)>),
}

/// A recording around a kernel. All that it reads is constant, so that blocks can be of any shape.
pub struct Case {
    pub list: Recording,
    pub extent: Extent,
    pub wanted: Vec<Wanted>,
}

impl Case {
    pub fn new(extent: Extent, planes: usize) -> Self {
        Self { list: Recording::new(planes as u32), extent, wanted: Vec::new() }
    }

    /// `values` as stored elements.
    pub fn stored(&mut self, dtype: Dtype, values: &[f32]) -> Buf {
        let mut bytes = store(dtype, values);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let role = Role::Constant(bytemuck::pod_collect_to_vec::<u8, u32>(&bytes).into());
        self.list.buffers.push(Buffer { size: Size::Stored(dtype), role, label: "stored" });
        Buf(self.list.buffers.len() - 1)
    }

    /// A stack to read.
    pub fn stack(&mut self, planes: &[Vec<f32>]) -> Buf {
        self.list.floats("tau", &planes.concat())
    }

    /// A stack to write, and to look at afterwards, whose first planes are `planes`.
    pub fn writable(&mut self, planes: &[Vec<f32>]) -> Buf {
        let tau = self.list.result("tau", Size::Planes(self.list.planes));
        for (plane, values) in planes.iter().enumerate() {
            let stored = self.stored(Dtype::F32, values);
            widen::record(&mut self.list, stored, tau, plane as u32);
        }
        tau
    }

    pub fn result(&mut self, size: Size, wanted: Wanted) -> Buf {
        self.wanted.push(wanted);
        self.list.result("result", size)
    }
}

pub fn check(kernel: &str, gpu: Option<&Gpu>, case: &Case) {
    let Case { list, extent, wanted } = case;
    assert!(list.calls.iter().any(|call| call.kernel.name == kernel), "no call of {kernel}");
    let place = |device: &str, i: usize| format!("{kernel} {extent:?} {} planes, {device}, result {i}", list.planes);
    let cpu = run_cpu(list, extent, &[]);
    assert_eq!(cpu.buffers.len(), wanted.len(), "{kernel}: results");
    for (i, wanted) in wanted.iter().enumerate() {
        fits(&place("twin", i), &cpu.buffers[i], wanted);
    }
    let Some(gpu) = gpu else { return };
    if let Some(side) = matmul_coop::side(kernel).filter(|side| !gpu.cooperative().contains(side)) {
        return eprintln!("by the twin alone: no cooperative matrices of {side} × {side} on {}", gpu.adapter().name);
    }
    let found = run_gpu(gpu, list, extent, &[]).unwrap_or_else(|error| panic!("{}: {error}", place("GPU", 0)));
    for (i, wanted) in wanted.iter().enumerate() {
        fits(&place("GPU", i), &found.buffers[i], wanted);
    }
}

fn fits(place: &str, found: &[u32], wanted: &Wanted) {
    match wanted {
        Wanted::Words(words) => {
            assert_eq!(found.len(), words.len(), "{place}: length");
            for (i, (a, b)) in found.iter().zip(words).enumerate() {
                let values = (f32::from_bits(*a), f32::from_bits(*b));
                assert!(a == b, "{place}: [{i}] {a:#x}, wanted {b:#x} (as f32 {values:?})");
            }
        }
        Wanted::Listed(head, list) => {
            let (words, pairs) = found.split_at(head.len());
            assert_eq!(words, head, "{place}: counts");
            let mut pairs = pairs.as_chunks::<2>().0.to_vec();
            // Where there is too little room, which of them are there is not said.
            if head[0] as usize <= pairs.len() {
                pairs.truncate(list.len());
                pairs.sort_unstable();
                assert_eq!(&pairs, list, "{place}: list");
            }
        }
        Wanted::Near(values) => {
            assert_eq!(found.len(), values.len(), "{place}: length");
            for (i, (a, &(b, slack))) in found.iter().zip(values).enumerate() {
                let a = f64::from(f32::from_bits(*a));
                assert!(near(a, b, slack), "{place}: [{i}] {a:e}, wanted {b:e} within {slack:e}");
            }
        }
        Wanted::Stored(dtype, bounds) => {
            let bytes: &[u8] = bytemuck::cast_slice(found);
            for (i, &(low, high)) in bounds.iter().enumerate() {
                let bits = formats::bits(*dtype, bytes, i);
                let mut a = formats::value(*dtype, bits);
                if *dtype == Dtype::F8E4M3 && a.is_nan() && !low.is_nan() {
                    a = if bits < 0x80 { f64::INFINITY } else { f64::NEG_INFINITY }; // its NaN is also its infinity
                }
                let (low, high) = (formats::rounded(*dtype, low), formats::rounded(*dtype, high));
                let right = a.is_nan() && low.is_nan() || (low..=high).contains(&a);
                assert!(right, "{place}: [{i}] {a:e} ({bits:#x}), wanted {low:e}..={high:e} as {dtype:?}");
            }
        }
    }
}

/// Subnormal results may be taken for zero, and what f32 cannot hold is infinite.
fn near(a: f64, b: f64, slack: f64) -> bool {
    if slack == f64::INFINITY {
        return true;
    }
    let most = f64::from(f32::MAX);
    if a.is_nan() || b.is_nan() || a.is_infinite() || b.is_infinite() {
        return a == b || a.is_nan() && b.is_nan() || a.is_infinite() && a.signum() == b.signum() && b.abs() > most;
    }
    (a - b).abs() <= slack + 4.0 * f64::from(f32::MIN_POSITIVE)
}

/// Half a step of an f32, relatively.
pub const HALF_ULP: f64 = 1.0 / (1 << 24) as f64;

/// Blocks for work that knows no rows: short last rows, some in the midst of a tensor.
pub fn flat() -> Vec<Extent> {
    let mut all: Vec<Extent> = SIZES.iter().flat_map(|&n| [extent(n, 4096), extent(n, 173)]).collect();
    all.push(Extent { first_row: 7, ..extent(1757, 173) });
    all
}

/// Whole rows: single, long, narrow.
pub fn grids() -> Vec<Extent> {
    let grid = |rows, row_len| Extent { first_row: 0, rows, row_len, n: rows * row_len };
    vec![grid(1, 1), grid(3, 5001), grid(65, 33), grid(130, 257), grid(20_000, 3), grid(1, 70_001)]
}

/// More rows than a grid of workgroups has columns.
pub fn tall() -> Extent {
    Extent { first_row: 0, rows: 65_537, row_len: 1, n: 65_537 }
}

/// Numbers of planes: one expert to many, the merged one too; not many for many rows, of which each is a workgroup.
pub fn planes_for(extent: &Extent) -> impl Iterator<Item = usize> + use<> {
    let rows = extent.rows as usize;
    [1, 2, 3, 5, 18].into_iter().filter(move |planes| rows * planes <= 80_000)
}

pub fn stack(planes: usize, n: usize, seed: u64) -> Vec<Vec<f32>> {
    (0..planes).map(|k| values(n, 0.1, seed + 1000 * k as u64)).collect()
}

/// Magnitudes that are kept from going beyond f32 where they are squared or summed in another order.
pub fn tame(values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|x| if x.is_finite() { x.clamp(-1e15, 1e15) } else { x }).collect()
}

/// A stack in which one row in three has special values. Not subnormals: whether these count, where they are computed with,
/// is the device's choice.
pub fn special_stack(planes: usize, extent: &Extent, seed: u64) -> Vec<Vec<f32>> {
    let (n, len) = (extent.n as usize, extent.row_len as usize);
    let mut stack = stack(planes, n, seed);
    for (k, plane) in stack.iter_mut().enumerate() {
        let mut special = tame(special_values(n, 0.1, seed + 77 + k as u64));
        special.iter_mut().filter(|x| x.is_subnormal()).for_each(|x| *x = 0.0);
        for (row, (values, special)) in plane.chunks_mut(len).zip(special.chunks(len)).enumerate() {
            match row % 3 {
                1 => values.copy_from_slice(special),
                2 if (row / 3 + k).is_multiple_of(2) => values.fill(0.0),
                _ => {}
            }
        }
    }
    stack
}
