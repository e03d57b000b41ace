// tau[plane] = model − base, as f32. Equal bits give exactly zero, also for NaN and infinities, so that what no
// expert has changed stays as it is.

override BASE: u32;
override MODEL: u32;

struct Params {
    dims: Dims,
    plane: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> base: array<u32>;        // [n] stored
@group(0) @binding(2) var<storage, read> model: array<u32>;       // [n] stored
@group(0) @binding(3) var<storage, read_write> tau: array<f32>;   // [planes, n]

fn base_bits(i: u32) -> u32 {
    let w = word_of(BASE, i);
    if BASE == F64 {
        return widen_bits(BASE, base[w], base[w + 1u], i);
    }
    return widen_bits(BASE, base[w], 0u, i);
}

fn model_bits(i: u32) -> u32 {
    let w = word_of(MODEL, i);
    if MODEL == F64 {
        return widen_bits(MODEL, model[w], model[w + 1u], i);
    }
    return widen_bits(MODEL, model[w], 0u, i);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let start = (flat_group(group, groups) * WORKGROUP + lane) * 4u;
    let end = min(start + 4u, p.dims.n);
    for (var i = start; i < end; i++) {
        let b = base_bits(i);
        let m = model_bits(i);
        let difference = bitcast<f32>(m) - bitcast<f32>(b);
        tau[p.plane * p.dims.n + i] = select(difference, 0.0, m == b);
    }
}
