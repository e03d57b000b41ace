// out[r, c] = Σ_k x[r, k] · w[c, k] + bias[c]: what matmul.wgsl and its kin start with.

struct Params {
    dims: Dims,        // rows and columns of the product
    depth: u32,
    first: u32,        // of the weight, in its buffer
    has_bias: u32,
    bias_first: u32,
    stride: u32,       // of a row of out
    column: u32,       // of out, where the product begins
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;            // [rows, depth]
@group(0) @binding(2) var<storage, read> w: array<f32>;            // [cols, depth] from `first`
@group(0) @binding(3) var<storage, read> bias: array<f32>;         // [cols] from `bias_first`
@group(0) @binding(4) var<storage, read_write> out: array<f32>;    // [rows, stride]

// Rows of a panel: workgroups that run at the same time share what they read.
const PANEL = 8u;

// Tiles of `side`, down and across.
fn tiles(side: u32) -> vec2<u32> {
    return (vec2<u32>(p.dims.rows, p.dims.row_len) + side - 1u) / side;
}

// Tile of a workgroup, of `all`: panel by panel, in each column by column.
fn tile(at: u32, all: vec2<u32>) -> vec2<u32> {
    let panel = at / (PANEL * all.y);
    let height = min(PANEL, all.x - panel * PANEL);
    let within = at - panel * PANEL * all.y;
    return vec2<u32>(panel * PANEL + within % height, within / height);
}

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
