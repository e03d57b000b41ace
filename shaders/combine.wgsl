// Σ_k weights[k] · tau[k] + base_weight · base: the merged task vector of every linear method.
fn combine(weights: Weights, base_weight: f32, base: vec4<u32>, tau: ptr<function, Stack>) -> vec4<f32> {
    var w = weights;
    var sum = vec4<f32>();
    for (var k = 0u; k < EXPERTS; k++) {
        sum += w[k] * (*tau)[k];
    }
    if base_weight != 0.0 {
        sum += base_weight * bitcast<vec4<f32>>(base);
    }
    return sum;
}
