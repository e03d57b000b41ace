// ranks = place of each element of tau[plane] in its row, by ascending magnitude, of equals the lower index first: a
// stable radix sort of (magnitude bits, index), one workgroup a row, three bits a pass, each invocation with a run of its
// own. In short rows each element is compared with all others.

struct Params {
    dims: Dims,
    plane: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;             // [planes, n]
@group(0) @binding(2) var<storage, read_write> sorted: array<u32>;    // [2, (keys, indices), n]
@group(0) @binding(3) var<storage, read_write> ranks: array<u32>;     // [n]

const DIGITS = 8u;
const PASSES = 11u;   // of 31 bits

var<workgroup> counts: array<u32, 2048>;   // [DIGITS, WORKGROUP]
var<workgroup> sums: array<u32, 256>;

// Elements of a row that is short.
const SHORT = 64u;

fn key(i: u32) -> u32 {
    return bitcast<u32>(tau[p.plane * p.dims.n + i]) & 0x7fffffffu;
}

// How many of its row come before element `i`.
fn compared(i: u32) -> u32 {
    let own = key(i);
    let first = i / p.dims.row_len * p.dims.row_len;
    var rank = 0u;
    for (var j = first; j < min(first + p.dims.row_len, p.dims.n); j++) {
        let other = key(j);
        rank += select(0u, 1u, other < own || (other == own && j < i));
    }
    return rank;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    if p.dims.row_len <= SHORT {
        let i = flat_group(group, groups) * WORKGROUP + lane;
        if i < p.dims.n {
            ranks[i] = compared(i);
        }
        return;
    }
    let row = flat_group(group, groups);
    if row >= p.dims.rows {
        return;
    }
    let n = p.dims.n;
    let first = row * p.dims.row_len;
    let len = min(p.dims.row_len, n - first);
    let run = (len + WORKGROUP - 1u) / WORKGROUP;
    let start = min(lane * run, len);
    let end = min(start + run, len);
    for (var i = start; i < end; i++) {
        sorted[first + i] = key(first + i);
        sorted[n + first + i] = i;
    }
    for (var pass_ = 0u; pass_ < PASSES; pass_++) {
        let source = (pass_ & 1u) * 2u * n + first;
        let target_ = (1u - (pass_ & 1u)) * 2u * n + first;
        let shift = 3u * pass_;
        for (var d = 0u; d < DIGITS; d++) {
            counts[d * WORKGROUP + lane] = 0u;
        }
        for (var i = start; i < end; i++) {
            counts[((sorted[source + i] >> shift) & 7u) * WORKGROUP + lane] += 1u;
        }
        workgroupBarrier();
        // Digit by digit, in each invocation by invocation: how many come before.
        var own = 0u;
        for (var e = 0u; e < DIGITS; e++) {
            own += counts[DIGITS * lane + e];
        }
        sums[lane] = own;
        workgroupBarrier();
        for (var reach = 1u; reach < WORKGROUP; reach <<= 1u) {
            var before = 0u;
            if lane >= reach {
                before = sums[lane - reach];
            }
            workgroupBarrier();
            sums[lane] += before;
            workgroupBarrier();
        }
        var place = sums[lane] - own;
        for (var e = 0u; e < DIGITS; e++) {
            let count = counts[DIGITS * lane + e];
            counts[DIGITS * lane + e] = place;
            place += count;
        }
        workgroupBarrier();
        for (var i = start; i < end; i++) {
            let key = sorted[source + i];
            let slot = ((key >> shift) & 7u) * WORKGROUP + lane;
            let to = counts[slot];
            counts[slot] = to + 1u;
            sorted[target_ + to] = key;
            sorted[target_ + n + to] = sorted[source + n + i];
        }
        storageBarrier();
        workgroupBarrier();
    }
    // The number of passes is odd: they end in the second half.
    for (var i = start; i < end; i++) {
        ranks[first + sorted[3u * n + first + i]] = i;
    }
}
