//! Compute pipelines, made on first use and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::device::Device;
use crate::error::Result;
use crate::kernels::{Access, Kernel, LANES, source};

/// What a launch runs.
#[derive(Clone, Copy)]
pub enum Shader<'a> {
    /// A kernel that is a shader of its own, and the values of its constants.
    Kernel(&'static Kernel, &'a [u32]),
    /// A shader that was built.
    Built {
        /// Its name.
        label: &'a str,
        /// Its WGSL text.
        text: &'a str,
        /// Its storage buffers.
        bindings: &'a [Access],
    },
}

impl Shader<'_> {
    /// Its name, for labels and messages.
    pub fn label(&self) -> &str {
        match self {
            Self::Kernel(kernel, _) => kernel.name,
            Self::Built { label, .. } => label,
        }
    }
}

/// A shader with its constants, ready to run.
pub struct Pipeline {
    /// Runs.
    pub raw: wgpu::ComputePipeline,
    /// Binding 0 the uniform, then the storage buffers.
    pub layout: wgpu::BindGroupLayout,
}

/// By the text of the shader, or the name of the kernel, and the constants.
type Made = HashMap<String, Vec<(Vec<u32>, Arc<Pipeline>)>>;

/// All pipelines of a device.
pub struct Pipelines {
    checked: bool,
    /// Of a subgroup, at most.
    lanes: u32,
    made: RwLock<Made>,
    /// Held while a pipeline is made, so that no two threads make the same one.
    modules: Mutex<HashMap<&'static str, wgpu::ShaderModule>>,
}

impl Pipelines {
    /// An empty cache; `checked` shaders have their bounds checked by the driver as well.
    /// Subgroups have up to `lanes` invocations.
    pub fn new(checked: bool, lanes: u32) -> Self {
        Self { checked, lanes, made: RwLock::default(), modules: Mutex::default() }
    }

    fn find(&self, key: &str, constants: &[u32]) -> Option<Arc<Pipeline>> {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        made.get(key)?.iter().find(|(values, _)| values == constants).map(|(_, pipeline)| pipeline.clone())
    }

    /// The pipeline of `shader`.
    pub fn get(&self, device: &Device, shader: Shader<'_>) -> Result<Arc<Pipeline>> {
        let (key, constants) = match shader {
            Shader::Kernel(kernel, constants) => (kernel.name, constants),
            Shader::Built { text, .. } => (text, &[][..]),
        };
        if let Some(pipeline) = self.find(key, constants) {
            return Ok(pipeline);
        }
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = self.find(key, constants) {
            return Ok(pipeline);
        }
        let label = format!("magic.{}", shader.label());
        let pipeline = device.make(&format!("kernel `{}`", shader.label()), |raw| match shader {
            Shader::Kernel(kernel, constants) => {
                let compile = || self.module(raw, source(kernel), &label);
                let module = modules.entry(kernel.name).or_insert_with(compile);
                let value = |name, value| f64::from(if name == LANES { self.lanes } else { value });
                let named: Vec<_> = kernel.constants.iter().zip(constants).map(|(n, v)| (*n, value(*n, *v))).collect();
                Arc::new(make(raw, kernel.bindings, &named, module, &label))
            }
            Shader::Built { text, bindings, .. } => {
                Arc::new(make(raw, bindings, &[], &self.module(raw, text.to_owned(), &label), &label))
            }
        });
        // What failed to compile is compiled, and told, again.
        let pipeline = pipeline.inspect_err(|_| drop(modules.remove(key)))?;
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        made.entry(key.to_owned()).or_default().push((constants.to_vec(), pipeline.clone()));
        Ok(pipeline)
    }

    fn module(&self, raw: &wgpu::Device, text: String, label: &str) -> wgpu::ShaderModule {
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

fn make(
    raw: &wgpu::Device,
    bindings: &[Access],
    constants: &[(&str, f64)],
    module: &wgpu::ShaderModule,
    label: &str,
) -> Pipeline {
    let entry = |binding: usize, ty| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let storage = bindings
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
    let pipeline = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(label),
        layout: Some(&pipeline_layout),
        module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions { constants, zero_initialize_workgroup_memory: true },
        cache: None,
    });
    Pipeline { raw: pipeline, layout }
}
