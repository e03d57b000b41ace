// What matmul.wgsl computes, for at most 8 rows: the weight is read once, by 32 invocations for each of its rows, and
// every invocation has a sum for all rows of x.

var<workgroup> low: array<vec4<f32>, 256>;     // sums for rows 0 to 3
var<workgroup> high: array<vec4<f32>, 256>;    // and 4 to 7

// Where row `row` of x begins; of rows that are not there, the last one.
fn begin(row: u32) -> u32 {
    return min(row, p.dims.rows - 1u) * p.depth;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups);
    if at >= (p.dims.row_len + 7u) / 8u || p.dims.rows == 0u {
        return;
    }
    let col = at * 8u + lane / 32u;
    var a = vec4<f32>();
    var b = vec4<f32>();
    if col < p.dims.row_len {
        let row = p.first + col * p.depth;
        let r1 = begin(1u);
        let r2 = begin(2u);
        let r3 = begin(3u);
        let r4 = begin(4u);
        let r5 = begin(5u);
        let r6 = begin(6u);
        let r7 = begin(7u);
        for (var k = lane % 32u; k < p.depth; k += 128u) {
            // Four columns are on their way at a time; behind the last, it is loaded again.
            let places = vec4<u32>(k, k + 32u, k + 64u, k + 96u);
            let at = row + min(places, vec4<u32>(p.depth - 1u));
            let weights = vec4<f32>(w[at.x], w[at.y], w[at.z], w[at.w]);
            for (var j = 0u; j < 4u && places[j] < p.depth; j++) {
                let c = places[j];
                let weight = vec4<f32>(weights[j]);
                a = fma(weight, vec4<f32>(x[c], x[r1 + c], x[r2 + c], x[r3 + c]), a);
                if p.dims.rows > 4u {
                    b = fma(weight, vec4<f32>(x[r4 + c], x[r5 + c], x[r6 + c], x[r7 + c]), b);
                }
            }
        }
    }
    low[lane] = a;
    high[lane] = b;
    for (var span = 16u; span > 0u; span >>= 1u) {
        workgroupBarrier();
        if lane % 32u < span {
            low[lane] += low[lane + span];
            high[lane] += high[lane + span];
        }
    }
    if lane % 32u == 0u && col < p.dims.row_len {
        let l = low[lane];
        let h = high[lane];
        give(0u, col, l.x);
        give(1u, col, l.y);
        give(2u, col, l.z);
        give(3u, col, l.w);
        give(4u, col, h.x);
        give(5u, col, h.y);
        give(6u, col, h.z);
        give(7u, col, h.w);
    }
}
