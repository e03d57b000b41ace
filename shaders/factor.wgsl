// xi[row]: the calibration factor of each row from its statistics (MAGIC, arXiv 2512.19320; weight space).
// mixed: 1 / √(Σα_k² + ‖c‖² / n̄²), n̄ = mean ‖x_k‖.   sphere: mean ‖x_k‖_p / ‖m‖_p.
// A zero or non-finite norm gives 1.

override MIXED: u32;      // 1: mixed, 0: sphere
override NORM: u32;       // sphere: 0 = L1, 1 = L2, 2 = L∞

struct Params {
    dims: Dims,
    least: f32,           // ξ is clamped to [least, most]
    most: f32,
    shift: f32,           // what is handed on is shift + times · ξ
    times: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> stats: array<vec4<f32>>;     // [rows, planes], from norms.wgsl
@group(0) @binding(2) var<storage, read> residual: array<f32>;        // [rows], from residual.wgsl
@group(0) @binding(3) var<storage, read_write> xi: array<f32>;        // [rows]

fn norm(s: vec4<f32>) -> f32 {
    switch NORM {
        case 0u: { return s.x; }
        case 1u: { return sqrt(s.y); }
        default: { return s.z; }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups) * WORKGROUP + lane;
    if row >= p.dims.rows {
        return;
    }
    let experts = p.dims.planes - 1u;
    let merged = stats[row * p.dims.planes + experts];
    var squares = 0.0;
    var mean = 0.0;
    for (var k = 0u; k < experts; k++) {
        let s = stats[row * p.dims.planes + k];
        if MIXED == 1u {
            let alpha = select(0.0, s.w / s.y, s.y > 0.0);
            squares += alpha * alpha;
            mean += sqrt(s.y);
        } else {
            mean += norm(s);
        }
    }
    mean = mean / f32(experts);
    var factor = 1.0;
    if merged.y > 0.0 && mean > 0.0 {
        if MIXED == 1u {
            let unexplained = sqrt(residual[row]) / mean;
            factor = 1.0 / sqrt(squares + unexplained * unexplained);
        } else {
            factor = mean / norm(merged);
        }
    }
    let bits = bitcast<u32>(factor) & 0x7fffffffu;
    if bits >= 0x7f800000u {
        factor = 1.0;
    }
    xi[row] = p.shift + p.times * clamp(factor, p.least, p.most);
}
