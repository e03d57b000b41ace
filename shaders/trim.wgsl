// Keeps the entries that are among the largest magnitudes and not among the very largest, and zeroes the rest (TIES, arXiv
// 2306.01708, §3; Model Breadcrumbs, arXiv 2312.06795).
fn trim(dims: Dims, i: u32, x: vec4<f32>, keep: vec3<u32>, top: vec3<u32>) -> vec4<f32> {
    let key = bitcast<vec4<u32>>(x) & MAGNITUDE;
    return select(vec4<f32>(), x, stay(dims, i, key, keep) & !stay(dims, i, key, top));
}
