// Statistics of each row of each plane: Σ|x|, Σx², max|x|, Σx·m, with m the last plane's entries.
// As bits, of which those of NaN and infinity are the largest.
fn larger(a: f32, b: f32) -> f32 {
    return bitcast<f32>(max(bitcast<u32>(a), bitcast<u32>(b)));
}

fn norms(sum: vec4<f32>, x: vec4<f32>, m: vec4<f32>) -> vec4<f32> {
    let size = abs(x);
    let bits = bitcast<vec4<u32>>(size);
    let largest = max(max(bits.x, bits.y), max(bits.z, bits.w));
    return vec4<f32>(sum.x + dot(size, vec4<f32>(1.0)), sum.y + dot(x, x), larger(sum.z, bitcast<f32>(largest)),
                     sum.w + dot(x, m));
}

fn norms_of(tau: ptr<function, Stack>, sums: ptr<function, Stack>, exist: vec4<bool>) {
    let merged = select(vec4<f32>(), (*tau)[PLANES - 1u], exist);
    for (var k = 0u; k < PLANES; k++) {
        (*sums)[k] = norms((*sums)[k], select(vec4<f32>(), (*tau)[k], exist), merged);
    }
}

// Σ|x| alone.
fn l1_of(tau: ptr<function, Stack>, sums: ptr<function, Stack>, exist: vec4<bool>) {
    for (var k = 0u; k < PLANES; k++) {
        (*sums)[k].x += dot(select(vec4<f32>(), abs((*tau)[k]), exist), vec4<f32>(1.0));
    }
}

fn join_norms(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(a.x + b.x, a.y + b.y, larger(a.z, b.z), a.w + b.w);
}
