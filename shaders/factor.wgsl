// The calibration factor of a row from its statistics (MAGIC, arXiv 2512.19320; weight space).
// mixed: 1 / √(Σα_k² + ‖c‖² / n̄²), n̄ = mean ‖x_k‖.   sphere: mean ‖x_k‖_p / ‖m‖_p.
// A zero or non-finite norm gives 1.
const MIXED = 3u;   // sphere: 0 = L1, 1 = L2, 2 = L∞

fn norm_of(rule: u32, stats: vec4<f32>) -> f32 {
    switch rule {
        case 0u: { return stats.x; }
        case 2u: { return stats.z; }
        default: { return sqrt(stats.y); }
    }
}

// α² and the norm of an expert's row.
fn terms_of(rule: u32, stats: vec4<f32>) -> vec2<f32> {
    let alpha = select(0.0, stats.w / stats.y, stats.y > 0.0);
    return vec2<f32>(alpha * alpha, norm_of(rule, stats));
}

// From the sums of those terms.
fn factor(rule: u32, sums: vec2<f32>, merged: vec4<f32>, residual: f32) -> f32 {
    let mean = sums.y / f32(EXPERTS);
    var factor = 1.0;
    if merged.y > 0.0 && mean > 0.0 {
        if rule == MIXED {
            let unexplained = sqrt(residual) / mean;
            factor = 1.0 / sqrt(sums.x + unexplained * unexplained);
        } else {
            factor = mean / norm_of(rule, merged);
        }
    }
    let finite = (bitcast<u32>(factor) & 0x7fffffffu) < 0x7f800000u;
    return select(1.0, factor, finite);
}
