//! A tensor as a stream of blocks: read, run, hand on; several blocks at a time, within the memory of the plan.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use crate::checkpoint::Checkpoint;
use crate::cpu::Cpu;
use crate::error::Result;
use crate::executor::{Executor, Inputs};
use crate::plan::Tensor;
use crate::progress::Progress;
use crate::recording::{Extent, Recording, Results};

/// Elements of all planes that are worked on at a time in a sample.
const SAMPLED: usize = 64 << 10;

/// What every stream of a merge draws on.
pub struct Engine<'a> {
    /// The base, then the experts, as the plan numbers them.
    pub checkpoints: &'a [Checkpoint],
    /// What runs the lists of calls.
    pub executor: &'a Executor,
    /// How far the merge has come.
    pub progress: &'a Progress,
}

/// One tensor of a merge, cut into blocks that are the same in every pass.
pub struct Stream<'a> {
    /// The tensor.
    pub tensor: &'a Tensor,
    engine: &'a Engine<'a>,
    /// Blocks that stay loaded between passes, where the memory allows.
    resident: Option<Vec<OnceLock<Inputs>>>,
    /// What was computed from the whole tensor, element by element: one input more than the tensor has sources.
    computed: Option<Vec<f32>>,
}

thread_local! {
    /// Read-back buffers of this thread.
    static RESULTS: RefCell<Results> = RefCell::default();
}

impl<'a> Stream<'a> {
    /// The stream of `tensor`.
    pub fn new(engine: &'a Engine<'a>, tensor: &'a Tensor) -> Self {
        let resident = tensor.resident.then(|| (0..tensor.blocks()).map(|_| OnceLock::new()).collect());
        Self { tensor, engine, resident, computed: None }
    }

    /// Adds an input that was computed from the whole tensor. Blocks that are loaded already do not have it.
    pub fn give(&mut self, computed: Vec<f32>) {
        debug_assert!(self.resident.is_none() && computed.len() as u64 == self.tensor.elements);
        self.computed = Some(computed);
    }

    /// What the stream draws on.
    pub fn engine(&self) -> &'a Engine<'a> {
        self.engine
    }

    /// Bytes of all inputs of a block.
    pub fn bytes(&self, extent: &Extent) -> u64 {
        self.tensor.sources.iter().map(|source| u64::from(extent.n) * source.dtype.size() as u64).sum()
    }

    /// Reads stored elements of source `source`, from element `first` on.
    ///
    /// # Errors
    /// A failed read.
    pub fn read(&self, source: usize, first: u64, bytes: &mut [u8]) -> Result<()> {
        let source = &self.tensor.sources[source];
        let at = first * source.dtype.size() as u64;
        self.engine.checkpoints[source.checkpoint].read_at(source.tensor, at, bytes)
    }

    /// Runs `list` over the blocks `blocks` and hands its results to `take`, on several threads and in any order; what
    /// `take` returns comes back in the order of the blocks.
    pub fn map<T: Send>(
        &self,
        list: &Recording,
        blocks: Range<usize>,
        take: impl Fn(&Extent, &Results) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let block = |index: usize| {
            self.engine.progress.check()?;
            let extent = self.tensor.block(index);
            let run = |inputs: &Inputs| {
                // Taken, not borrowed: while a kernel waits for its threads, this one may run another block.
                let mut results = RESULTS.take();
                self.engine.executor.run(list, &extent, inputs, &mut results)?;
                let taken = take(&extent, &results);
                RESULTS.set(results);
                taken
            };
            match &self.resident {
                Some(resident) => match resident[index].get() {
                    Some(inputs) => run(inputs),
                    None => {
                        let inputs = self.load(self.engine.executor, &extent)?;
                        let result = run(&inputs);
                        // Each block is worked on by one thread at a time, so the cell is empty.
                        let _ = resident[index].set(inputs);
                        result
                    }
                },
                None => {
                    let inputs = self.load(self.engine.executor, &extent)?;
                    let result = run(&inputs);
                    self.engine.executor.unload(inputs);
                    result
                }
            }
        };
        match blocks.len() {
            1 => Ok(vec![block(blocks.start)?]),
            _ => blocks.into_par_iter().with_max_len(1).map(block).collect(),
        }
    }

    /// Runs `list` on the host over pieces of `len` elements, by their numbers, as many rows at a time as a cache holds, and
    /// hands its results to `take`, in order.
    pub fn sample(
        &self,
        list: &Recording,
        len: u32,
        pieces: &[u64],
        mut take: impl FnMut(&Extent, &Results),
    ) -> Result<()> {
        let host = Executor::Cpu(Cpu::default());
        let mut results = Results::default();
        let most = SAMPLED / list.planes as usize / len as usize;
        for rows in pieces.chunks(most.max(1)) {
            let extent = Extent { first_row: 0, rows: rows.len() as u32, row_len: len, n: rows.len() as u32 * len };
            let bytes: Vec<usize> =
                self.tensor.sources.iter().map(|source| extent.n as usize * source.dtype.size()).collect();
            let inputs = host.load(&bytes, &mut |source, _, buffer| {
                let pieces = buffer.chunks_mut(len as usize * self.tensor.sources[source].dtype.size());
                rows.iter().zip(pieces).try_for_each(|(at, piece)| self.read(source, at * u64::from(len), piece))
            })?;
            host.run(list, &extent, &inputs, &mut results)?;
            host.unload(inputs);
            take(&extent, &results);
        }
        Ok(())
    }

    fn load(&self, executor: &Executor, extent: &Extent) -> Result<Inputs> {
        let sources = &self.tensor.sources;
        let stored = sources.iter().map(|source| source.dtype.size());
        let sizes = stored.chain(self.computed.iter().map(|_| size_of::<f32>()));
        let bytes: Vec<usize> = sizes.map(|size| extent.n as usize * size).collect();
        let first = extent.first_row * u64::from(extent.row_len);
        executor.load(&bytes, &mut |model, offset, buffer| {
            let Some(source) = sources.get(model) else {
                let computed = &self.computed.as_deref().unwrap_or_default()[first as usize..];
                buffer.copy_from_slice(&bytemuck::cast_slice(computed)[offset as usize..][..buffer.len()]);
                return Ok(());
            };
            let at = first * source.dtype.size() as u64 + offset;
            self.engine.checkpoints[source.checkpoint].read_at(source.tensor, at, buffer)
        })
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        for inputs in self.resident.take().into_iter().flatten().filter_map(OnceLock::into_inner) {
            self.engine.executor.unload(inputs);
        }
    }
}
