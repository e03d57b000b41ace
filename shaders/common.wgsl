// Declarations that every kernel starts with: dimensions of the block, and stored elements as f32 and back.
// Integer arithmetic alone, so that NaN, infinities and subnormals keep their bits on every driver.

// Twin of `Dims` in src/recording.rs; keep in sync.
struct Dims {
    n: u32,          // elements in the block
    rows: u32,       // rows in the block
    row_len: u32,    // elements of a row
    planes: u32,     // planes of the task-vector stack: one per expert, then the merged one
    first_lo: u32,   // tensor-wide index of the first element
    first_hi: u32,
    first_row: u32,  // tensor-wide index of the first row
    epoch: u32,      // a number no other run has, for checksums
}

// Codes of stored element types: `Dtype::code` in src/checkpoint/dtype.rs.
const F32 = 0u;
const BF16 = 1u;
const F16 = 2u;
const F64 = 3u;
const E4M3 = 4u;
const E5M2 = 5u;

const WORKGROUP = 256u;

// Flat workgroup index of a dispatch that was folded into two dimensions.
fn flat_group(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// The four elements of an invocation, of 1024 for each workgroup: neighbours have neighbours at every step.
fn own_four(group: u32, lane: u32) -> vec4<u32> {
    return vec4<u32>(group * 4u * WORKGROUP + lane) + WORKGROUP * vec4<u32>(0u, 1u, 2u, 3u);
}

// What a word of a buffer adds to the buffer's checksum.
fn mix(word: u32, index: u32, epoch: u32) -> u32 {
    let first = (word ^ (index * 0x9e3779b1u + epoch)) * 0x85ebca6bu;
    let second = (first ^ (first >> 15u)) * 0xc2b2ae35u;
    return second ^ (second >> 13u);
}

// Bits of the f32 that equals a small float: `mantissa` bits of mantissa, `bias`, sign at bit `top`.
fn widen_small(bits: u32, mantissa: u32, bias: u32, top: u32) -> u32 {
    let sign = (bits >> top) << 31u;
    let magnitude = bits & ((1u << top) - 1u);
    let fraction = magnitude & ((1u << mantissa) - 1u);
    if (magnitude >> mantissa) != 0u {
        return sign | ((magnitude << (23u - mantissa)) + ((127u - bias) << 23u));
    }
    if fraction == 0u {
        return sign;
    }
    let lead = firstLeadingBit(fraction); // a subnormal: the leading one becomes implicit
    return sign | ((lead + 128u - bias - mantissa) << 23u) | ((fraction << (23u - lead)) & 0x7fffffu);
}

fn widen_f64(lo: u32, hi: u32) -> u32 {
    let sign = hi & 0x80000000u;
    let exponent = i32((hi >> 20u) & 0x7ffu) - 896; // rebiased to f32
    let top = ((hi & 0xfffffu) << 3u) | (lo >> 29u); // 23 bits of mantissa
    let rest = lo & 0x1fffffffu;
    if exponent >= 255 {
        if exponent == 1151 && (top | rest) != 0u {
            return sign | 0x7fc00000u | top; // NaN
        }
        return sign | 0x7f800000u;
    }
    if exponent <= 0 { // subnormal or zero as f32
        let shift = u32(1 - exponent);
        if shift > 24u {
            return sign;
        }
        let full = top | 0x800000u;
        let kept = full >> shift;
        let cut = full & ((1u << shift) - 1u);
        let half = 1u << (shift - 1u);
        let up = cut > half || (cut == half && (rest != 0u || (kept & 1u) == 1u));
        return sign | (kept + select(0u, 1u, up));
    }
    let bits = (u32(exponent) << 23u) | top;
    let up = rest > 0x10000000u || (rest == 0x10000000u && (top & 1u) == 1u);
    return sign | (bits + select(0u, 1u, up));
}

// Stored element as f32 bits: `word` holds element `i`, `next` is the word after it (f64 alone).
fn widen_bits(dtype: u32, word: u32, next: u32, i: u32) -> u32 {
    switch dtype {
        case BF16: { return select(word << 16u, word & 0xffff0000u, (i & 1u) == 1u); }
        case F16: {
            let half = (word >> ((i & 1u) * 16u)) & 0xffffu;
            let bits = widen_small(half, 10u, 15u, 15u);
            return select(bits, bits | 0x7f800000u, (half & 0x7c00u) == 0x7c00u);
        }
        case F64: { return widen_f64(word, next); }
        case E4M3: {
            let byte = (word >> ((i & 3u) * 8u)) & 0xffu;
            let bits = widen_small(byte, 3u, 7u, 7u);
            return select(bits, (bits & 0x80000000u) | 0x7fc00000u, (byte & 0x7fu) == 0x7fu);
        }
        case E5M2: {
            let byte = (word >> ((i & 3u) * 8u)) & 0xffu;
            let bits = widen_small(byte, 2u, 15u, 7u);
            return select(bits, bits | 0x7f800000u, (byte & 0x7cu) == 0x7cu);
        }
        default: { return word; }
    }
}

// Elements of `dtype` in a word: 4, 2 or 1; for f64 the words of an element are two.
fn word_of(dtype: u32, i: u32) -> u32 {
    switch dtype {
        case BF16, F16: { return i >> 1u; }
        case E4M3, E5M2: { return i >> 2u; }
        case F64: { return i << 1u; }
        default: { return i; }
    }
}
