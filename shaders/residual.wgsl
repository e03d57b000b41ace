// ‖m − Σ_k α_k x_k‖² of each row, α_k = ⟨m, x_k⟩ / ‖x_k‖²: what of the merged row m no expert's row x_k explains.
fn alpha(stats: vec4<f32>) -> f32 {
    return select(0.0, stats.w / stats.y, stats.y > 0.0);
}

fn residual(alphas: ptr<function, Weights>, tau: ptr<function, Stack>, exist: vec4<bool>) -> f32 {
    var c = (*tau)[EXPERTS];
    for (var k = 0u; k < EXPERTS; k++) {
        c -= (*alphas)[k] * (*tau)[k];
    }
    c = select(vec4<f32>(), c, exist);
    return dot(c, c);
}

fn join_residuals(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return a + b;
}
