// out[r, c] = table[index[r], c], or that added to onto[r, c]. An index beyond the table stands for a row of zeros.

struct Params {
    dims: Dims,
    first: u32,   // of the table, in its buffer
    more: u32,    // 1: add to `onto`, which is any other buffer without it
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<f32>;        // [?, row_len] from `first`
@group(0) @binding(2) var<storage, read> index: array<u32>;        // [rows]
@group(0) @binding(3) var<storage, read> onto: array<f32>;         // [rows, row_len]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;    // [rows, row_len]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let len = p.dims.row_len;
    let start = flat_group(group, groups) * WORKGROUP * 4u;
    for (var j = 0u; j < 4u; j++) {
        let i = start + j * WORKGROUP + lane;
        if i < p.dims.n {
            let row = index[i / len];
            var y = 0.0;
            if row < (arrayLength(&table) - p.first) / len {
                y = table[p.first + row * len + i % len];
            }
            if p.more != 0u {
                y += onto[i];
            }
            out[i] = y;
        }
    }
}
