//! What the device hands back: a submission's read-back, and words of buffers that live from run to run.

use std::sync::mpsc;
use std::time::Duration;

use super::Gpu;
use super::buffers::{Kind, Lease};
use crate::error::Result;

/// Submits what was encoded, waits for it, and hands back `back` mapped.
pub fn submit(gpu: &Gpu, encoder: wgpu::CommandEncoder, back: Lease) -> Result<Lease> {
    let device = &gpu.core.device;
    let submission = device.queue.submit([encoder.finish()]);
    let (done, mapped) = mpsc::sync_channel(1);
    back.map_async(wgpu::MapMode::Read, .., move |outcome| drop(done.try_send(outcome)));
    device.wait(submission)?;
    // Another thread's wait may be the one that calls back, a moment later.
    if matches!(mapped.recv_timeout(Duration::from_secs(60)), Ok(Ok(()))) {
        return Ok(back);
    }
    back.discard();
    Err(device.error("cannot map what it computed"))
}

/// Words of a buffer.
pub struct Piece<'a> {
    /// The buffer.
    pub buffer: &'a wgpu::Buffer,
    /// The first.
    pub from: usize,
    /// How many.
    pub words: usize,
}

/// What is in `pieces`, one vector for each.
pub fn peek(gpu: &Gpu, pieces: &[Piece<'_>]) -> Result<Vec<Vec<u32>>> {
    let device = &gpu.core.device;
    let bytes = |words: usize| 4 * words as u64;
    let total = pieces.iter().map(|piece| bytes(piece.words)).sum();
    let back = gpu.pool.take(device, Kind::ReadBack, total, "magic.peek")?;
    let desc = wgpu::CommandEncoderDescriptor { label: Some("magic.peek") };
    let mut encoder = device.raw.create_command_encoder(&desc);
    let mut at = 0;
    for piece in pieces {
        encoder.copy_buffer_to_buffer(piece.buffer, bytes(piece.from), &back, at, bytes(piece.words));
        at += bytes(piece.words);
    }
    let back = submit(gpu, encoder, back)?;
    let mut all = Vec::with_capacity(pieces.len());
    {
        let view = back.get_mapped_range(..);
        let view = view.map_err(|e| device.error(format!("cannot map what it computed: {e}")))?;
        let mut at = 0;
        for piece in pieces {
            let mut words = vec![0u32; piece.words];
            bytemuck::cast_slice_mut(&mut words).copy_from_slice(&view[at..at + 4 * piece.words]);
            at += 4 * piece.words;
            all.push(words);
        }
    }
    back.unmap();
    Ok(all)
}
