// out = act(x).

struct Params {
    dims: Dims,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;            // [n]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;    // [n]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = flat_group(group, groups) * WORKGROUP * 4u;
    for (var j = 0u; j < 4u; j++) {
        let i = start + j * WORKGROUP + lane;
        if i < p.dims.n {
            out[i] = act(x[i]);
        }
    }
}
