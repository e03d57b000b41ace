// Statistics of each row of each plane, as norms.wgsl takes them, for more planes than invocations can hold sums of: a
// workgroup for each row and plane.

override ONLY_L1: u32;

struct Params {
    dims: Dims,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;                 // [planes, n]
@group(0) @binding(2) var<storage, read_write> stats: array<vec4<f32>>;   // [rows, planes]

var<workgroup> partial: array<vec4<f32>, 256>;

// As bits, of which those of NaN and infinity are the largest.
fn larger(a: f32, b: f32) -> f32 {
    return bitcast<f32>(max(bitcast<u32>(a), bitcast<u32>(b)));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups);
    if at >= p.dims.rows * p.dims.planes {
        return;
    }
    let row = at / p.dims.planes;
    let own = (at % p.dims.planes) * p.dims.n;
    let last = (p.dims.planes - 1u) * p.dims.n;
    let end = min((row + 1u) * p.dims.row_len, p.dims.n);
    var sum = vec4<f32>();
    for (var i = row * p.dims.row_len + lane; i < end; i += WORKGROUP) {
        let x = tau[own + i];
        let size = abs(x);
        sum = vec4<f32>(sum.x + size, sum.y + x * x, larger(sum.z, size), sum.w + x * tau[last + i]);
    }
    partial[lane] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            let a = partial[lane];
            let b = partial[lane + half];
            partial[lane] = vec4<f32>(a.x + b.x, a.y + b.y, larger(a.z, b.z), a.w + b.w);
        }
    }
    if lane == 0u {
        stats[at] = select(partial[0], vec4<f32>(partial[0].x, 0.0, 0.0, 0.0), ONLY_L1 != 0u);
    }
}
