// A product in tiles of 64 × 64 of which every invocation has 4 × 4. Both sides go
// through workgroup memory 16 columns at a time, with the columns turned to rows: an invocation's four are then one
// vector. Accumulators have names, since compilers leave indexed ones in memory.

const DEPTH = 16u;   // columns of a step
const QUADS = 17u;   // vectors of four rows, and one that spreads them over the banks of the memory

var<workgroup> left: array<vec4<f32>, 272>;    // [DEPTH, QUADS]
var<workgroup> right: array<vec4<f32>, 272>;

fn take_x(row: u32, k: u32) -> f32 {
    if row < p.dims.rows && k < p.depth {
        return x[row * p.depth + k];
    }
    return 0.0;
}

fn take_w(row: u32, k: u32) -> f32 {
    if row < p.dims.row_len && k < p.depth {
        return w[p.first + row * p.depth + k];
    }
    return 0.0;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups);
    let all = tiles(64u);
    if at >= all.x * all.y {
        return;
    }
    let place = tile(at, all) * 64u;
    // What it loads: four rows of one column.
    let k = lane % DEPTH;
    let quad = lane / DEPTH;
    let row = place.x + 4u * quad;
    let col = place.y + 4u * quad;
    // What it computes.
    let down = lane / 16u;
    let across = lane % 16u;
    var a = vec4<f32>();
    var b = vec4<f32>();
    var c = vec4<f32>();
    var d = vec4<f32>();
    for (var start = 0u; start < p.depth; start += DEPTH) {
        let i = start + k;
        left[k * QUADS + quad] =
            vec4<f32>(take_x(row, i), take_x(row + 1u, i), take_x(row + 2u, i), take_x(row + 3u, i));
        right[k * QUADS + quad] =
            vec4<f32>(take_w(col, i), take_w(col + 1u, i), take_w(col + 2u, i), take_w(col + 3u, i));
        workgroupBarrier();
        for (var j = 0u; j < DEPTH; j += 4u) {
            let l0 = left[j * QUADS + down];
            let r0 = right[j * QUADS + across];
            let l1 = left[(j + 1u) * QUADS + down];
            let r1 = right[(j + 1u) * QUADS + across];
            let l2 = left[(j + 2u) * QUADS + down];
            let r2 = right[(j + 2u) * QUADS + across];
            let l3 = left[(j + 3u) * QUADS + down];
            let r3 = right[(j + 3u) * QUADS + across];
            a = fma(vec4<f32>(l0.x), r0, a);
            b = fma(vec4<f32>(l0.y), r0, b);
            c = fma(vec4<f32>(l0.z), r0, c);
            d = fma(vec4<f32>(l0.w), r0, d);
            a = fma(vec4<f32>(l1.x), r1, a);
            b = fma(vec4<f32>(l1.y), r1, b);
            c = fma(vec4<f32>(l1.z), r1, c);
            d = fma(vec4<f32>(l1.w), r1, d);
            a = fma(vec4<f32>(l2.x), r2, a);
            b = fma(vec4<f32>(l2.y), r2, b);
            c = fma(vec4<f32>(l2.z), r2, c);
            d = fma(vec4<f32>(l2.w), r2, d);
            a = fma(vec4<f32>(l3.x), r3, a);
            b = fma(vec4<f32>(l3.y), r3, b);
            c = fma(vec4<f32>(l3.z), r3, c);
            d = fma(vec4<f32>(l3.w), r3, d);
        }
        workgroupBarrier();
    }
    let first = place + 4u * vec2<u32>(down, across);
    give_row(first.x, first.y, a);
    give_row(first.x + 1u, first.y, b);
    give_row(first.x + 2u, first.y, c);
    give_row(first.x + 3u, first.y, d);
}
