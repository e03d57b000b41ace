// The first element of each row of the first planes: what tells whether that from which kernels only count was computed.

struct Params {
    dims: Dims,
    planes: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;               // [planes, n]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;         // [rows, planes]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups) * WORKGROUP + lane;
    if row >= p.dims.rows {
        return;
    }
    for (var plane = 0u; plane < p.planes; plane++) {
        out[row * p.planes + plane] = tau[plane * p.dims.n + row * p.dims.row_len];
    }
}
