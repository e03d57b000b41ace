// out[r, h] = Σ_s softmax_s(scale · ⟨q[r, h], k[s, h']⟩) · v[s, h'] over the keys of ranges[r], with h' the head of keys
// that head h shares. A workgroup has 32 rows of one head and goes over their keys 32 at a time, with the softmax
// relative to the largest score so far (Milakov & Gimelshein 2018, Dao et al. 2022). Eight invocations share a row:
// each has four keys of a step, and of the result every eighth quad of columns.

struct Params {
    dims: Dims,        // rows, and as row_len the heads
    kv_heads: u32,
    dim: u32,          // of a head, at most 256
    scale: f32,
    q_stride: u32,
    q_column: u32,
    k_stride: u32,
    k_column: u32,
    v_stride: u32,
    v_column: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;               // [rows, q_stride]
@group(0) @binding(2) var<storage, read> k: array<f32>;               // [keys, k_stride]
@group(0) @binding(3) var<storage, read> v: array<f32>;               // [keys, v_stride]
@group(0) @binding(4) var<storage, read> ranges: array<vec2<u32>>;    // [rows]: the first key, and the one after the last
@group(0) @binding(5) var<storage, read_write> out: array<f32>;       // [rows, heads · dim]

const ROWS = 32u;
const KEYS = 32u;
const QUADS = 9u;   // eight vectors, and one that spreads them over the banks of the memory
const LEAST = -3.4028234e38;

var<workgroup> queries: array<vec4<f32>, 288>;   // [ROWS, QUADS]: 32 columns of q
var<workgroup> other: array<vec4<f32>, 288>;     // [32 columns, QUADS] of k, or [KEYS, QUADS] of v
var<workgroup> scores: array<vec4<f32>, 288>;    // [ROWS, QUADS]

struct Own {
    row: u32,     // of the block
    quad: u32,
    first: u32,   // row of q that is the block's first
    q: u32,       // columns where the head begins
    k: u32,
    v: u32,
}

fn take_q(row: u32, c: u32, begin: u32) -> f32 {
    if row < p.dims.rows && c < p.dim {
        return q[row * p.q_stride + begin + c];
    }
    return 0.0;
}

fn take_k(s: u32, last: u32, c: u32, begin: u32) -> f32 {
    if s < last && c < p.dim {
        return k[s * p.k_stride + begin + c];
    }
    return 0.0;
}

fn take_v(s: u32, last: u32, c: u32, begin: u32) -> f32 {
    if s < last && c < p.dim {
        return v[s * p.v_stride + begin + c];
    }
    return 0.0;
}

// Products of an invocation's row with its four keys.
fn products(lane: u32, own: Own, start: u32, last: u32) -> vec4<f32> {
    var sum = vec4<f32>();
    for (var c = 0u; c < p.dim; c += 32u) {
        let row = own.first + own.row;
        let at = c + 4u * own.quad;
        queries[own.row * QUADS + own.quad] = vec4<f32>(
            take_q(row, at, own.q), take_q(row, at + 1u, own.q), take_q(row, at + 2u, own.q), take_q(row, at + 3u, own.q));
        let column = lane % 32u;
        let s = start + 4u * (lane / 32u);
        let d = c + column;
        other[column * QUADS + lane / 32u] = vec4<f32>(
            take_k(s, last, d, own.k), take_k(s + 1u, last, d, own.k),
            take_k(s + 2u, last, d, own.k), take_k(s + 3u, last, d, own.k));
        workgroupBarrier();
        for (var j = 0u; j < 8u; j++) {
            let x = queries[own.row * QUADS + j];
            let y = 4u * j * QUADS + own.quad;
            sum = fma(vec4<f32>(x.x), other[y], sum);
            sum = fma(vec4<f32>(x.y), other[y + QUADS], sum);
            sum = fma(vec4<f32>(x.z), other[y + 2u * QUADS], sum);
            sum = fma(vec4<f32>(x.w), other[y + 3u * QUADS], sum);
        }
        workgroupBarrier();
    }
    return sum;
}

// `sum` and the values of 32 keys in columns `c` to `c + 31`, weighted by a row's scores.
fn weigh(own: Own, start: u32, last: u32, c: u32, sum: vec4<f32>) -> vec4<f32> {
    let s = start + own.row;
    let at = c + 4u * own.quad;
    other[own.row * QUADS + own.quad] = vec4<f32>(
        take_v(s, last, at, own.v), take_v(s, last, at + 1u, own.v),
        take_v(s, last, at + 2u, own.v), take_v(s, last, at + 3u, own.v));
    workgroupBarrier();
    var more = sum;
    for (var j = 0u; j < 8u; j++) {
        let x = scores[own.row * QUADS + j];
        let y = 4u * j * QUADS + own.quad;
        more = fma(vec4<f32>(x.x), other[y], more);
        more = fma(vec4<f32>(x.y), other[y + QUADS], more);
        more = fma(vec4<f32>(x.z), other[y + 2u * QUADS], more);
        more = fma(vec4<f32>(x.w), other[y + 3u * QUADS], more);
    }
    workgroupBarrier();
    return more;
}

fn give(own: Own, head: u32, c: u32, sum: vec4<f32>) {
    let row = own.first + own.row;
    let at = c + 4u * own.quad;
    if row >= p.dims.rows {
        return;
    }
    let to = (row * p.dims.row_len + head) * p.dim + at;
    if at < p.dim {
        out[to] = sum.x;
    }
    if at + 1u < p.dim {
        out[to + 1u] = sum.y;
    }
    if at + 2u < p.dim {
        out[to + 2u] = sum.z;
    }
    if at + 3u < p.dim {
        out[to + 3u] = sum.w;
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups);
    let heads = p.dims.row_len;
    if at >= ((p.dims.rows + ROWS - 1u) / ROWS) * heads {
        return;
    }
    let head = at % heads;
    let kv = (head * p.kv_heads / heads) * p.dim;
    let own = Own(lane / 8u, lane % 8u, (at / heads) * ROWS,
                  p.q_column + head * p.dim, p.k_column + kv, p.v_column + kv);
    // All keys that some row of the block looks at.
    var first = 0xffffffffu;
    var last = 0u;
    for (var r = own.first; r < min(own.first + ROWS, p.dims.rows); r++) {
        let range = ranges[r];
        if range.x < range.y {
            first = min(first, range.x);
            last = max(last, range.y);
        }
    }
    var range = vec2<u32>();
    if own.first + own.row < p.dims.rows {
        range = ranges[own.first + own.row];
    }
    var most = LEAST;
    var total = 0.0;
    var a = vec4<f32>();
    var b = vec4<f32>();
    var c = vec4<f32>();
    var d = vec4<f32>();
    var e = vec4<f32>();
    var f = vec4<f32>();
    var g = vec4<f32>();
    var h = vec4<f32>();
    for (var start = first; start < last; start += KEYS) {
        let key = vec4<u32>(start + 4u * own.quad) + vec4<u32>(0u, 1u, 2u, 3u);
        let seen = (key >= vec4<u32>(range.x)) & (key < vec4<u32>(range.y));
        let score = select(vec4<f32>(LEAST), p.scale * products(lane, own, start, last), seen);
        scores[own.row * QUADS + own.quad] = score;
        workgroupBarrier();
        var high = vec4<f32>(LEAST);
        for (var j = 0u; j < 8u; j++) {
            high = max(high, scores[own.row * QUADS + j]);
        }
        let before = most;
        most = max(most, max(max(high.x, high.y), max(high.z, high.w)));
        workgroupBarrier();
        scores[own.row * QUADS + own.quad] = select(vec4<f32>(), exp(score - vec4<f32>(most)), seen);
        workgroupBarrier();
        var sum = vec4<f32>();
        for (var j = 0u; j < 8u; j++) {
            sum += scores[own.row * QUADS + j];
        }
        let keep = exp(before - most);
        total = total * keep + ((sum.x + sum.y) + (sum.z + sum.w));
        a = weigh(own, start, last, 0u, a * keep);
        if p.dim > 32u {
            b = weigh(own, start, last, 32u, b * keep);
        }
        if p.dim > 64u {
            c = weigh(own, start, last, 64u, c * keep);
        }
        if p.dim > 96u {
            d = weigh(own, start, last, 96u, d * keep);
        }
        if p.dim > 128u {
            e = weigh(own, start, last, 128u, e * keep);
        }
        if p.dim > 160u {
            f = weigh(own, start, last, 160u, f * keep);
        }
        if p.dim > 192u {
            g = weigh(own, start, last, 192u, g * keep);
        }
        if p.dim > 224u {
            h = weigh(own, start, last, 224u, h * keep);
        }
    }
    var factor = 0.0;
    if total != 0.0 {
        factor = 1.0 / total;
    }
    give(own, head, 0u, a * factor);
    give(own, head, 32u, b * factor);
    give(own, head, 64u, c * factor);
    give(own, head, 96u, d * factor);
    give(own, head, 128u, e * factor);
    give(own, head, 160u, f * factor);
    give(own, head, 192u, g * factor);
    give(own, head, 224u, h * factor);
}
