// Sign election and disjoint merge (TIES, arXiv 2306.01708, §3): with u_k = weights[k] · tau[k] and s the sign of
// Σ u_k (zero counts as +), tau[last] = scale · Σ_{sign(u_k) = s} u_k, divided by the weights that took part if asked.

struct Params {
    dims: Dims,
    scale: f32,
    normalize: u32,
    weighted: u32,    // whether votes count by weight
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> weights: array<f32>;     // [planes − 1]
@group(0) @binding(2) var<storage, read_write> tau: array<f32>;   // [planes, n]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let n = p.dims.n;
    let experts = p.dims.planes - 1u;
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, n);
    for (var i = start; i < end; i++) {
        // Votes for and against apart: drivers may fuse products with sums, and even votes must come out even.
        var plus = 0.0;
        var minus = 0.0;
        for (var k = 0u; k < experts; k++) {
            let u = select(1.0, weights[k], p.weighted != 0u) * tau[k * n + i];
            plus += select(0.0, u, u > 0.0);
            minus += select(-u, 0.0, u >= 0.0);
        }
        let sign = select(-1.0, 1.0, plus - minus >= 0.0);
        var merged = 0.0;
        var divisor = 0.0;
        for (var k = 0u; k < experts; k++) {
            let u = weights[k] * tau[k * n + i];
            let agrees = u * sign > 0.0;
            merged += select(0.0, u, agrees);
            divisor += select(0.0, weights[k], agrees);
        }
        if p.normalize != 0u && divisor != 0.0 {
            merged = merged / divisor;
        }
        tau[experts * n + i] = p.scale * merged;
    }
}
