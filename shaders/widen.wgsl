// tau[plane] = model as f32, with no base taken off.

override MODEL: u32;

struct Params {
    dims: Dims,
    plane: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> model: array<u32>;       // [n] stored
@group(0) @binding(2) var<storage, read_write> tau: array<f32>;   // [planes, n]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, p.dims.n);
    for (var i = start; i < end; i++) {
        let w = word_of(MODEL, i);
        var next = 0u;
        if MODEL == F64 {
            next = model[w + 1u];
        }
        tau[p.plane * p.dims.n + i] = bitcast<f32>(widen_bits(MODEL, model[w], next, i));
    }
}
