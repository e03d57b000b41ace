// Σ_k w[k] · tau[k] + w[K] · base, with weights of its own for each element.
fn blend(weights: Stack, base: vec4<u32>, tau: ptr<function, Stack>) -> vec4<f32> {
    var w = weights;
    var sum = vec4<f32>();
    for (var k = 0u; k < EXPERTS; k++) {
        sum += w[k] * (*tau)[k];
    }
    let share = w[EXPERTS];
    return select(sum + share * bitcast<vec4<f32>>(base), sum, share == vec4<f32>());
}
