// Σ|x| of each row of a plane, and of what a random drop (drop.wgsl) keeps of it.
fn drop_l1(dims: Dims, i: u32, x: vec4<f32>, exist: vec4<bool>, key: vec2<u32>, threshold: u32) -> vec4<f32> {
    let size = select(vec4<f32>(), abs(x), exist);
    let kept = select(vec4<f32>(), size, random_words(dims, i, key) <= vec4<u32>(threshold));
    return vec4<f32>(dot(size, vec4<f32>(1.0)), dot(kept, vec4<f32>(1.0)), 0.0, 0.0);
}

fn join_drop_l1(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return a + b;
}
