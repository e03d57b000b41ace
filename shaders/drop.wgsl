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

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, p.dims.n);
    for (var i = start; i < end; i++) {
        let keep = random_word(p.dims, i, p.key_lo, p.key_hi) <= p.threshold;
        let at = p.plane * p.dims.n + i;
        tau[at] = select(0.0, tau[at] * p.scale, keep);
    }
}
