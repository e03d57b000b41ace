// Rotary positions: pairs (i, i + half) of every head of 2·half, turned by an angle of the row.

struct Params {
    dims: Dims,
    half: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<f32>;      // [rows, 2·half]: cosines, sines
@group(0) @binding(2) var<storage, read> x: array<f32>;          // [rows, heads·2·half]
@group(0) @binding(3) var<storage, read_write> out: array<f32>;  // the same

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let pair = flat_group(group, groups) * WORKGROUP + lane;
    if pair >= p.dims.n / 2u {
        return;
    }
    let i = pair % p.half;
    let at = (pair / p.half) * 2u * p.half + i;
    let angle = (at / p.dims.row_len) * 2u * p.half + i;
    let c = table[angle];
    let s = table[angle + p.half];
    let a = x[at];
    let b = x[at + p.half];
    out[at] = a * c - b * s;
    out[at + p.half] = b * c + a * s;
}
