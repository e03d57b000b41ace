// Zeroes τ_1 … τ_K where another plane's entry is not among its largest: one selection for all experts (SCE).

struct Params {
    dims: Dims,
    key: u32,       // magnitude bits of the threshold
    ties_lo: u32,   // of those that equal it, elements of the tensor before this one stay
    ties_hi: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> by: array<f32>;           // [n]
@group(0) @binding(2) var<storage, read_write> tau: array<f32>;    // [planes, n]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, p.dims.n);
    for (var i = start; i < end; i++) {
        let key = bitcast<u32>(by[i]) & 0x7fffffffu;
        if !stays(p.dims, i, key, p.key, p.ties_lo, p.ties_hi) {
            for (var k = 0u; k + 1u < p.dims.planes; k++) {
                tau[k * p.dims.n + i] = 0.0;
            }
        }
    }
}
