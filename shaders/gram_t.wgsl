// Inner products of all pairs of planes along columns, in partial sums of 16 rows, so that they do not depend on how the
// rows came.

const GROUP_ROWS = 16u;   // GROUP_ROWS in src/recording.rs

struct Params {
    dims: Dims,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;          // [planes, rows, row_len]
@group(0) @binding(2) var<storage, read_write> gram: array<f32>;   // [row groups, pairs, row_len]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let len = p.dims.row_len;
    let n = p.dims.n;
    let planes = p.dims.planes;
    let pairs = planes * (planes + 1u) / 2u;
    let at = flat_group(group, groups);
    let per_row = (len + WORKGROUP - 1u) / WORKGROUP;
    let c = at % per_row * WORKGROUP + lane;
    let first = at / per_row * GROUP_ROWS;
    if c >= len || first >= p.dims.rows {
        return;
    }
    var place = at / per_row * pairs * len + c;
    for (var i = 0u; i < planes; i++) {
        for (var j = i; j < planes; j++) {
            var sum = 0.0;
            for (var row = first; row < min(first + GROUP_ROWS, p.dims.rows); row++) {
                sum += tau[i * n + row * len + c] * tau[j * n + row * len + c];
            }
            gram[place] = sum;
            place += len;
        }
    }
}
