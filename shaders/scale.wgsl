// out = xi · tau[last]: the merged task vector alone, by a factor for each row or one for all.

struct Params {
    dims: Dims,
    stride: u32,   // 1: a factor for each row, 0: one for all
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;          // [planes, n]
@group(0) @binding(2) var<storage, read> xi: array<f32>;           // [rows] or [1]
@group(0) @binding(3) var<storage, read_write> out: array<f32>;    // [n]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let last = (p.dims.planes - 1u) * p.dims.n;
    for (var i = start; i < min(start + 4u, p.dims.n); i++) {
        out[i] = xi[(i / p.dims.row_len) * p.stride] * tau[last + i];
    }
}
