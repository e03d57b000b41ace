// Powers of two by which rows fit f16: scales[r] = (s, 1/s) with s·max|x[r, ·]| in [2^14, 2^15), so that no finite value
// becomes infinite. Rows of zeros, and rows with NaN or infinity, keep s = 1.

struct Params {
    dims: Dims,        // rows and columns of x
    first: u32,        // of x, in its buffer
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;                     // [rows, row_len] from `first`, bits of f32
@group(0) @binding(2) var<storage, read_write> scales: array<vec2<f32>>;    // [rows]

var<workgroup> peaks: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups);
    if row >= p.dims.rows {
        return;
    }
    // Magnitudes order as their bits do.
    var peak = 0u;
    for (var i = lane; i < p.dims.row_len; i += WORKGROUP) {
        peak = max(peak, x[p.first + row * p.dims.row_len + i] & 0x7fffffffu);
    }
    peaks[lane] = peak;
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            peaks[lane] = max(peaks[lane], peaks[lane + half]);
        }
    }
    if lane == 0u {
        let most = peaks[0];
        // Biased exponents; the bound keeps 1/s a normal number.
        var up = min(268u - (most >> 23u), 240u);
        if most == 0u || most >= 0x7f800000u {
            up = 127u;
        }
        scales[row] = vec2<f32>(bitcast<f32>(up << 23u), bitcast<f32>((254u - up) << 23u));
    }
}
