// model − base, as f32. Equal bits give exactly zero, also for NaN and infinities, so that what no expert has changed stays
// as it is.
fn delta(base: vec4<u32>, model: vec4<u32>) -> vec4<f32> {
    let difference = bitcast<vec4<f32>>(model) - bitcast<vec4<f32>>(base);
    return select(difference, vec4<f32>(), model == base);
}
