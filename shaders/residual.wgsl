// residual[row] = ‖m − Σ_k α_k x_k‖², α_k = ⟨m, x_k⟩ / ‖x_k‖²: what of the merged row m no expert's row x_k explains.

const MAX_EXPERTS = 128u;

struct Params {
    dims: Dims,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;               // [planes, n]
@group(0) @binding(2) var<storage, read> stats: array<vec4<f32>>;       // [rows, planes], from norms.wgsl
@group(0) @binding(3) var<storage, read_write> residual: array<f32>;    // [rows]

var<workgroup> alpha: array<f32, 128>;
var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups);
    if row >= p.dims.rows {
        return;
    }
    let experts = p.dims.planes - 1u;
    if lane < experts {
        let s = stats[row * p.dims.planes + lane];
        alpha[lane] = select(0.0, s.w / s.y, s.y > 0.0);
    }
    workgroupBarrier();
    let end = min((row + 1u) * p.dims.row_len, p.dims.n);
    var sum = 0.0;
    for (var i = row * p.dims.row_len + lane; i < end; i += WORKGROUP) {
        var c = tau[experts * p.dims.n + i];
        for (var k = 0u; k < experts; k++) {
            c -= alpha[k] * tau[k * p.dims.n + i];
        }
        sum += c * c;
    }
    partial[lane] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    if lane == 0u {
        residual[row] = partial[0];
    }
}
