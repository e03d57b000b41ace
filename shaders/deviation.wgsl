// Statistics of each row of a and c, in a fixed order: Σ|a|, Σ|c|, Σa², Σc², and Σa·c, max|a|, max|c|, 0.

struct Params {
    dims: Dims,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;                   // [rows, row_len]
@group(0) @binding(2) var<storage, read> c: array<f32>;                   // [rows, row_len]
@group(0) @binding(3) var<storage, read_write> stats: array<vec4<f32>>;   // [rows, 2]

var<workgroup> sums: array<vec4<f32>, 256>;
var<workgroup> rest: array<vec4<f32>, 256>;   // the product, and what is largest

fn joined(one: vec4<f32>, other: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(one.x + other.x, max(one.y, other.y), max(one.z, other.z), 0.0);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups);
    if row >= p.dims.rows {
        return;
    }
    let start = row * p.dims.row_len;
    var sum = vec4<f32>();
    var other = vec4<f32>();
    for (var i = lane; i < p.dims.row_len; i += WORKGROUP) {
        let x = a[start + i];
        let y = c[start + i];
        sum += vec4<f32>(abs(x), abs(y), x * x, y * y);
        other = joined(other, vec4<f32>(x * y, abs(x), abs(y), 0.0));
    }
    sums[lane] = sum;
    rest[lane] = other;
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            sums[lane] += sums[lane + half];
            rest[lane] = joined(rest[lane], rest[lane + half]);
        }
    }
    if lane == 0u {
        stats[2u * row] = sums[0];
        stats[2u * row + 1u] = rest[0];
    }
}
