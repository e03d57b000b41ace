// Four elements at a time: what shaders start with that are built around functions of elements (src/shader). Before it come
// `PLANES`, the planes of the task-vector stack, `EXPERTS`, one less, and `WEIGHTS`, as many but one at least.

alias Stack = array<vec4<f32>, PLANES>;
alias Weights = array<f32, WEIGHTS>;

const IOTA = vec4<u32>(0u, 1u, 2u, 3u);
const MAGNITUDE = vec4<u32>(0x7fffffffu);

// The elements in words, low bits first, and back.
fn halves(words: vec2<u32>) -> vec4<u32> {
    return vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
}

fn bytes(word: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> (8u * IOTA)) & vec4<u32>(0xffu);
}

fn join_halves(e: vec4<u32>) -> vec2<u32> {
    return vec2<u32>(e.x | (e.y << 16u), e.z | (e.w << 16u));
}

fn join_bytes(e: vec4<u32>) -> u32 {
    return e.x | (e.y << 8u) | (e.z << 16u) | (e.w << 24u);
}

// Bits of the f32 that equal small floats; `unit` is the smallest subnormal, whose multiples are exact.
fn widen_small4(e: vec4<u32>, mantissa: u32, bias: u32, top: u32, unit: f32) -> vec4<u32> {
    let sign = (e >> vec4<u32>(top)) << vec4<u32>(31u);
    let magnitude = e & vec4<u32>((1u << top) - 1u);
    let normal = (magnitude << vec4<u32>(23u - mantissa)) + ((127u - bias) << 23u);
    let small = bitcast<vec4<u32>>(vec4<f32>(magnitude) * unit);
    return sign | select(small, normal, (magnitude >> vec4<u32>(mantissa)) != vec4<u32>());
}

// Stored elements as bits of f32, for all types but f64.
fn widen4(dtype: u32, e: vec4<u32>) -> vec4<u32> {
    switch dtype {
        case BF16: { return e << vec4<u32>(16u); }
        case F16: {
            let bits = widen_small4(e, 10u, 15u, 15u, 0x1p-24f);
            return select(bits, bits | vec4<u32>(0x7f800000u), (e & vec4<u32>(0x7c00u)) == vec4<u32>(0x7c00u));
        }
        case E4M3: {
            let bits = widen_small4(e, 3u, 7u, 7u, 0x1p-9f);
            let nan = (bits & vec4<u32>(0x80000000u)) | vec4<u32>(0x7fc00000u);
            return select(bits, nan, (e & vec4<u32>(0x7fu)) == vec4<u32>(0x7fu));
        }
        case E5M2: {
            let bits = widen_small4(e, 2u, 15u, 7u, 0x1p-16f);
            return select(bits, bits | vec4<u32>(0x7f800000u), (e & vec4<u32>(0x7cu)) == vec4<u32>(0x7cu));
        }
        default: { return e; }
    }
}

// The same for f64, whose low and high words are apart.
fn widen4_f64(lo: vec4<u32>, hi: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(widen_f64(lo.x, hi.x), widen_f64(lo.y, hi.y), widen_f64(lo.z, hi.z), widen_f64(lo.w, hi.w));
}

// The small floats nearest to f32, ties to even. `unit` is 150 minus the exponent of the smallest subnormal; `limit` is the
// magnitude that everything larger becomes (infinity, or NaN where there is none).
fn narrow_small4(bits: vec4<u32>, mantissa: u32, bias: u32, unit: u32, top: u32, limit: u32) -> vec4<u32> {
    let magnitude = bits & MAGNITUDE;
    let one = vec4<u32>(1u);
    let drop = vec4<u32>(23u - mantissa);
    let exponent = magnitude >> vec4<u32>(23u);
    let rebiased = magnitude - ((127u - bias) << 23u);
    let normal = (rebiased + (1u << (22u - mantissa)) - one + ((rebiased >> drop) & one)) >> drop;
    let shift = clamp(unit - exponent, one, vec4<u32>(25u));
    let full = (magnitude & vec4<u32>(0x7fffffu)) | vec4<u32>(0x800000u);
    let subnormal = (full + (one << (shift - one)) - one + ((full >> shift) & one)) >> shift;
    let small = select(subnormal, normal, exponent + bias > vec4<u32>(127u));
    return ((bits >> vec4<u32>(31u)) << vec4<u32>(top)) | min(small, vec4<u32>(limit));
}

// Bits of f32 as stored elements, for all types but f64.
fn narrow4(dtype: u32, bits: vec4<u32>) -> vec4<u32> {
    let nan = (bits & MAGNITUDE) > vec4<u32>(0x7f800000u);
    let sign = bits >> vec4<u32>(31u);
    switch dtype {
        case BF16: {
            let rounded = bits + 0x7fffu + ((bits >> vec4<u32>(16u)) & vec4<u32>(1u));
            return select(rounded, bits | vec4<u32>(0x400000u), nan) >> vec4<u32>(16u);
        }
        case F16: {
            let quiet = (sign << vec4<u32>(15u)) | vec4<u32>(0x7e00u) | ((bits >> vec4<u32>(13u)) & vec4<u32>(0x3ffu));
            return select(narrow_small4(bits, 10u, 15u, 126u, 15u, 0x7c00u), quiet, nan);
        }
        case E4M3: { return select(narrow_small4(bits, 3u, 7u, 141u, 7u, 0x7fu), (sign << vec4<u32>(7u)) | vec4<u32>(0x7fu), nan); }
        case E5M2: { return select(narrow_small4(bits, 2u, 15u, 134u, 7u, 0x7cu), (sign << vec4<u32>(7u)) | vec4<u32>(0x7fu), nan); }
        default: { return bits; }
    }
}

// The f64 that equals an f32: (low, high) words.
fn widen_to_f64(bits: u32) -> vec2<u32> {
    let sign = bits & 0x80000000u;
    let magnitude = bits & 0x7fffffffu;
    if magnitude == 0u {
        return vec2<u32>(0u, sign);
    }
    var exponent = magnitude >> 23u;
    var mantissa = magnitude & 0x7fffffu;
    if exponent == 255u {
        exponent = 2047u;
        mantissa |= select(0x400000u, 0u, mantissa == 0u); // NaN becomes quiet, as in the twin
    } else if exponent == 0u {
        let lead = firstLeadingBit(mantissa);
        mantissa = (mantissa << (23u - lead)) & 0x7fffffu;
        exponent = lead + 874u;
    } else {
        exponent = exponent + 896u;
    }
    return vec2<u32>(mantissa << 29u, sign | (exponent << 20u) | (mantissa >> 3u));
}

// Its argument, which no compiler knows: there are few planes. A product in it is rounded by itself and not fused with a sum.
fn apart(dims: Dims, x: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) ^ vec4<u32>(dims.planes >> 31u));
}

fn is_zero(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & MAGNITUDE) == vec4<u32>();
}

// True for elements `i..` of the block, of magnitude bits `key`, that are among the largest of their tensor: above the
// threshold, or equal to it and before an element of the tensor. `threshold` is the key and that element, low half first.
fn stay(dims: Dims, i: u32, key: vec4<u32>, threshold: vec3<u32>) -> vec4<bool> {
    let own = vec4<u32>(i) + IOTA;
    let lo = own + dims.first_lo;
    let hi = dims.first_hi + select(vec4<u32>(), vec4<u32>(1u), lo < own); // carry
    let least = vec4<u32>(threshold.z);
    let before = (hi < least) | ((hi == least) & (lo < vec4<u32>(threshold.y)));
    return (key > vec4<u32>(threshold.x)) | ((key == vec4<u32>(threshold.x)) & before);
}

// pcg4d of Jarzynski and Olano, "Hash Functions for GPU Rendering" (JCGT 9(3), 2020): four words from a counter and a key.
fn pcg4d(counter: vec2<u32>, key: vec2<u32>) -> vec4<u32> {
    var v = vec4<u32>(counter, key) * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4<u32>(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// The random words of elements `i..` of the block: each depends on the key and its place in the tensor alone.
fn random_words(dims: Dims, i: u32, key: vec2<u32>) -> vec4<u32> {
    let lo = dims.first_lo + i;
    let hi = dims.first_hi + select(0u, 1u, lo < i); // carry
    let counter = vec2<u32>((lo >> 2u) | (hi << 30u), hi >> 2u);
    let a = pcg4d(counter, key);
    if (lo & 3u) == 0u {
        return a;
    }
    let next = counter.x + 1u;
    let b = pcg4d(vec2<u32>(next, counter.y + select(0u, 1u, next == 0u)), key);
    switch lo & 3u {
        case 1u: { return vec4<u32>(a.yzw, b.x); }
        case 2u: { return vec4<u32>(a.zw, b.xy); }
        default: { return vec4<u32>(a.w, b.xyz); }
    }
}
