//! What every other kernel is measured by.

use crate::kernels::{Access, Form, Kernel};

/// Moves all planes from one buffer to another. Not a kernel of any merge, so it is not in [`crate::kernels::ALL`].
pub static COPY: Kernel = Kernel {
    name: "copy",
    wgsl: "
        struct Params { dims: Dims }
        @group(0) @binding(0) var<uniform> p: Params;
        @group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
        @group(0) @binding(2) var<storage, read_write> target_: array<vec4<f32>>;
        @compute @workgroup_size(256)
        fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
            let i = flat_group(group, groups) * WORKGROUP + lane;
            if i < p.dims.n / 4u * p.dims.planes {
                target_[i] = source[i];
            }
        }",
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(|dims| u64::from(dims.n / 4 * dims.planes).div_ceil(256)),
    twin: |args| args.write::<f32>(1).copy_from_slice(args.read(0)),
};
