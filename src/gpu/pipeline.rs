//! Compute pipelines, made on first use and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::device::Device;
use crate::error::Result;
use crate::kernels::{Access, Kernel, source};

/// A kernel with its constants, ready to run.
pub struct Pipeline {
    /// Runs.
    pub raw: wgpu::ComputePipeline,
    /// Binding 0 the uniform, then the kernel's storage buffers.
    pub layout: wgpu::BindGroupLayout,
}

type Made = HashMap<&'static str, Vec<(Vec<u32>, Arc<Pipeline>)>>;

/// All pipelines of a device.
pub struct Pipelines {
    checked: bool,
    made: RwLock<Made>,
    /// Held while a pipeline is made, so that no two threads make the same one.
    modules: Mutex<HashMap<&'static str, wgpu::ShaderModule>>,
}

impl Pipelines {
    /// An empty cache; `checked` shaders have their bounds checked by the driver as well.
    pub fn new(checked: bool) -> Self {
        Self { checked, made: RwLock::default(), modules: Mutex::default() }
    }

    fn find(&self, kernel: &Kernel, constants: &[u32]) -> Option<Arc<Pipeline>> {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        made.get(kernel.name)?.iter().find(|(values, _)| values == constants).map(|(_, pipeline)| pipeline.clone())
    }

    /// The pipeline of `kernel` with the values `constants`.
    pub fn get(&self, device: &Device, kernel: &'static Kernel, constants: &[u32]) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = self.find(kernel, constants) {
            return Ok(pipeline);
        }
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = self.find(kernel, constants) {
            return Ok(pipeline);
        }
        let label = format!("magic.{}", kernel.name);
        let pipeline = device.make(&format!("kernel `{}`", kernel.name), |raw| {
            let module = modules.entry(kernel.name).or_insert_with(|| self.module(raw, kernel, &label));
            Arc::new(make(raw, kernel, constants, module, &label))
        });
        // What failed to compile is compiled, and told, again.
        let pipeline = pipeline.inspect_err(|_| drop(modules.remove(kernel.name)))?;
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        made.entry(kernel.name).or_default().push((constants.to_vec(), pipeline.clone()));
        Ok(pipeline)
    }

    fn module(&self, raw: &wgpu::Device, kernel: &Kernel, label: &str) -> wgpu::ShaderModule {
        let text = source(kernel);
        let desc = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(text.into()) };
        if self.checked {
            return raw.create_shader_module(desc);
        }
        let checks = wgpu::ShaderRuntimeChecks {
            bounds_checks: false,
            force_loop_bounding: false,
            ..wgpu::ShaderRuntimeChecks::checked()
        };
        // SAFETY: all shaders are part of this program. Each guards its own indices against the dimensions it is
        // given, the executor checks every buffer's size against them, and all loops count to a bound.
        unsafe { raw.create_shader_module_trusted(desc, checks) }
    }
}

fn make(raw: &wgpu::Device, kernel: &Kernel, constants: &[u32], module: &wgpu::ShaderModule, label: &str) -> Pipeline {
    let entry = |binding: usize, ty| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let storage = kernel
        .bindings
        .iter()
        .enumerate()
        .map(|(i, access)| entry(i + 1, wgpu::BufferBindingType::Storage { read_only: *access == Access::Read }));
    let entries: Vec<_> = std::iter::once(entry(0, wgpu::BufferBindingType::Uniform)).chain(storage).collect();
    let layout =
        raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries });
    let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(label),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let constants: Vec<_> = kernel.constants.iter().zip(constants).map(|(n, v)| (*n, f64::from(*v))).collect();
    let pipeline = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(label),
        layout: Some(&pipeline_layout),
        module,
        entry_point: Some(kernel.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &constants,
            zero_initialize_workgroup_memory: true,
        },
        cache: None,
    });
    Pipeline { raw: pipeline, layout }
}
