//! Proof of a read-back: the device takes a checksum of what it wrote, and the host of what it received.
//!
//! A driver that runs out of memory may drop a submission and say that all went well: every buffer then reads as zero,
//! or as what it held before. The sums are seeded with the number of the run, so that neither can pass.

use std::sync::atomic::Ordering;

use super::buffers::{Kind, Lease};
use super::pipeline::Shader;
use super::run::{Bound, Step};
use super::{Fault, Gpu};
use crate::error::Result;
use crate::kernels::checksum::{CHECKSUM, PER_GROUP, Params, checksum};
use crate::recording::{Dims, Results};

/// Words that are copied and summed at a time, in the innermost cache.
const SPAN: usize = 4096;

/// The trailer of one run: the epoch, a sum for each result, and what launches were seen to set.
pub struct Proof {
    epoch: u32,
    trailer: Lease,
    trailer_bytes: u64,
    /// One for each result.
    params: Vec<Params>,
}

impl Proof {
    /// A proof of the results `written`.
    pub fn new(gpu: &Gpu, written: &[Bound]) -> Result<Self> {
        let run = gpu.runs.fetch_add(1, Ordering::Relaxed);
        // Odd times odd: never zero, and no two of 2³¹ runs alike.
        let epoch = (2 * run + 1).wrapping_mul(0x9e37_79b1);
        let trailer_bytes = 4 * (2 + written.len() as u64);
        let trailer = gpu.pool.take(&gpu.core.device, Kind::Storage, trailer_bytes, "magic.trailer")?;
        let params = (1..=written.len() as u32).map(|slot| Params { epoch, slot }).collect();
        Ok(Self { epoch, trailer, trailer_bytes, params })
    }

    /// A number that no other run has.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Where in the trailer the words are counted that launches were seen to set.
    pub fn slot(&self) -> u32 {
        1 + self.params.len() as u32
    }

    /// The trailer.
    pub fn trailer(&self) -> Bound<'_> {
        Bound { buffer: &self.trailer, bytes: self.trailer_bytes }
    }

    /// The launches that fill the trailer.
    pub fn steps<'a>(&'a self, written: &[Bound<'a>]) -> impl Iterator<Item = Step<'a>> {
        let trailer = self.trailer();
        written.iter().copied().zip(&self.params).map(move |(result, params)| Step {
            calls: 0..0,
            shader: Shader::Kernel(&CHECKSUM, &[]),
            params: bytemuck::cast_slice(std::slice::from_ref(params)),
            dims: Dims { n: (result.bytes / 4) as u32, rows: 1, ..bytemuck::Zeroable::zeroed() },
            args: vec![result, trailer],
            groups: result.bytes.div_ceil(4 * u64::from(PER_GROUP)),
            sets: Vec::new(),
        })
    }

    /// Clears the trailer.
    pub fn clear(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.clear_buffer(&self.trailer, 0, None);
    }

    /// Copies results and trailer, one after the other, into one buffer for the host.
    pub fn copy(&self, gpu: &Gpu, written: &[Bound], encoder: &mut wgpu::CommandEncoder) -> Result<Lease> {
        let trailer = self.trailer();
        let parts = written.iter().copied().chain([trailer]);
        let total: u64 = parts.clone().map(|part| part.bytes).sum();
        if total > gpu.limits().max_results_bytes {
            return Err(gpu.core.device.error(format!("cannot hand back {total} bytes at a time")));
        }
        let back = gpu.pool.take(&gpu.core.device, Kind::ReadBack, total, "magic.readback")?;
        let mut at = 0;
        for part in parts {
            if !gpu.has(Fault::StaleReadBack) {
                encoder.copy_buffer_to_buffer(part.buffer, 0, &back, at, part.bytes);
            }
            if gpu.has(Fault::ZeroTail) && Some(part.bytes) == written.iter().map(|w| w.bytes).max() {
                let half = (part.bytes / 2).next_multiple_of(4).min(part.bytes - 4);
                encoder.clear_buffer(&back, at + half, Some(part.bytes - half));
            }
            at += part.bytes;
        }
        if gpu.has(Fault::ZeroReadBack) {
            encoder.clear_buffer(&back, 0, None);
        }
        Ok(back)
    }

    /// Fills `results`, result `i` of `words[i]` words, from the mapped `back`, and proves them, and that launches were seen
    /// to set `seen` words.
    pub fn read(
        &self,
        gpu: &Gpu,
        back: &wgpu::Buffer,
        words: impl Iterator<Item = usize>,
        seen: u32,
        results: &mut Results,
    ) -> Result<()> {
        let view = back
            .get_mapped_range(..)
            .map_err(|e| gpu.core.device.error(format!("cannot map what it computed: {e}")))?;
        results.buffers.resize_with(self.params.len(), Vec::new);
        let mut at = 0;
        let mut sums = vec![self.epoch];
        for (result, words) in results.buffers.iter_mut().zip(words) {
            // An empty result is bound as one word.
            result.resize(words.max(1), 0);
            sums.push(receive(&view[at..], result, self.epoch));
            at += 4 * result.len();
            result.truncate(words);
        }
        sums.push(seen);
        let mut trailer = vec![0u32; sums.len()];
        bytemuck::cast_slice_mut(&mut trailer).copy_from_slice(&view[at..at + self.trailer_bytes as usize]);
        let wrong = trailer.iter().zip(&sums).position(|(device, host)| device != host);
        match wrong {
            None => Ok(()),
            Some(0) => Err(gpu.core.device.error("did not do its work: what came back is not of this run")),
            Some(i) if i == sums.len() - 1 => Err(gpu.core.device.error("did not do all of its work")),
            Some(i) => Err(gpu.core.device.error(format!("did not hand back what it computed (result {})", i - 1))),
        }
    }
}

/// Copies the beginning of `from` to `to`, and returns its checksum.
fn receive(from: &[u8], to: &mut [u32], epoch: u32) -> u32 {
    let mut sum = 0u32;
    for (i, (span, from)) in to.chunks_mut(SPAN).zip(from.chunks(4 * SPAN)).enumerate() {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(span);
        let len = bytes.len();
        bytes.copy_from_slice(&from[..len]);
        sum = sum.wrapping_add(checksum(span, (i * SPAN) as u32, epoch));
    }
    sum
}
