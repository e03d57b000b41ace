// Inner products of every two experts' rows.
fn inner(x: vec4<f32>, y: vec4<f32>, exist: vec4<bool>) -> f32 {
    return dot(select(vec4<f32>(), x * y, exist), vec4<f32>(1.0));
}

fn join_inner(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return a + b;
}
