// out[r, c] = Σ_k x[r, k] · w[c, k] + bias[c]: parameters and tiles of all products.

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
