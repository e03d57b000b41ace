// tau[last] = Σ_k weights[k] · tau[k] + base_weight · base: the merged task vector of every linear method.

override BASE: u32;

struct Params {
    dims: Dims,
    base_weight: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> base: array<u32>;        // [n] stored
@group(0) @binding(2) var<storage, read> weights: array<f32>;     // [planes − 1], or one word where there are none
@group(0) @binding(3) var<storage, read_write> tau: array<f32>;   // [planes, n]

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
        if p.base_weight != 0.0 {
            let w = word_of(BASE, i);
            var next = 0u;
            if BASE == F64 {
                next = base[w + 1u];
            }
            sum += p.base_weight * bitcast<f32>(widen_bits(BASE, base[w], next, i));
        }
        tau[experts * n + i] = sum;
    }
}
