// Zeroes τ_1 … τ_K where another plane's entry is not among its largest: one selection for all experts (SCE).
fn mask(dims: Dims, i: u32, by: vec4<f32>, threshold: vec3<u32>, tau: ptr<function, Stack>) {
    let keep = stay(dims, i, bitcast<vec4<u32>>(by) & MAGNITUDE, threshold);
    for (var k = 0u; k < EXPERTS; k++) {
        (*tau)[k] = select(vec4<f32>(), (*tau)[k], keep);
    }
}
