// tau[last] = Σ_k w[k] · tau[k] + w[K] · base, with weights of their own for each run of `unit` elements, or for each column.

override BASE: u32;
override COLUMNS: u32;

struct Params {
    dims: Dims,
    unit: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> base: array<u32>;        // [n] stored
@group(0) @binding(2) var<storage, read> weights: array<f32>;     // [n / unit or row_len, planes]
@group(0) @binding(3) var<storage, read_write> tau: array<f32>;   // [planes, n]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let n = p.dims.n;
    let experts = p.dims.planes - 1u;
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, n);
    for (var i = start; i < end; i++) {
        var at = i / p.unit;
        if COLUMNS != 0u {
            at = i % p.dims.row_len;
        }
        at *= p.dims.planes;
        var sum = 0.0;
        for (var k = 0u; k < experts; k++) {
            sum += weights[at + k] * tau[k * n + i];
        }
        let share = weights[at + experts];
        if share != 0.0 {
            let w = word_of(BASE, i);
            var next = 0u;
            if BASE == F64 {
                next = base[w + 1u];
            }
            sum += share * bitcast<f32>(widen_bits(BASE, base[w], next, i));
        }
        tau[experts * n + i] = sum;
    }
}
