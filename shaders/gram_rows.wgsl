// Inner products of pairs of planes over each row.
fn product(sum: vec4<f32>, x: vec4<f32>, y: vec4<f32>, exist: vec4<bool>) -> vec4<f32> {
    return vec4<f32>(sum.x + dot(select(vec4<f32>(), x * y, exist), vec4<f32>(1.0)), 0.0, 0.0, 0.0);
}

fn join_products(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return a + b;
}
