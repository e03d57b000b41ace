// Rows to mean zero and variance one (LayerNorm), or to mean square one (RMSNorm), without weights. The variance is
// that of the differences from the mean, taken after it.

override CENTRE: u32;   // 1: less the mean

struct Params {
    dims: Dims,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;            // [rows, row_len]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;    // [rows, row_len]

var<workgroup> partial: array<f32, 256>;

// The sum over all invocations, for each of them.
fn total(lane: u32, own: f32) -> f32 {
    workgroupBarrier();
    partial[lane] = own;
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    workgroupBarrier();
    return partial[0];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups);
    if row >= p.dims.rows {
        return;
    }
    let len = p.dims.row_len;
    let start = row * len;
    var mean = 0.0;
    if CENTRE == 1u {
        var sum = 0.0;
        for (var c = lane; c < len; c += WORKGROUP) {
            sum += x[start + c];
        }
        mean = total(lane, sum) / f32(len);
    }
    var square = 0.0;
    for (var c = lane; c < len; c += WORKGROUP) {
        let off = x[start + c] - mean;
        square += off * off;
    }
    let factor = 1.0 / sqrt(total(lane, square) / f32(len) + p.eps);
    for (var c = lane; c < len; c += WORKGROUP) {
        out[start + c] = (x[start + c] - mean) * factor;
    }
}
