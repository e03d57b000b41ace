// out[r, c] = x[r, c] · w[c] + bias[c].

struct Params {
    dims: Dims,
    first: u32,         // of w, in its buffer
    has_bias: u32,
    bias_first: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;            // [rows, row_len]
@group(0) @binding(2) var<storage, read> w: array<f32>;            // [row_len] from `first`
@group(0) @binding(3) var<storage, read> bias: array<f32>;         // [row_len] from `bias_first`
@group(0) @binding(4) var<storage, read_write> out: array<f32>;    // [rows, row_len]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let own = own_four(flat_group(group, groups), lane);
    // All are on their way before the first is needed.
    let at = min(own, vec4<u32>(p.dims.n - 1u));
    let values = vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
    for (var j = 0u; j < 4u; j++) {
        let i = own[j];
        if i < p.dims.n {
            let c = i % p.dims.row_len;
            var y = values[j] * w[p.first + c];
            if p.has_bias != 0u {
                y += bias[p.bias_first + c];
            }
            out[i] = y;
        }
    }
}
