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
    // All are on their way before the first is needed.
    let own = own_four(flat_group(group, groups), lane);
    let at = min(own, vec4<u32>(p.dims.n - 1u));
    let rows = at / len;
    let from_rows = vec4<u32>(index[rows.x], index[rows.y], index[rows.z], index[rows.w]);
    let exist = from_rows < vec4<u32>((arrayLength(&table) - p.first) / len);
    let places = p.first + select(vec4<u32>(), from_rows * len + at % len, exist);
    var values = select(vec4<f32>(), vec4<f32>(table[places.x], table[places.y], table[places.z], table[places.w]), exist);
    if p.more != 0u {
        values += vec4<f32>(onto[at.x], onto[at.y], onto[at.z], onto[at.w]);
    }
    for (var j = 0u; j < 4u; j++) {
        if own[j] < p.dims.n {
            out[own[j]] = values[j];
        }
    }
}
