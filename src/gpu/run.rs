//! Running a recording over a loaded block: one submission, one read-back.

use std::ops::Range;

use super::buffers::{Kind, Lease};
use super::peek::submit;
use super::pipeline::Shader;
use super::proof::Proof;
use super::watch::{Watch, watched, watches};
use super::{DeviceInputs, Fault, Gpu};
use crate::checkpoint::Dtype;
use crate::error::{Error, Result};
use crate::kernel::{Access, Form};
use crate::recording::{Buf, Dims, Extent, Recording, Region, Results, Role, Size, rows_of};
use crate::shader::{self, Built, Launch, Run};

/// Invocations that share a row: two or four subgroups of what GPUs have.
const LANES: u32 = 128;

/// The same where a subgroup computes on one core's vectors: one, which has no others to wait for.
const SOFTWARE_LANES: u32 = 8;

/// Elements of a row that one of them takes alone there: a sum of so many is as near as that of a longer row by all.
const SOFTWARE_ALONE: u32 = 2048;

/// Bytes of a buffer that holds too few values for a sample to tell whose they are.
const FEW: u64 = 64 << 10;

/// Invocations of a workgroup that goes over elements.
const GROUP: u32 = 256;

/// A buffer, and how much of it a kernel sees.
#[derive(Clone, Copy)]
pub struct Bound<'a> {
    /// The buffer.
    pub buffer: &'a wgpu::Buffer,
    /// Bytes that are bound; the buffer may be larger.
    pub bytes: u64,
}

impl Bound<'_> {
    /// The same with so much more that four elements of any type are there or not.
    fn rounded(self) -> Self {
        Self { bytes: self.bytes.next_multiple_of(32).min(self.buffer.size()), ..self }
    }
}

/// A launch with all it needs.
pub struct Step<'a> {
    /// Calls of the recording that it is there for; none for the proof.
    pub calls: Range<usize>,
    /// What runs.
    pub shader: Shader<'a>,
    /// Words of the uniform after the dimensions.
    pub params: &'a [u32],
    /// The block as this launch sees it.
    pub dims: Dims,
    /// One buffer for each binding.
    pub args: Vec<Bound<'a>>,
    /// Workgroups.
    pub groups: u64,
    /// What it sets for sure.
    pub sets: Vec<(Bound<'a>, Region)>,
}

pub fn run(
    gpu: &Gpu,
    recording: &Recording,
    extent: &Extent,
    inputs: &DeviceInputs,
    kept: &[Option<Lease>],
    results: &mut Results,
) -> Result<()> {
    gpu.core.device.check()?;
    if recording.results().next().is_none() && kept.is_empty() {
        results.buffers.clear();
        return Ok(()); // whatever it does, nobody could tell
    }
    let program = Program::new(gpu, recording, extent, 0);
    let own = own_buffers(gpu, recording, extent, &program)?;
    let bound = bind(gpu, recording, extent, inputs, kept, &own)?;
    let written: Vec<Bound> = recording.results().map(|(buf, _)| bound[buf.0].expect("results are bound")).collect();
    let proof = Proof::new(gpu, &written)?;

    let mut steps: Vec<Step> = program.steps(recording, extent, &bound, &proof).collect();
    // Of all other lists, samples are computed again.
    let watches = if kept.is_empty() { Vec::new() } else { watches(&steps, proof.epoch(), proof.slot()) };
    let marks = watches.iter().flatten().map(Watch::marks).sum();
    if !kept.is_empty() {
        steps = watched(steps, &watches, proof.trailer());
    }
    let proved = program.proved(recording);
    steps.extend(proof.steps(&written).zip(proved).filter(|(_, proved)| !proved).map(|(step, _)| step));
    let launches = Launches::new(gpu, &steps)?;

    let desc = wgpu::CommandEncoderDescriptor { label: Some("magic.run") };
    let mut encoder = gpu.core.device.raw.create_command_encoder(&desc);
    for (own, buffer) in own.iter().zip(&recording.buffers) {
        // Of few values, those of an earlier run could pass for these, should a launch be missing. A zero may pass for what
        // is known of a row besides its norms.
        let bytes = 4 * buffer.size.words(extent).max(1) as u64;
        let clear = match (&buffer.role, buffer.size) {
            (Role::Result, Size::Fixed(_)) => true,
            (Role::Result, _) | (Role::Scratch, Size::Planes(_)) => bytes <= FEW,
            _ => false,
        };
        if let Some(own) = own.as_ref().filter(|_| clear) {
            encoder.clear_buffer(own, 0, Some(bytes));
        }
    }
    proof.clear(&mut encoder);
    {
        let desc = wgpu::ComputePassDescriptor { label: Some("magic.run"), timestamp_writes: None };
        let mut pass = encoder.begin_compute_pass(&desc);
        let skipped = (0..recording.calls.len()).find(|call| gpu.has(Fault::SkipCall((*call).min(255) as u8)));
        // What is done again for several launches is missing in the first.
        let skipped = skipped.and_then(|call| steps.iter().position(|step| step.calls.end > call));
        launches.encode(&mut pass, 0..steps.len(), |step| skipped == Some(step));
    }
    if written.is_empty() && marks == 0 {
        let submission = gpu.core.device.queue.submit([encoder.finish()]);
        results.buffers.clear();
        return gpu.core.device.wait(submission); // there was nothing to do
    }
    let back = proof.copy(gpu, &written, &mut encoder)?;
    let back = submit(gpu, encoder, back)?;
    let words = recording.results().map(|(_, buffer)| buffer.size.words(extent));
    let proved = proof.read(gpu, &back, words, marks, results);
    back.unmap();
    proved
}

/// The launches of a recording.
pub struct Program<'a> {
    launches: Vec<Launch<'a>>,
    /// What each launch binds.
    bindings: Vec<(Vec<Buf>, Vec<Access>)>,
}

impl<'a> Program<'a> {
    /// The launches for a block; see [`shader::program`].
    pub fn new(gpu: &Gpu, recording: &'a Recording, extent: &Extent, apart: usize) -> Self {
        let raw = &gpu.core.device.raw;
        let (software, wide) = (gpu.adapter().is_software(), raw.features().contains(wgpu::Features::SHADER_INT64));
        let device = shader::Device {
            buffers: raw.limits().max_storage_buffers_per_shader_stage as usize,
            lanes: if software { SOFTWARE_LANES } else { LANES },
            alone: if software { SOFTWARE_ALONE } else { 0 },
            group: if software { SOFTWARE_LANES } else { GROUP },
            wide: software && wide,
        };
        let launches = shader::program(recording, extent, device, apart);
        let bindings = launches.iter().map(|launch| match &launch.run {
            Run::Kernel(call) => (call.args.clone(), call.kernel.bindings.to_vec()),
            Run::Built(built) => {
                let (buffers, mut access): (Vec<Buf>, Vec<Access>) = built.buffers.iter().copied().unzip();
                access.resize(built.bindings(), Access::Write); // the trailer
                (buffers, access)
            }
        });
        let bindings = bindings.collect();
        Self { launches, bindings }
    }

    /// The launches with all they need, over buffers that are `bound`.
    pub fn steps<'b>(
        &'b self,
        recording: &'b Recording,
        extent: &'b Extent,
        bound: &'b [Option<Bound<'b>>],
        proof: &'b Proof,
    ) -> impl Iterator<Item = Step<'b>> {
        self.launches.iter().zip(&self.bindings).map(move |(launch, (buffers, bindings))| {
            let arg = |buf: &Buf| bound[buf.0].expect("what is used is bound");
            let (calls, args) = (launch.calls.clone(), buffers.iter().map(arg));
            let written = buffers.iter().zip(bindings).filter(|(_, access)| **access == Access::Write);
            let own = match &launch.run {
                Run::Kernel(call) => call.sets,
                Run::Built(_) => None,
            };
            let sets = written
                .filter_map(|(buf, _)| Some((arg(buf), own.or_else(|| whole(&recording.buffers[buf.0], extent))?)))
                .collect();
            match &launch.run {
                Run::Kernel(call) => {
                    let dims = Dims::new(call.grid.as_ref().unwrap_or(extent), recording.planes);
                    let Form::Shader(groups) = call.kernel.form else { unreachable!("not a shader of its own") };
                    let shader = Shader::Kernel(call.kernel, &call.constants);
                    Step {
                        calls,
                        shader,
                        params: &call.params,
                        dims,
                        args: args.collect(),
                        groups: groups(&dims),
                        sets,
                    }
                }
                Run::Built(Built { label, text, params, extent, groups, proved, .. }) => {
                    let dims = Dims { epoch: proof.epoch(), ..Dims::new(extent, recording.planes) };
                    let trailer = (!proved.is_empty()).then(|| proof.trailer());
                    let args = args.map(Bound::rounded).chain(trailer).collect();
                    let shader = Shader::Built { label, text, bindings };
                    Step { calls, shader, params, dims, args, groups: *groups, sets }
                }
            }
        })
    }

    /// Whether a launch takes the checksum of what it stores, of each result.
    pub fn proved<'b>(&'b self, recording: &'b Recording) -> impl Iterator<Item = bool> + 'b {
        let proves = |launch: &Launch, buf| matches!(&launch.run, Run::Built(built) if built.proved.contains(&buf));
        recording.results().map(move |(buf, _)| self.launches.iter().any(|launch| proves(launch, buf)))
    }

    /// True if `buf` is in memory.
    fn uses(&self, buf: Buf) -> bool {
        self.bindings.iter().any(|(buffers, _)| buffers.contains(&buf))
    }
}

/// All of what a launch that goes over the block sets of a buffer that lasts; `None` for sums over the block.
fn whole(buffer: &crate::recording::Buffer, extent: &Extent) -> Option<Region> {
    let lasts = matches!(buffer.role, Role::Kept(_) | Role::Result);
    let words = matches!(buffer.size, Size::Planes(_) | Size::Stored(Dtype::F32));
    (lasts && words).then(|| Region::rows(1, buffer.size.words(extent) as u32))
}

/// Buffers that live as long as the run: `None` for inputs, and for what no launch sees.
pub fn own_buffers(
    gpu: &Gpu,
    recording: &Recording,
    extent: &Extent,
    program: &Program<'_>,
) -> Result<Vec<Option<Lease>>> {
    let make = |(i, buffer): (usize, &crate::recording::Buffer)| {
        let bytes = 4 * buffer.size.words(extent).max(1) as u64;
        if !matches!(buffer.role, Role::Result) && !program.uses(Buf(i)) {
            return Ok(None);
        }
        gpu.check_binding(buffer.label, bytes)?;
        if matches!(buffer.role, Role::Input(_) | Role::Kept(_)) {
            return Ok(None);
        }
        let lease = gpu.pool.take(&gpu.core.device, Kind::Storage, bytes, buffer.label)?;
        let words = match &buffer.role {
            Role::Constant(words) => words,
            Role::Table(words) => rows_of(words, buffer.size, extent),
            _ => &[],
        };
        if !words.is_empty() {
            gpu.core.device.queue.write_buffer(&lease, 0, bytemuck::cast_slice(words));
        }
        Ok(Some(lease))
    };
    recording.buffers.iter().enumerate().map(make).collect()
}

/// What each buffer of the recording is on the device; `None` for what is never in its memory.
pub fn bind<'a>(
    gpu: &Gpu,
    recording: &Recording,
    extent: &Extent,
    inputs: &'a DeviceInputs,
    kept: &'a [Option<Lease>],
    own: &'a [Option<Lease>],
) -> Result<Vec<Option<Bound<'a>>>> {
    let bind = |(buffer, own): (&crate::recording::Buffer, &'a Option<Lease>)| {
        let bytes = 4 * buffer.size.words(extent).max(1) as u64;
        let lease = match (&buffer.role, own) {
            (_, Some(lease)) => lease,
            (Role::Input(model), None) => {
                let loaded = inputs.bytes.get(*model).copied().unwrap_or(0);
                if (loaded.next_multiple_of(4) as u64) < bytes && extent.n > 0 {
                    let message = format!("was given {loaded} bytes of `{}`, and {bytes} are needed", buffer.label);
                    return Err(gpu.core.device.error(message));
                }
                inputs.buffers.get(*model).ok_or_else(|| Error::device(format!("no input {model} was loaded")))?
            }
            (Role::Kept(id), None) => kept[*id].as_ref().expect("in use"),
            _ => return Ok(None),
        };
        Ok(Some(Bound { buffer: lease, bytes }))
    };
    recording.buffers.iter().zip(own).map(bind).collect()
}

/// Pipelines, bindings and grids of all steps.
pub struct Launches {
    list: Vec<(std::sync::Arc<super::pipeline::Pipeline>, wgpu::BindGroup, [u32; 2])>,
    /// Returned to the pool when the run is over.
    _uniforms: Option<Lease>,
}

impl Launches {
    /// Makes what is not made yet.
    pub fn new(gpu: &Gpu, steps: &[Step]) -> Result<Self> {
        let align = gpu.core.device.raw.limits().min_uniform_buffer_offset_alignment.max(16) as usize;
        let mut text: Vec<u8> = Vec::new();
        let mut slots = Vec::with_capacity(steps.len());
        for step in steps {
            let start = text.len().next_multiple_of(align);
            text.resize(start, 0);
            text.extend_from_slice(bytemuck::bytes_of(&step.dims));
            text.extend_from_slice(bytemuck::cast_slice(step.params));
            text.resize(text.len().next_multiple_of(16), 0);
            slots.push(start..text.len());
        }
        if steps.is_empty() {
            return Ok(Self { list: Vec::new(), _uniforms: None });
        }
        let uniforms = gpu.pool.take(&gpu.core.device, Kind::Uniform, text.len() as u64, "magic.uniforms")?;
        gpu.core.device.queue.write_buffer(&uniforms, 0, &text);
        let mut list = Vec::with_capacity(steps.len());
        for (step, slot) in steps.iter().zip(slots) {
            let pipeline = gpu.core.pipelines.get(&gpu.core.device, step.shader)?;
            let entry = |binding: usize, buffer, offset, bytes| wgpu::BindGroupEntry {
                binding: binding as u32,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset,
                    size: wgpu::BufferSize::new(bytes),
                }),
            };
            let uniform = entry(0, &uniforms, slot.start as u64, slot.len() as u64);
            let args = step.args.iter().enumerate().map(|(i, arg)| entry(i + 1, arg.buffer, 0, arg.bytes));
            let group = gpu.core.device.raw.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(step.shader.label()),
                layout: &pipeline.layout,
                entries: &std::iter::once(uniform).chain(args).collect::<Vec<_>>(),
            });
            let grid = fold(step.groups, gpu.core.device.raw.limits().max_compute_workgroups_per_dimension);
            let grid = grid.ok_or_else(|| {
                gpu.core.device.error(format!("cannot run so large a block of `{}`", step.shader.label()))
            })?;
            list.push((pipeline, group, grid));
        }
        Ok(Self { list, _uniforms: Some(uniforms) })
    }

    /// Puts those of the launches that have something to do, and that nobody `skips`, into `pass`.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, which: Range<usize>, skips: impl Fn(usize) -> bool) {
        for i in which {
            let (pipeline, group, [x, y]) = &self.list[i];
            if *x == 0 || skips(i) {
                continue;
            }
            pass.set_pipeline(&pipeline.raw);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(*x, *y, 1);
        }
    }
}

/// A grid of at least `groups` workgroups, none of its sides above `most`, with few to spare.
fn fold(groups: u64, most: u32) -> Option<[u32; 2]> {
    let y = groups.div_ceil(u64::from(most)).max(1);
    (y <= u64::from(most)).then(|| [groups.div_ceil(y) as u32, y as u32])
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn grids_cover_all_groups() {
        assert_eq!(fold(0, 65535), Some([0, 1]));
        assert_eq!(fold(1, 65535), Some([1, 1]));
        assert_eq!(fold(65535, 65535), Some([65535, 1]));
        assert_eq!(fold(65536, 65535), Some([32768, 2]));
        for groups in [65537, 1 << 20, (1 << 24) + 1, 65535 * 65535] {
            let [x, y] = fold(groups, 65535).unwrap();
            let all = u64::from(x) * u64::from(y);
            assert!(x <= 65535 && all >= groups && all - groups < u64::from(y));
        }
        assert_eq!(fold(65535 * 65535 + 1, 65535), None);
    }
}
