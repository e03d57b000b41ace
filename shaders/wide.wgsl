// For drivers that take a step for each number they load or store: four words as two numbers, and back.
fn words_of(two: vec2<u64>) -> vec4<u32> {
    return vec4<u32>(u32(two.x), u32(two.x >> 32u), u32(two.y), u32(two.y >> 32u));
}

fn numbers_of(words: vec4<u32>) -> vec2<u64> {
    return vec2<u64>(words.xz) | (vec2<u64>(words.yw) << vec2<u32>(32u));
}
