// Population variance of τ_1 … τ_K at each element: where experts differ (SCE). In two passes over the planes, mean first, so
// that a small difference of large values keeps its digits.
fn variance(dims: Dims, tau: ptr<function, Stack>) -> vec4<f32> {
    // Differences from the first: where all are the same they are zero, whatever the rounding of a mean.
    let first = (*tau)[0];
    var mean = vec4<f32>();
    for (var k = 1u; k < EXPERTS; k++) {
        mean += (*tau)[k] - first;
    }
    // Thresholds are found by the bits of the result, so that these have to be the same wherever it is computed.
    mean = apart(dims, mean * (1.0 / f32(EXPERTS)));
    var sum = apart(dims, mean * mean);
    for (var k = 1u; k < EXPERTS; k++) {
        let d = ((*tau)[k] - first) - mean;
        sum += apart(dims, d * d);
    }
    return sum * (1.0 / f32(EXPERTS));
}
