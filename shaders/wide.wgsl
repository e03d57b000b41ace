// For drivers that take a step for each number they load: four words, loaded as two numbers.
fn words_of(two: vec2<u64>) -> vec4<u32> {
    return vec4<u32>(u32(two.x), u32(two.x >> 32u), u32(two.y), u32(two.y >> 32u));
}
