//! A pass through a network: values that live on the device, and the operations without parameters.
//!
//! Several tracks may go through side by side, the same network with other parameters; each has its own values, and reads
//! those of the track that it branched off where it has none yet.

use std::collections::HashMap;

use super::batch::Batch;
use super::network::{Form, Network, Op, Value};
use crate::error::Result;
use crate::executor::{Executor, Inputs};
use crate::kept::Kept;
use crate::kernels::deviation::Deviation;
use crate::kernels::matmul::{Place, Shape, Weight};
use crate::kernels::{
    activate, add, affine, attention, deviation, gate, gather, matmul, matmul_coop, normalize, patches, rope,
};
use crate::recording::{Buf, Extent, Recording, Results, Size};

/// A block of no shape: lists of a pass bring their own.
pub const NONE: Extent = Extent { first_row: 0, rows: 1, row_len: 1, n: 1 };

/// Parameters of a leaf on the device: some rows of its weight, and of its bias.
#[derive(Clone, Copy, Debug)]
pub struct Formed {
    /// Kept buffer of the weight.
    pub weight: usize,
    /// Kept buffer of the bias.
    pub bias: Option<usize>,
}

/// The state of a pass.
pub struct Pass<'a> {
    /// The network.
    pub network: &'a Network,
    /// What runs it.
    pub executor: &'a Executor,
    /// All samples.
    pub batches: &'a [Batch],
    /// Buffers on the device.
    pub kept: Kept,
    values: HashMap<(usize, usize, Value), usize>,
    last: Vec<usize>,
    wanted: Vec<Value>,
    parents: Vec<Option<usize>>,
    nothing: Inputs,
    results: Results,
}

impl<'a> Pass<'a> {
    /// A pass of `batches` that keeps the values `wanted`.
    pub fn new(network: &'a Network, executor: &'a Executor, batches: &'a [Batch], wanted: &[Value]) -> Result<Self> {
        Ok(Self {
            network,
            executor,
            batches,
            kept: Kept::new(executor),
            values: HashMap::new(),
            last: network.last_uses(),
            wanted: wanted.to_vec(),
            parents: Vec::new(),
            nothing: executor.load(&[], &mut |_, _, _| Ok(()))?,
            results: Results::default(),
        })
    }

    /// A new track; it begins with the values of `parent`.
    pub fn track(&mut self, parent: Option<usize>) -> usize {
        self.parents.push(parent);
        self.parents.len() - 1
    }

    /// Rows of `value` in `batch`, and its width.
    pub fn shape(&self, batch: usize, value: Value) -> (u32, u32) {
        let (rows, width) = self.network.values[value.0];
        (self.batches[batch].rows(rows), width)
    }

    /// True if anything reads `value` after operation `at`, or it is wanted.
    pub fn needs(&self, at: usize, value: Value) -> bool {
        self.last[value.0] > at || self.wanted.contains(&value)
    }

    /// The buffer of a value that was computed.
    pub fn value(&self, track: usize, batch: usize, value: Value) -> usize {
        let parent = || self.parents[track].and_then(|parent| self.values.get(&(parent, batch, value)));
        *self.values.get(&(track, batch, value)).or_else(parent).expect("operations are in order")
    }

    /// A buffer for a value that is about to be computed.
    pub fn make(&mut self, track: usize, batch: usize, value: Value) -> Result<usize> {
        if let Some(&id) = self.values.get(&(track, batch, value)) {
            return Ok(id);
        }
        let (rows, width) = self.shape(batch, value);
        let id = self.kept.take(self.executor, (rows * width).max(1))?;
        self.values.insert((track, batch, value), id);
        Ok(id)
    }

    /// Declares kept buffer `id` in `list`.
    pub fn buf(&self, list: &mut Recording, id: usize) -> Buf {
        list.kept("kept", id, Size::Fixed(self.kept.words(id)))
    }

    fn read(&self, list: &mut Recording, track: usize, batch: usize, value: Value) -> Buf {
        let id = self.value(track, batch, value);
        self.buf(list, id)
    }

    fn write(&mut self, list: &mut Recording, track: usize, batch: usize, value: Value) -> Result<Buf> {
        let id = self.make(track, batch, value)?;
        Ok(self.buf(list, id))
    }

    /// Another buffer for a value that is there; returns that of its contents, which the caller gives back.
    pub fn renew(&mut self, track: usize, batch: usize, value: Value) -> Result<usize> {
        let old = self.values.remove(&(track, batch, value)).expect("made by this track");
        self.make(track, batch, value)?;
        Ok(old)
    }

    /// Frees what `track` needs no more after operation `at`.
    pub fn release(&mut self, track: usize, at: usize) {
        let (last, wanted) = (&self.last, &self.wanted);
        let kept = &mut self.kept;
        self.values.retain(|(of, _, value), id| {
            let keep = *of != track || last[value.0] > at || wanted.contains(value);
            if !keep {
                kept.give(*id);
            }
            keep
        });
    }

    /// Runs a list over what is kept; the results are there until the next run.
    pub fn run(&mut self, list: &Recording) -> Result<&Results> {
        if !list.calls.is_empty() {
            let Self { executor, nothing, kept, results, .. } = self;
            executor.run_kept(list, &NONE, nothing, kept, results)?;
        }
        Ok(&self.results)
    }

    /// A value, on the host.
    pub fn read_back(&mut self, track: usize, batch: usize, value: Value) -> Result<Vec<f32>> {
        let shape = self.shape(batch, value);
        let mut list = Recording::new(1);
        let x = self.read(&mut list, track, batch, value);
        let out = list.result("value", Size::Fixed(shape.0 * shape.1));
        add::record(&mut list, shape, 1.0, x, 0.0, x, out);
        Ok(self.run(&list)?.floats(0).to_vec())
    }

    /// Runs a list over loaded inputs and what is kept.
    pub fn run_over(&mut self, list: &Recording, extent: &Extent, inputs: &Inputs) -> Result<&Results> {
        let Self { executor, kept, results, .. } = self;
        executor.run_kept(list, extent, inputs, kept, results)?;
        Ok(&self.results)
    }

    /// Runs operation `at`, which has no parameters, for some batches of a track.
    pub fn plain(&mut self, track: usize, at: usize, batches: &[usize]) -> Result<()> {
        let mut list = Recording::new(1);
        for &batch in batches {
            self.record(&mut list, track, at, batch)?;
        }
        self.run(&list).map(|_| ())
    }

    fn record(&mut self, list: &mut Recording, track: usize, at: usize, batch: usize) -> Result<()> {
        let own = &self.batches[batch];
        match self.network.ops[at] {
            Op::Patches { image, out } => {
                let pixels = list.floats("pixels", &own.pixels);
                let images = own.spans.len() as u32;
                let out = self.write(list, track, batch, out)?;
                patches::record(list, images, image, pixels, out);
            }
            Op::Select { x, index, out } => {
                let index = list.constant("index", &own.index(index));
                let table = Weight { buf: self.read(list, track, batch, x), from: 0 };
                let shape = self.shape(batch, out);
                let out = self.write(list, track, batch, out)?;
                gather::record(list, shape, table, index, None, out);
            }
            Op::Normalize { kind, eps, width, x, out } => {
                let shape = self.split(batch, x, width);
                let x = self.read(list, track, batch, x);
                let out = self.write(list, track, batch, out)?;
                normalize::record(list, shape, kind, eps, x, out);
            }
            Op::Rope { heads, dim, x, out } => {
                let table = self.network.rope.as_ref().expect("a network that rotates knows how");
                let mut words = Vec::new();
                for span in &own.spans {
                    words.extend(table.table(span.end - span.start));
                }
                let table = list.floats("rope", &words);
                let rows = self.shape(batch, x).0;
                let x = self.read(list, track, batch, x);
                let out = self.write(list, track, batch, out)?;
                rope::record(list, rows, heads, dim, table, x, out);
            }
            Op::Attention { heads, qkv, sight, out } => {
                let ranges = list.constant("ranges", &own.sight(sight));
                let rows = self.shape(batch, out).0;
                let [q, k, v] = qkv.map(|(value, column)| {
                    let stride = self.shape(batch, value).1;
                    Place { buf: self.read(list, track, batch, value), stride, column }
                });
                let out = self.write(list, track, batch, out)?;
                attention::record(list, rows, heads, q, k, v, ranges, out);
            }
            Op::Activate { act, x, out } => {
                let shape = self.shape(batch, x);
                let x = self.read(list, track, batch, x);
                let out = self.write(list, track, batch, out)?;
                activate::record(list, shape, act, x, out);
            }
            Op::Gate { act, x, up, out } => {
                let shape = self.shape(batch, x);
                let (x, up) = (self.read(list, track, batch, x), self.read(list, track, batch, up));
                let out = self.write(list, track, batch, out)?;
                gate::record(list, shape, act, x, up, out);
            }
            Op::Add { x, y, out } => {
                let shape = self.shape(batch, x);
                let (x, y) = (self.read(list, track, batch, x), self.read(list, track, batch, y));
                let out = self.write(list, track, batch, out)?;
                add::record(list, shape, 1.0, x, 1.0, y, out);
            }
            Op::Map { .. } | Op::Lookup { .. } | Op::Head { .. } => unreachable!("leaves have parameters"),
        }
        Ok(())
    }

    /// The shape of a value seen as rows of `width`.
    fn split(&self, batch: usize, value: Value, width: u32) -> (u32, u32) {
        let (rows, all) = self.shape(batch, value);
        (rows * (all / width), width)
    }

    /// Rows and columns of what the leaf of operation `at` gives for a batch: positions, of each head where it is one of
    /// heads, and features.
    pub fn features(&self, at: usize, batch: usize) -> (u32, u32) {
        match self.network.ops[at] {
            Op::Map { leaf, x, .. } | Op::Head { leaf, x, .. } => match self.network.leaves[leaf].form {
                Form::Affine { width } => self.split(batch, x, width),
                Form::Linear { outputs, .. } => (self.shape(batch, x).0, outputs),
                Form::Table { rows, .. } => (self.shape(batch, x).0, rows), // a tied head
            },
            Op::Lookup { out, .. } => self.shape(batch, out),
            _ => unreachable!("only leaves have features"),
        }
    }

    /// Appends the leaf's map of operation `at`: columns `piece.0`, `piece.1` of them, of those that `formed` holds the
    /// parameters of. For a table, `index` tells where in `formed` each row is, and `onto` what they are added to.
    pub fn apply(
        &self,
        list: &mut Recording,
        (track, at, batch): (usize, usize, usize),
        formed: Formed,
        (first, cols): (u32, u32),
        (index, onto): (Option<Buf>, Option<Buf>),
        out: Place,
    ) {
        let weight = self.buf(list, formed.weight);
        let bias = formed.bias.map(|id| Weight { buf: self.buf(list, id), from: first });
        match self.network.ops[at] {
            Op::Map { leaf, x, .. } | Op::Head { leaf, x, .. } => {
                let from = self.read(list, track, batch, x);
                match self.network.leaves[leaf].form {
                    Form::Affine { width } => {
                        let (weight, shape) = (Weight { buf: weight, from: 0 }, self.split(batch, x, width));
                        affine::record(list, shape, from, weight, bias, out.buf);
                    }
                    Form::Linear { .. } | Form::Table { .. } => {
                        let (rows, depth) = self.shape(batch, x);
                        let weight = Weight { buf: weight, from: first * depth };
                        self.product(list, Shape { rows, cols, depth }, from, weight, bias, out);
                    }
                }
            }
            Op::Lookup { .. } => {
                let (weight, shape) = (Weight { buf: weight, from: 0 }, self.features(at, batch));
                gather::record(list, shape, weight, index.expect("tables are looked up"), onto, out.buf);
            }
            _ => unreachable!("only leaves have parameters"),
        }
    }

    /// Appends a product: by cooperative matrices where the executor was opened for that. Few rows are a matter of
    /// memory, not of arithmetic, and stay f32.
    pub fn product(&self, list: &mut Recording, shape: Shape, x: Buf, w: Weight, bias: Option<Weight>, out: Place) {
        match self.executor.fast_gemm().filter(|_| shape.rows > matmul::SKINNY) {
            Some(fast) => matmul_coop::record(list, fast.kernel, shape, x, w, bias, out),
            None => matmul::record(list, shape, x, w, bias, out),
        }
    }

    /// Computes some rows of the leaf of operation `at` both ways, the first time, and takes down how far apart they are.
    pub fn compare(&mut self, track: usize, at: usize, batch: usize, formed: Formed, cols: u32) -> Result<()> {
        let (Op::Map { leaf, x, .. } | Op::Head { leaf, x, .. }) = self.network.ops[at] else { return Ok(()) };
        let leaf = &self.network.leaves[leaf];
        let (rows, depth) = self.shape(batch, x);
        let fast = self.executor.fast_gemm().filter(|fast| rows > matmul::SKINNY && fast.is_new(&leaf.name));
        let Some(fast) = fast.filter(|_| !matches!(leaf.form, Form::Affine { .. })) else { return Ok(()) };
        let shape = Shape { rows: matmul::SKINNY, cols, depth };
        let mut list = Recording::new(1);
        let from = self.read(&mut list, track, batch, x);
        let weight = Weight { buf: self.buf(&mut list, formed.weight), from: 0 };
        let [near, exact, off] =
            ["near", "exact", "off"].map(|label| list.scratch(label, Size::Fixed(shape.rows * cols)));
        let place = |buf| Place { buf, stride: cols, column: 0 };
        matmul_coop::record(&mut list, fast.kernel, shape, from, weight, None, place(near));
        matmul::record(&mut list, shape, from, weight, None, place(exact));
        add::record(&mut list, (shape.rows, cols), 1.0, near, -1.0, exact, off);
        let stats = list.result("deviation", Size::Fixed(shape.rows * deviation::WIDTH));
        deviation::record(&mut list, (shape.rows, cols), off, exact, stats);
        let rows: &[Deviation] = bytemuck::cast_slice(self.run(&list)?.words(0));
        let sum = |of: fn(&Deviation) -> f32| rows.iter().map(|row| f64::from(of(row))).sum();
        fast.add(&leaf.name, sum(|row| row.square_a), sum(|row| row.square_c));
        Ok(())
    }
}
