// Seeded random drop (DARE, arXiv 2311.03099): entries are kept where their random word is not above the threshold, scaled,
// or zeroed. The random numbers come from a counter, so that an element's fate depends on (key, index) alone.
fn drop(dims: Dims, i: u32, x: vec4<f32>, key: vec2<u32>, threshold: u32, scale: f32) -> vec4<f32> {
    return select(vec4<f32>(), x * scale, random_words(dims, i, key) <= vec4<u32>(threshold));
}
