// clamp(x, −limit, limit): no entry moves further than the limit (NearSwap). NaN stays NaN.
fn clip(x: vec4<f32>, limit: f32) -> vec4<f32> {
    // By magnitude bits: comparisons with NaN are no business of a driver's.
    let magnitude = bitcast<vec4<u32>>(x) & MAGNITUDE;
    let beyond = (magnitude > vec4<u32>(bitcast<u32>(limit))) & (magnitude <= vec4<u32>(0x7f800000u));
    let most = vec4<f32>(limit);
    return select(x, select(most, -most, x < vec4<f32>()), beyond);
}
