// What products of f32 start with, after tiles.wgsl.

@group(0) @binding(1) var<storage, read> x: array<f32>;            // [rows, depth]
@group(0) @binding(2) var<storage, read> w: array<f32>;            // [cols, depth] from `first`
@group(0) @binding(3) var<storage, read> bias: array<f32>;         // [cols] from `bias_first`
@group(0) @binding(4) var<storage, read_write> out: array<f32>;    // [rows, stride]

fn give(row: u32, col: u32, sum: f32) {
    if row < p.dims.rows && col < p.dims.row_len {
        var y = sum;
        if p.has_bias != 0u {
            y += bias[p.bias_first + col];
        }
        out[row * p.stride + p.column + col] = y;
    }
}

fn give_row(row: u32, col: u32, sum: vec4<f32>) {
    give(row, col, sum.x);
    give(row, col + 1u, sum.y);
    give(row, col + 2u, sum.z);
    give(row, col + 3u, sum.w);
}
