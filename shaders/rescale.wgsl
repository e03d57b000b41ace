// Bits of base + xi · tau as f32, to be narrowed to the output type. Where the merged task vector is zero they are the base's.
fn rescale(base: vec4<u32>, xi: vec4<f32>, tau: vec4<f32>) -> vec4<u32> {
    let moved = bitcast<vec4<u32>>(bitcast<vec4<f32>>(base) + xi * tau);
    return select(moved, base, is_zero(tau));
}

// The least magnitude that a type rounds to infinity or NaN.
fn overflow(dtype: u32) -> u32 {
    switch dtype {
        case BF16: { return 0x7f7f8000u; }
        case F16: { return 0x477ff000u; }
        case E4M3: { return 0x43e80001u; }
        case E5M2: { return 0x47700000u; }
        default: { return 0x7f800000u; }
    }
}

// The results, and the base's own where they are not finite, or not in the output type.
fn if_finite(dtype: u32, bits: vec4<u32>, base: vec4<u32>) -> vec4<u32> {
    return select(bits, base, (bits & MAGNITUDE) >= vec4<u32>(overflow(dtype)));
}

// How many of four results are NaN, infinite, and finite but not in the output type.
fn lost(dtype: u32, bits: vec4<u32>, exist: vec4<bool>) -> vec3<u32> {
    let magnitude = select(vec4<u32>(), bits & MAGNITUDE, exist);
    if !any(magnitude >= vec4<u32>(overflow(dtype))) {
        return vec3<u32>();
    }
    let infinity = vec4<u32>(0x7f800000u);
    let beyond = (magnitude >= vec4<u32>(overflow(dtype))) & (magnitude < infinity);
    return vec3<u32>(number(magnitude > infinity), number(magnitude == infinity), number(beyond));
}

fn number(true_: vec4<bool>) -> u32 {
    let ones = select(vec4<u32>(), vec4<u32>(1u), true_);
    return ones.x + ones.y + ones.z + ones.w;
}
