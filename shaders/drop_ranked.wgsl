// Seeded random drop whose chances grow with the rank in the row (DELLA, arXiv 2406.11617): entries are kept with
// probability low + span · rank / (row_len − 1), scaled, or zeroed. `low` is of 2³², and `step`, what a rank adds, of 2⁶⁴:
// in whole numbers, so that every device decides alike.
fn drop_ranked(dims: Dims, i: u32, x: vec4<f32>, ranks: vec4<u32>, key: vec2<u32>, low: u32, step: vec2<u32>,
               scale: f32) -> vec4<f32> {
    let chance = low + step.y * ranks + high(step.x, ranks);
    let certain = chance < vec4<u32>(low); // it went over 2³²
    let keep = (random_words(dims, i, key) < chance) | certain;
    return select(vec4<f32>(), x * scale, keep);
}

// The high halves of products.
fn high(a: u32, b: vec4<u32>) -> vec4<u32> {
    let half = vec4<u32>(16u);
    let bottom = b & vec4<u32>(0xffffu);
    let top = b >> half;
    let low = (a & 0xffffu) * bottom;
    let across = (a & 0xffffu) * top;
    let down = (a >> 16u) * bottom;
    let middle = (low >> half) + (across & vec4<u32>(0xffffu)) + (down & vec4<u32>(0xffffu));
    return (a >> 16u) * top + (across >> half) + (down >> half) + (middle >> half);
}
