// Inner products of all pairs of planes along columns, in partial sums of 16 rows, so that they do not depend on how the
// rows came.

const GROUP_ROWS = 16u;   // GROUP_ROWS in src/recording.rs

struct Params {
    dims: Dims,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;          // [planes, rows, row_len]
@group(0) @binding(2) var<storage, read_write> gram: array<f32>;   // [row groups, pairs, row_len]

// Sixteen elements of a column, `step` apart from `at` on, of which `count` exist.
fn column(at: u32, step: u32, count: u32) -> mat4x4<f32> {
    return mat4x4<f32>(four(at, step, count, 0u), four(at, step, count, 4u), four(at, step, count, 8u),
                       four(at, step, count, 12u));
}

fn four(at: u32, step: u32, count: u32, first: u32) -> vec4<f32> {
    let rows = min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(count - 1u));
    let places = vec4<u32>(at) + rows * step;
    let exist = vec4<u32>(first, first + 1u, first + 2u, first + 3u) < vec4<u32>(count);
    return select(vec4<f32>(), vec4<f32>(tau[places.x], tau[places.y], tau[places.z], tau[places.w]), exist);
}

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
    let start = first * len + c;
    let count = min(GROUP_ROWS, p.dims.rows - first);
    for (var i = 0u; i < planes; i++) {
        let own = column(i * n + start, len, count);
        for (var j = i; j < planes; j++) {
            var other = own;
            if j > i {
                other = column(j * n + start, len, count);
            }
            gram[place] = dot(own[0], other[0]) + dot(own[1], other[1]) + dot(own[2], other[2]) + dot(own[3], other[3]);
            place += len;
        }
    }
}
