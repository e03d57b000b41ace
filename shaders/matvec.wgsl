// y[row, plane] = Σ_c tau[plane, row, c] · v[plane, c]: one half of a power iteration.

struct Params {
    dims: Dims,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;           // [planes, rows, row_len]
@group(0) @binding(2) var<storage, read> v: array<f32>;             // [planes, row_len]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;       // [rows, planes]

var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups);
    if at >= p.dims.rows * p.dims.planes {
        return;
    }
    let len = p.dims.row_len;
    let plane = at % p.dims.planes;
    let row = plane * p.dims.n + (at / p.dims.planes) * len;
    var sum = 0.0;
    for (var c = lane; c < len; c += WORKGROUP) {
        sum += tau[row + c] * v[plane * len + c];
    }
    partial[lane] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    if lane == 0u {
        y[at] = partial[0];
    }
}
