// One digit of an exact radix select over |tau[plane]|: counts the keys that start with `prefix`, by their next
// digit. The key of a value is its magnitude's bits, whose integer order is the order of the magnitudes.

const BINS = 2048u;
const SPAN = 16384u;   // elements of a workgroup

struct Params {
    dims: Dims,
    plane: u32,
    prefix: u32,
    shift: u32,       // of the digit
    bits: u32,        // of the digit
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;                    // [planes, n]
@group(0) @binding(2) var<storage, read_write> bins: array<atomic<u32>>;     // [planes, BINS]

var<workgroup> local: array<atomic<u32>, 2048>;

fn count(key: u32) {
    let digit = key >> p.shift;
    if (digit >> p.bits) == p.prefix {
        atomicAdd(&local[digit & ((1u << p.bits) - 1u)], 1u);
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    for (var b = lane; b < BINS; b += WORKGROUP) {
        atomicStore(&local[b], 0u);
    }
    workgroupBarrier();
    let start = flat_group(group, groups) * SPAN;
    let end = min(start + SPAN, p.dims.n);
    let plane = p.plane * p.dims.n;
    var i = start + lane;
    // Four are on their way at a time.
    for (; i + 3u * WORKGROUP < end; i += 4u * WORKGROUP) {
        let x = vec4<f32>(tau[plane + i], tau[plane + i + WORKGROUP], tau[plane + i + 2u * WORKGROUP],
                          tau[plane + i + 3u * WORKGROUP]);
        let keys = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
        count(keys.x);
        count(keys.y);
        count(keys.z);
        count(keys.w);
    }
    for (; i < end; i += WORKGROUP) {
        count(bitcast<u32>(tau[plane + i]) & 0x7fffffffu);
    }
    workgroupBarrier();
    for (var b = lane; b < BINS; b += WORKGROUP) {
        let count = atomicLoad(&local[b]);
        if count != 0u {
            atomicAdd(&bins[p.plane * BINS + b], count);
        }
    }
}
