//! Buffers that live from run to run, on the device that computes with them: activations and what is measured on them.

use crate::error::Result;
use crate::executor::Executor;
use crate::gpu::DeviceBuffer;

/// All buffers of a pass, by number; freed numbers are given out again.
pub struct Kept {
    pub(crate) buffers: Buffers,
    words: Vec<u32>,
    free: Vec<usize>,
    /// Host buffers that were given back. With those in use they are never more than were once in use.
    spare: Vec<Vec<u32>>,
    bytes: u64,
    peak: u64,
}

pub(crate) enum Buffers {
    Host(Vec<Vec<u32>>),
    Device(Vec<Option<DeviceBuffer>>),
}

impl Kept {
    /// Nothing yet, for `executor`.
    pub fn new(executor: &Executor) -> Self {
        let buffers = match executor {
            Executor::Cpu(_) => Buffers::Host(Vec::new()),
            Executor::Gpu(_) => Buffers::Device(Vec::new()),
        };
        Self { buffers, words: Vec::new(), free: Vec::new(), spare: Vec::new(), bytes: 0, peak: 0 }
    }

    /// A buffer of `words` words, of any contents.
    ///
    /// # Errors
    /// More than the device can bind, or has.
    pub fn take(&mut self, executor: &Executor, words: u32) -> Result<usize> {
        let id = self.free.pop();
        self.bytes += 4 * u64::from(words);
        self.peak = self.peak.max(self.bytes);
        let host = matches!(self.buffers, Buffers::Host(_)).then(|| self.host(words as usize));
        match (&mut self.buffers, executor) {
            (Buffers::Host(list), _) => {
                let buffer = host.unwrap_or_default();
                match id {
                    Some(id) => list[id] = buffer,
                    None => list.push(buffer),
                }
            }
            (Buffers::Device(list), Executor::Gpu(gpu)) => {
                let buffer = Some(gpu.keep(words as usize)?);
                match id {
                    Some(id) => list[id] = buffer,
                    None => list.push(buffer),
                }
            }
            _ => unreachable!("kept for another executor"),
        }
        let id = id.unwrap_or(self.words.len());
        self.words.resize(self.words.len().max(id + 1), 0);
        self.words[id] = words;
        Ok(id)
    }

    /// A host buffer: a spare one that is not much larger, or a new one. To fault in fresh pages takes longer than to
    /// compute what goes there.
    fn host(&mut self, words: usize) -> Vec<u32> {
        let fits = |buffer: &Vec<u32>| (words..=words + words / 4).contains(&buffer.capacity());
        let best = (0..self.spare.len()).filter(|&i| fits(&self.spare[i])).min_by_key(|&i| self.spare[i].capacity());
        if let Some(best) = best {
            let mut buffer = self.spare.swap_remove(best);
            buffer.resize(words, 0);
            return buffer;
        }
        let room = (self.peak - self.bytes) as usize / 4;
        let mut spare: usize = self.spare.iter().map(Vec::capacity).sum();
        while spare > room {
            spare -= self.spare.remove(0).capacity();
        }
        vec![0; words]
    }

    /// Gives buffer `id` back.
    pub fn give(&mut self, id: usize) {
        self.bytes -= 4 * u64::from(self.words[id]);
        self.words[id] = 0;
        match &mut self.buffers {
            Buffers::Host(list) => self.spare.push(std::mem::take(&mut list[id])),
            Buffers::Device(list) => list[id] = None,
        }
        self.free.push(id);
    }

    /// Words of buffer `id`.
    pub fn words(&self, id: usize) -> u32 {
        self.words[id]
    }

    /// The most bytes that were ever held.
    pub fn peak(&self) -> u64 {
        self.peak
    }
}
