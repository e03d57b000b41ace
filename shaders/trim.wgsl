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

// Entries before `i` in its row that equal the threshold, or the quota if there are more. Others may be zeroed
// meanwhile, but never one of the first `tie_quota`, so the answer does not depend on the order of the invocations.
fn ties_before(i: u32) -> u32 {
    var ties = 0u;
    // In steps of four: llvmpipe leaves loops after 65535 rounds.
    for (var j = (i / p.dims.row_len) * p.dims.row_len; j < i && ties < p.tie_quota; j += 4u) {
        ties += tie(j, i) + tie(j + 1u, i) + tie(j + 2u, i) + tie(j + 3u, i);
    }
    return ties;
}

fn tie(j: u32, i: u32) -> u32 {
    return select(0u, 1u, j < i && key_at(min(j, i)) == p.key);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, p.dims.n);
    var ties = 0u;
    var counted = false; // once for all four
    for (var i = start; i < end; i++) {
        let key = key_at(i);
        var keep = key > p.key;
        if key == p.key {
            let row = p.dims.first_row + i / p.dims.row_len;
            keep = row < p.tie_row;
            if row == p.tie_row {
                if !counted {
                    ties = ties_before(i);
                    counted = true;
                }
                keep = ties < p.tie_quota;
                ties += 1u;
            }
        }
        if !keep {
            tau[p.plane * p.dims.n + i] = 0.0;
        }
    }
}
