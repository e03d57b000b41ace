// What matmul.wgsl computes, in tiles of 32 × 32: 64 invocations have 4 × 4 each, and four such teams a quarter of the
// columns of every step, whose sums are added up in the end, in the order of the teams.

const DEPTH = 32u;   // columns of a step
const QUADS = 9u;    // vectors of four rows, and one that spreads them over the banks of the memory

var<workgroup> left: array<vec4<f32>, 288>;    // [DEPTH, QUADS]
var<workgroup> right: array<vec4<f32>, 288>;
var<workgroup> sums: array<vec4<f32>, 256>;    // [4 rows, 64 invocations]

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
    let all = tiles(32u);
    if at >= all.x * all.y {
        return;
    }
    let place = vec2<u32>(at % all.x, at / all.x) * 32u;
    // What it loads: four rows of one column.
    let k = lane % DEPTH;
    let quad = lane / DEPTH;
    let row = place.x + 4u * quad;
    let col = place.y + 4u * quad;
    // What it computes.
    let team = lane / 64u;
    let member = lane % 64u;
    let down = member / 8u;
    let across = member % 8u;
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
        for (var j = 8u * team; j < 8u * team + 8u; j += 2u) {
            let l0 = left[j * QUADS + down];
            let r0 = right[j * QUADS + across];
            let l1 = left[(j + 1u) * QUADS + down];
            let r1 = right[(j + 1u) * QUADS + across];
            a = fma(vec4<f32>(l0.x), r0, a);
            b = fma(vec4<f32>(l0.y), r0, b);
            c = fma(vec4<f32>(l0.z), r0, c);
            d = fma(vec4<f32>(l0.w), r0, d);
            a = fma(vec4<f32>(l1.x), r1, a);
            b = fma(vec4<f32>(l1.y), r1, b);
            c = fma(vec4<f32>(l1.z), r1, c);
            d = fma(vec4<f32>(l1.w), r1, d);
        }
        workgroupBarrier();
    }
    for (var turn = 0u; turn < 4u; turn++) {
        if team == turn {
            if turn == 0u {
                sums[member] = a;
                sums[member + 64u] = b;
                sums[member + 128u] = c;
                sums[member + 192u] = d;
            } else {
                sums[member] += a;
                sums[member + 64u] += b;
                sums[member + 128u] += c;
                sums[member + 192u] += d;
            }
        }
        workgroupBarrier();
    }
    // Row `team` of every four.
    let sum = sums[lane];
    let r = place.x + 4u * down + team;
    let first = place.y + 4u * across;
    give_row(r, first, sum);
}
