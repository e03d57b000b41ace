// Seeded random drop whose chances grow with the rank in the row (DELLA, arXiv 2406.11617): tau[plane] is kept with
// probability low + span · rank / (row_len − 1), scaled, or zeroed. In whole numbers, so that every device decides alike.

struct Params {
    dims: Dims,
    plane: u32,
    key_lo: u32,
    key_hi: u32,
    low: u32,        // of 2³²
    step_lo: u32,    // of 2⁶⁴: what a rank adds
    step_hi: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ranks: array<u32>;       // [n]
@group(0) @binding(2) var<storage, read_write> tau: array<f32>;   // [planes, n]

// The high half of a product.
fn high(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let across = (a & 0xffffu) * (b >> 16u);
    let down = (a >> 16u) * (b & 0xffffu);
    let middle = (low >> 16u) + (across & 0xffffu) + (down & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (across >> 16u) + (down >> 16u) + (middle >> 16u);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, p.dims.n);
    for (var i = start; i < end; i++) {
        let chance = p.low + p.step_hi * ranks[i] + high(p.step_lo, ranks[i]);
        let certain = chance < p.low; // it went over 2³²
        let keep = random_word(p.dims, i, p.key_lo, p.key_hi) < chance || certain;
        let at = p.plane * p.dims.n + i;
        tau[at] = select(0.0, tau[at] * p.scale, keep);
    }
}
