// Marks words all over a region before a launch that sets every one of them, and counts after it those that no longer
// hold their mark. The last word is always among them.

struct Params {
    dims: Dims,     // rows and columns of the region
    epoch: u32,     // a number no other run has
    slot: u32,      // where in the trailer the count goes
    first: u32,     // word of the region
    stride: u32,    // words from one of its rows to the next
    look: u32,      // 0: mark, 1: count
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;
@group(0) @binding(2) var<storage, read_write> trailer: array<atomic<u32>>;    // [0] epoch, [slot] count

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    let all = p.dims.n;
    let marks = min(all, WORKGROUP);
    if lane >= marks {
        return;
    }
    var hash = ((lane + 1u) * 0x9e3779b1u) ^ p.epoch;
    hash = (hash ^ (hash >> 15u)) * 0x85ebca6bu;
    hash ^= hash >> 13u;
    let step = all / marks;
    let i = select(lane * step + hash % step, all - 1u, lane + 1u == marks);
    let at = p.first + i / p.dims.row_len * p.stride + i % p.dims.row_len;
    // A NaN that arithmetic does not make.
    let mark = 0x7fc00001u | (hash & 0x3ffffeu);
    if p.look == 0u {
        words[at] = mark;
        return;
    }
    if lane == 0u {
        atomicStore(&trailer[0], p.epoch);
    }
    if words[at] != mark {
        atomicAdd(&trailer[p.slot], 1u);
    }
}
