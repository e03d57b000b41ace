// model − base, as f32. Equal bits give exactly zero, also for NaN and infinities, so that what no expert has changed stays
// as it is.
fn delta(base: vec4<u32>, model: vec4<u32>) -> vec4<f32> {
    let difference = bitcast<vec4<f32>>(model) - bitcast<vec4<f32>>(base);
    return select(difference, vec4<f32>(), model == base);
}

// The same, and zero where the model, the base or their difference is not finite. Bits are asked, since compilers may take
// it that no float is NaN.
fn delta_finite(base: vec4<u32>, model: vec4<u32>) -> vec4<f32> {
    let difference = delta(base, model);
    let largest = max(max(base & MAGNITUDE, model & MAGNITUDE), bitcast<vec4<u32>>(difference) & MAGNITUDE);
    return select(difference, vec4<f32>(), largest >= vec4<u32>(0x7f800000u));
}
