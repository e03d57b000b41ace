//! Loading a block: host bytes into memory that the device shares, or through staging buffers into its own.

use std::cell::RefCell;

use super::buffers::{Kind, Lease};
use super::sample::Sample;
use super::staging::STAGE;
use super::{DeviceInputs, Fault, Gpu};
use crate::error::Result;
use crate::recording::Read;

/// Bytes asked from the reader at a time: small enough to stay in cache until they are copied on.
const PIECE: usize = 128 << 10;

thread_local! {
    /// A GPU's memory can only be written, so that readers get this instead.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub fn load(gpu: &Gpu, bytes: &[usize], read: &mut Read<'_>) -> Result<DeviceInputs> {
    gpu.core.device.check()?;
    let kind = if gpu.staged { Kind::Storage } else { Kind::Input };
    let mut buffers = Vec::with_capacity(bytes.len());
    for &len in bytes {
        let padded = len.next_multiple_of(4).max(4) as u64;
        gpu.check_binding("input", padded)?;
        buffers.push(gpu.pool.take(&gpu.core.device, kind, padded, "magic.input")?);
    }
    let mut sample = Sample::new(bytes, gpu.runs.load(std::sync::atomic::Ordering::Relaxed));
    let fill = if gpu.staged { stage } else { write };
    let filled = fill(gpu, bytes, &buffers, &mut sample, read);
    if let Err(error) = filled {
        buffers.into_iter().for_each(Lease::discard); // they may be mapped
        return Err(error);
    }
    Ok(DeviceInputs { buffers, bytes: bytes.to_vec(), sample })
}

/// Reads the next piece of at most `most` bytes of a model of `len`, and pads it to whole words.
fn piece<'a>(
    (model, len, done): (usize, usize, usize),
    most: usize,
    scratch: &'a mut [u8],
    sample: &mut Sample,
    read: &mut Read<'_>,
) -> Result<(usize, &'a [u8])> {
    let piece = (len - done).min(PIECE).min(most);
    read(model, done as u64, &mut scratch[..piece])?;
    sample.keep(model, done, &scratch[..piece]);
    let padded = piece.next_multiple_of(4);
    scratch[piece..padded].fill(0);
    Ok((piece, &scratch[..padded]))
}

/// Into memory that the device shares.
fn write(gpu: &Gpu, bytes: &[usize], buffers: &[Lease], sample: &mut Sample, read: &mut Read<'_>) -> Result<()> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(PIECE, 0);
        for (model, (&len, buffer)) in bytes.iter().zip(buffers).enumerate() {
            if !buffer.fresh {
                gpu.core.device.map(buffer)?;
            }
            let mut done = 0;
            while done < len {
                let place = (model, len, done);
                if gpu.has(Fault::SkipUpload) {
                    done += piece(place, PIECE, scratch, sample, read)?.0;
                    continue;
                }
                let range = done as u64..(done + PIECE).min(len.next_multiple_of(4)) as u64;
                let view = buffer.get_mapped_range_mut(range);
                let cannot = |e| gpu.core.device.error(format!("cannot write to an input: {e}"));
                let mut view = view.map_err(cannot)?;
                done += if gpu.adapter().is_software() {
                    // SAFETY: what computes on the CPU has ordinary memory, all of it set before, and this view of it is the
                    // only one.
                    let memory = unsafe { view.slice(..).as_raw_ptr().as_mut() };
                    piece(place, PIECE, memory, sample, read)?.0
                } else {
                    let (read, padded) = piece(place, PIECE, scratch, sample, read)?;
                    view.copy_from_slice(padded);
                    read
                };
            }
            buffer.unmap();
        }
        Ok(())
    })
}

/// Through buffers that the device copies from.
fn stage(gpu: &Gpu, bytes: &[usize], buffers: &[Lease], sample: &mut Sample, read: &mut Read<'_>) -> Result<()> {
    let mut stage: Option<Stage> = None;
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(PIECE, 0);
        for (model, (&len, buffer)) in bytes.iter().zip(buffers).enumerate() {
            let mut done = 0;
            while done < len {
                if stage.as_ref().is_some_and(|s| s.room() == 0) {
                    stage.take().expect("just seen").submit();
                }
                if stage.is_none() {
                    stage = Some(Stage::new(gpu)?);
                }
                let stage = stage.as_mut().expect("just made");
                let (read, padded) = piece((model, len, done), stage.room(), scratch, sample, read)?;
                stage.put(padded, buffer, done as u64)?;
                done += read;
            }
        }
        Ok(())
    })?;
    if let Some(stage) = stage {
        stage.submit();
    }
    Ok(())
}

/// A staging buffer being filled, and the copies out of it.
struct Stage<'a> {
    gpu: &'a Gpu,
    /// Taken by [`Stage::submit`].
    open: Option<(wgpu::Buffer, wgpu::CommandEncoder)>,
    used: usize,
}

impl<'a> Stage<'a> {
    fn new(gpu: &'a Gpu) -> Result<Self> {
        let buffer = gpu.staging.take(&gpu.core.device)?;
        let desc = wgpu::CommandEncoderDescriptor { label: Some("magic.upload") };
        Ok(Self { gpu, open: Some((buffer, gpu.core.device.raw.create_command_encoder(&desc))), used: 0 })
    }

    fn room(&self) -> usize {
        STAGE - self.used
    }

    /// Appends `bytes`, a whole number of words, to be copied to `offset` of `to`.
    fn put(&mut self, bytes: &[u8], to: &wgpu::Buffer, offset: u64) -> Result<()> {
        let (buffer, encoder) = self.open.as_mut().expect("not submitted");
        let start = self.used;
        let range = start as u64..(start + bytes.len()) as u64;
        let mut view = buffer
            .get_mapped_range_mut(range)
            .map_err(|e| self.gpu.core.device.error(format!("cannot map an upload buffer: {e}")))?;
        view.copy_from_slice(bytes);
        drop(view);
        if !self.gpu.has(Fault::SkipUpload) {
            encoder.copy_buffer_to_buffer(buffer, start as u64, to, offset, bytes.len() as u64);
        }
        self.used = (start + bytes.len()).next_multiple_of(wgpu::MAP_ALIGNMENT as usize);
        Ok(())
    }

    fn submit(mut self) {
        let (buffer, encoder) = self.open.take().expect("submitted once");
        buffer.unmap();
        let submission = self.gpu.core.device.queue.submit([encoder.finish()]);
        self.gpu.staging.recycle(buffer, submission);
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if self.open.is_some() {
            self.gpu.staging.lose();
        }
    }
}
