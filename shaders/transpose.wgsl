// out[j, i] = x[i, j], in tiles of 32 × 32 that go through workgroup memory: both sides are read and written in rows.

struct Params {
    dims: Dims,   // rows and columns of x
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;            // [rows, row_len]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;    // [row_len, rows]

const SIDE = 32u;
const PITCH = 33u;   // one more than a row, so that columns spread over the banks

var<workgroup> tile: array<f32, 1056>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups);
    let across = (p.dims.row_len + SIDE - 1u) / SIDE;
    if at >= across * ((p.dims.rows + SIDE - 1u) / SIDE) {
        return;
    }
    let first = vec2<u32>(at / across, at % across) * SIDE;
    let down = lane / SIDE;
    let right = lane % SIDE;
    for (var j = down; j < SIDE; j += WORKGROUP / SIDE) {
        let row = first.x + j;
        let col = first.y + right;
        if row < p.dims.rows && col < p.dims.row_len {
            tile[j * PITCH + right] = x[row * p.dims.row_len + col];
        }
    }
    workgroupBarrier();
    for (var j = down; j < SIDE; j += WORKGROUP / SIDE) {
        let row = first.y + j;
        let col = first.x + right;
        if row < p.dims.row_len && col < p.dims.rows {
            out[row * p.dims.rows + col] = tile[right * PITCH + j];
        }
    }
}
