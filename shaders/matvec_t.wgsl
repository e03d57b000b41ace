// w[group, plane, c] = Σ_{rows of the group} tau[plane, row, c] · y[row, plane]: the other half of a power iteration.
// Each group has 16 rows, so that the partial sums do not depend on how the rows came.

const GROUP_ROWS = 16u;   // GROUP_ROWS in src/recording.rs

struct Params {
    dims: Dims,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;          // [planes, rows, row_len]
@group(0) @binding(2) var<storage, read> y: array<f32>;            // [rows, planes]
@group(0) @binding(3) var<storage, read_write> w: array<f32>;      // [row groups, planes, row_len]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let len = p.dims.row_len;
    let planes = p.dims.planes;
    let per_row = (len + WORKGROUP - 1u) / WORKGROUP;
    let at = flat_group(group, groups);
    let c = (at % per_row) * WORKGROUP + lane;
    let plane = (at / per_row) % planes;
    let first = (at / per_row / planes) * GROUP_ROWS;
    if c >= len || first >= p.dims.rows {
        return;
    }
    var sum = 0.0;
    for (var row = first; row < min(first + GROUP_ROWS, p.dims.rows); row++) {
        sum += tau[plane * p.dims.n + row * len + c] * y[row * planes + plane];
    }
    w[(at / per_row) * len + c] = sum;
}
