// Keeps the entries of tau[plane] above a magnitude threshold and zeroes the rest (TIES, arXiv 2306.01708, §3).
// Of those that equal it, the first ones in the order of the tensor stay: all in rows before `tie_row`, the first
// `tie_quota` in that row, none after it.

struct Params {
    dims: Dims,
    plane: u32,
    key: u32,         // magnitude bits of the threshold
    tie_row: u32,
    tie_quota: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> tau: array<f32>;   // [planes, n]

fn key_at(i: u32) -> u32 {
    return bitcast<u32>(tau[p.plane * p.dims.n + i]) & 0x7fffffffu;
}

// True if fewer than `tie_quota` entries before `i` in its row equal the threshold. Others may be zeroed meanwhile,
// but never one of the first `tie_quota`, so the answer does not depend on the order of the invocations.
fn within_quota(i: u32) -> bool {
    var ties = 0u;
    for (var j = (i / p.dims.row_len) * p.dims.row_len; j < i && ties < p.tie_quota; j++) {
        ties += select(0u, 1u, key_at(j) == p.key);
    }
    return ties < p.tie_quota;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, p.dims.n);
    for (var i = start; i < end; i++) {
        let key = key_at(i);
        var keep = key > p.key;
        if key == p.key {
            let row = p.dims.first_row + i / p.dims.row_len;
            keep = row < p.tie_row || (row == p.tie_row && within_quota(i));
        }
        if !keep {
            tau[p.plane * p.dims.n + i] = 0.0;
        }
    }
}
