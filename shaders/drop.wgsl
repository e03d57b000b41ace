// Seeded random drop (DARE, arXiv 2311.03099): tau[plane] is kept with a probability, scaled, or zeroed.
// The random numbers come from a counter, so that an element's fate depends on (key, index) alone.

struct Params {
    dims: Dims,
    plane: u32,
    key_lo: u32,
    key_hi: u32,
    threshold: u32,   // kept where the random word is not above it
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> tau: array<f32>;   // [planes, n]

// pcg4d of Jarzynski and Olano, "Hash Functions for GPU Rendering" (JCGT 9(3), 2020): four words from four.
fn random(counter_lo: u32, counter_hi: u32) -> vec4<u32> {
    var v = vec4<u32>(counter_lo, counter_hi, p.key_lo, p.key_hi) * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4<u32>(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, p.dims.n);
    for (var i = start; i < end; i++) {
        let lo = p.dims.first_lo + i;
        let hi = p.dims.first_hi + select(0u, 1u, lo < i); // carry
        let words = random((lo >> 2u) | (hi << 30u), hi >> 2u);
        let at = p.plane * p.dims.n + i;
        tau[at] = select(0.0, tau[at] * p.scale, words[lo & 3u] <= p.threshold);
    }
}
