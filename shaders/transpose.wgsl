// out[j, i] = x[i, j], in tiles of 16 × 16 that go through workgroup memory: both sides are read and written in rows.

struct Params {
    dims: Dims,   // rows and columns of x
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;            // [rows, row_len]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;    // [row_len, rows]

const SIDE = 16u;
const PITCH = 17u;   // one more than a row, so that columns spread over the banks

var<workgroup> tile: array<f32, 272>;

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
    let row = first.x + down;
    let col = first.y + right;
    if row < p.dims.rows && col < p.dims.row_len {
        tile[down * PITCH + right] = x[row * p.dims.row_len + col];
    }
    workgroupBarrier();
    let turned_row = first.y + down;
    let turned_col = first.x + right;
    if turned_row < p.dims.row_len && turned_col < p.dims.rows {
        out[turned_row * p.dims.rows + turned_col] = tile[right * PITCH + down];
    }
}
