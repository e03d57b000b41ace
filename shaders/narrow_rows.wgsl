// Rows as f16, each scaled by a power of two: scales[r] = (s, 1/s) with s·max|x[r, ·]| in [2^14, 2^15), so that no finite
// value becomes infinite. Rows of zeros, and rows with NaN or infinity, keep s = 1.

struct Params {
    dims: Dims,        // rows and columns of x
    first: u32,        // of x, in its buffer
    pitch: u32,        // words of a row of out: columns beyond those of x are zero
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;                     // [rows, row_len] from `first`, bits of f32
@group(0) @binding(2) var<storage, read_write> out: array<u32>;             // [rows, pitch], two elements a word
@group(0) @binding(3) var<storage, read_write> scales: array<vec2<f32>>;    // [rows]

var<workgroup> peaks: array<u32, 256>;

// The f16 nearest to an f32, ties to even.
fn half_of(bits: u32) -> u32 {
    let sign = (bits >> 16u) & 0x8000u;
    let size = bits & 0x7fffffffu;
    if size > 0x7f800000u {
        return sign | 0x7e00u | ((bits >> 13u) & 0x3ffu);
    }
    if size < 0x38800000u {
        // A multiple of 2^-24: what is left when a half is added, whose last place that is.
        return sign | (bitcast<u32>(bitcast<f32>(size) + 0.5) - 0x3f000000u);
    }
    return sign | min((size - 0x38000000u + 0xfffu + ((size >> 13u) & 1u)) >> 13u, 0x7c00u);
}

// NaN and infinity keep their bits.
fn scaled(bits: u32, scale: f32) -> u32 {
    return select(bitcast<u32>(bitcast<f32>(bits) * scale), bits, (bits & 0x7f800000u) == 0x7f800000u);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups);
    if row >= p.dims.rows {
        return;
    }
    let len = p.dims.row_len;
    let start = p.first + row * len;
    // Magnitudes order as their bits do.
    var peak = 0u;
    for (var i = lane; i < len; i += WORKGROUP) {
        peak = max(peak, x[start + i] & 0x7fffffffu);
    }
    peaks[lane] = peak;
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            peaks[lane] = max(peaks[lane], peaks[lane + half]);
        }
    }
    workgroupBarrier();
    let most = peaks[0];
    // Biased exponents; the bound keeps 1/s a normal number.
    var up = min(268u - (most >> 23u), 240u);
    if most == 0u || most >= 0x7f800000u {
        up = 127u;
    }
    let scale = bitcast<f32>(up << 23u);
    if lane == 0u {
        scales[row] = vec2<f32>(scale, bitcast<f32>((254u - up) << 23u));
    }
    for (var i = lane; i < p.pitch; i += WORKGROUP) {
        var low = 0u;
        var high = 0u;
        if 2u * i < len {
            low = half_of(scaled(x[start + 2u * i], scale));
        }
        if 2u * i + 1u < len {
            high = half_of(scaled(x[start + 2u * i + 1u], scale));
        }
        out[row * p.pitch + i] = low | (high << 16u);
    }
}
