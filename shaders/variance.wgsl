// out = population variance of τ_1 … τ_K at each element: where experts differ (SCE). In two passes over the planes, mean
// first, so that a small difference of large values keeps its digits.

struct Params {
    dims: Dims,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;          // [planes, n]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;    // [n]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let n = p.dims.n;
    let experts = p.dims.planes - 1u;
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, n);
    for (var i = start; i < end; i++) {
        // Differences from the first: where all are the same they are zero, whatever the rounding of a mean.
        let first = tau[i];
        var mean = 0.0;
        for (var k = 1u; k < experts; k++) {
            mean += tau[k * n + i] - first;
        }
        mean /= f32(experts);
        var sum = mean * mean;
        for (var k = 1u; k < experts; k++) {
            let d = (tau[k * n + i] - first) - mean;
            sum += d * d;
        }
        out[i] = sum / f32(experts);
    }
}
