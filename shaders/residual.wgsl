// ‖m − Σ_k α_k x_k‖² of each row, α_k = ⟨m, x_k⟩ / ‖x_k‖²: what of the merged row m no expert's row x_k explains.
fn alpha(stats: vec4<f32>) -> f32 {
    return select(0.0, stats.w / stats.y, stats.y > 0.0);
}

// The square multiplied out, term by term from statistics, and what tells whether that is near enough.
struct Terms {
    sum: f32,       // of the terms so far
    size: f32,      // of their magnitudes
    squares: f32,   // Σ α_k²
    norms: f32,     // Σ ‖x_k‖
}

fn with_expert(t: Terms, alpha: f32, square: f32) -> Terms {
    let own = alpha * alpha * square; // of −2 α_k ⟨m, x_k⟩ + α_k² ‖x_k‖²
    return Terms(t.sum - own, t.size + own, t.squares + alpha * alpha, t.norms + sqrt(square));
}

fn with_pair(t: Terms, alphas: f32, product: f32) -> Terms {
    let both = 2.0 * alphas * product;
    return Terms(t.sum + both, t.size + abs(both), t.squares, t.norms);
}

// Roundings are of the magnitudes; what ξ takes is the sum beside Σ α_k² · (mean ‖x_k‖)².
fn is_near(t: Terms) -> bool {
    let mean = t.norms / f32(EXPERTS);
    return t.size <= 8.0 * (t.squares * mean * mean + t.sum);
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
