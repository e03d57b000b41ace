// Keeps the entries of tau[plane] that are among the largest magnitudes and not among the very largest, and zeroes the
// rest (TIES, arXiv 2306.01708, §3; Model Breadcrumbs, arXiv 2312.06795).

struct Params {
    dims: Dims,
    plane: u32,
    keep_key: u32,       // magnitude bits of the threshold
    keep_ties_lo: u32,   // of those that equal it, elements of the tensor before this one stay
    keep_ties_hi: u32,
    top_key: u32,        // the same of those that go again
    top_ties_lo: u32,
    top_ties_hi: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> tau: array<f32>;   // [planes, n]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, p.dims.n);
    for (var i = start; i < end; i++) {
        let at = p.plane * p.dims.n + i;
        let key = bitcast<u32>(tau[at]) & 0x7fffffffu;
        let keep = stays(p.dims, i, key, p.keep_key, p.keep_ties_lo, p.keep_ties_hi);
        let top = stays(p.dims, i, key, p.top_key, p.top_ties_lo, p.top_ties_hi);
        if !keep || top {
            tau[at] = 0.0;
        }
    }
}
