// counts[row, plane] = entries of the row whose magnitude has exactly the bits `key`: the ties of a threshold.

struct Params {
    dims: Dims,
    plane: u32,
    key: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;            // [planes, n]
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;   // [rows, planes]

var<workgroup> partial: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups);
    if row >= p.dims.rows {
        return;
    }
    let end = min((row + 1u) * p.dims.row_len, p.dims.n);
    var count = 0u;
    for (var i = row * p.dims.row_len + lane; i < end; i += WORKGROUP) {
        let key = bitcast<u32>(tau[p.plane * p.dims.n + i]) & 0x7fffffffu;
        count += select(0u, 1u, key == p.key);
    }
    partial[lane] = count;
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    if lane == 0u {
        counts[row * p.dims.planes + p.plane] = partial[0];
    }
}
