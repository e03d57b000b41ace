// out = base + xi · tau[last], narrowed to the output type. Where the merged task vector is zero, the base's own bits
// are kept if the types agree. Counts what is not finite.

override BASE: u32;
override OUT: u32;

struct Params {
    dims: Dims,
    stride: u32,   // 1: a factor for each row, 0: one for all
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> base: array<u32>;                    // [n] stored
@group(0) @binding(2) var<storage, read> tau: array<f32>;                     // [planes, n]
@group(0) @binding(3) var<storage, read> xi: array<f32>;                      // [rows] or [1]
@group(0) @binding(4) var<storage, read_write> out: array<u32>;               // [n] stored
@group(0) @binding(5) var<storage, read_write> counts: array<atomic<u32>>;    // NaN, infinite, overflown

// The least magnitude that the output type rounds to infinity or NaN.
fn overflow() -> u32 {
    switch OUT {
        case BF16: { return 0x7f7f8000u; }
        case F16: { return 0x477ff000u; }
        case E4M3: { return 0x43e80001u; }
        case E5M2: { return 0x47700000u; }
        default: { return 0x7f800000u; }
    }
}

fn tally(bits: u32) {
    let magnitude = bits & 0x7fffffffu;
    if magnitude < overflow() {
        return;
    }
    if magnitude > 0x7f800000u {
        atomicAdd(&counts[0], 1u);
    } else if magnitude == 0x7f800000u {
        atomicAdd(&counts[1], 1u);
    } else {
        atomicAdd(&counts[2], 1u);
    }
}

struct Element {
    bits: u32,    // of the f32 result
    kept: bool,   // the stored base element stays as it is
    word: u32,    // of the base, and the one after it for f64
    next: u32,
}

fn element(i: u32) -> Element {
    let w = word_of(BASE, i);
    var next = 0u;
    if BASE == F64 {
        next = base[w + 1u];
    }
    let base_bits = widen_bits(BASE, base[w], next, i);
    let t = tau[(p.dims.planes - 1u) * p.dims.n + i];
    var bits = base_bits;
    let zero = (bitcast<u32>(t) & 0x7fffffffu) == 0u;
    if !zero {
        bits = bitcast<u32>(bitcast<f32>(base_bits) + xi[(i / p.dims.row_len) * p.stride] * t);
    }
    tally(bits);
    return Element(bits, zero && BASE == OUT, base[w], next);
}

// Stored form of element `i`, in the low bits (all types but f64).
fn stored(i: u32) -> u32 {
    let e = element(i);
    if e.kept {
        switch BASE {
            case BF16, F16: { return (e.word >> ((i & 1u) * 16u)) & 0xffffu; }
            case E4M3, E5M2: { return (e.word >> ((i & 3u) * 8u)) & 0xffu; }
            default: { return e.word; }
        }
    }
    return narrow_bits(OUT, e.bits);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, p.dims.n);
    if OUT == F64 {
        for (var i = start; i < end; i++) {
            let e = element(i);
            var pair = widen_to_f64(e.bits);
            if e.kept {
                pair = vec2<u32>(e.word, e.next);
            }
            out[2u * i] = pair.x;
            out[2u * i + 1u] = pair.y;
        }
        return;
    }
    // Each invocation owns whole words: four elements are one, two or four of them.
    var word = 0u;
    for (var i = start; i < end; i++) {
        let bits = stored(i);
        switch OUT {
            case BF16, F16: {
                word |= bits << ((i & 1u) * 16u);
                if (i & 1u) == 1u || i + 1u == end {
                    out[i >> 1u] = word;
                    word = 0u;
                }
            }
            case E4M3, E5M2: {
                word |= bits << ((i & 3u) * 8u);
                if i + 1u == end {
                    out[i >> 2u] = word;
                }
            }
            default: { out[i] = bits; }
        }
    }
}
