// What matmul.wgsl computes, by cooperative matrices of SIDE × SIDE: inputs are scaled row by row and rounded to f16 on the
// way to workgroup memory, sums are f32. A workgroup computes a tile of 64 × 128; each subgroup takes blocks of 2 × 2
// matrices of it. How many subgroups there are is known here alone, so that the blocks are dealt out in turns.
// In front of this come `Left`, `Right` and `Sum`, the types of the matrices, and SIDE.

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
@group(0) @binding(1) var<storage, read> x: array<f32>;                // [rows, depth]
@group(0) @binding(2) var<storage, read> w: array<f32>;                // [cols, depth] from `first`
@group(0) @binding(3) var<storage, read> bias: array<f32>;             // [cols] from `bias_first`
@group(0) @binding(4) var<storage, read> x_scales: array<vec2<f32>>;   // [rows]: scale, its inverse
@group(0) @binding(5) var<storage, read> w_scales: array<vec2<f32>>;   // [cols]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;        // [rows, stride]

const HEIGHT = 64u;  // of a tile
const WIDTH = 128u;
const DEPTH = 32u;   // columns of a step
const PITCH = 40u;   // of a row in workgroup memory: whole 16 bytes, which loads of matrices want, off the banks' period

const ACROSS = WIDTH / (2u * SIDE);               // blocks of a tile in a row
const BLOCKS = HEIGHT / (2u * SIDE) * ACROSS;
const AREA = SIDE * SIDE;
const SUMS = 2048u;                               // BLOCKS * AREA for either side

// What begins at 16 bytes comes first.
var<workgroup> sums: array<f32, 2048>;      // [BLOCKS, SIDE, SIDE]
var<workgroup> left: array<f16, 2560>;      // [HEIGHT, PITCH]
var<workgroup> right: array<f16, 5120>;     // [WIDTH, PITCH]
var<workgroup> subgroups: u32;

// Rows of a panel: workgroups that run at the same time share what they read.
const PANEL = 8u;

// Tile of a workgroup: panel by panel, in each column by column.
fn tile(at: u32, down: u32, across: u32) -> vec2<u32> {
    let panel = at / (PANEL * across);
    let height = min(PANEL, down - panel * PANEL);
    let within = at - panel * PANEL * across;
    return vec2<u32>(panel * PANEL + within % height, within / height);
}

fn take_x(row: u32, k: u32) -> f16 {
    if row < p.dims.rows && k < p.depth {
        return f16(x[row * p.depth + k] * x_scales[row].x);
    }
    return 0.0h;
}

fn take_w(row: u32, k: u32) -> f16 {
    if row < p.dims.row_len && k < p.depth {
        return f16(w[p.first + row * p.depth + k] * w_scales[row].x);
    }
    return 0.0h;
}

// Writes one matrix of each block of a turn, at `offset` in its block.
fn give(place: vec2<u32>, offset: vec2<u32>, turn: u32, count: u32, lane: u32) {
    for (var i = lane; i < SUMS; i += WORKGROUP) {
        let block = turn + i / AREA;
        let row = place.x + block / ACROSS * 2u * SIDE + offset.x + i % AREA / SIDE;
        let col = place.y + block % ACROSS * 2u * SIDE + offset.y + i % SIDE;
        if i / AREA < count && block < BLOCKS && row < p.dims.rows && col < p.dims.row_len {
            var y = sums[i] * x_scales[row].y * w_scales[col].y;
            if p.has_bias != 0u {
                y += bias[p.bias_first + col];
            }
            out[row * p.stride + p.column + col] = y;
        }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32,
        @builtin(subgroup_id) own: u32, @builtin(num_subgroups) all: u32) {
    // As flat_group; what functions return does not count as uniform, and matrices need uniform control flow.
    let at = group.y * groups.x + group.x;
    let tiles_down = (p.dims.rows + HEIGHT - 1u) / HEIGHT;
    let tiles_across = (p.dims.row_len + WIDTH - 1u) / WIDTH;
    if at >= tiles_down * tiles_across {
        return;
    }
    let place = tile(at, tiles_down, tiles_across) * vec2<u32>(HEIGHT, WIDTH);
    if lane == 0u {
        subgroups = all;
    }
    let count = workgroupUniformLoad(&subgroups);
    // What it loads: a column, every eighth row.
    let k = lane % DEPTH;
    let row = lane / DEPTH;
    for (var turn = 0u; turn < BLOCKS; turn += count) {
        // Subgroups without a block of their own compute one that another has too.
        let block = (turn + own) % BLOCKS;
        let down = block / ACROSS * 2u * SIDE;
        let across = block % ACROSS * 2u * SIDE;
        let mine = own % BLOCKS * AREA;
        for (var i = lane; i < SUMS; i += WORKGROUP) {
            sums[i] = 0.0;
        }
        workgroupBarrier();
        var a = coopLoadT<Sum>(&sums[mine], SIDE);
        var b = a;
        var c = a;
        var d = a;
        for (var start = 0u; start < p.depth; start += DEPTH) {
            for (var r = row; r < HEIGHT; r += 8u) {
                left[r * PITCH + k] = take_x(place.x + r, start + k);
            }
            for (var r = row; r < WIDTH; r += 8u) {
                right[r * PITCH + k] = take_w(place.y + r, start + k);
            }
            workgroupBarrier();
            for (var j = 0u; j < DEPTH; j += SIDE) {
                let l0 = coopLoadT<Left>(&left[down * PITCH + j], PITCH);
                let l1 = coopLoadT<Left>(&left[(down + SIDE) * PITCH + j], PITCH);
                // Rows of w are the columns of the right matrix.
                let r0 = coopLoad<Right>(&right[across * PITCH + j], PITCH);
                let r1 = coopLoad<Right>(&right[(across + SIDE) * PITCH + j], PITCH);
                a = coopMultiplyAdd(l0, r0, a);
                b = coopMultiplyAdd(l0, r1, b);
                c = coopMultiplyAdd(l1, r0, c);
                d = coopMultiplyAdd(l1, r1, d);
            }
            workgroupBarrier();
        }
        coopStoreT(a, &sums[mine], SIDE);
        workgroupBarrier();
        give(place, vec2<u32>(0u, 0u), turn, count, lane);
        workgroupBarrier();
        coopStoreT(b, &sums[mine], SIDE);
        workgroupBarrier();
        give(place, vec2<u32>(0u, SIDE), turn, count, lane);
        workgroupBarrier();
        coopStoreT(c, &sums[mine], SIDE);
        workgroupBarrier();
        give(place, vec2<u32>(SIDE, 0u), turn, count, lane);
        workgroupBarrier();
        coopStoreT(d, &sums[mine], SIDE);
        workgroupBarrier();
        give(place, vec2<u32>(SIDE, SIDE), turn, count, lane);
        workgroupBarrier();
    }
}
