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
    let own = own_four(flat_group(group, groups), lane);
    // All are on their way before the first is needed.
    let at = min(own, vec4<u32>(p.dims.n - 1u));
    let values = vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
    for (var j = 0u; j < 4u; j++) {
        if own[j] < p.dims.n {
            out[own[j]] = act(values[j]);
        }
    }
}
