// What matmul.wgsl computes, of rows that narrow_rows.wgsl made f16, by cooperative matrices of SIDE × SIDE with sums in
// f32. A workgroup computes a tile of four blocks of 4 × 4 matrices, a subgroup one block at a time. While a step is
// multiplied, the columns of the next are on their way.
// In front of this come tiles.wgsl, whose `depth` counts groups of eight columns here, `Left`, `Right` and `Sum`, the types
// of the matrices, and SIDE.

struct Eight {
    low: vec4<f16>,
    high: vec4<f16>,
}

override LANES: u32;   // of a subgroup, at most

@group(0) @binding(1) var<storage, read> x: array<Eight>;              // [rows, depth]
@group(0) @binding(2) var<storage, read> w: array<Eight>;              // [cols, depth]
@group(0) @binding(3) var<storage, read> bias: array<f32>;             // [cols] from `bias_first`
@group(0) @binding(4) var<storage, read> x_scales: array<vec2<f32>>;   // [rows]: scale, its inverse
@group(0) @binding(5) var<storage, read> w_scales: array<vec2<f32>>;   // [cols]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;        // [rows, stride]

const SIZE = 128u;          // invocations of a workgroup
const HALF = 4u * SIDE;     // side of a block
const TILE = 8u * SIDE;     // of a tile, two blocks by two
const BLOCKS = 4u;
const DEPTH = 32u;          // columns of a step
const PITCH = 40u;          // of a row in workgroup memory: whole 16 bytes, which loads of matrices want, off the banks' period
const AREA = SIDE * SIDE;
const LOADS = TILE / 32u;   // rows that an invocation loads

// What begins at 16 bytes comes first.
var<workgroup> sums: array<f32, BLOCKS * AREA>;      // a matrix of each block
var<workgroup> left: array<f16, TILE * PITCH>;
var<workgroup> right: array<f16, TILE * PITCH>;

fn put_left(at: u32, e: Eight) {
    left[at] = e.low.x;
    left[at + 1u] = e.low.y;
    left[at + 2u] = e.low.z;
    left[at + 3u] = e.low.w;
    left[at + 4u] = e.high.x;
    left[at + 5u] = e.high.y;
    left[at + 6u] = e.high.z;
    left[at + 7u] = e.high.w;
}

fn put_right(at: u32, e: Eight) {
    right[at] = e.low.x;
    right[at + 1u] = e.low.y;
    right[at + 2u] = e.low.z;
    right[at + 3u] = e.low.w;
    right[at + 4u] = e.high.x;
    right[at + 5u] = e.high.y;
    right[at + 6u] = e.high.z;
    right[at + 7u] = e.high.w;
}

// Scales and writes one matrix of each block of a turn, which `at` is the first element of.
fn give(at: vec2<u32>, turn: u32, count: u32, lane: u32) {
    for (var i = lane; i < count * AREA; i += SIZE) {
        let block = turn + i / AREA;
        let row = at.x + block / 2u * HALF + i % AREA / SIDE;
        let col = at.y + block % 2u * HALF + i % SIDE;
        if row < p.dims.rows && col < p.dims.row_len {
            var y = sums[i] * x_scales[row].y * w_scales[col].y;
            if p.has_bias != 0u {
                y += bias[p.bias_first + col];
            }
            out[row * p.stride + p.column + col] = y;
        }
    }
}

fn finish(sum: Sum, mine: u32, at: vec2<u32>, turn: u32, count: u32, lane: u32) {
    coopStoreT(sum, &sums[mine], SIDE);
    workgroupBarrier();
    give(at, turn, count, lane);
    workgroupBarrier();
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) own: u32) {
    // As flat_group; what functions return does not count as uniform, and matrices need uniform control flow.
    let at = group.y * groups.x + group.x;
    let tiles_down = (p.dims.rows + TILE - 1u) / TILE;
    let tiles_across = (p.dims.row_len + TILE - 1u) / TILE;
    if at >= tiles_down * tiles_across {
        return;
    }
    let place = tile(at, vec2<u32>(tiles_down, tiles_across)) * TILE;
    // What it loads: eight columns of every 32nd row; behind the last row it is there again, and of no effect.
    let k = lane % 4u;
    let row = lane / 4u;
    let x0 = min(place.x + row, p.dims.rows - 1u) * p.depth + k;
    let x1 = min(place.x + row + 32u, p.dims.rows - 1u) * p.depth + k;
    let x2 = min(place.x + row + 64u, p.dims.rows - 1u) * p.depth + k;
    let x3 = min(place.x + row + 96u, p.dims.rows - 1u) * p.depth + k;
    let w0 = min(place.y + row, p.dims.row_len - 1u) * p.depth + k;
    let w1 = min(place.y + row + 32u, p.dims.row_len - 1u) * p.depth + k;
    let w2 = min(place.y + row + 64u, p.dims.row_len - 1u) * p.depth + k;
    let w3 = min(place.y + row + 96u, p.dims.row_len - 1u) * p.depth + k;
    let to = row * PITCH + 8u * k;
    let count = clamp(SIZE / max(LANES, 1u), 1u, BLOCKS);
    for (var turn = 0u; turn < BLOCKS; turn += count) {
        // Subgroups without a block of their own compute one that another has too.
        let block = (turn + own) % BLOCKS;
        let down = block / 2u * HALF * PITCH;
        let across = block % 2u * HALF * PITCH;
        let mine = own % BLOCKS * AREA;
        for (var i = lane; i < BLOCKS * AREA; i += SIZE) {
            sums[i] = 0.0;
        }
        workgroupBarrier();
        // Matrices have names, since compilers leave indexed ones in memory.
        let zero = coopLoadT<Sum>(&sums[mine], SIDE);
        var s00 = zero;
        var s01 = zero;
        var s02 = zero;
        var s03 = zero;
        var s10 = zero;
        var s11 = zero;
        var s12 = zero;
        var s13 = zero;
        var s20 = zero;
        var s21 = zero;
        var s22 = zero;
        var s23 = zero;
        var s30 = zero;
        var s31 = zero;
        var s32 = zero;
        var s33 = zero;
        var a0 = x[x0];
        var a1 = x[x1];
        var b0 = w[w0];
        var b1 = w[w1];
        var a2: Eight;
        var a3: Eight;
        var b2: Eight;
        var b3: Eight;
        if LOADS == 4u {
            a2 = x[x2];
            a3 = x[x3];
            b2 = w[w2];
            b3 = w[w3];
        }
        for (var next = DEPTH / 8u; next < p.depth + DEPTH / 8u; next += DEPTH / 8u) {
            put_left(to, a0);
            put_left(to + 32u * PITCH, a1);
            put_right(to, b0);
            put_right(to + 32u * PITCH, b1);
            if LOADS == 4u {
                put_left(to + 64u * PITCH, a2);
                put_left(to + 96u * PITCH, a3);
                put_right(to + 64u * PITCH, b2);
                put_right(to + 96u * PITCH, b3);
            }
            workgroupBarrier();
            if next < p.depth {
                a0 = x[x0 + next];
                a1 = x[x1 + next];
                b0 = w[w0 + next];
                b1 = w[w1 + next];
                if LOADS == 4u {
                    a2 = x[x2 + next];
                    a3 = x[x3 + next];
                    b2 = w[w2 + next];
                    b3 = w[w3 + next];
                }
            }
            for (var j = 0u; j < DEPTH; j += SIDE) {
                let l0 = coopLoadT<Left>(&left[down + j], PITCH);
                let l1 = coopLoadT<Left>(&left[down + SIDE * PITCH + j], PITCH);
                let l2 = coopLoadT<Left>(&left[down + 2u * SIDE * PITCH + j], PITCH);
                let l3 = coopLoadT<Left>(&left[down + 3u * SIDE * PITCH + j], PITCH);
                // Rows of w are the columns of the right matrix.
                let r0 = coopLoad<Right>(&right[across + j], PITCH);
                let r1 = coopLoad<Right>(&right[across + SIDE * PITCH + j], PITCH);
                let r2 = coopLoad<Right>(&right[across + 2u * SIDE * PITCH + j], PITCH);
                let r3 = coopLoad<Right>(&right[across + 3u * SIDE * PITCH + j], PITCH);
                s00 = coopMultiplyAdd(l0, r0, s00);
                s01 = coopMultiplyAdd(l0, r1, s01);
                s02 = coopMultiplyAdd(l0, r2, s02);
                s03 = coopMultiplyAdd(l0, r3, s03);
                s10 = coopMultiplyAdd(l1, r0, s10);
                s11 = coopMultiplyAdd(l1, r1, s11);
                s12 = coopMultiplyAdd(l1, r2, s12);
                s13 = coopMultiplyAdd(l1, r3, s13);
                s20 = coopMultiplyAdd(l2, r0, s20);
                s21 = coopMultiplyAdd(l2, r1, s21);
                s22 = coopMultiplyAdd(l2, r2, s22);
                s23 = coopMultiplyAdd(l2, r3, s23);
                s30 = coopMultiplyAdd(l3, r0, s30);
                s31 = coopMultiplyAdd(l3, r1, s31);
                s32 = coopMultiplyAdd(l3, r2, s32);
                s33 = coopMultiplyAdd(l3, r3, s33);
            }
            workgroupBarrier();
        }
        finish(s00, mine, place, turn, count, lane);
        finish(s01, mine, place + SIDE * vec2<u32>(0u, 1u), turn, count, lane);
        finish(s02, mine, place + SIDE * vec2<u32>(0u, 2u), turn, count, lane);
        finish(s03, mine, place + SIDE * vec2<u32>(0u, 3u), turn, count, lane);
        finish(s10, mine, place + SIDE * vec2<u32>(1u, 0u), turn, count, lane);
        finish(s11, mine, place + SIDE * vec2<u32>(1u, 1u), turn, count, lane);
        finish(s12, mine, place + SIDE * vec2<u32>(1u, 2u), turn, count, lane);
        finish(s13, mine, place + SIDE * vec2<u32>(1u, 3u), turn, count, lane);
        finish(s20, mine, place + SIDE * vec2<u32>(2u, 0u), turn, count, lane);
        finish(s21, mine, place + SIDE * vec2<u32>(2u, 1u), turn, count, lane);
        finish(s22, mine, place + SIDE * vec2<u32>(2u, 2u), turn, count, lane);
        finish(s23, mine, place + SIDE * vec2<u32>(2u, 3u), turn, count, lane);
        finish(s30, mine, place + SIDE * vec2<u32>(3u, 0u), turn, count, lane);
        finish(s31, mine, place + SIDE * vec2<u32>(3u, 1u), turn, count, lane);
        finish(s32, mine, place + SIDE * vec2<u32>(3u, 2u), turn, count, lane);
        finish(s33, mine, place + SIDE * vec2<u32>(3u, 3u), turn, count, lane);
    }
}
