// Where the entries of |tau[plane]| lie about two keys: counts of those above the higher, of those that equal either,
// and of all that were looked at, and a list of those strictly between, in any order. The key of a value is its magnitude's
// bits.

const SPAN = 16384u;   // elements of a workgroup

struct Params {
    dims: Dims,
    plane: u32,
    low: u32,
    high: u32,
    room: u32,        // entries that the list can hold; those beyond are counted only
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;                     // [planes, n]
@group(0) @binding(2) var<storage, read_write> found: array<atomic<u32>>;     // listed, [planes, 4] counts, [room, 2] list

var<workgroup> tally: array<atomic<u32>, 3>;

// What `x` adds to the counts; listed if it lies between.
fn look(x: f32, at: u32) -> vec3<u32> {
    let key = bitcast<u32>(x) & 0x7fffffffu;
    if key > p.low && key < p.high {
        let place = atomicAdd(&found[0], 1u);
        if place < p.room {
            let entry = 1u + 4u * p.dims.planes + 2u * place;
            atomicStore(&found[entry], key);
            atomicStore(&found[entry + 1u], at);
        }
    }
    return select(vec3<u32>(0u), vec3<u32>(1u), vec3<bool>(key > p.high, key == p.high, key == p.low));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    if lane < 3u {
        atomicStore(&tally[lane], 0u);
    }
    workgroupBarrier();
    let start = flat_group(group, groups) * SPAN;
    let end = min(start + SPAN, p.dims.n);
    var counts = vec3<u32>(0u);
    let plane = p.plane * p.dims.n;
    var i = start + lane;
    // Four are on their way at a time.
    for (; i + 3u * WORKGROUP < end; i += 4u * WORKGROUP) {
        let at = plane + i;
        let x = vec4<f32>(tau[at], tau[at + WORKGROUP], tau[at + 2u * WORKGROUP], tau[at + 3u * WORKGROUP]);
        counts += look(x.x, at) + look(x.y, at + WORKGROUP);
        counts += look(x.z, at + 2u * WORKGROUP) + look(x.w, at + 3u * WORKGROUP);
    }
    for (; i < end; i += WORKGROUP) {
        counts += look(tau[plane + i], plane + i);
    }
    for (var c = 0u; c < 3u; c++) {
        if counts[c] != 0u {
            atomicAdd(&tally[c], counts[c]);
        }
    }
    workgroupBarrier();
    if lane == 0u && start < end {
        atomicAdd(&found[1u + 4u * p.plane + 3u], end - start);
    }
    if lane < 3u {
        let count = atomicLoad(&tally[lane]);
        if count != 0u {
            atomicAdd(&found[1u + 4u * p.plane + lane], count);
        }
    }
}
