// tau[last] = clamp(tau[0], −limit, limit): no entry moves further than the limit (NearSwap). NaN stays NaN.

struct Params {
    dims: Dims,
    limit: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> tau: array<f32>;   // [planes, n]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let last = (p.dims.planes - 1u) * p.dims.n;
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, p.dims.n);
    for (var i = start; i < end; i++) {
        let x = tau[i];
        // By magnitude bits: comparisons with NaN are no business of a driver's.
        let beyond = (bitcast<u32>(x) & 0x7fffffffu) > bitcast<u32>(p.limit);
        let number = (bitcast<u32>(x) & 0x7fffffffu) <= 0x7f800000u;
        tau[last + i] = select(x, select(p.limit, -p.limit, x < 0.0), beyond && number);
    }
}
