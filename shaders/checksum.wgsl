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

const PER_LANE = 16u;   // four words each, a workgroup's width apart

var<workgroup> partial: array<u32, 256>;

fn mix(word: vec4<u32>, index: vec4<u32>) -> vec4<u32> {
    var h = (word ^ (index * 0x9e3779b1u + p.epoch)) * 0x85ebca6bu;
    h = (h ^ (h >> vec4<u32>(15u))) * 0xc2b2ae35u;
    return h ^ (h >> vec4<u32>(13u));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(group, groups);
    var sum = vec4<u32>();
    for (var k = 0u; k < PER_LANE; k++) {
        let index = ((at * PER_LANE + k) * 4u + vec4<u32>(0u, 1u, 2u, 3u)) * WORKGROUP + lane;
        if index.x < p.dims.n {
            let at = min(index, vec4<u32>(p.dims.n - 1u));
            let four = vec4<u32>(words[at.x], words[at.y], words[at.z], words[at.w]);
            sum += select(vec4<u32>(), mix(four, index), index < vec4<u32>(p.dims.n));
        }
    }
    partial[lane] = sum.x + sum.y + sum.z + sum.w;
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    if lane == 0u {
        atomicAdd(&trailer[p.slot], partial[0]);
        if at == 0u {
            atomicStore(&trailer[0], p.epoch);
        }
    }
}
