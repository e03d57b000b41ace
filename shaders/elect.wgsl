// Sign election and disjoint merge (TIES, arXiv 2306.01708, §3): with u_k = weights[k] · tau[k] and s the sign of Σ u_k
// (zero counts as +), scale · Σ_{sign(u_k) = s} u_k, divided by the weights that took part if asked. Votes count by weight
// or not.
fn elect(weights: Weights, scale: f32, normalize: u32, weighted: u32, tau: ptr<function, Stack>) -> vec4<f32> {
    var w = weights;
    let zero = vec4<f32>();
    // Votes for and against apart: drivers may fuse products with sums, and even votes must come out even.
    var plus = zero;
    var minus = zero;
    for (var k = 0u; k < EXPERTS; k++) {
        let u = select(1.0, w[k], weighted != 0u) * (*tau)[k];
        plus += select(zero, u, u > zero);
        minus += select(-u, zero, u >= zero);
    }
    let sign = select(vec4<f32>(-1.0), vec4<f32>(1.0), plus - minus >= zero);
    var merged = zero;
    var divisor = zero;
    for (var k = 0u; k < EXPERTS; k++) {
        let u = w[k] * (*tau)[k];
        let agrees = u * sign > zero;
        merged += select(zero, u, agrees);
        divisor += select(zero, vec4<f32>(w[k]), agrees);
    }
    if normalize != 0u {
        merged = select(merged / divisor, merged, divisor == zero);
    }
    return scale * merged;
}
