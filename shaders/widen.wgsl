// model as f32, with no base taken off.
fn widen(model: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(model);
}
