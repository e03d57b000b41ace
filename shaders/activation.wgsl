// Activation functions; what activate.wgsl and gate.wgsl start with. Twins: src/kernels/vector.rs.

override ACT: u32;   // `Act::code` in src/kernels/activate.rs

// Minimax polynomials by Norbert Juffa.
fn erf(x: f32) -> f32 {
    let s = x * x;
    if abs(x) > 0.927734375 {
        let t = min(abs(x), 4.0);
        var r = fma(-1.72853470e-5, t, 3.83197126e-4);
        r = fma(r, t, -3.88396438e-3);
        r = fma(r, t, 2.42546219e-2);
        r = fma(r, t, -1.06777877e-1);
        r = fma(r, t, -6.34846687e-1);
        r = fma(r, t, -1.28717512e-1);
        r = 1.0 - exp(fma(r, t, -t));
        return select(r, -r, x < 0.0);
    }
    var r = fma(-5.96761703e-4, s, 4.99119423e-3);
    r = fma(r, s, -2.67681349e-2);
    r = fma(r, s, 1.12819925e-1);
    r = fma(r, s, -3.76125336e-1);
    r = fma(r, s, 1.28379166e-1);
    return fma(r, x, x);
}

// After Cephes: built-in ones overflow, or are far off near zero.
fn tangent(x: f32) -> f32 {
    if abs(x) > 0.625 {
        let r = 1.0 - 2.0 / (exp(2.0 * min(abs(x), 20.0)) + 1.0);
        return select(r, -r, x < 0.0);
    }
    let s = x * x;
    var r = fma(-5.70498872745e-3, s, 2.06390887954e-2);
    r = fma(r, s, -5.37397155531e-2);
    r = fma(r, s, 1.33314422036e-1);
    r = fma(r, s, -3.33332819422e-1);
    return fma(r * s, x, x);
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(clamp(-x, -87.0, 87.0)));
}

// Minima and maxima may lose NaN.
fn act(x: f32) -> f32 {
    return select(curve(x), x, (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u);
}

fn curve(x: f32) -> f32 {
    switch ACT {
        case 0u: { return 0.5 * x * (1.0 + erf(x * 0.70710678118)); }
        case 1u: { return 0.5 * x * (1.0 + tangent(0.79788456080 * (x + 0.044715 * x * x * x))); }
        case 2u: { return x * sigmoid(1.702 * x); }
        case 3u: { return x * sigmoid(x); }
        case 4u: { return select(x, 0.0, x < 0.0); }
        default: { return tangent(x); }
    }
}

