// A checksum of a buffer's words, which the host computes again from what it read back. It depends on the place of
// every word and on the run, and not on the order of the sum.

struct Params {
    dims: Dims,  // n: words of the buffer
    epoch: u32,  // a number no other run has
    slot: u32,   // where in the trailer the sum goes
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> words: array<u32>;                   // [n]
@group(0) @binding(2) var<storage, read_write> trailer: array<atomic<u32>>;   // [0] epoch, [slot] sum

const PER_LANE = 64u;   // a workgroup's width apart

var<workgroup> total: atomic<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups);
    let epoch = p.epoch;
    let first = at * PER_LANE * WORKGROUP + lane;
    let end = min(first + PER_LANE * WORKGROUP, p.dims.n);
    var sum = 0u;
    for (var i = first; i < end; i += WORKGROUP) {
        sum += mix(words[i], i, epoch);
    }
    atomicAdd(&total, sum);
    workgroupBarrier();
    if lane == 0u {
        atomicAdd(&trailer[p.slot], atomicLoad(&total));
        if at == 0u {
            atomicStore(&trailer[0], epoch);
        }
    }
}
