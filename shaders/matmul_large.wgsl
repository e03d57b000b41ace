// What matmul.wgsl computes, in tiles of 128 × 128 of which every invocation has 8 × 8: four squares, half a tile apart.
// While a step is multiplied, the columns of the next are on their way.

const SIDE = 128u;   // of a tile
const DEPTH = 16u;   // columns of a step
const QUADS = 33u;   // vectors of four rows, and one that spreads them over the banks of the memory

var<workgroup> left: array<vec4<f32>, 528>;    // [DEPTH, QUADS]
var<workgroup> right: array<vec4<f32>, 528>;

// Where four rows begin; behind the last row it is there again, and of no effect.
fn rows_from(row: u32, count: u32) -> vec4<u32> {
    return min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(count - 1u)) * p.depth;
}

fn take_x(rows: vec4<u32>, k: u32) -> vec4<f32> {
    if k < p.depth {
        return vec4<f32>(x[rows.x + k], x[rows.y + k], x[rows.z + k], x[rows.w + k]);
    }
    return vec4<f32>();
}

fn take_w(rows: vec4<u32>, k: u32) -> vec4<f32> {
    if k < p.depth {
        return vec4<f32>(w[rows.x + k], w[rows.y + k], w[rows.z + k], w[rows.w + k]);
    }
    return vec4<f32>();
}

// Four squares: of the upper and the lower rows, each with the left and the right columns.
struct Sums {
    a: mat4x4<f32>,
    b: mat4x4<f32>,
    c: mat4x4<f32>,
    d: mat4x4<f32>,
}

// sums + l · rᵀ, a column of the result for each of l.
fn outer(l: vec4<f32>, r: vec4<f32>, sums: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        fma(vec4<f32>(l.x), r, sums[0]),
        fma(vec4<f32>(l.y), r, sums[1]),
        fma(vec4<f32>(l.z), r, sums[2]),
        fma(vec4<f32>(l.w), r, sums[3]),
    );
}

// What column `j` of a step adds.
fn add(sums: Sums, j: u32, down: u32, across: u32) -> Sums {
    let l0 = left[j * QUADS + down];
    let l1 = left[j * QUADS + down + 16u];
    let r0 = right[j * QUADS + across];
    let r1 = right[j * QUADS + across + 16u];
    return Sums(outer(l0, r0, sums.a), outer(l0, r1, sums.b), outer(l1, r0, sums.c), outer(l1, r1, sums.d));
}

fn give_square(row: u32, col: u32, sums: mat4x4<f32>) {
    give_row(row, col, sums[0]);
    give_row(row + 1u, col, sums[1]);
    give_row(row + 2u, col, sums[2]);
    give_row(row + 3u, col, sums[3]);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups);
    let all = tiles(SIDE);
    if at >= all.x * all.y {
        return;
    }
    let place = tile(at, all) * SIDE;
    // What it loads: twice four rows of one column.
    let k = lane % DEPTH;
    let quad = lane / DEPTH;
    let x0 = rows_from(place.x + 4u * quad, p.dims.rows);
    let x1 = rows_from(place.x + 4u * quad + SIDE / 2u, p.dims.rows);
    let w0 = rows_from(place.y + 4u * quad, p.dims.row_len) + p.first;
    let w1 = rows_from(place.y + 4u * quad + SIDE / 2u, p.dims.row_len) + p.first;
    // What it computes; 32 neighbours have 4 × 8 of the squares, so that they read few vectors.
    let down = lane / 64u * 4u + lane % 32u / 8u;
    let across = lane / 32u % 2u * 8u + lane % 8u;
    var sums = Sums();
    var next_x0 = take_x(x0, k);
    var next_x1 = take_x(x1, k);
    var next_w0 = take_w(w0, k);
    var next_w1 = take_w(w1, k);
    for (var start = DEPTH; start < p.depth + DEPTH; start += DEPTH) {
        left[k * QUADS + quad] = next_x0;
        left[k * QUADS + quad + 16u] = next_x1;
        right[k * QUADS + quad] = next_w0;
        right[k * QUADS + quad + 16u] = next_w1;
        workgroupBarrier();
        next_x0 = take_x(x0, start + k);
        next_x1 = take_x(x1, start + k);
        next_w0 = take_w(w0, start + k);
        next_w1 = take_w(w1, start + k);
        for (var j = 0u; j < DEPTH; j += 4u) {
            sums = add(sums, j, down, across);
            sums = add(sums, j + 1u, down, across);
            sums = add(sums, j + 2u, down, across);
            sums = add(sums, j + 3u, down, across);
        }
        workgroupBarrier();
    }
    let first = place + 4u * vec2<u32>(down, across);
    give_square(first.x, first.y, sums.a);
    give_square(first.x, first.y + SIDE / 2u, sums.b);
    give_square(first.x + SIDE / 2u, first.y, sums.c);
    give_square(first.x + SIDE / 2u, first.y + SIDE / 2u, sums.d);
}
