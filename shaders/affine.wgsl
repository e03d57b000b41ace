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
    // All are on their way before the first is needed.
    let own = own_four(flat_group(group, groups), lane);
    let at = min(own, vec4<u32>(p.dims.n - 1u));
    let c = p.first + at % p.dims.row_len;
    var values = vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]) * vec4<f32>(w[c.x], w[c.y], w[c.z], w[c.w]);
    if p.has_bias != 0u {
        let b = p.bias_first + at % p.dims.row_len;
        values += vec4<f32>(bias[b.x], bias[b.y], bias[b.z], bias[b.w]);
    }
    for (var j = 0u; j < 4u; j++) {
        if own[j] < p.dims.n {
            out[own[j]] = values[j];
        }
    }
}
