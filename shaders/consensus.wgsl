// tau[last] = scale · s where enough experts hold a large share of s = Σ u_k, u_k = weights[k] · tau[k]: those with
// |u_k| > cut · |s − u_k| (TALL masks and Consensus TA, arXiv 2405.07813, eq. 4 and §4).

struct Params {
    dims: Dims,
    cut: f32,
    votes: u32,
    scale: f32,
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
        var sum = 0.0;
        for (var k = 0u; k < experts; k++) {
            sum += weights[k] * tau[k * n + i];
        }
        var votes = 0u;
        for (var k = 0u; k < experts; k++) {
            let u = weights[k] * tau[k * n + i];
            votes += select(0u, 1u, abs(u) > p.cut * abs(sum - u));
        }
        tau[experts * n + i] = select(0.0, p.scale * sum, votes >= p.votes);
    }
}
